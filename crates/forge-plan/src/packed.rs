//! Names of the weights file's formats.

use forge_formats::Format as Stored;
use forge_spec::{Format, Matrix};

/// The checkpoint's format that a packed one comes from.
pub fn stored(format: Format) -> Stored {
    Stored::stored(format)
}

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
