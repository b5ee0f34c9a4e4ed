//! `block_q4_1`: d f16, m f16, qs u8[16].

use super::{BlockFormat, each_block, f16_at, nibbles, two_halves};
use crate::Format;
use crate::encode::{blocks, encode_blocks};
use crate::layout::RowParts;

pub(super) const Q4_1: BlockFormat = BlockFormat {
    format: Format::Q4_1,
    name: "Q4_1",
    ggml_id: Some(3),
    elements: 32,
    bytes: 20,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(20).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, blocks::q4_1)),
};

fn decode(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    nibbles(&block[4..], |i, q| out[i] = d * f32::from(q) + m);
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(two_halves(block, 0));
    parts.nibbles(&block[4..]);
}
