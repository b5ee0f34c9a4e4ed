//! Which planes each format has.

use super::TILE;
use crate::Format;

/// A plane of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
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
    /// The same for an entry per so many columns, whole tiles in a row.
    Groups {
        /// Columns that share an entry.
        columns: usize,
        /// Bits: 4, 16 or 32.
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
pub(crate) struct Scheme {
    /// Columns that share an entry of [`Plane::Blocks`]; sets which lanes own them.
    pub block: usize,
    /// Tiles in a whole group.
    pub tiles: usize,
    /// Planes in file order.
    pub planes: &'static [Plane],
}

impl Plane {
    pub(crate) const CODES_2: Self = Self::Codes { shift: 0, bits: 2 };
    pub(crate) const CODES_4: Self = Self::Codes { shift: 0, bits: 4 };
    pub(crate) const CODES_8: Self = Self::Codes { shift: 0, bits: 8 };
    pub(crate) const THIRD_BIT: Self = Self::Codes { shift: 2, bits: 1 };
    pub(crate) const FIFTH_BIT: Self = Self::Codes { shift: 4, bits: 1 };
    pub(crate) const TOP_2_OF_6: Self = Self::Codes { shift: 4, bits: 2 };
    pub(crate) const BYTE: Self = Self::Blocks { bits: 8 };
    pub(crate) const NIBBLE: Self = Self::Blocks { bits: 4 };
    pub(crate) const HALF: Self = Self::Blocks { bits: 16 };
    pub(crate) const TWO_HALVES: Self = Self::Blocks { bits: 32 };
}

impl Scheme {
    /// The scheme of a format.
    pub fn of(format: Format) -> Self {
        match format {
            Format::Affine { bits, group } => {
                let planes: &'static [Plane] = match bits {
                    2 => &[Plane::CODES_2, Plane::TWO_HALVES],
                    3 => &[Plane::CODES_2, Plane::THIRD_BIT, Plane::TWO_HALVES],
                    4 => &[Plane::CODES_4, Plane::TWO_HALVES],
                    5 => &[Plane::CODES_4, Plane::FIFTH_BIT, Plane::TWO_HALVES],
                    6 => &[Plane::CODES_4, Plane::TOP_2_OF_6, Plane::TWO_HALVES],
                    _ => &[Plane::CODES_8, Plane::TWO_HALVES],
                };
                Self { block: usize::from(group), tiles: if bits == 8 { 2 } else { 4 }, planes }
            }
            _ => format.block().expect("every format but affine lies in blocks").scheme,
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
pub(crate) struct Group {
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
            Self::Groups { columns, bits } => cols / columns * bits / 8,
            Self::Supers { bytes } => cols / TILE * bytes,
        }
    }
}
