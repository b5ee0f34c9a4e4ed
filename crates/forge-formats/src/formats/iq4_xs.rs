//! `block_iq4_xs`: d f16, scales_h u16, scales_l u8[4], qs u8[128]; codes are indices into IQ4_NL's levels.

use super::iq4_nl::LEVELS;
use super::{BlockFormat, each_block, f16_at, half_bits, nibbles};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ4_XS: BlockFormat = BlockFormat {
    format: Format::Iq4Xs,
    name: "IQ4_XS",
    ggml_id: Some(23),
    elements: 256,
    bytes: 136,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(136).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// Low four and high two bits of scale `sub`, which is 32 too large.
fn scale_at(block: &[u8], sub: usize) -> (u32, u32) {
    let low = u32::from(block[4 + sub / 2]) >> (sub % 2 * 4) & 15;
    let high = half_bits(block, 2) >> (2 * sub) & 3;
    (low, high)
}

fn decode(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (low, high) = scale_at(block, sub);
        let scale = d * ((low | high << 4) as f32 - 32.0);
        nibbles(&block[8 + 16 * sub..][..16], |i, q| out[i] = scale * f32::from(LEVELS[usize::from(q)]));
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    for sub in 0..8 {
        let (low, high) = scale_at(block, sub);
        parts.entries[0].push(low);
        parts.entries[1].push(high);
        parts.nibbles(&block[8 + 16 * sub..][..16]);
    }
    parts.supers.extend_from_slice(&block[..2]);
}
