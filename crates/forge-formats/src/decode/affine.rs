//! MLX's affine quantisation: packed codes, and a scale and a bias per group, in three tensors.

use super::decode_row;
use crate::{Format, FormatError};

/// One row of an affine matrix.
///
/// Codes are a little-endian stream of bits: code `i` is bits `i * bits ..`, which for 2, 4 and 8 bits is what u32 words
/// hold, and for 3, 5 and 6 bits what groups of bytes hold.
#[derive(Clone, Copy, Debug)]
pub struct AffineRow<'a> {
    /// Bits and group size; must be [`Format::Affine`].
    pub format: Format,
    /// `[cols * bits / 8]` bytes, or as u32 words `[cols * bits / 32]`, little-endian.
    pub codes: &'a [u8],
    /// `[cols / group]` scales in `scale_format`.
    pub scales: &'a [u8],
    /// `[cols / group]` biases in `scale_format`.
    pub biases: &'a [u8],
    /// F32, F16 or BF16.
    pub scale_format: Format,
    /// Whether zero points are in place of biases: a weight is `scale * (code - zero)`.
    pub zeros: bool,
}

/// Decodes one affine row to `[cols]` f32: `scale * code + bias` or `scale * (code - zero)`, both operations rounded to f32.
///
/// # Errors
/// The format is not affine, `scale_format` is not a float format, `out` is not a whole number of groups, or a part has
/// another length than the row needs.
pub fn decode_affine(row: &AffineRow<'_>, out: &mut [f32]) -> Result<(), FormatError> {
    let format = row.format;
    let (bits, group) = settings(format)?;
    let cols = out.len();
    if !cols.is_multiple_of(group) {
        return Err(FormatError::RowNotBlocks { format, cols, block: group });
    }
    let groups = cols / group;
    let check = |what, expected: usize, found: usize| {
        if expected == found { Ok(()) } else { Err(FormatError::Length { format, what, expected, found }) }
    };
    let group_bytes = group * bits / 8;
    check("codes", groups * group_bytes, row.codes.len())?;
    let size = scale_bytes(row.scale_format)?;
    check("scales", groups * size, row.scales.len())?;
    check("biases", groups * size, row.biases.len())?;

    for (g, out) in out.chunks_exact_mut(group).enumerate() {
        let (mut scale, mut bias) = ([0.0], [0.0]);
        decode_row(row.scale_format, &row.scales[g * size..][..size], &mut scale)?;
        decode_row(row.scale_format, &row.biases[g * size..][..size], &mut bias)?;
        let codes = &row.codes[g * group_bytes..][..group_bytes];
        for (i, o) in out.iter_mut().enumerate() {
            let code = f32::from(code(codes, bits, i));
            *o = if row.zeros { scale[0] * (code - bias[0]) } else { scale[0] * code + bias[0] };
        }
    }
    Ok(())
}

/// Bits per code and weights per group.
pub(crate) fn settings(format: Format) -> Result<(usize, usize), FormatError> {
    match format {
        Format::Affine { bits, group } => {
            Format::affine(bits.into(), group.into())?;
            Ok((bits.into(), group.into()))
        }
        _ => Err(FormatError::NotAffine { format }),
    }
}

/// Bytes of a scale in a float format.
pub(crate) fn scale_bytes(format: Format) -> Result<usize, FormatError> {
    if format.is_float() { Ok(format.block_bytes()) } else { Err(FormatError::NotFloat { format }) }
}

/// Code `i` of a bit stream; a code of at most 8 bits spans at most two bytes.
pub(crate) fn code(stream: &[u8], bits: usize, i: usize) -> u8 {
    let (byte, shift) = (i * bits / 8, i * bits % 8);
    let next = stream.get(byte + 1).copied().unwrap_or(0);
    let window = u16::from_le_bytes([stream[byte], next]) >> shift;
    (window & ((1 << bits) - 1)) as u8
}
