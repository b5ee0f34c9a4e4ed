//! `block_q4_0`: d f16, qs u8[16]; codes are 8 more than the weight.

use super::{BlockFormat, each_block, f16_at, half_bits, nibbles};
use crate::Format;
use crate::encode::{blocks, encode_blocks};
use crate::layout::RowParts;

pub(super) const Q4_0: BlockFormat = BlockFormat {
    format: Format::Q4_0,
    name: "Q4_0",
    ggml_id: Some(2),
    elements: 32,
    bytes: 18,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(18).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, blocks::q4_0)),
};

fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    nibbles(&block[2..], |i, q| out[i] = d * (f32::from(q) - 8.0));
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(half_bits(block, 0));
    parts.nibbles(&block[2..]);
}
