//! `block_iq2_xs`: d f16, qs u16[32] (nine bits of index, seven signs), scales u8[8].

use forge_spec::grids;

use super::grid::{even_signs, put_signed};
use super::{BlockFormat, each_block, f16_at, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ2_XS: BlockFormat = BlockFormat {
    format: Format::Iq2Xs,
    name: "IQ2_XS",
    ggml_id: Some(17),
    elements: 256,
    bytes: 74,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(74).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// The scale of weights `16 * i..`.
fn scale_at(block: &[u8], i: usize) -> u8 {
    block[66 + i / 2] >> (i % 2 * 4) & 15
}

fn decode(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = half_bits(block, 2 + 2 * i);
        let scale = d * (0.5 + f32::from(scale_at(block, i / 2))) * 0.25;
        put_signed(&grids::IQ2_XS, (word & 511) as usize, scale, even_signs(word, 9), out);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].extend((0..32).map(|i| half_bits(block, 2 + 2 * i)));
    parts.entries[1].extend((0..16).map(|i| u32::from(scale_at(block, i))));
    parts.supers.extend_from_slice(&block[..2]);
}
