//! Reference decoders: stored blocks to f32, one row at a time.
//!
//! They say what a checkpoint means; kernels are judged by them. What a format's blocks mean is in its file of `formats`.

mod affine;

pub use affine::{AffineRow, decode_affine};
pub(crate) use affine::{code as affine_code, scale_bytes, settings as affine_settings};

use crate::{Format, FormatError};

/// Decodes one row: `bytes` holds whole blocks, `out` receives `[cols]` f32.
///
/// # Errors
/// `out` is not a whole number of blocks, `bytes` is not exactly their size, or the format is affine, whose rows lie in
/// three tensors (see [`decode_affine`]).
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    check_row(format, bytes.len(), out.len())?;
    let known = format.block().ok_or(FormatError::NotBlocks { format, action: "decoded" })?;
    (known.decode)(bytes, out);
    Ok(())
}

/// Decodes one row whose codes and scales are apart, `[cols * bits / 8]` and `[cols / group]` bytes, to `[cols]` f32:
/// `code * (scale * factor)`, both products rounded to f32, as MLX has it.
///
/// # Errors
/// The format is not stored so, `out` is not a whole number of groups, or a part has another length than the row needs.
pub fn decode_apart(
    format: Format,
    codes: &[u8],
    scales: &[u8],
    factor: f32,
    out: &mut [f32],
) -> Result<(), FormatError> {
    let known = format.apart().ok_or(FormatError::NotApart { format })?;
    let (cols, block) = (out.len(), known.group);
    let row = format.apart_row_bytes(cols).ok_or(FormatError::RowNotBlocks { format, cols, block })?;
    for (what, expected, found) in [("codes", row[0], codes.len()), ("scales", row[1], scales.len())] {
        if expected != found {
            return Err(FormatError::Length { format, what, expected, found });
        }
    }
    for (at, weight) in out.iter_mut().enumerate() {
        *weight = (known.code)(affine_code(codes, known.bits, at)) * ((known.scale)(scales[at / block]) * factor);
    }
    Ok(())
}

/// The first number of a tensor of floats that is infinite or none, with its index.
///
/// # Errors
/// The format is not F32, F16 or BF16.
pub fn first_not_finite(format: Format, bytes: &[u8]) -> Result<Option<(usize, f32)>, FormatError> {
    // Of such a number all bits of the exponent are set.
    let index = match format {
        Format::F32 => bytes.as_chunks().0.iter().position(|number| !f32::from_le_bytes(*number).is_finite()),
        Format::F16 => bytes.as_chunks().0.iter().position(|half| u16::from_le_bytes(*half) & 0x7C00 == 0x7C00),
        Format::BF16 => bytes.as_chunks().0.iter().position(|half| u16::from_le_bytes(*half) & 0x7F80 == 0x7F80),
        _ => return Err(FormatError::NotFloat { format }),
    };
    let Some(index) = index else { return Ok(None) };
    let mut number = [0.0];
    decode_row(format, &bytes[index * format.block_bytes()..][..format.block_bytes()], &mut number)?;
    Ok(Some((index, number[0])))
}

/// Checks that `found` bytes are exactly a row of `cols` weights.
pub(crate) fn check_row(format: Format, found: usize, cols: usize) -> Result<(), FormatError> {
    let expected =
        format.row_bytes(cols).ok_or(FormatError::RowNotBlocks { format, cols, block: format.block_elements() })?;
    if matches!(format, Format::Affine { .. }) || expected == found {
        return Ok(());
    }
    Err(FormatError::Length { format, what: "blocks", expected, found })
}
