//! `block_q6_K`: ql u8[128], qh u8[64], scales i8[16], d f16.

use super::{BlockFormat, each_block, f16_at};
use crate::Format;
use crate::encode::{encode_blocks, k_quants};
use crate::layout::RowParts;

pub(super) const Q6_K: BlockFormat = BlockFormat {
    format: Format::Q6K,
    name: "Q6_K",
    ggml_id: Some(14),
    elements: 256,
    bytes: 210,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(210).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, k_quants::q6_k)),
};

/// The code of weight `e`, 32 more than the weight: per 128 weights, 64 bytes of nibbles (low nibbles for the first 64)
/// and 32 bytes of bit pairs.
fn code(block: &[u8], e: usize) -> u8 {
    let (ql, qh) = (&block[..128], &block[128..192]);
    let (half, quarter, lane) = (e / 128, e / 32 % 4, e % 32);
    let low = ql[half * 64 + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 15;
    let high = qh[half * 32 + lane] >> (quarter * 2) & 3;
    high << 4 | low
}

fn decode(block: &[u8; 210], out: &mut [f32; 256]) {
    let scales = &block[192..208];
    let d = f16_at(block, 208);
    for (sub, out) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[sub].cast_signed());
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * (f32::from(code(block, sub * 16 + i)) - 32.0);
        }
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.codes.extend((0..256).map(|e| code(block, e)));
    // 128 more than the signed scale, so that it decodes as an unsigned field.
    parts.entries[0].extend(block[192..208].iter().map(|&b| u32::from(b ^ 0x80)));
    parts.supers.extend_from_slice(&block[208..210]);
}
