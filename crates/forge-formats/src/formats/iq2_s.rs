//! `block_iq2_s`: d f16, qs u8[32], signs u8[32], qh u8[8] (bits 8 and 9 of the indices), scales u8[8].

use forge_spec::grids;

use super::grid::put_signed;
use super::{BlockFormat, each_block, f16_at};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ2_S: BlockFormat = BlockFormat {
    format: Format::Iq2S,
    name: "IQ2_S",
    ggml_id: Some(22),
    elements: 256,
    bytes: 82,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(82).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// The high bits of the index of weights `8 * i..`.
fn high_bits(block: &[u8], i: usize) -> u8 {
    block[66 + i / 4] >> (i % 4 * 2) & 3
}

/// The scale of weights `16 * i..`.
fn scale_at(block: &[u8], i: usize) -> u8 {
    block[74 + i / 2] >> (i % 2 * 4) & 15
}

fn decode(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let index = usize::from(block[2 + i]) | usize::from(high_bits(block, i)) << 8;
        let scale = d * (0.5 + f32::from(scale_at(block, i / 2))) * 0.25;
        put_signed(&grids::IQ2_S, index, scale, block[34 + i], out);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    for i in 0..32 {
        // The index's low byte, then the signs.
        parts.entries[0].push(u32::from(block[2 + i]) | u32::from(block[34 + i]) << 8);
        parts.entries[1].push(high_bits(block, i).into());
    }
    parts.entries[2].extend((0..16).map(|i| u32::from(scale_at(block, i))));
    parts.supers.extend_from_slice(&block[..2]);
}
