//! F32, F16 and BF16: plain values, one a block, packed as they are.

use half::{bf16, f16};

use super::{BlockFormat, each_block};
use crate::Format;
use crate::encode::{encode_blocks, finite_bf16, finite_f16};

pub(super) const F32: BlockFormat = BlockFormat {
    format: Format::F32,
    name: "F32",
    ggml_id: Some(0),
    elements: 1,
    bytes: 4,
    apart: None,
    decode: |row, out| each_block(row, out, |b, [o]: &mut [f32; 1]| *o = f32::from_le_bytes(*b)),
    take_apart: |_, _| {},
    encode: Some(|weights, out| encode_blocks(weights, out, |[w]: &[f32; 1]| Some(w.to_le_bytes()))),
};

pub(super) const F16: BlockFormat = BlockFormat {
    format: Format::F16,
    name: "F16",
    ggml_id: Some(1),
    elements: 1,
    bytes: 2,
    apart: None,
    decode: |row, out| each_block(row, out, |b, [o]: &mut [f32; 1]| *o = f16::from_le_bytes(*b).to_f32()),
    take_apart: |_, _| {},
    encode: Some(|weights, out| encode_blocks(weights, out, |[w]: &[f32; 1]| Some(finite_f16(*w)?.to_le_bytes()))),
};

pub(super) const BF16: BlockFormat = BlockFormat {
    format: Format::BF16,
    name: "BF16",
    ggml_id: Some(30),
    elements: 1,
    bytes: 2,
    apart: None,
    decode: |row, out| each_block(row, out, |b, [o]: &mut [f32; 1]| *o = bf16::from_le_bytes(*b).to_f32()),
    take_apart: |_, _| {},
    encode: Some(|weights, out| encode_blocks(weights, out, |[w]: &[f32; 1]| Some(finite_bf16(*w)?.to_le_bytes()))),
};
