//! `block_iq3_s`: d f16, qs u8[64], qh u8[8] (ninth bits of the indices), signs u8[32], scales u8[4].

use forge_spec::grids;

use super::grid::put_signed;
use super::{BlockFormat, each_block, f16_at, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ3_S: BlockFormat = BlockFormat {
    format: Format::Iq3S,
    name: "IQ3_S",
    ggml_id: Some(21),
    elements: 256,
    bytes: 110,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(110).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// The ninth bits of the two indices of weights `8 * i..`.
fn high_bits(block: &[u8], i: usize) -> u8 {
    block[66 + i / 4] >> (i % 4 * 2) & 3
}

/// The scale of weights `32 * i..`.
fn scale_at(block: &[u8], i: usize) -> u8 {
    block[106 + i / 2] >> (i % 2 * 4) & 15
}

fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let scale = d * (1.0 + 2.0 * f32::from(scale_at(block, i / 4)));
        let (high, signs) = (high_bits(block, i), block[74 + i]);
        let index = |half: usize| usize::from(block[2 + 2 * i + half]) | usize::from(high >> half & 1) << 8;
        let (first, second) = out.split_at_mut(4);
        put_signed(&grids::IQ3_S, index(0), scale, signs, first);
        put_signed(&grids::IQ3_S, index(1), scale, signs >> 4, second);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    for i in 0..32 {
        parts.entries[0].push(half_bits(block, 2 + 2 * i));
        parts.entries[1].push(high_bits(block, i).into());
        parts.entries[2].push(block[74 + i].into());
    }
    parts.entries[3].extend((0..8).map(|i| u32::from(scale_at(block, i))));
    parts.supers.extend_from_slice(&block[..2]);
}
