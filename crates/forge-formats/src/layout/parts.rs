//! Taking stored rows apart: codes, entries per block, and what super-blocks have.

use super::SourceRows;
use crate::Format;
use crate::decode::affine_code;
use crate::formats::{half_bits, scale_and_min};

/// One row, taken apart; vectors are reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct RowParts {
    /// One code per column.
    pub codes: Vec<u8>,
    /// Per plane of blocks or groups: one entry each.
    pub entries: Vec<Vec<u32>>,
    /// The bytes of the super-blocks.
    pub supers: Vec<u8>,
    /// What the row is multiplied by.
    pub factor: f32,
}

impl RowParts {
    /// Reads row `row` of the source, which is long enough.
    pub fn read(&mut self, format: Format, cols: usize, source: SourceRows<'_>, row: usize) {
        self.codes.clear();
        self.supers.clear();
        self.factor = 1.0;
        self.entries.resize(4, Vec::new());
        self.entries.iter_mut().for_each(Vec::clear);
        match source {
            SourceRows::Affine { codes, scales, biases } => self.read_affine(format, cols, codes, scales, biases, row),
            SourceRows::Factored { rows, factors } => {
                self.read(format, cols, *rows, row);
                self.factor = factors[row];
            }
            SourceRows::Apart { codes, scales } => self.read_apart(format, cols, codes, scales, row),
            SourceRows::Blocks(data) => {
                let row_bytes = cols / format.block_elements() * format.block_bytes();
                if let Some(known) = format.block() {
                    (known.take_apart)(&data[row * row_bytes..][..row_bytes], self);
                }
            }
        }
    }

    fn read_affine(&mut self, format: Format, cols: usize, codes: &[u8], scales: &[u8], biases: &[u8], row: usize) {
        let Format::Affine { bits, group } = format else { unreachable!("the source's kind has been checked") };
        let (bits, groups) = (usize::from(bits), cols / usize::from(group));
        let codes = &codes[row * cols * bits / 8..][..cols * bits / 8];
        self.codes.extend((0..cols).map(|i| affine_code(codes, bits, i)));
        self.entries[0].extend(
            (row * groups..(row + 1) * groups).map(|g| half_bits(scales, 2 * g) | half_bits(biases, 2 * g) << 16),
        );
    }

    fn read_apart(&mut self, format: Format, cols: usize, codes: &[u8], scales: &[u8], row: usize) {
        let known = format.apart().expect("the source's kind has been checked");
        let (code_bytes, groups) = (cols / 8 * known.bits, cols / known.group);
        let codes = &codes[row * code_bytes..][..code_bytes];
        self.codes.extend((0..cols).map(|i| affine_code(codes, known.bits, i)));
        self.entries[0].extend(scales[row * groups..][..groups].iter().map(|&scale| u32::from(scale)));
    }

    /// 16 bytes: low nibbles are columns 0 to 15, high ones 16 to 31.
    pub fn nibbles(&mut self, bytes: &[u8]) {
        self.codes.extend(bytes.iter().map(|b| b & 15));
        self.codes.extend(bytes.iter().map(|b| b >> 4));
    }

    /// Sets bit 4 of the last 32 codes.
    pub fn fifth_bits(&mut self, bytes: &[u8]) {
        let first = self.codes.len() - 32;
        for (i, code) in self.codes[first..].iter_mut().enumerate() {
            *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
        }
    }

    /// The head of Q4_K and Q5_K: scale with the low 2 bits of the minimum, then the minimum's other 4.
    pub fn scales_and_mins(&mut self, block: &[u8]) {
        self.supers.extend_from_slice(&block[..4]);
        for sub in 0..8 {
            let (scale, min) = scale_and_min(&block[4..16], sub);
            self.entries[0].push(u32::from(scale) | u32::from(min & 3) << 6);
            self.entries[1].push(u32::from(min >> 2));
        }
    }
}
