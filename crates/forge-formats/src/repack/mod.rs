//! Tensors of other toolchains whose numbers a format here holds to the bit: which tensors they are, and how its rows are made
//! of them.
//!
//! Nothing is quantised a second time, and nothing rounded: a weight decodes to the number that the toolchain's own formula gives,
//! scale times code in f32.

mod e4m3;
mod integers;

use std::fmt;
use std::ops::Range;

pub use e4m3::E4m3Matrix;
pub use integers::{IntegerMatrix, Packing, Zeros};

use crate::{Format, FormatError, Pairs, SourceRows};

/// A matrix of another toolchain, of several tensors.
#[derive(Clone, Debug, PartialEq)]
pub enum Repack {
    /// E4M3 bytes with scales. Parts: codes, scales.
    E4m3(E4m3Matrix),
    /// Whole numbers of a few bits. Parts: codes, scales, and zero points where they are stored.
    Integers(IntegerMatrix),
}

/// Rows that were made, and the memory to make others.
#[derive(Debug, Default)]
pub struct Repacked {
    affine: bool,
    /// Blocks, or the codes of affine rows.
    codes: Vec<u8>,
    scales: Vec<u8>,
    /// Biases or zero points.
    biases: Vec<u8>,
}

impl Repack {
    /// The format that rows are made in.
    ///
    /// # Errors
    /// A width or group size that none has.
    pub fn format(&self) -> Result<Format, FormatError> {
        match self {
            Self::E4m3(matrix) => matrix.format(),
            Self::Integers(matrix) => matrix.format(),
        }
    }

    /// What stands beside codes, where the format is affine.
    pub fn pairs(&self) -> Pairs {
        match self {
            Self::E4m3(_) => Pairs::default(),
            Self::Integers(matrix) => matrix.pairs(),
        }
    }

    /// Bytes of each part.
    pub fn part_bytes(&self) -> Vec<u64> {
        match self {
            Self::E4m3(matrix) => matrix.part_bytes(),
            Self::Integers(matrix) => matrix.part_bytes(),
        }
    }

    /// Makes some of the matrix's rows in `out`. `parts` are whole.
    ///
    /// # Errors
    /// A weight that is no number, or scales that are not those of the format.
    ///
    /// # Panics
    /// Parts that are not of [`Self::part_bytes`].
    pub fn rows(&self, parts: &[&[u8]], rows: Range<usize>, out: &mut Repacked) -> Result<(), FormatError> {
        let lengths = parts.iter().map(|part| part.len() as u64).collect::<Vec<_>>();
        assert_eq!(lengths, self.part_bytes(), "the front end has checked the parts");
        out.clear();
        match self {
            Self::E4m3(matrix) => matrix.rows(parts, rows, out),
            Self::Integers(matrix) => matrix.rows(parts, rows, out),
        }
    }
}

impl fmt::Display for Repack {
    /// What a checkpoint's owner calls it: `FP8 E4M3 128x128`, `GPTQ int4 g128`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::E4m3(matrix) => matrix.fmt(f),
            Self::Integers(matrix) => matrix.fmt(f),
        }
    }
}

impl Repacked {
    fn clear(&mut self) {
        self.affine = false;
        for part in [&mut self.codes, &mut self.scales, &mut self.biases] {
            part.clear();
        }
    }

    /// The rows that were made last.
    pub fn source(&self) -> SourceRows<'_> {
        if self.affine {
            SourceRows::Affine { codes: &self.codes, scales: &self.scales, biases: &self.biases }
        } else {
            SourceRows::Blocks(&self.codes)
        }
    }
}
