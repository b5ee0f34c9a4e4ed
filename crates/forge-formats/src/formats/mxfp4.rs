//! `block_mxfp4`: e u8 (scale 2^(e - 127)), qs u8[16] of E2M1 values (OCP Microscaling Formats 1.0). Hugging Face's `_blocks` and
//! `_scales` and MLX's mode `mxfp4` have the same codes and scales in two tensors.

use super::{Apart, BlockFormat, each_block, nibbles};
use crate::Format;
use crate::encode::{encode_blocks, fp4};
use crate::layout::RowParts;

pub(super) const MXFP4: BlockFormat = BlockFormat {
    format: Format::Mxfp4,
    name: "MXFP4",
    ggml_id: Some(39),
    elements: 32,
    bytes: 17,
    apart: Some(Apart { group: 32, bits: 4, mlx_mode: "mxfp4", scale: e8m0, code: |code| E2M1[usize::from(code)] }),
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(17).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, |block| Some(fp4::mxfp4(block)))),
};

/// Twice the 16 values of E2M1 (OCP Microscaling Formats 1.0, table 5); doubled, they are whole numbers.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The 16 values themselves, with the negative zero that GGML's whole numbers have not.
pub(crate) const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// E8M0: 2^(e - 127); infinite for 255, which is no number.
pub(crate) fn e8m0(e: u8) -> f32 {
    // 2^-127 is subnormal.
    f32::from_bits(if e == 0 { 1 << 22 } else { u32::from(e) << 23 })
}

/// 2^(e - 128): half of an E8M0 scale, which goes with the doubled values.
fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(match e {
        // 2^-128 and 2^-127 are subnormal.
        0 => 1 << 21,
        1 => 1 << 22,
        _ => (u32::from(e) - 1) << 23,
    })
}

fn decode(block: &[u8; 17], out: &mut [f32; 32]) {
    let half_scale = half_e8m0(block[0]);
    nibbles(&block[1..], |i, q| out[i] = half_scale * f32::from(E2M1_DOUBLED[usize::from(q)]));
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(block[0].into());
    parts.nibbles(&block[1..]);
}
