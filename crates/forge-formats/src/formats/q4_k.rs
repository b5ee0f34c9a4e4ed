//! `block_q4_K`: d f16, dmin f16, scales u8[12], qs u8[128].

use super::{BlockFormat, each_block, nibble, scaled_with_minimums};
use crate::Format;
use crate::encode::{encode_blocks, k_quants};
use crate::layout::RowParts;

pub(super) const Q4_K: BlockFormat = BlockFormat {
    format: Format::Q4K,
    name: "Q4_K",
    ggml_id: Some(12),
    elements: 256,
    bytes: 144,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(144).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, k_quants::q4_k)),
};

fn decode(block: &[u8; 144], out: &mut [f32; 256]) {
    scaled_with_minimums(block, out, |e| nibble(&block[16..], e));
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.scales_and_mins(block);
    parts.codes.extend((0..256).map(|e| nibble(&block[16..], e)));
}
