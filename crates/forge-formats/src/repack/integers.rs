//! Codes of a few bits in words of 32, with scales and zero points by group: GPTQ, AWQ and compressed-tensors' `pack-quantized`.

use std::fmt;
use std::ops::Range;

use half::{bf16, f16};

use super::Repacked;
use crate::{Format, FormatError, Pairs};

/// Which output column each nibble of AWQ's words holds, of the word's eight.
const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// How codes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// `qweight` `[cols * bits / 32, rows]`, a stream of bits down each output; `qzeros` `[groups, rows * bits / 32]`, a stream along
    /// the outputs; scales `[groups, rows]`.
    Gptq {
        /// What is added to a stored zero point, modulo the codes there are: 1 in the format `gptq`, 0 in `gptq_v2`.
        zero_offset: u8,
    },
    /// `qweight` `[cols, rows / 8]` and `qzeros` `[groups, rows / 8]`, eight outputs a word in an order of its own; scales `[groups,
    /// rows]`.
    Awq,
    /// `weight_packed` `[rows, cols * bits / 32]`; `weight_zero_point` `[rows * bits / 32, groups]`, a stream down the rows; scales
    /// `[rows, groups]`. Codes and zero points are stored half their range too large.
    Compressed,
}

/// Where zero points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// All are the middle of the codes.
    Middle,
    /// In a tensor.
    Stored,
}

/// A matrix of codes: a weight is `scale * (code - zero)`.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerMatrix {
    /// How they lie.
    pub packing: Packing,
    /// Bits of a code.
    pub bits: u32,
    /// Columns that share a scale.
    pub group: usize,
    /// Rows: outputs.
    pub rows: usize,
    /// Columns: inputs.
    pub cols: usize,
    /// F16 or BF16.
    pub scale_format: Format,
    /// Where zero points are.
    pub zeros: Zeros,
}

impl IntegerMatrix {
    /// The affine format that rows are made in. A group of more than 128 columns becomes several with the same scale.
    ///
    /// # Errors
    /// Bits or a group size that affine quantisation does not have.
    pub fn format(&self) -> Result<Format, FormatError> {
        let fits = |group: &usize| self.group.is_multiple_of(*group) && self.cols.is_multiple_of(*group);
        let group = [128, 64, 32].into_iter().find(fits).unwrap_or(self.group);
        Format::affine(self.bits, u32::try_from(group).unwrap_or(u32::MAX))
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.cols.div_ceil(self.group)
    }

    /// Shapes of codes, scales and zero points, of 32-bit words where they are packed.
    pub fn shapes(&self) -> [[usize; 2]; 3] {
        let words = |codes: usize| (codes * self.bits as usize).div_ceil(32);
        let (rows, cols, groups) = (self.rows, self.cols, self.groups());
        match self.packing {
            Packing::Gptq { .. } => [[words(cols), rows], [groups, rows], [groups, words(rows)]],
            Packing::Awq => [[cols, words(rows)], [groups, rows], [groups, words(rows)]],
            Packing::Compressed => [[rows, words(cols)], [rows, groups], [words(rows), groups]],
        }
    }

    pub(super) fn pairs(&self) -> Pairs {
        Pairs { bf16: self.scale_format == Format::BF16, zeros: self.zeros == Zeros::Stored }
    }

    pub(super) fn part_bytes(&self) -> Vec<u64> {
        let [codes, scales, zeros] = self.shapes().map(|[rows, cols]| rows as u64 * cols as u64);
        let stored = (self.zeros == Zeros::Stored).then_some(4 * zeros);
        [4 * codes, 2 * scales].into_iter().chain(stored).collect()
    }

    /// Whether every stored zero point is the middle of the codes.
    pub fn zeros_are_middle(&self, zeros: &[u8]) -> bool {
        let middle = 1 << (self.bits - 1);
        (0..self.rows).all(|row| (0..self.groups()).all(|group| self.zero(zeros, row, group) == middle))
    }

    /// The code of a weight.
    fn code(&self, codes: &[u8], row: usize, col: usize) -> u32 {
        let [_, width] = self.shapes()[0];
        match self.packing {
            Packing::Gptq { .. } => field(codes, self.bits, col, |word| word * width + row),
            Packing::Awq => awq_nibble(codes, col * width, row),
            Packing::Compressed => field(codes, self.bits, col, |word| row * width + word),
        }
    }

