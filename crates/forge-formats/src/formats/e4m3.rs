//! E4M3 values (OCP 8-bit Floating Point 1.0: signed, bias 7, no infinities) with an f32 scale per 128 or per 32 weights:
//! scale f32, codes u8[].
//!
//! No file has such blocks; they are what [`crate::Repack`] makes of codes and scales in tensors of their own. A scale that the
//! checkpoint has once for a block of rows, for a row or for all of a matrix stands in each row that it is of.

use super::{BlockFormat, each_block};
use crate::Format;
use crate::layout::RowParts;

/// Rows of whole groups of 128.
pub(super) const E4M3_G128: BlockFormat = BlockFormat {
    format: Format::E4m3G128,
    name: "E4M3_G128",
    ggml_id: None,
    elements: 128,
    bytes: 132,
    apart: None,
    decode: |row, out| each_block(row, out, decode::<132, 128>),
    take_apart: |row, parts| row.chunks_exact(132).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// Rows that end in a part of a group of 128.
pub(super) const E4M3_G32: BlockFormat = BlockFormat {
    format: Format::E4m3G32,
    name: "E4M3_G32",
    ggml_id: None,
    elements: 32,
    bytes: 36,
    apart: None,
    decode: |row, out| each_block(row, out, decode::<36, 32>),
    take_apart: |row, parts| row.chunks_exact(36).for_each(|block| take_apart(block, parts)),
    encode: None,
};

/// The number that a code stands for; 0x7F and 0xFF are no numbers.
pub(crate) fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (8.0 + mantissa) * f32::from_bits((exponent as u32 + 117) << 23),
    };
    if code >= 128 { -size } else { size }
}

fn decode<const BYTES: usize, const WEIGHTS: usize>(block: &[u8; BYTES], out: &mut [f32; WEIGHTS]) {
    let scale = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    for (o, code) in out.iter_mut().zip(&block[4..]) {
        *o = scale * e4m3(*code);
    }
}

fn take_apart(block: &[u8], parts: &mut RowParts) {
    parts.entries[0].push(u32::from_le_bytes([block[0], block[1], block[2], block[3]]));
    parts.codes.extend_from_slice(&block[4..]);
}
