//! `block_iq3_xxs`: d f16, qs u8[64], and per 32 weights a u32 of four times seven signs and a 4-bit scale.

use forge_spec::grids;

use super::grid::{even_signs, put_signed, word_at};
use super::{BlockFormat, each_block, f16_at, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ3_XXS: BlockFormat = BlockFormat {
    format: Format::Iq3Xxs,
    name: "IQ3_XXS",
    ggml_id: Some(18),
    elements: 256,
    bytes: 98,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(98).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = word_at(block, 66 + i / 4 * 4);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
        let signs = even_signs(word, 7 * (i as u32 % 4));
        let (first, second) = out.split_at_mut(4);
        put_signed(&grids::IQ3_XXS, block[2 + 2 * i].into(), scale, signs, first);
        put_signed(&grids::IQ3_XXS, block[3 + 2 * i].into(), scale, signs >> 4, second);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].extend((0..32).map(|i| half_bits(block, 2 + 2 * i)));
    parts.entries[1].extend((0..8).map(|i| word_at(block, 66 + 4 * i)));
    parts.supers.extend_from_slice(&block[..2]);
}