    /// The zero point of a group.
    fn zero(&self, zeros: &[u8], row: usize, group: usize) -> u32 {
        let [_, width] = self.shapes()[2];
        match self.packing {
            Packing::Gptq { zero_offset } => {
                let stored = field(zeros, self.bits, row, |word| group * width + word);
                (stored + u32::from(zero_offset)) & ((1 << self.bits) - 1)
            }
            Packing::Awq => awq_nibble(zeros, group * width, row),
            Packing::Compressed => field(zeros, self.bits, row, |word| word * width + group),
        }
    }

    /// The two bytes of a group's scale.
    fn scale<'a>(&self, scales: &'a [u8], row: usize, group: usize) -> &'a [u8] {
        let [_, width] = self.shapes()[1];
        let index = match self.packing {
            Packing::Gptq { .. } | Packing::Awq => group * width + row,
            Packing::Compressed => row * width + group,
        };
        &scales[2 * index..][..2]
    }

    pub(super) fn rows(&self, parts: &[&[u8]], rows: Range<usize>, out: &mut Repacked) -> Result<(), FormatError> {
        out.affine = true;
        let format = self.format()?;
        let group = format.block_elements();
        let bits = self.bits as usize;
        let middle = 1 << (self.bits - 1);
        for row in rows {
            let (mut pending, mut filled) = (0_u32, 0);
            for col in 0..self.cols {
                pending |= self.code(parts[0], row, col) << filled;
                filled += bits;
                while filled >= 8 {
                    out.codes.push(pending as u8);
                    pending >>= 8;
                    filled -= 8;
                }
            }
            for first in (0..self.cols).step_by(group) {
                let of = first / self.group;
                let scale = self.scale(parts[1], row, of);
                out.scales.extend_from_slice(scale);
                let bias = match self.zeros {
                    // The middle is a power of two: the product has the scale's own digits.
                    Zeros::Middle => self.stored(-self.number(scale) * middle as f32),
                    Zeros::Stored => self.stored(self.zero(parts[2], row, of) as f32),
                };
                out.biases.extend(bias.ok_or(FormatError::Unrepresentable { format, value: self.number(scale) })?);
            }
        }
        Ok(())
    }

    fn number(&self, bytes: &[u8]) -> f32 {
        let bytes = [bytes[0], bytes[1]];
        match self.scale_format {
            Format::BF16 => bf16::from_le_bytes(bytes).to_f32(),
            _ => f16::from_le_bytes(bytes).to_f32(),
        }
    }

    /// A number in the format of the scales, if that has it.
    fn stored(&self, number: f32) -> Option<[u8; 2]> {
        let (bytes, back) = match self.scale_format {
            Format::BF16 => (bf16::from_f32(number).to_le_bytes(), bf16::from_f32(number).to_f32()),
            _ => (f16::from_f32(number).to_le_bytes(), f16::from_f32(number).to_f32()),
        };
        (back == number).then_some(bytes)
    }
}

impl fmt::Display for IntegerMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let toolchain = match self.packing {
            Packing::Gptq { .. } => "GPTQ",
            Packing::Awq => "AWQ",
            Packing::Compressed => "compressed-tensors",
        };
        write!(f, "{toolchain} int{}", self.bits)?;
        if self.group >= self.cols { f.write_str(" per channel") } else { write!(f, " g{}", self.group) }
    }
}

fn word(words: &[u8], index: usize) -> u32 {
    let at = 4 * index;
    u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]])
}

/// Field `index` of `bits` bits of a stream whose words lie where `place` says, low bits first.
fn field(words: &[u8], bits: u32, index: usize, place: impl Fn(usize) -> usize) -> u32 {
    let bit = index * bits as usize;
    let (first, shift) = (bit / 32, bit % 32);
    let mut value = u64::from(word(words, place(first))) >> shift;
    if shift + bits as usize > 32 {
        value |= u64::from(word(words, place(first + 1))) << (32 - shift);
    }
    (value & ((1 << bits) - 1)) as u32
}

/// The nibble of output `row` in a row of AWQ's words that begins at `first`.
fn awq_nibble(words: &[u8], first: usize, row: usize) -> u32 {
    let nibble = AWQ_ORDER.iter().position(|&column| column == row % 8).expect("one of eight");
    word(words, first + row / 8) >> (4 * nibble) & 15
}
