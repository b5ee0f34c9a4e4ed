//! TQ2_0_g128 of OxiBonsai: weight `4i + j` in bits `2j` of byte `i`, d f16 last; 0, 1, 2 are -d, 0, +d, and 3 counts as 0.

use super::{BlockFormat, SHARED_ID, each_block, f16_at, half_bits};
use crate::Format;
use crate::layout::RowParts;

pub(super) const TQ2_0_G128: BlockFormat = BlockFormat {
    format: Format::Tq2_0G128,
    name: "TQ2_0_g128",
    ggml_id: Some(SHARED_ID),
    elements: 128,
    bytes: 34,
    apart: None,
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(34).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 34], out: &mut [f32; 128]) {
    let d = f16_at(block, 32);
    let levels = [-d, 0.0, d, 0.0];
    for (i, o) in out.iter_mut().enumerate() {
        *o = levels[usize::from(block[i / 4] >> (2 * (i % 4)) & 3)];
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(half_bits(block, 32));
    // Code 3 means 0, as code 1 does; kernels know 0, 1 and 2 only.
    parts.codes.extend((0..128).map(|i| match block[i / 4] >> (i % 4 * 2) & 3 {
        3 => 1,
        code => code,
    }));
}
