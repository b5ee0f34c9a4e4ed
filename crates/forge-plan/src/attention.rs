//! Geometry of the attention kernels, as data.

use forge_spec::LatentSizes;

use crate::CacheType;

/// Positions up to which one threadgroup per group of heads walks the whole context.
pub const UNSPLIT_POSITIONS: usize = 256;
/// Positions of one part of a split context.
pub const PART_POSITIONS: usize = 64;
/// Most parts of a split context.
pub const MAX_PARTS: usize = 32;
/// Threadgroup memory that decode attention may take, so that a core holds more than one threadgroup.
const MAX_SHARED_BYTES: usize = 24 * 1024;

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

/// The geometry for a model's heads: eight simdgroups of four steps were the fastest of seven on the bench, at 1,024 and
/// at 8,192 positions (`docs/kernels-measured.md`).
pub fn decode_geometry(heads: usize, kv_heads: usize, head_dim: usize) -> DecodeGeometry {
    // Lanes that hold one position; a lane sums at least one head.
    let lanes = head_dim.div_ceil(8).next_power_of_two().min(32);
    let group = heads / kv_heads.max(1);
    let divisor = |most: usize| (1..=group.min(lanes).min(most)).rev().find(|&n| group.is_multiple_of(n)).unwrap_or(1);
    // Each head costs a lane 16 registers, or 32 above 256 elements; groups of 5 and 7 have no smaller share than all.
    let heads_shared = match divisor(if head_dim > 256 { 2 } else { 4 }) {
        1 if head_dim <= 256 => divisor(7),
        shared => shared,
    };
    let shared_bytes = |simdgroups: usize| simdgroups * heads_shared * (head_dim + 2) * 4;
    let simdgroups = [8, 4, 2].into_iter().find(|&n| shared_bytes(n) <= MAX_SHARED_BYTES).unwrap_or(1);
    DecodeGeometry { heads_shared, simdgroups, steps: 4 }
}

/// How attention over latents spreads over threadgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentGeometry {
    /// Query heads of one threadgroup, which share each read of the cache; the last has what is left.
    pub heads_shared: usize,
    /// Threadgroups that all heads of a row take.
    pub groups: usize,
    /// Rows of a tile that share a threadgroup.
    pub together: usize,
    /// Simdgroups in a threadgroup.
    pub simdgroups: usize,
    /// Positions that are in threadgroup memory at a time.
    pub keys: usize,
}

/// Heads that share a read of the cache at least, where there are so many.
const LATENT_HEADS: usize = 16;
/// Pairs of a head and a row that a threadgroup has at most, as a simdgroup has lanes: eight of them are a matrix's rows, and of
/// each such matrix a simdgroup holds sums for its share of the latent.
pub const LATENT_PAIRS: usize = 32;
/// Widest latent for which those sums, and the queries, fit a simdgroup's registers.
pub const WIDEST_LATENT: usize = 640;

/// The geometry for rows of a tile, or of any sequences: the cache is read at most `heads / 16` times a row.
pub fn latent_geometry(sizes: &LatentSizes, half_operands: bool, tile: bool) -> LatentGeometry {
    let groups = (sizes.heads / LATENT_HEADS).max(1);
    let heads_shared = sizes.heads.div_ceil(groups);
    let together = if tile { (LATENT_PAIRS / heads_shared).max(1) } else { 1 };
    let of = |keys: usize| LatentGeometry { heads_shared, groups, together, simdgroups: 8, keys };
    let fits = |g: &LatentGeometry| g.shared_bytes(sizes, half_operands) <= MAX_SHARED_BYTES;
    [32, 16].map(of).into_iter().find(fits).unwrap_or(of(8))
}

impl LatentGeometry {
    /// Bytes of threadgroup memory: partial scores, corrections, highest scores and weights, a square a simdgroup, then positions,
    /// each with eight elements more, and probabilities.
    pub fn shared_bytes(&self, sizes: &LatentSizes, half_operands: bool) -> usize {
        let lines = (self.heads_shared * self.together).next_multiple_of(8);
        let floats = self.simdgroups * lines * self.keys + 3 * lines + 64 * self.simdgroups;
        let operands = self.keys * (sizes.position() + 8) + lines * self.keys;
        4 * floats + operands * if half_operands { 2 } else { 4 }
    }
}

/// Parts that decode attention splits `positions` into.
pub fn parts(positions: usize) -> usize {
    if positions <= UNSPLIT_POSITIONS { 1 } else { positions.div_ceil(PART_POSITIONS).min(MAX_PARTS) }
}

/// Keys in one tile of prefill attention, as many as leave room for two threadgroups in threadgroup memory.
pub fn tile_keys(head_dim: usize, half_operands: bool) -> usize {
    match head_dim * if half_operands { 2 } else { 4 } {
        0..=512 => 32,
        513..=1024 => 16,
        _ => 8,
    }
}

/// Whether prefill attention may hold queries, keys and probabilities as half: the cache has no more digits, and heads are
/// long enough for it to matter.
pub fn half_operands(head_dim: usize, kv: CacheType) -> bool {
    kv != CacheType::F32 && head_dim >= 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latent_geometry_fits_threadgroup_memory_and_shares_reads() {
        for heads in [1, 2, 5, 16, 20, 31, 32, 33, 64, 128] {
            let sizes = LatentSizes { heads, latent: 512, rope: 64, nope: 128, value: 128 };
            for (half, tile) in [(false, false), (false, true), (true, false), (true, true)] {
                let g = latent_geometry(&sizes, half, tile);
                assert!(g.groups <= (heads / 16).max(1) && g.groups * g.heads_shared >= heads, "{heads}: {g:?}");
                assert!(g.heads_shared * g.together <= LATENT_PAIRS, "{heads}: {g:?}");
                assert!(g.shared_bytes(&sizes, half) <= 32 * 1024, "{heads}: {g:?}");
            }
        }
        let v3 = LatentSizes { heads: 128, latent: 512, rope: 64, nope: 128, value: 128 };
        let expected = LatentGeometry { heads_shared: 16, groups: 8, together: 1, simdgroups: 8, keys: 8 };
        assert_eq!(latent_geometry(&v3, true, false), expected);
        assert_eq!(latent_geometry(&v3, true, true), LatentGeometry { together: 2, ..expected });
    }

    #[test]
    fn decode_geometry_fits_threadgroup_memory() {
        for head_dim in [8, 16, 64, 96, 128, 256, 512] {
            for group in 1..=16 {
                let g = decode_geometry(group * 2, 2, head_dim);
                assert!(group.is_multiple_of(g.heads_shared), "{group} {head_dim}: {g:?}");
                assert!(
                    g.simdgroups * g.heads_shared * (head_dim + 2) * 4 <= MAX_SHARED_BYTES,
                    "{group} {head_dim}: {g:?}"
                );
            }
        }
        let llama = decode_geometry(32, 8, 128);
        assert_eq!(llama, DecodeGeometry { heads_shared: 4, simdgroups: 8, steps: 4 });
    }
}
