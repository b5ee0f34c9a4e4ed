//! `block_iq1_m`: qs u8[32], qh u8[16] (per 8 weights three bits of index and a sign), scales u16[4]: four times three bits of
//! scale each, and in the top nibbles an f16 factor, lowest nibble first.

use forge_spec::grids;
use half::f16;

use super::grid::put_shifted;
use super::{BlockFormat, each_block, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ1_M: BlockFormat = BlockFormat {
    format: Format::Iq1M,
    name: "IQ1_M",
    ggml_id: Some(29),
    elements: 256,
    bytes: 56,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(56).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// High bits of the index of weights `8 * i..`, with the sign above them.
fn high_bits(block: &[u8], i: usize) -> u8 {
    block[32 + i / 2] >> (i % 2 * 4) & 15
}

/// The scale of weights `16 * i..`.
fn scale(block: &[u8], i: usize) -> u32 {
    half_bits(block, 48 + i / 4 * 2) >> (i % 4 * 3) & 7
}

fn factor(block: &[u8]) -> f16 {
    f16::from_bits((0..4).map(|i| half_bits(block, 48 + 2 * i) >> 12 << (4 * i)).sum::<u32>() as u16)
}

fn decode(block: &[u8; 56], out: &mut [f32; 256]) {
    let d = factor(block).to_f32();
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let high = high_bits(block, i);
        let index = usize::from(block[i]) | usize::from(high & 7) << 8;
        put_shifted(&grids::IQ1_S, index, d * (2 * scale(block, i / 2) + 1) as f32, high & 8 != 0, out);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    // The sign is the bit above the index.
    parts.entries[0].extend((0..32).map(|i| u32::from(block[i]) | u32::from(high_bits(block, i)) << 8));
    parts.entries[1].extend((0..16).map(|i| scale(block, i)));
    parts.supers.extend_from_slice(&factor(block).to_le_bytes());
}
