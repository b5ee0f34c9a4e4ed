//! `block_q5_1`: d f16, m f16, qh u32, qs u8[16].

use super::{BlockFormat, each_block, f16_at, fifth_bits, nibbles, two_halves};
use crate::Format;
use crate::layout::RowParts;

pub(super) const Q5_1: BlockFormat = BlockFormat {
    format: Format::Q5_1,
    name: "Q5_1",
    ggml_id: Some(7),
    elements: 32,
    bytes: 24,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(24).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (f16_at(block, 0), f16_at(block, 2), fifth_bits(block, 4));
    nibbles(&block[8..], |i, q| {
        let code = u32::from(q) | (high >> i & 1) << 4;
        out[i] = d * code as f32 + m;
    });
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(two_halves(block, 0));
    parts.nibbles(&block[8..]);
    parts.fifth_bits(&block[4..8]);
}
