//! `block_q5_0`: d f16, qh u32, qs u8[16]; codes are 16 more than the weight.

use super::{BlockFormat, each_block, f16_at, fifth_bits, half_bits, nibbles};
use crate::Format;
use crate::layout::RowParts;

pub(super) const Q5_0: BlockFormat = BlockFormat {
    format: Format::Q5_0,
    name: "Q5_0",
    ggml_id: Some(6),
    elements: 32,
    bytes: 22,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(22).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (f16_at(block, 0), fifth_bits(block, 2));
    nibbles(&block[6..], |i, q| {
        let code = u32::from(q) | (high >> i & 1) << 4;
        out[i] = d * (code as f32 - 16.0);
    });
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(half_bits(block, 0));
    parts.nibbles(&block[6..]);
    parts.fifth_bits(&block[2..6]);
}
