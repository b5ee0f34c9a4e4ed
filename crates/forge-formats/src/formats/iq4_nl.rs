//! `block_iq4_nl`: d f16, qs u8[16]; codes are indices into fixed levels.

use super::{BlockFormat, each_block, f16_at, half_bits, nibbles};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ4_NL: BlockFormat = BlockFormat {
    format: Format::Iq4Nl,
    name: "IQ4_NL",
    ggml_id: Some(20),
    elements: 32,
    bytes: 18,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(18).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// GGML's `kvalues_iq4nl`.
pub(super) const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    nibbles(&block[2..], |i, q| out[i] = d * f32::from(LEVELS[usize::from(q)]));
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(half_bits(block, 0));
    parts.nibbles(&block[2..]);
}
