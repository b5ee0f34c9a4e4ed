//! MXFP8 with E4M3 values (OCP Microscaling Formats 1.0): e u8 (scale 2^(e - 127)), codes u8[32].
//!
//! No file has such blocks: MLX's mode `mxfp8` and compressed-tensors' `mxfp8-quantized` have codes and scales in two tensors.

use super::mxfp4::e8m0;
use super::{Apart, BlockFormat, e4m3, each_block};
use crate::Format;
use crate::layout::RowParts;

pub(super) const MXFP8: BlockFormat = BlockFormat {
    format: Format::Mxfp8,
    name: "MXFP8",
    ggml_id: None,
    elements: 32,
    bytes: 33,
    apart: Some(Apart { group: 32, bits: 8, mlx_mode: "mxfp8", scale: e8m0, code: e4m3 }),
    decode: |row, out| each_block(row, out, decode),
    take_apart: |row, parts| row.chunks_exact(33).for_each(|block| take_apart(block, parts)),
    encode: None,
};

fn decode(block: &[u8; 33], out: &mut [f32; 32]) {
    for (o, code) in out.iter_mut().zip(&block[1..]) {
        *o = e8m0(block[0]) * e4m3(*code);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(block[0].into());
    parts.codes.extend_from_slice(&block[1..]);
}
