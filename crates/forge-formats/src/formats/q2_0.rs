//! `block_q2_0`: d f16, qs u8[16]; weight `4i + j` in bits `2j` of byte `i`, codes are 1 more than the weight.

use super::{BlockFormat, SHARED_ID, each_block, f16_at, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const Q2_0: BlockFormat = BlockFormat {
    format: Format::Q2_0,
    name: "Q2_0",
    ggml_id: Some(SHARED_ID),
    elements: 64,
    bytes: 18,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(18).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn code(block: &[u8], i: usize) -> u8 {
    block[2 + i / 4] >> (i % 4 * 2) & 3
}

fn decode(block: &[u8; 18], out: &mut [f32; 64]) {
    let d = f16_at(block, 0);
    for (i, o) in out.iter_mut().enumerate() {
        *o = d * (f32::from(code(block, i)) - 1.0);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(half_bits(block, 0));
    parts.codes.extend((0..64).map(|i| code(block, i)));
}
