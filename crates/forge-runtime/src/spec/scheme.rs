//! How rows of a packed matrix lie: planes, and what a column has in each.

/// Columns of a tile.
pub const TILE: usize = 256;

/// A plane of a packed matrix: all rows in order, without padding between them, from a multiple of 256 bytes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
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
        /// Bits: 1, 2, 4, 8, 16 or 32; less than 8 only where rows are whole tiles.
        bits: usize,
    },
    /// The same for an entry per so many columns, whole tiles in a row.
    Groups {
        /// Columns that share an entry.
        columns: usize,
        /// Bits: 4, 16 or 32.
        bits: usize,
    },
    /// An entry of so many bits per so many lanes and tile, whole tiles in a row. Within a group of T tiles those of the same lanes
    /// follow one another as one number, the first tile's lowest, which lies in [parts](Plane::parts).
    Split {
        /// Lanes that share an entry.
        lanes: usize,
        /// Bits of an entry.
        bits: usize,
    },
    /// A point of 11 bits per lane and tile, and a number per so many lanes and tile, of as many bits; whole tiles in a row. Within a group
    /// of T tiles a lane's T points and then T bits are one number, which lies in [parts](Plane::parts). The bits of lanes that share
    /// numbers, lane by lane, are their T numbers.
    Points {
        /// Lanes that share a number: 1 or 4.
        lanes: usize,
    },
    /// What a super-block of 256 columns has, in column order.
    Supers {
        /// Bytes per super-block.
        bytes: usize,
    },
    /// A binary32 a row, which all of the row is multiplied by.
    RowFactor,
}

impl Plane {
    /// Codes of 2 bits.
    pub const CODES_2: Self = Self::Codes { shift: 0, bits: 2 };
    /// Codes of 4 bits, or the low four of longer ones.
    pub const CODES_4: Self = Self::Codes { shift: 0, bits: 4 };
    /// Codes of 8 bits.
    pub const CODES_8: Self = Self::Codes { shift: 0, bits: 8 };
    /// The third bit of codes of 3.
    pub const THIRD_BIT: Self = Self::Codes { shift: 2, bits: 1 };
    /// The fifth bit of codes of 5.
    pub const FIFTH_BIT: Self = Self::Codes { shift: 4, bits: 1 };
    /// The upper two bits of codes of 6.
    pub const TOP_2_OF_6: Self = Self::Codes { shift: 4, bits: 2 };
    /// Two bits a block.
    pub const PAIR: Self = Self::Blocks { bits: 2 };
    /// Four bits a block.
    pub const NIBBLE: Self = Self::Blocks { bits: 4 };
    /// A byte a block.
    pub const BYTE: Self = Self::Blocks { bits: 8 };
    /// A half a block.
    pub const HALF: Self = Self::Blocks { bits: 16 };
    /// Two halves a block, or one binary32.
    pub const TWO_HALVES: Self = Self::Blocks { bits: 32 };
    /// A half a super-block.
    pub const FACTOR: Self = Self::Supers { bytes: 2 };
    /// Two halves a super-block.
    pub const TWO_FACTORS: Self = Self::Supers { bytes: 4 };

    /// Bits of a point of [`Plane::Points`].
    pub const POINT_BITS: usize = 11;

    /// The parts in which a number of so many bits a tile lies: their bits a tile, that with the lowest first. Each is a power of two, so that a
    /// lane loads it as it is, the largest first; a part lies with those of the other lanes, the next behind these.
    pub fn parts(bits: usize) -> impl Iterator<Item = usize> {
        (0..usize::BITS).rev().map(|i| 1 << i).filter(move |part| bits & part != 0)
    }

    /// Bytes of a row of `cols` columns, a whole number of blocks of `block`.
    pub fn row_bytes(self, block: usize, cols: usize) -> usize {
        match self {
            Self::Values { bytes } => cols * bytes,
            Self::Codes { bits, .. } => cols * bits / 8,
            Self::Bits => cols / 8,
            Self::Blocks { bits } => cols / block * bits / 8,
            Self::Groups { columns, bits } => cols / columns * bits / 8,
            Self::Split { lanes, bits, .. } => cols / (8 * lanes) * bits / 8,
            Self::Points { .. } => cols / 8 * (Self::POINT_BITS + 1) / 8,
            Self::Supers { bytes } => cols / TILE * bytes,
            Self::RowFactor => 4,
        }
    }
}

/// How a format's rows lie.
///
/// A row is cut into tiles of 256 columns. In a tile each of the 32 lanes of a simdgroup owns 8 columns of one block: `block / 8`
/// lanes share one, and a lane owns two runs of four columns half a block apart. Up to `tiles` tiles form a group in which a
/// lane's codes lie together; what is left of a row follows in groups of 4, 2 and 1 tiles and a partial tile.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    /// Columns that share an entry of [`Plane::Blocks`]; sets which lanes own them.
    pub block: usize,
    /// Tiles in a whole group.
    pub tiles: usize,
    /// Planes in the order of the file.
    pub planes: &'static [Plane],
}

impl Scheme {
    /// Bytes of a row of `cols` columns in all planes.
    pub fn row_bytes(&self, cols: usize) -> usize {
        self.planes.iter().map(|plane| plane.row_bytes(self.block, cols)).sum()
    }
}
