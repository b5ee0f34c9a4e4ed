//! Formats of the weights file: those of the checkpoint, and for affine ones the element type of scales and biases.

use forge_formats::Format as Stored;
use forge_spec::{Format, Matrix};

macro_rules! same {
    ($($format:ident),*) => {
        /// How a matrix stored in `format` is packed; `bf16` scales and biases are told apart for affine formats alone.
        pub(crate) fn packed(format: Stored, bf16: bool) -> Format {
            match format {
                $(Stored::$format => Format::$format,)*
                Stored::Affine { bits, group } => Format::Affine { bits: bits.into(), group: group.into(), bf16 },
            }
        }

        /// The checkpoint's format that a packed one comes from.
        pub fn stored(format: Format) -> Stored {
            match format {
                $(Format::$format => Stored::$format,)*
                Format::Affine { bits, group, .. } => Stored::Affine { bits: bits as u8, group: group as u16 },
            }
        }
    };
}
same!(F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2K, Q3K, Q4K, Q5K, Q6K, Iq4Nl, Mxfp4, Q1_0, Tq2_0G128);

/// `[4096, 4096] q8_0`.
pub fn describe(matrix: &Matrix) -> String {
    format!("[{}, {}] {}", matrix.rows, matrix.cols, format_name(stored(matrix.format)))
}

/// A format's name in identifiers and comments: `q8_0`, `affine4_g64`.
pub fn format_name(format: Stored) -> String {
    match format {
        Stored::Tq2_0G128 => "tq2_0".into(),
        Stored::Affine { bits, group } => format!("affine{bits}_g{group}"),
        other => other.to_string().to_lowercase(),
    }
}
