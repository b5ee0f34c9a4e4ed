//! Geometry of the attention kernels, as data.

use crate::KvFormat;

/// Positions up to which one threadgroup per group of heads walks the whole context.
pub const UNSPLIT_POSITIONS: usize = 256;
/// Positions of one part of a split context.
pub const PART_POSITIONS: usize = 64;
/// Most parts of a split context.
pub const MAX_PARTS: usize = 64;

/// How decode attention spreads over threadgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeGeometry {
    /// Query heads of one threadgroup, which share each read of keys and values.
    pub heads_shared: usize,
    /// Simdgroups in a threadgroup.
    pub simdgroups: usize,
    /// Loads of positions in a row before the softmax moves on.
    pub steps: usize,
}

/// The geometry for a model's heads.
pub fn decode_geometry(heads: usize, kv_heads: usize, head_dim: usize) -> DecodeGeometry {
    // Lanes that hold one position; a lane sums at least one head.
    let lanes = head_dim.div_ceil(8).next_power_of_two().min(32);
    let group = heads / kv_heads.max(1);
    let heads_shared = (1..=group.min(lanes).min(8)).rev().find(|&n| group.is_multiple_of(n)).unwrap_or(1);
    DecodeGeometry { heads_shared, simdgroups: 4, steps: 2 }
}

/// Parts that decode attention splits `positions` into.
pub fn parts(positions: usize) -> usize {
    if positions <= UNSPLIT_POSITIONS { 1 } else { positions.div_ceil(PART_POSITIONS).min(MAX_PARTS) }
}

/// Keys in one tile of prefill attention, as many as leave room for two threadgroups in threadgroup memory.
pub fn tile_keys(head_dim: usize, half_operands: bool) -> usize {
    if head_dim * if half_operands { 2 } else { 4 } <= 512 { 32 } else { 16 }
}

/// Whether prefill attention may hold queries, keys and probabilities as half: the cache does, and heads are long
/// enough for it to matter.
pub fn half_operands(head_dim: usize, kv: KvFormat) -> bool {
    kv == KvFormat::F16 && head_dim >= 64
}
