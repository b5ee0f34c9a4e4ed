//! `block_iq1_s`: d f16, qs u8[32], qh u16[8] (per 32 weights four times three bits of index, a 3-bit scale, a sign).

use forge_spec::{Plane, grids};

use super::grid::put_shifted;
use super::{BlockFormat, each_block, f16_at, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const IQ1_S: BlockFormat = BlockFormat {
    format: Format::Iq1S,
    name: "IQ1_S",
    ggml_id: Some(19),
    elements: 256,
    bytes: 50,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(50).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        let word = half_bits(block, 34 + i / 4 * 2);
        let index = usize::from(block[2 + i]) | (word as usize >> (3 * (i % 4)) & 7) << 8;
        let scale = d * (2 * (word >> 12 & 7) + 1) as f32;
        put_shifted(&grids::IQ1_S, index, scale, word >> 15 == 1, out);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].extend((0..32).map(|i| {
        let word = half_bits(block, 34 + i / 4 * 2);
        u32::from(block[2 + i]) | (word >> (3 * (i % 4)) & 7) << 8 | word >> 12 << Plane::POINT_BITS
    }));
    parts.supers.extend_from_slice(&block[..2]);
}
