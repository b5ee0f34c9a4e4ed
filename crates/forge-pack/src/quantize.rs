//! Quantising rows of floats on their way into the weights file.

use forge_formats::{AffineRow, Deviation, Format, FormatError, SourceRows};
use forge_formats::{decode_affine, decode_row, encode_affine, encode_row};

/// Format of the scales and biases of affine rows: more digits than BF16, and what exceeds its range is refused.
const SCALES: Format = Format::F16;

/// Rows in a format that has an encoder, and the memory to make them.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// One row as the checkpoint has it, and as it comes back.
    weights: Vec<f32>,
    stored: Vec<f32>,
    /// One row without its factor.
    divided: Vec<f32>,
    /// Blocks, or the codes of affine rows.
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
    /// What the rows' codes are multiplied by; none where the format has no such factors.
    factors: Vec<f32>,
    affine: bool,
}

impl Encoder {
    /// Encodes `bytes`, rows of `cols` weights stored as `from`, and measures the difference.
    ///
    /// # Errors
    /// A weight that the format cannot hold, or a format without an encoder.
    pub(crate) fn encode(
        &mut self,
        format: Format,
        cols: usize,
        from: Format,
        bytes: &[u8],
    ) -> Result<Deviation, FormatError> {
        let block = format.block_elements();
        let whole = FormatError::RowNotBlocks { format, cols, block };
        let row_bytes = format.row_bytes(cols).ok_or(whole)?;
        self.affine = matches!(format, Format::Affine { .. });
        for part in [&mut self.codes, &mut self.scales, &mut self.biases] {
            part.clear();
        }
        self.factors.clear();
        self.weights.resize(cols, 0.0);
        self.stored.resize(cols, 0.0);
        let mut deviation = Deviation::default();
        for row in bytes.chunks(cols * from.block_bytes()) {
            decode_row(from, row, &mut self.weights)?;
            if self.affine {
                let row = encode_affine(format, SCALES, &self.weights)?;
                let (codes, scales, biases) = (&row.codes, &row.scales, &row.biases);
                let parts = AffineRow { format, codes, scales, biases, scale_format: SCALES, zeros: false };
                decode_affine(&parts, &mut self.stored)?;
                self.codes.extend(codes);
                self.scales.extend(scales);
                self.biases.extend(biases);
            } else {
                let start = self.codes.len();
                self.codes.resize(start + row_bytes, 0);
                let codes = &mut self.codes[start..];
                match format.row_factor(&self.weights) {
                    None => {
                        encode_row(format, &self.weights, codes)?;
                        decode_row(format, codes, &mut self.stored)?;
                    }
                    Some(factor) => {
                        self.divided.clear();
                        self.divided.extend(self.weights.iter().map(|weight| weight / factor));
                        encode_row(format, &self.divided, codes)?;
                        decode_row(format, codes, &mut self.stored)?;
                        self.stored.iter_mut().for_each(|weight| *weight *= factor);
                        self.factors.push(factor);
                    }
                }
            }
            deviation.add(&self.weights, &self.stored);
        }
        Ok(deviation)
    }

    /// The last of these rows, as the checkpoint has it and as it comes back.
    pub(crate) fn last_row(&self) -> (&[f32], &[f32]) {
        (&self.weights, &self.stored)
    }

    /// The factors of the rows that were encoded last, one each; none where the format has no such factors.
    pub(crate) fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// The rows that were encoded last, without their factors.
    pub(crate) fn rows(&self) -> SourceRows<'_> {
        if self.affine {
            SourceRows::Affine { codes: &self.codes, scales: &self.scales, biases: &self.biases }
        } else {
            SourceRows::Blocks(&self.codes)
        }
    }
}
