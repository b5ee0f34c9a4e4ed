//! `block_q4_K`: d f16, dmin f16, scales u8[12], qs u8[128].

use super::{BlockFormat, each_block, f16_at, nibble, scale_and_min};
use crate::Format;
use crate::layout::{Plane, RowParts, Scheme};

pub(super) const Q4_K: BlockFormat = BlockFormat {
    format: Format::Q4K,
    name: "Q4_K",
    ggml_id: 12,
    elements: 256,
    bytes: 144,
    scheme: Scheme {
        block: 32,
        tiles: 4,
        planes: &[Plane::CODES_4, Plane::BYTE, Plane::NIBBLE, Plane::Supers { bytes: 4 }],
    },
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(144).for_each(|block| take_apart(block, parts)),
};

fn decode(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, qs) = (&block[4..16], &block[16..]);
    for (sub, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, sub);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * f32::from(nibble(qs, sub * 32 + i)) - min;
        }
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.scales_and_mins(block);
    parts.codes.extend((0..256).map(|e| nibble(&block[16..], e)));
}
