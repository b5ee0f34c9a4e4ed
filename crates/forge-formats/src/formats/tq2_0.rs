//! `block_tq2_0`: qs u8[64], d f16; codes are 1 more than the weight, each run of 32 bytes holds 128.

use super::{BlockFormat, each_block, f16_at, two_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const TQ2_0: BlockFormat = BlockFormat {
    format: Format::Tq2_0,
    name: "TQ2_0",
    ggml_id: Some(35),
    elements: 256,
    bytes: 66,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(66).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at(block, 64);
    for (i, o) in out.iter_mut().enumerate() {
        *o = d * (f32::from(two_bits(&block[..64], i)) - 1.0);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.codes.extend((0..256).map(|i| two_bits(&block[..64], i)));
    parts.supers.extend_from_slice(&block[64..]);
}
