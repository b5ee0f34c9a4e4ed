//! `block_q5_K`: d f16, dmin f16, scales u8[12], qh u8[32], qs u8[128].

use super::{BlockFormat, each_block, nibble, scaled_with_minimums};
use crate::Format;
use crate::encode::{encode_blocks, k_quants};
use crate::layout::RowParts;

pub(super) const Q5_K: BlockFormat = BlockFormat {
    format: Format::Q5K,
    name: "Q5_K",
    ggml_id: Some(13),
    elements: 256,
    bytes: 176,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(176).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, k_quants::q5_k)),
};

/// The code of weight `e`: a nibble of `qs` and a bit of `qh`.
fn code(block: &[u8], e: usize) -> u8 {
    let (qh, qs) = (&block[16..48], &block[48..]);
    (qh[e % 32] >> (e / 32) & 1) << 4 | nibble(qs, e)
}

fn decode(block: &[u8; 176], out: &mut [f32; 256]) {
    scaled_with_minimums(block, out, |e| code(block, e));
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.scales_and_mins(block);
    parts.codes.extend((0..256).map(|e| code(block, e)));
}
