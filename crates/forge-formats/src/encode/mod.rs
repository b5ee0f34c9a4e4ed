//! Reference quantisers: f32 rows to stored blocks, for `--quantize` and for tests.
//!
//! Q8_0, Q4_0 and Q4_1 follow GGML's reference to the bit; Q4_K, Q5_K, Q6_K, MXFP4, NVFP4 and affine search for the least
//! squared error.

mod affine;
pub(crate) mod blocks;
mod fit;
pub(crate) mod fp4;
pub(crate) mod k_quants;

pub use affine::{EncodedAffine, encode_affine};

use half::{bf16, f16};

use crate::decode::check_row;
use crate::{Format, FormatError};

/// Encodes one row of `[cols]` f32 into `out`, which must be exactly [`Format::row_bytes`] long.
///
/// Float formats round to nearest; which block formats are written, their files say.
///
/// # Errors
/// A row that is not a whole number of blocks, `out` of another length, a weight that is not finite or whose block's
/// scale exceeds f16, or a format that nothing writes.
pub fn encode_row(format: Format, weights: &[f32], out: &mut [u8]) -> Result<(), FormatError> {
    check_row(format, out.len(), weights.len())?;
    check_finite(format, weights)?;
    let known = format.block().ok_or(FormatError::NotBlocks { format, action: "encoded" })?;
    let encode = known.encode.ok_or(FormatError::NoEncoder { format })?;
    encode(weights, out).map_err(|value| FormatError::Unrepresentable { format, value })
}

fn check_finite(format: Format, weights: &[f32]) -> Result<(), FormatError> {
    match weights.iter().find(|w| !w.is_finite()) {
        Some(&value) => Err(FormatError::Unrepresentable { format, value }),
        None => Ok(()),
    }
}

/// Runs `encode` over blocks; `None` from it (a scale beyond f16) becomes the block's largest weight as the error.
pub(crate) fn encode_blocks<const BYTES: usize, const WEIGHTS: usize>(
    weights: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; WEIGHTS]) -> Option<[u8; BYTES]>,
) -> Result<(), f32> {
    let (blocks, _) = weights.as_chunks::<WEIGHTS>();
    let (outs, _) = out.as_chunks_mut::<BYTES>();
    for (block, out) in blocks.iter().zip(outs) {
        *out = encode(block).ok_or_else(|| largest(block))?;
    }
    Ok(())
}

/// The weight of largest magnitude, the first of equals.
fn largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |max: f32, &w| if w.abs() > max.abs() { w } else { max })
}

/// `value` as f16, unless it overflows.
pub(crate) fn finite_f16(value: f32) -> Option<f16> {
    Some(f16::from_f32(value)).filter(|stored| stored.is_finite())
}

/// `value` as bf16, unless it overflows.
pub(crate) fn finite_bf16(value: f32) -> Option<bf16> {
    Some(bf16::from_f32(value)).filter(|stored| stored.is_finite())
}
