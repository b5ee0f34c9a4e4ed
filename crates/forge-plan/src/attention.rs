//! Geometry of the attention kernels, as data.

use forge_spec::LatentSizes;

use crate::CacheType;

/// Positions up to which one threadgroup per group of heads walks the whole context.
pub const UNSPLIT_POSITIONS: usize = 256;
/// Positions of one part of a split context.
pub const PART_POSITIONS: usize = 64;
/// Threadgroups of a row that attention over a long context is to have.
const THREADGROUPS: usize = 256;
/// Fewest parts that a long context is split into at most, and most.
const MOST_PARTS: [usize; 2] = [32, 128];
/// Threadgroup memory that attention may take, so that a core holds more than one threadgroup.
const MAX_SHARED_BYTES: usize = 24 * 1024;
/// Threadgroup memory that there is.
const ALL_SHARED_BYTES: usize = 32 * 1024;

/// How decode attention spreads over threadgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeGeometry {
    /// Query heads of one threadgroup, which share each read of keys and values.
    pub heads_shared: usize,
    /// Elements of a head that a lane holds at a time.
    pub elements: usize,
    /// Simdgroups that share a position, each with its part of the elements.
    pub slices: usize,
    /// Simdgroups in a threadgroup.
    pub simdgroups: usize,
    /// Loads of positions in a row before the softmax moves on.
    pub steps: usize,
}

/// Most query heads that share a read.
const MOST_SHARED: usize = 16;

/// The geometry for a model's heads: keys are read once for all query heads of a group, up to sixteen. A lane has so many numbers of
/// queries, and as many sums, that what is on its way, of which blocks of codes take less, has registers too. The fastest on the bench
/// at 8,192 and 32,768 positions (`docs/kernels-measured.md`).
pub fn decode_geometry(heads: usize, kv_heads: usize, head_dim: usize, kv: CacheType) -> DecodeGeometry {
    const SIMDGROUPS: usize = 8;
    let group = heads / kv_heads.max(1);
    let lanes = |width: usize, elements: usize| width.div_ceil(elements).next_power_of_two().min(32);
    let vectors = |width: usize, elements: usize| width.div_ceil(elements * 32);
    let blocks = matches!(kv, CacheType::Q8_0 | CacheType::Q4_0);
    let most = |elements: usize| match elements {
        8 if blocks => 32,
        8 => 24,
        4 => 48,
        _ => 32,
    };
    let shared = (1..=group.min(MOST_SHARED)).rev().filter(|&n| group.is_multiple_of(n));
    let of = |heads_shared: usize, elements: usize, slices: usize| {
        let width = head_dim / slices;
        // Slices of nothing are no slices.
        let fits = width > 0
            && head_dim.is_multiple_of(slices * elements)
            // A lane sums at least one head.
            && lanes(width, elements) >= heads_shared.next_power_of_two()
            && heads_shared * elements * vectors(width, elements) <= most(elements);
        let steps = if elements == 8 || elements == 4 && heads_shared >= 8 { 4 } else { 8 };
        let steps = if kv == CacheType::F32 { steps / 2 } else { steps } / vectors(width, elements).max(1);
        fits.then_some(DecodeGeometry { heads_shared, elements, slices, simdgroups: SIMDGROUPS, steps: steps.max(1) })
    };
    let slices = [1, 2, 4, SIMDGROUPS];
    shared
        .flat_map(|n| [8, 4, 2].into_iter().flat_map(move |elements| slices.map(|slices| (n, elements, slices))))
        .find_map(|(n, elements, slices)| of(n, elements, slices))
        .unwrap_or(DecodeGeometry { heads_shared: 1, elements: 2, slices: 1, simdgroups: SIMDGROUPS, steps: 4 })
}

impl DecodeGeometry {
    /// Floats of threadgroup memory: sums of some heads at a time, with highest score and weight of each, or scores of two rounds.
    pub fn shared_floats(&self, head_dim: usize) -> usize {
        let width = head_dim / self.slices;
        let at_once = (4096 / (self.simdgroups * width)).clamp(1, self.heads_shared);
        let results = (at_once * width + 2 * self.heads_shared / self.slices) * self.simdgroups;
        let scores = if self.slices > 1 { 2 * self.simdgroups * self.steps * 32 } else { 0 };
        results.next_multiple_of(4).max(scores)
    }
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

/// Threadgroups that share the heads of a row.
pub fn latent_groups(heads: usize) -> usize {
    (heads / LATENT_HEADS).max(1)
}

/// The geometry for rows of a tile, or of any sequences: the cache is read at most `heads / 16` times a row.
pub fn latent_geometry(sizes: &LatentSizes, half_operands: bool, tile: bool) -> LatentGeometry {
    let groups = latent_groups(sizes.heads);
    let heads_shared = sizes.heads.div_ceil(groups);
    let together = if tile { (LATENT_PAIRS / heads_shared).max(1) } else { 1 };
    let of = |keys: usize| LatentGeometry { heads_shared, groups, together, simdgroups: 8, keys };
    // What a tile loads serves many rows; a row waits for what it loads.
    let most = if tile { MAX_SHARED_BYTES } else { ALL_SHARED_BYTES };
    let fits = |g: &LatentGeometry| g.shared_bytes(sizes, half_operands) <= most;
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

/// Whether a context of so many positions is split into parts.
pub fn splits(positions: usize) -> bool {
    positions > UNSPLIT_POSITIONS
}

/// Most parts of a split context, of which each has `groups` threadgroups.
pub fn most_parts(groups: usize) -> usize {
    let [fewest, most] = MOST_PARTS;
    (THREADGROUPS / groups.max(1)).clamp(fewest, most)
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
        let expected = LatentGeometry { heads_shared: 16, groups: 8, together: 1, simdgroups: 8, keys: 16 };
        assert_eq!(latent_geometry(&v3, true, false), expected);
        assert_eq!(latent_geometry(&v3, true, true), LatentGeometry { together: 2, keys: 8, ..expected });
    }

    #[test]
    fn decode_geometry_reads_keys_once_and_fits_threadgroup_memory() {
        for head_dim in [8, 16, 64, 80, 96, 128, 192, 256, 512] {
            for group in 1..=16 {
                for kv in [CacheType::F16, CacheType::F32, CacheType::Q8_0] {
                    let g = decode_geometry(group * 2, 2, head_dim, kv);
                    let what = format!("{group} {head_dim} {kv:?}: {g:?}");
                    // A lane sums at least one head, which short heads have not lanes enough for.
                    assert!(g.heads_shared == group || head_dim < 64 && group.is_multiple_of(g.heads_shared), "{what}");
                    assert!(4 * g.shared_floats(head_dim) <= MAX_SHARED_BYTES, "{what}");
                    assert!(head_dim.is_multiple_of(g.slices * g.elements), "{what}");
                    assert!(g.heads_shared * head_dim / g.slices <= 48 * 32, "{what}");
                }
            }
        }
        let llama = decode_geometry(32, 8, 128, CacheType::F16);
        assert_eq!(llama, DecodeGeometry { heads_shared: 4, elements: 4, slices: 1, simdgroups: 8, steps: 8 });
        let wide = decode_geometry(16, 2, 256, CacheType::F16);
        assert_eq!(wide, DecodeGeometry { heads_shared: 8, elements: 4, slices: 2, simdgroups: 8, steps: 4 });
    }

    #[test]
    fn few_groups_of_heads_have_more_parts() {
        assert_eq!([1, 2, 4, 8, 16].map(most_parts), [128, 128, 64, 32, 32]);
    }
}
