//! Reference quantisers: f32 rows to stored blocks, for `--quantize` and for tests.
//!
//! Q8_0, Q4_0 and Q4_1 follow GGML's reference to the bit; Q4_K, Q5_K, Q6_K and affine search for the least squared error.

mod affine;
mod blocks;
mod fit;
mod k_quants;

pub use affine::{EncodedAffine, encode_affine};

use half::{bf16, f16};

use crate::decode::check_row;
use crate::{Format, FormatError};

/// Encodes one row of `[cols]` f32 into `out`, which must be exactly [`Format::row_bytes`] long.
///
/// Float formats round to nearest; of the block formats, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K and Q6_K are written.
///
/// # Errors
/// A row that is not a whole number of blocks, `out` of another length, a weight that is not finite or whose block's
/// scale exceeds f16, or a format that nothing writes.
pub fn encode_row(format: Format, weights: &[f32], out: &mut [u8]) -> Result<(), FormatError> {
    check_row(format, out.len(), weights.len())?;
    check_finite(format, weights)?;
    match format {
        Format::F32 => each_block(weights, out, |[w]: &[f32; 1]| Some(w.to_le_bytes())),
        Format::F16 => each_block(weights, out, |[w]: &[f32; 1]| Some(finite_f16(*w)?.to_le_bytes())),
        Format::BF16 => each_block(weights, out, |[w]: &[f32; 1]| {
            Some(bf16::from_f32(*w)).filter(|stored| stored.is_finite()).map(bf16::to_le_bytes)
        }),
        Format::Q8_0 => each_block(weights, out, blocks::q8_0),
        Format::Q4_0 => each_block(weights, out, blocks::q4_0),
        Format::Q4_1 => each_block(weights, out, blocks::q4_1),
        Format::Q4K => each_block(weights, out, k_quants::q4_k),
        Format::Q5K => each_block(weights, out, k_quants::q5_k),
        Format::Q6K => each_block(weights, out, k_quants::q6_k),
        Format::Affine { .. } => {
            return Err(FormatError::NotBlocks { format, action: "encoded" });
        }
        _ => return Err(FormatError::NoEncoder { format }),
    }
    .map_err(|value| FormatError::Unrepresentable { format, value })
}

fn check_finite(format: Format, weights: &[f32]) -> Result<(), FormatError> {
    match weights.iter().find(|w| !w.is_finite()) {
        Some(&value) => Err(FormatError::Unrepresentable { format, value }),
        None => Ok(()),
    }
}

/// Runs `encode` over blocks; `None` from it (a scale beyond f16) becomes the block's largest weight as the error.
fn each_block<const BYTES: usize, const WEIGHTS: usize>(
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
fn finite_f16(value: f32) -> Option<f16> {
    Some(f16::from_f32(value)).filter(|stored| stored.is_finite())
}
