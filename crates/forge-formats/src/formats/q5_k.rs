//! `block_q5_K`: d f16, dmin f16, scales u8[12], qh u8[32], qs u8[128].

use super::{BlockFormat, each_block, f16_at, nibble, scale_and_min};
use crate::Format;
use crate::layout::{Plane, RowParts, Scheme};

pub(super) const Q5_K: BlockFormat = BlockFormat {
    format: Format::Q5K,
    name: "Q5_K",
    ggml_id: 13,
    elements: 256,
    bytes: 176,
    scheme: Scheme {
        block: 32,
        tiles: 4,
        planes: &[Plane::CODES_4, Plane::FIFTH_BIT, Plane::BYTE, Plane::NIBBLE, Plane::Supers { bytes: 4 }],
    },
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(176).for_each(|block| take_apart(block, parts)),
};

/// The code of weight `e`: a nibble of `qs` and a bit of `qh`.
fn code(block: &[u8], e: usize) -> u8 {
    let (qh, qs) = (&block[16..48], &block[48..]);
    (qh[e % 32] >> (e / 32) & 1) << 4 | nibble(qs, e)
}

fn decode(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let scales = &block[4..16];
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, sub);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * f32::from(code(block, sub * 32 + i)) - min;
        }
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.scales_and_mins(block);
    parts.codes.extend((0..256).map(|e| code(block, e)));
}
