//! Which planes each format has.

use super::TILE;
use crate::Format;

/// A plane of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plane {
    /// Plain values, row by row, as stored.
    Values {
        /// Bytes of a value.
        bytes: usize,
    },
    /// `bits` bits of each code, from bit `shift` on, in lane order.
    Codes {
        /// Lowest bit of the code that lies here.
        shift: u32,
        /// Bits: 1, 2, 4 or 8.
        bits: usize,
    },
    /// Codes of 1 bit, a byte per lane and tile with the lane's columns in order.
    Bits,
    /// One entry of so many bits per block, within a group of tiles ordered by block in the tile, then tile.
    Blocks {
        /// Bits: 2, 4, 8, 16 or 32; less than 8 only where rows are whole tiles.
        bits: usize,
    },
    /// What a super-block of 256 columns has, in column order.
    Supers {
        /// Bytes per super-block.
        bytes: usize,
    },
}

/// How a format is packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scheme {
    /// Columns that share an entry of [`Plane::Blocks`]; sets which lanes own them.
    pub block: usize,
    /// Tiles in a whole group.
    pub tiles: usize,
    /// Planes in file order.
    pub planes: &'static [Plane],
}

const CODES_2: Plane = Plane::Codes { shift: 0, bits: 2 };
const CODES_4: Plane = Plane::Codes { shift: 0, bits: 4 };
const CODES_8: Plane = Plane::Codes { shift: 0, bits: 8 };
const THIRD_BIT: Plane = Plane::Codes { shift: 2, bits: 1 };
const FIFTH_BIT: Plane = Plane::Codes { shift: 4, bits: 1 };
const TOP_2_OF_6: Plane = Plane::Codes { shift: 4, bits: 2 };
const BYTE: Plane = Plane::Blocks { bits: 8 };
const NIBBLE: Plane = Plane::Blocks { bits: 4 };
const HALF: Plane = Plane::Blocks { bits: 16 };
const TWO_HALVES: Plane = Plane::Blocks { bits: 32 };

impl Scheme {
    /// The scheme of a format.
    pub fn of(format: Format) -> Self {
        let scheme = |block, tiles, planes| Self { block, tiles, planes };
        match format {
            Format::F32 => scheme(8, 1, &[Plane::Values { bytes: 4 }]),
            Format::F16 | Format::BF16 => scheme(8, 1, &[Plane::Values { bytes: 2 }]),
            Format::Q8_0 => scheme(32, 2, &[CODES_8, HALF]),
            Format::Q4_0 | Format::Iq4Nl => scheme(32, 4, &[CODES_4, HALF]),
            Format::Q4_1 => scheme(32, 4, &[CODES_4, TWO_HALVES]),
            Format::Q5_0 => scheme(32, 4, &[CODES_4, FIFTH_BIT, HALF]),
            Format::Q5_1 => scheme(32, 4, &[CODES_4, FIFTH_BIT, TWO_HALVES]),
            Format::Mxfp4 => scheme(32, 4, &[CODES_4, BYTE]),
            Format::Q1_0 => scheme(128, 4, &[Plane::Bits, HALF]),
            Format::Tq2_0G128 => scheme(128, 4, &[CODES_2, HALF]),
            Format::Q2K => scheme(16, 4, &[CODES_2, BYTE, Plane::Supers { bytes: 4 }]),
            Format::Q3K => {
                const HIGH: Plane = Plane::Blocks { bits: 2 };
                scheme(16, 4, &[CODES_2, THIRD_BIT, NIBBLE, HIGH, Plane::Supers { bytes: 2 }])
            }
            Format::Q4K => scheme(32, 4, &[CODES_4, BYTE, NIBBLE, Plane::Supers { bytes: 4 }]),
            Format::Q5K => scheme(32, 4, &[CODES_4, FIFTH_BIT, BYTE, NIBBLE, Plane::Supers { bytes: 4 }]),
            Format::Q6K => scheme(16, 4, &[CODES_4, TOP_2_OF_6, BYTE, Plane::Supers { bytes: 2 }]),
            Format::Affine { bits, group } => {
                let planes: &'static [Plane] = match bits {
                    2 => &[CODES_2, TWO_HALVES],
                    3 => &[CODES_2, THIRD_BIT, TWO_HALVES],
                    4 => &[CODES_4, TWO_HALVES],
                    5 => &[CODES_4, FIFTH_BIT, TWO_HALVES],
                    6 => &[CODES_4, TOP_2_OF_6, TWO_HALVES],
                    _ => &[CODES_8, TWO_HALVES],
                };
                scheme(usize::from(group), if bits == 8 { 2 } else { 4 }, planes)
            }
        }
    }

    /// The groups of tiles of a row.
    pub fn groups(&self, cols: usize) -> impl Iterator<Item = Group> + use<> {
        let (tiles, whole) = (self.tiles, cols / TILE);
        let mut tile = 0;
        std::iter::from_fn(move || {
            let group = match whole.saturating_sub(tile) {
                0 if tile * TILE < cols => Group { tile, count: 1, cols: cols - tile * TILE },
                0 => return None,
                left => {
                    let count = if left >= tiles { tiles } else { 1 << left.ilog2() };
                    Group { tile, count, cols: TILE }
                }
            };
            tile += group.count;
            // The partial tile is the last group.
            if group.cols < TILE {
                tile = usize::MAX / TILE;
            }
            Some(group)
        })
        .fuse()
    }
}

/// Tiles whose codes lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// First tile.
    pub tile: usize,
    /// Number of tiles.
    pub count: usize,
    /// Columns of each tile: 256, or less in the partial one.
    pub cols: usize,
}

impl Plane {
    /// Bytes of a row of `cols` columns, a whole number of blocks.
    pub fn row_bytes(self, scheme: &Scheme, cols: usize) -> usize {
        match self {
            Self::Values { bytes } => cols * bytes,
            Self::Codes { bits, .. } => cols * bits / 8,
            Self::Bits => cols / 8,
            Self::Blocks { bits } => cols / scheme.block * bits / 8,
            Self::Supers { bytes } => cols / TILE * bytes,
        }
    }
}
