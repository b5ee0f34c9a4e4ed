//! `block_q1_0`: d f16, one bit per weight from bit 0 of byte 0 up; set is +d, clear is -d.

use super::{BlockFormat, each_block, f16_at, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const Q1_0: BlockFormat = BlockFormat {
    format: Format::Q1_0,
    name: "Q1_0",
    ggml_id: Some(41),
    elements: 128,
    bytes: 18,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(18).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = f16_at(block, 0);
    for (i, o) in out.iter_mut().enumerate() {
        *o = if block[2 + i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(half_bits(block, 0));
    parts.codes.extend((0..128).map(|i| block[2 + i / 8] >> (i % 8) & 1));
}
