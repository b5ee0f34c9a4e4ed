//! Weights read back from their packed form, one row at a time, for the reference implementations.
//!
//! Written from the description of the layout ([`Scheme`](super::super::spec::Scheme)), not from the kernels or the packer. What
//! the bits mean that a column has is [`Format::weight`].

use super::super::spec::{Fields, Format, Plane, TILE, Weight};

/// A packed matrix.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// All of its bytes.
    pub bytes: &'a [u8],
    /// How they are packed.
    pub format: Format,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

impl Packed<'_> {
    /// Decodes row `row` into `out`, `[cols]`.
    pub fn row(&self, row: usize, out: &mut [Weight]) {
        let scheme = self.format.scheme();
        let mut start = 0;
        // The row's bytes in each plane.
        let planes: Vec<(Plane, &[u8])> = scheme
            .planes
            .iter()
            .map(|plane| {
                let bytes = plane.row_bytes(scheme.block, self.cols);
                let first = start + row * bytes;
                start = (start + self.rows * bytes).next_multiple_of(256);
                (*plane, &self.bytes[first..first + bytes])
            })
            .collect();
        for (col, weight) in out.iter_mut().enumerate() {
            let at = Column::new(self.cols, col, scheme.block, scheme.tiles);
            let mut fields = Fields { planes: [0; 6], column: at.in_tile, element: at.element, tile: at.tile };
            for (field, (plane, row)) in fields.planes.iter_mut().zip(&planes) {
                *field = at.field(*plane, row);
            }
            *weight = self.format.weight(&fields);
        }
    }
}

/// Where a column lies in its row.
struct Column {
    block: usize,
    /// First tile of the column's group.
    first: usize,
    /// Tiles in the group.
    count: usize,
    /// Tile within the group.
    tile: usize,
    /// Column within the tile.
    in_tile: usize,
    lane: usize,
    /// Which of the lane's eight columns.
    element: usize,
}

impl Column {
    fn new(cols: usize, col: usize, block: usize, tiles: usize) -> Self {
        let (whole, wanted) = (cols / TILE, col / TILE);
        let (mut first, mut count) = (0, 1);
        // Groups from the left until the one that holds the column.
        while first < whole {
            let left = whole - first;
            count = if left >= tiles {
                tiles
            } else if left >= 4 {
                4
            } else if left >= 2 {
                2
            } else {
                1
            };
            if wanted < first + count {
                break;
            }
            first += count;
            count = 1;
        }
        let (in_tile, half_block) = (col % TILE, block / 2);
        let in_half = in_tile % half_block;
        Self {
            block,
            first,
            count,
            tile: wanted - first,
            in_tile,
            lane: in_tile / block * (block / 8) + in_half / 4,
            element: in_tile % block / half_block * 4 + in_half % 4,
        }
    }

    /// What the column has in a row of a plane.
    fn field(&self, plane: Plane, row: &[u8]) -> u64 {
        match plane {
            Plane::Values { bytes } => {
                little_endian(row, ((self.first + self.tile) * TILE + self.in_tile) * bytes, bytes)
            }
            Plane::Codes { bits, .. } => self.code(row, bits),
            Plane::Bits => {
                let byte = row[self.first * TILE / 8 + self.lane * self.count + self.tile];
                u64::from(byte >> self.element & 1)
            }
            Plane::Blocks { bits } => self.entry(row, self.block, bits),
            Plane::Groups { columns, bits } => self.entry(row, columns, bits),
            Plane::Split { lanes, bits } => {
                self.split(row, self.lane / lanes, lanes, bits) >> (self.tile * bits) & ((1 << bits) - 1)
            }
            Plane::Points { lanes } => self.point(row, lanes),
            Plane::Supers { bytes } => little_endian(row, (self.first + self.tile) * bytes, bytes),
            Plane::RowFactor => little_endian(row, 0, 4),
        }
    }

    fn code(&self, row: &[u8], bits: usize) -> u64 {
        // A lane's eight codes of a tile take as many bytes as a code has bits.
        let lane = self.first * TILE * bits / 8 + self.lane * self.count * bits;
        if bits == 8 {
            return row[lane + self.tile * 8 + self.element].into();
        }
        let word_bits = (self.count * 8 * bits).min(32);
        let tiles_a_word = word_bits / (8 * bits);
        let word = little_endian(row, lane + self.tile / tiles_a_word * (word_bits / 8), word_bits / 8);
        let (pair, second) = (self.element / 2, self.element % 2);
        let place = if word_bits == 32 { second * 16 + pair * 4 } else { self.element * (word_bits / 8) };
        word >> (place + self.tile % tiles_a_word * bits) & ((1 << bits) - 1)
    }

    /// The entry of so many bits of the `columns` columns that this one is among.
    fn entry(&self, row: &[u8], columns: usize, bits: usize) -> u64 {
        let entry = self.first * (TILE / columns) + self.in_tile / columns * self.count + self.tile;
        let first_bit = entry * bits;
        if bits >= 8 {
            return little_endian(row, first_bit / 8, bits / 8);
        }
        u64::from(row[first_bit / 8]) >> (first_bit % 8) & ((1 << bits) - 1)
    }
}

impl Column {
    /// The number that a place's entries of the group's tiles are, which lies in parts, the largest power of two of its bits first.
    fn split(&self, row: &[u8], place: usize, lanes: usize, bits: usize) -> u64 {
        let places = TILE / 8 / lanes;
        let (mut start, mut number, mut known) = (self.first * places * bits, 0, 0);
        for part in [8, 4, 2, 1].into_iter().filter(|part| bits & part != 0) {
            let size = part * self.count;
            number |= field_at(row, start + place * size, size) << known;
            start += places * size;
            known += size;
        }
        number
    }

    /// A point, with the number of the lanes that the column's is among above it.
    fn point(&self, row: &[u8], lanes: usize) -> u64 {
        let [points, bits] = [Plane::POINT_BITS * self.count, self.count];
        let of_lane = |lane: usize| self.split(row, lane, 1, Plane::POINT_BITS + 1);
        let point = of_lane(self.lane) >> (Plane::POINT_BITS * self.tile) & ((1 << Plane::POINT_BITS) - 1);
        let first = self.lane / lanes * lanes;
        let numbers = (0..lanes).fold(0, |all, lane| all | of_lane(first + lane) >> points << (lane * bits));
        point | (numbers >> (self.tile * lanes) & ((1 << lanes) - 1)) << Plane::POINT_BITS
    }
}

/// So many bits from a bit on, 32 at most.
fn field_at(bytes: &[u8], bit: usize, bits: usize) -> u64 {
    let count = (bit % 8 + bits).div_ceil(8);
    little_endian(bytes, bit / 8, count) >> (bit % 8) & ((1 << bits) - 1)
}

fn little_endian(bytes: &[u8], at: usize, count: usize) -> u64 {
    bytes[at..at + count].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}
