//! The affine quantiser, for MLX's bit widths and group sizes.

use half::{bf16, f16};

use super::check_finite;
use super::fit::{Line, best_line};
use crate::decode::{affine_settings, scale_bytes};
use crate::{Format, FormatError};

/// One encoded row, in the parts that [`AffineRow`](crate::AffineRow) has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedAffine {
    /// `[cols * bits / 8]` bytes.
    pub codes: Vec<u8>,
    /// `[cols / group]` scales in the scale format.
    pub scales: Vec<u8>,
    /// `[cols / group]` biases in the scale format.
    pub biases: Vec<u8>,
}

/// Encodes one row of `[cols]` f32 in an affine format, with scales and biases in `scale_format`.
///
/// # Errors
/// `format` is not affine, `scale_format` not F32, F16 or BF16, the row not a whole number of groups, or a weight not
/// finite or beyond the scale format.
pub fn encode_affine(format: Format, scale_format: Format, weights: &[f32]) -> Result<EncodedAffine, FormatError> {
    let (bits, group) = affine_settings(format)?;
    let scale_bytes = scale_bytes(scale_format)?;
    let cols = weights.len();
    if !cols.is_multiple_of(group) {
        return Err(FormatError::RowNotBlocks { format, cols, block: group });
    }
    check_finite(format, weights)?;

    let levels = ((1u16 << bits) - 1) as f32;
    let groups = cols / group;
    let mut row = EncodedAffine {
        codes: vec![0; cols * bits / 8],
        scales: Vec::with_capacity(groups * scale_bytes),
        biases: Vec::with_capacity(groups * scale_bytes),
    };
    let store =
        |line: Line| Line { scale: round_to(scale_format, line.scale), offset: round_to(scale_format, line.offset) };
    for (g, weights) in weights.chunks_exact(group).enumerate() {
        let low = weights.iter().copied().fold(f32::INFINITY, f32::min);
        let high = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let line = best_line(weights, (low, high), levels, f32::INFINITY, store);
        if !line.scale.is_finite() || !line.offset.is_finite() {
            return Err(FormatError::Unrepresentable { format, value: if high > -low { high } else { low } });
        }
        push(scale_format, line.scale, &mut row.scales);
        push(scale_format, line.offset, &mut row.biases);
        for (i, &w) in weights.iter().enumerate() {
            put_code(&mut row.codes, bits, g * group + i, line.code(w, levels) as u8);
        }
    }
    Ok(row)
}

/// The value that a float format stores for `value`.
fn round_to(format: Format, value: f32) -> f32 {
    match format {
        Format::F16 => f16::from_f32(value).to_f32(),
        Format::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Appends a value in a float format.
fn push(format: Format, value: f32, out: &mut Vec<u8>) {
    match format {
        Format::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
        Format::BF16 => out.extend(bf16::from_f32(value).to_le_bytes()),
        _ => out.extend(value.to_le_bytes()),
    }
}

/// Stores code `i` into a zeroed bit stream; a code of at most 8 bits spans at most two bytes.
fn put_code(stream: &mut [u8], bits: usize, i: usize, code: u8) {
    let (byte, shift) = (i * bits / 8, i * bits % 8);
    let [low, high] = (u16::from(code) << shift).to_le_bytes();
    stream[byte] |= low;
    if high != 0 {
        stream[byte + 1] |= high;
    }
}
