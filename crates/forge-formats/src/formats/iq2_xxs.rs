//! `block_iq2_xxs`: d f16, and per 32 weights four indices u8 and a u32 of four times seven signs and a 4-bit scale.

use forge_spec::grids;

use super::grid::{even_signs, put_signed, word_at};
use super::{BlockFormat, each_block, f16_at};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ2_XXS: BlockFormat = BlockFormat {
    format: Format::Iq2Xxs,
    name: "IQ2_XXS",
    ggml_id: Some(16),
    elements: 256,
    bytes: 66,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(66).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// The index of weights `8 * i..`.
fn index(block: &[u8], i: usize) -> u8 {
    block[2 + i / 4 * 8 + i % 4]
}

fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = word_at(block, 6 + i / 4 * 8);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
        put_signed(&grids::IQ2_XXS, index(block, i).into(), scale, even_signs(word, 7 * (i as u32 % 4)), out);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].extend((0..32).map(|i| u32::from(index(block, i))));
    parts.entries[1].extend((0..8).map(|i| word_at(block, 6 + 8 * i)));
    parts.supers.extend_from_slice(&block[..2]);
}
