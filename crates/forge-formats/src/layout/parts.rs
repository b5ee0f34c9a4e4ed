//! Taking stored rows apart: codes, entries per block, and what super-blocks have.

use super::SourceRows;
use crate::Format;
use crate::decode::{affine_code, nibble, q3_k_scale, scale_and_min, six_bits, two_bits};

/// One row, taken apart; vectors are reused from row to row.
#[derive(Debug, Default)]
pub(super) struct RowParts {
    /// One code per column.
    pub codes: Vec<u8>,
    /// Per plane of blocks: one entry per block.
    pub entries: Vec<Vec<u32>>,
    /// The bytes of the super-blocks.
    pub supers: Vec<u8>,
}

/// The 16-bit value at byte `at`.
fn half_bits(block: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Scale at `at` and minimum after it.
fn two_halves(block: &[u8], at: usize) -> u32 {
    half_bits(block, at) | half_bits(block, at + 2) << 16
}

impl RowParts {
    /// Reads row `row` of the source, which is long enough.
    pub fn read(&mut self, format: Format, cols: usize, source: SourceRows<'_>, row: usize) {
        self.codes.clear();
        self.supers.clear();
        self.entries.resize(2, Vec::new());
        self.entries.iter_mut().for_each(Vec::clear);
        match source {
            SourceRows::Affine { codes, scales, biases } => self.read_affine(format, cols, codes, scales, biases, row),
            SourceRows::Blocks(data) => {
                let bytes = format.block_bytes();
                let row_bytes = cols / format.block_elements() * bytes;
                for block in data[row * row_bytes..][..row_bytes].chunks_exact(bytes) {
                    self.read_block(format, block);
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

    fn read_block(&mut self, format: Format, block: &[u8]) {
        match format {
            Format::Q8_0 => {
                self.entries[0].push(half_bits(block, 0));
                // 128 more than the signed weight, so that it decodes as an unsigned field.
                let quants: &[u8; 32] = block[2..].try_into().expect("a block of Q8_0");
                self.codes.extend_from_slice(&quants.map(|b| b ^ 0x80));
            }
            Format::Q4_0 | Format::Iq4Nl => {
                self.entries[0].push(half_bits(block, 0));
                self.nibbles(&block[2..]);
            }
            Format::Q4_1 => {
                self.entries[0].push(two_halves(block, 0));
                self.nibbles(&block[4..]);
            }
            Format::Q5_0 => {
                self.entries[0].push(half_bits(block, 0));
                self.nibbles(&block[6..]);
                self.fifth_bits(&block[2..6]);
            }
            Format::Q5_1 => {
                self.entries[0].push(two_halves(block, 0));
                self.nibbles(&block[8..]);
                self.fifth_bits(&block[4..8]);
            }
            Format::Mxfp4 => {
                self.entries[0].push(block[0].into());
                self.nibbles(&block[1..]);
            }
            Format::Q1_0 => {
                self.entries[0].push(half_bits(block, 0));
                self.codes.extend((0..128).map(|i| block[2 + i / 8] >> (i % 8) & 1));
            }
            Format::Tq2_0G128 => {
                self.entries[0].push(half_bits(block, 32));
                // Code 3 means 0, as code 1 does; kernels know 0, 1 and 2 only.
                self.codes.extend((0..128).map(|i| match block[i / 4] >> (i % 4 * 2) & 3 {
                    3 => 1,
                    code => code,
                }));
            }
            Format::Q2K => {
                self.entries[0].extend(block[..16].iter().map(|&b| u32::from(b)));
                self.codes.extend((0..256).map(|e| two_bits(&block[16..80], e)));
                self.supers.extend_from_slice(&block[80..84]);
            }
            Format::Q3K => {
                let (hmask, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
                self.codes.extend((0..256).map(|e| (hmask[e % 32] >> (e / 32) & 1) << 2 | two_bits(qs, e)));
                for sub in 0..16 {
                    let scale = u32::from(q3_k_scale(scales, sub));
                    self.entries[0].push(scale & 15);
                    self.entries[1].push(scale >> 4);
                }
                self.supers.extend_from_slice(&block[108..110]);
            }
            Format::Q4K => {
                self.scales_and_mins(block);
                self.codes.extend((0..256).map(|e| nibble(&block[16..], e)));
            }
            Format::Q5K => {
                self.scales_and_mins(block);
                let (qh, qs) = (&block[16..48], &block[48..]);
                self.codes.extend((0..256).map(|e| (qh[e % 32] >> (e / 32) & 1) << 4 | nibble(qs, e)));
            }
            Format::Q6K => {
                self.codes.extend((0..256).map(|e| six_bits(block, e)));
                // 128 more than the signed scale, so that it decodes as an unsigned field.
                self.entries[0].extend(block[192..208].iter().map(|&b| u32::from(b ^ 0x80)));
                self.supers.extend_from_slice(&block[208..210]);
            }
            Format::F32 | Format::F16 | Format::BF16 | Format::Affine { .. } => {
                unreachable!("floats are copied and affine rows are not blocks")
            }
        }
    }

    /// 16 bytes: low nibbles are columns 0 to 15, high ones 16 to 31.
    fn nibbles(&mut self, bytes: &[u8]) {
        self.codes.extend(bytes.iter().map(|b| b & 15));
        self.codes.extend(bytes.iter().map(|b| b >> 4));
    }

    /// Sets bit 4 of the last 32 codes.
    fn fifth_bits(&mut self, bytes: &[u8]) {
        let first = self.codes.len() - 32;
        for (i, code) in self.codes[first..].iter_mut().enumerate() {
            *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
        }
    }

    /// The head of Q4_K and Q5_K: scale with the low 2 bits of the minimum, then the minimum's other 4.
    fn scales_and_mins(&mut self, block: &[u8]) {
        self.supers.extend_from_slice(&block[..4]);
        for sub in 0..8 {
            let (scale, min) = scale_and_min(&block[4..16], sub);
            self.entries[0].push(u32::from(scale) | u32::from(min & 3) << 6);
            self.entries[1].push(u32::from(min >> 2));
        }
    }
}
