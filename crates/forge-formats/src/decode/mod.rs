//! Reference decoders: stored blocks to f32, one row at a time.
//!
//! They say what a checkpoint means; kernels are judged by them. Arithmetic is f32, in the order that GGML's own
//! reference uses, so that results agree to the bit.

mod affine;
mod blocks;
mod k_quants;

pub use affine::{AffineRow, decode_affine};
pub(crate) use affine::{code as affine_code, scale_bytes, settings as affine_settings};
pub(crate) use k_quants::{nibble, q3_k_scale, scale_and_min, six_bits, two_bits};

use half::{bf16, f16};

use crate::{Format, FormatError};

/// Decodes one row: `bytes` holds whole blocks, `out` receives `[cols]` f32.
///
/// # Errors
/// `out` is not a whole number of blocks, `bytes` is not exactly their size, or the format is affine, whose rows lie in
/// three tensors (see [`decode_affine`]).
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    check_row(format, bytes.len(), out.len())?;
    match format {
        Format::F32 => each_block(bytes, out, |b, [o]: &mut [f32; 1]| *o = f32::from_le_bytes(*b)),
        Format::F16 => each_block(bytes, out, |b, [o]: &mut [f32; 1]| *o = f16::from_le_bytes(*b).to_f32()),
        Format::BF16 => each_block(bytes, out, |b, [o]: &mut [f32; 1]| *o = bf16::from_le_bytes(*b).to_f32()),
        Format::Q8_0 => each_block(bytes, out, blocks::q8_0),
        Format::Q4_0 => each_block(bytes, out, blocks::q4_0),
        Format::Q4_1 => each_block(bytes, out, blocks::q4_1),
        Format::Q5_0 => each_block(bytes, out, blocks::q5_0),
        Format::Q5_1 => each_block(bytes, out, blocks::q5_1),
        Format::Q2K => each_block(bytes, out, k_quants::q2_k),
        Format::Q3K => each_block(bytes, out, k_quants::q3_k),
        Format::Q4K => each_block(bytes, out, k_quants::q4_k),
        Format::Q5K => each_block(bytes, out, k_quants::q5_k),
        Format::Q6K => each_block(bytes, out, k_quants::q6_k),
        Format::Iq4Nl => each_block(bytes, out, blocks::iq4_nl),
        Format::Mxfp4 => each_block(bytes, out, blocks::mxfp4),
        Format::Q1_0 => each_block(bytes, out, blocks::q1_0),
        Format::Tq2_0G128 => each_block(bytes, out, blocks::tq2_0_g128),
        Format::Affine { .. } => {
            return Err(FormatError::NotBlocks { format, action: "decoded" });
        }
    }
    Ok(())
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

/// Runs `decode` over blocks of `BYTES` bytes and `WEIGHTS` weights; the caller has checked the lengths.
fn each_block<const BYTES: usize, const WEIGHTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; WEIGHTS]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (outs, _) = out.as_chunks_mut::<WEIGHTS>();
    for (block, out) in blocks.iter().zip(outs) {
        decode(block, out);
    }
}

/// The f16 at byte `at` of a block.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
