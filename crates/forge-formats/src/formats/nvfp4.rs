//! `block_nvfp4`: d u8[4], qs u8[32]: four times 16 weights of E2M1 (OCP Microscaling Formats 1.0), each 16 with a scale of E4M3
//! without a sign, 0x7F of which is 0. A GGUF may have a factor of the whole matrix, or of each expert, in a tensor `.scale`.
//!
//! MLX's mode `nvfp4`, compressed-tensors' `nvfp4-pack-quantized` and ModelOpt's NVFP4 have the same codes in order and the same
//! scales in two tensors, and a factor in a third.

use super::mxfp4::E2M1;
use super::{Apart, BlockFormat, e4m3, each_block};
use crate::Format;
use crate::encode::{encode_blocks, fp4};
use crate::layout::RowParts;

pub(super) const NVFP4: BlockFormat = BlockFormat {
    format: Format::Nvfp4,
    name: "NVFP4",
    ggml_id: Some(40),
    elements: 64,
    bytes: 36,
    apart: Some(Apart { group: 16, bits: 4, mlx_mode: "nvfp4", scale: e4m3, code: |code| E2M1[usize::from(code)] }),
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(36).for_each(|block| take_apart(block, parts)),
    encode: Some(|weights, out| encode_blocks(weights, out, fp4::nvfp4)),
};

/// A scale as the device has it, where the code 0x7F is a number.
fn scale_code(byte: u8) -> u8 {
    if byte == 0x7F { 0 } else { byte & 0x7F }
}

/// The number of such a code.
fn scale(code: u8) -> f32 {
    // 1.875 * 2^8, which E4M3 has no code for.
    if code == 0x7F { 480.0 } else { e4m3(code) }
}

/// The code of weight `i` of a block's 64: of each 16 the first eight are low nibbles.
fn code(block: &[u8], i: usize) -> u8 {
    block[4 + i / 16 * 8 + i % 8] >> (i / 8 % 2 * 4) & 15
}

fn decode(block: &[u8; 36], out: &mut [f32; 64]) {
    for (i, o) in out.iter_mut().enumerate() {
        // GGML multiplies half of each scale with doubled codes, whole numbers without a negative zero: the same product, exact.
        *o = scale(scale_code(block[i / 16])) * (E2M1[usize::from(code(block, i))] + 0.0);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].extend(block[..4].iter().map(|&byte| u32::from(scale_code(byte))));
    parts.codes.extend((0..64).map(|i| code(block, i)));
}
