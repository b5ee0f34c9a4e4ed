//! E4M3 bytes with a scale for each block of rows and columns: FP8 checkpoints and compressed-tensors' `float-quantized`.

use std::fmt;
use std::ops::Range;

use super::Repacked;
use crate::decode::decode_row;
use crate::formats::e4m3;
use crate::{Format, FormatError};

/// Codes `[rows, cols]`, and scales `[rows / block rows, cols / block columns]`, both rounded up: a weight is its code times the
/// scale of its block.
#[derive(Clone, Debug, PartialEq)]
pub struct E4m3Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Rows and columns that share a scale; not 0.
    pub block: [usize; 2],
    /// F32, F16 or BF16.
    pub scale_format: Format,
}

impl E4m3Matrix {
    /// The format that rows are made in: groups that a scale's columns are a whole number of, or all of the row is one.
    ///
    /// # Errors
    /// Columns that are no whole number of groups of 32, in a row or in a block.
    pub fn format(&self) -> Result<Format, FormatError> {
        let whole = |group: usize| self.block[1] >= self.cols || self.block[1].is_multiple_of(group);
        match self.cols {
            cols if cols.is_multiple_of(128) && whole(128) => Ok(Format::E4m3G128),
            cols if !cols.is_multiple_of(32) => {
                Err(FormatError::RowNotBlocks { format: Format::E4m3G32, cols, block: 32 })
            }
            _ if whole(32) => Ok(Format::E4m3G32),
            _ => Err(FormatError::ScaleColumns { cols: self.block[1] }),
        }
    }

    /// Rows and columns of the scales.
    pub fn scales(&self) -> [usize; 2] {
        [self.rows.div_ceil(self.block[0]), self.cols.div_ceil(self.block[1])]
    }

    pub(super) fn part_bytes(&self) -> Vec<u64> {
        let [rows, cols] = self.scales();
        vec![self.rows as u64 * self.cols as u64, rows as u64 * cols as u64 * self.scale_format.block_bytes() as u64]
    }

    pub(super) fn rows(&self, parts: &[&[u8]], rows: Range<usize>, out: &mut Repacked) -> Result<(), FormatError> {
        let format = self.format()?;
        let group = format.block_elements();
        let [_, scale_cols] = self.scales();
        let scale_bytes = scale_cols * self.scale_format.block_bytes();
        let mut scales = vec![0.0; scale_cols];
        let mut last = None;
        for row in rows {
            let of = row / self.block[0];
            if last.replace(of) != Some(of) {
                decode_row(self.scale_format, &parts[1][of * scale_bytes..][..scale_bytes], &mut scales)?;
            }
            let codes = &parts[0][row * self.cols..][..self.cols];
            for (index, codes) in codes.chunks_exact(group).enumerate() {
                out.codes.extend(scales[index * group / self.block[1]].to_le_bytes());
                out.codes.extend_from_slice(codes);
                if codes.iter().any(|&code| e4m3(code).is_nan()) {
                    return Err(FormatError::Unrepresentable { format, value: f32::NAN });
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for E4m3Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, cols] = self.block;
        match (rows >= self.rows, cols >= self.cols) {
            (true, true) => f.write_str("FP8 E4M3 per tensor"),
            (false, true) if rows == 1 => f.write_str("FP8 E4M3 per channel"),
            _ => write!(f, "FP8 E4M3 {rows}x{cols}"),
        }
    }
}
