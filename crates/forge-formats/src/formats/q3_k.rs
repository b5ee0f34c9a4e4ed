//! `block_q3_K`: hmask u8[32], qs u8[64], scales u8[12], d f16.

use super::{BlockFormat, each_block, f16_at, two_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const Q3_K: BlockFormat = BlockFormat {
    format: Format::Q3K,
    name: "Q3_K",
    ggml_id: Some(11),
    elements: 256,
    bytes: 110,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(110).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// Scale `sub` of the 12 bytes, 32 too large: a nibble of bytes 0 to 7, and two bits of bytes 8 to 11.
fn scale_at(scales: &[u8], sub: usize) -> u8 {
    let low = scales[sub % 8] >> (sub / 8 * 4) & 15;
    let high = scales[8 + sub % 4] >> (sub / 4 * 2) & 3;
    high << 4 | low
}

/// The code of weight `e`, 4 more than the weight: its third bit is in `hmask`.
fn code(block: &[u8], e: usize) -> u8 {
    let (hmask, qs) = (&block[..32], &block[32..96]);
    (hmask[e % 32] >> (e / 32) & 1) << 2 | two_bits(qs, e)
}

fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    let scales = &block[96..108];
    let d = f16_at(block, 108);
    for (sub, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * (f32::from(scale_at(scales, sub)) - 32.0);
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * (f32::from(code(block, sub * 16 + i)) - 4.0);
        }
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.codes.extend((0..256).map(|e| code(block, e)));
    for sub in 0..16 {
        let scale = u32::from(scale_at(&block[96..108], sub));
        parts.entries[0].push(scale & 15);
        parts.entries[1].push(scale >> 4);
    }
    parts.supers.extend_from_slice(&block[108..110]);
}
