//! `block_q2_K`: scales u8[16] (low nibble scale, high nibble minimum), qs u8[64], d f16, dmin f16.

use super::{BlockFormat, each_block, f16_at, two_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const Q2_K: BlockFormat = BlockFormat {
    format: Format::Q2K,
    name: "Q2_K",
    ggml_id: Some(10),
    elements: 256,
    bytes: 84,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(84).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, qs) = (&block[..16], &block[16..80]);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (sub, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[sub] & 15);
        let min = dmin * f32::from(scales[sub] >> 4);
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * f32::from(two_bits(qs, sub * 16 + i)) - min;
        }
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].extend(block[..16].iter().map(|&b| u32::from(b)));
    parts.codes.extend((0..256).map(|e| two_bits(&block[16..80], e)));
    parts.supers.extend_from_slice(&block[80..84]);
}
