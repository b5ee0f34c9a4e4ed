//! What the formats have in common whose groups of weights are points of a grid.

use forge_spec::grids::Grid;

/// Seven stored signs and an eighth that makes the number of negative weights even (GGML's `ksigns_iq2xs`).
pub(super) fn even_signs(word: u32, at: u32) -> u8 {
    let seven = (word >> at & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// A point's coordinates times `scale`; bit `i` of `signs` says that weight `i` is negative.
pub(super) fn put_signed(grid: &Grid, point: usize, scale: f32, signs: u8, out: &mut [f32]) {
    for (i, o) in out.iter_mut().enumerate() {
        let weight = scale * f32::from(grid.coordinate(point, i));
        *o = if signs >> i & 1 == 1 { -weight } else { weight };
    }
}

/// The little-endian word at byte `at` of a block.
pub(super) fn word_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// A point's coordinates, each 0.125 more (or less, where `lower` says so), times `scale`.
pub(super) fn put_shifted(grid: &Grid, point: usize, scale: f32, lower: bool, out: &mut [f32]) {
    let delta = if lower { -0.125 } else { 0.125 };
    for (i, o) in out.iter_mut().enumerate() {
        *o = scale * (f32::from(grid.coordinate(point, i)) + delta);
    }
}
