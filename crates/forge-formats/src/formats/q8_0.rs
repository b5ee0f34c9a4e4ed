//! `block_q8_0`: d f16, qs i8[32].

use super::{BlockFormat, each_block, f16_at, half_bits};
use crate::Format;
use crate::encode::{blocks, encode_blocks};
use crate::layout::RowParts;

pub(super) const Q8_0: BlockFormat = BlockFormat {
    format: Format::Q8_0,
    name: "Q8_0",
    ggml_id: Some(8),
    elements: 32,
    bytes: 34,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(34).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, blocks::q8_0)),
};

fn decode(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (o, q) in out.iter_mut().zip(&block[2..]) {
        *o = d * f32::from(q.cast_signed());
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(half_bits(block, 0));
    // 128 more than the signed weight, so that it decodes as an unsigned field.
    let quants: &[u8; 32] = block[2..].try_into().expect("a block of Q8_0");
    parts.codes.extend_from_slice(&quants.map(|b| b ^ 0x80));
}
