//! Weights read back from their packed form, one row at a time, for the reference implementations.
//!
//! Written from the description of the layout, not from the kernels: a row is cut into tiles of 256 columns; with `block`
//! columns a block, `block / 8` lanes share one, and a lane owns two runs of four columns half a block apart. Up to
//! `tiles` tiles form a group in which a lane's codes lie together; what is left follows in groups of 4, 2 and 1 tiles
//! and a partial tile. Codes, and then what scales them, are planes with all rows in order, each from a multiple of 256
//! bytes.

mod grids;

use super::super::spec::Format;

/// Columns of a tile.
const TILE: usize = 256;

/// Levels of [`Format::Iq4Nl`] and [`Format::Iq4Xs`] (GGML's `kvalues_iq4nl`).
const IQ4_NL: [f64; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

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

/// One weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weight {
    /// The weight.
    pub value: f64,
    /// Size of the terms it is the sum of, such as scale * (code + offset): what rounding errors are relative to.
    pub magnitude: f64,
}

impl Weight {
    fn exact(value: f64) -> Self {
        Self { value, magnitude: value.abs() }
    }

    /// `scale * (code - offset)`.
    fn offset(scale: f64, code: u32, offset: u32) -> Self {
        let (code, offset) = (f64::from(code), f64::from(offset));
        Self { value: scale * (code - offset), magnitude: scale.abs() * (code + offset) }
    }

    /// `scale * code + bias`.
    fn affine(scale: f64, code: u32, bias: f64) -> Self {
        let product = scale * f64::from(code);
        Self { value: product + bias, magnitude: product.abs() + bias.abs() }
    }
}

impl Packed<'_> {
    /// Decodes row `row` into `out`, `[cols]`.
    pub fn row(&self, row: usize, out: &mut [Weight]) {
        for (col, weight) in out.iter_mut().enumerate() {
            *weight = self.weight(row, col);
        }
    }

    fn weight(&self, row: usize, col: usize) -> Weight {
        let mut planes = Planes { packed: *self, row, start: 0 };
        match self.format {
            Format::F32 => {
                let at = (row * self.cols + col) * 4;
                Weight::exact(f64::from(f32::from_le_bytes(std::array::from_fn(|i| self.bytes[at + i]))))
            }
            Format::F16 => Weight::exact(half(self.half_word(row, col))),
            Format::BF16 => Weight::exact(bfloat(self.half_word(row, col))),
            Format::Q8_0 => {
                let at = Column::new(self.cols, col, 32, 2);
                let code = planes.codes(&at, 8);
                Weight::offset(planes.half(&at), code, 128)
            }
            Format::Q4_0 => {
                let at = Column::new(self.cols, col, 32, 4);
                let code = planes.codes(&at, 4);
                Weight::offset(planes.half(&at), code, 8)
            }
            Format::Q4_1 => {
                let at = Column::new(self.cols, col, 32, 4);
                let code = planes.codes(&at, 4);
                let pair = planes.blocks(&at, 32);
                Weight::affine(half(pair), code, half(pair >> 16))
            }
            Format::Q5_0 => {
                let at = Column::new(self.cols, col, 32, 4);
                let code = planes.codes(&at, 4) + 16 * planes.codes(&at, 1);
                Weight::offset(planes.half(&at), code, 16)
            }
            Format::Q5_1 => {
                let at = Column::new(self.cols, col, 32, 4);
                let code = planes.codes(&at, 4) + 16 * planes.codes(&at, 1);
                let pair = planes.blocks(&at, 32);
                Weight::affine(half(pair), code, half(pair >> 16))
            }
            Format::Q2K => {
                let at = Column::new(self.cols, col, 16, 4);
                let code = planes.codes(&at, 2);
                let byte = planes.blocks(&at, 8);
                let factors = planes.supers(&at, 4);
                let (scale, minimum) = (f64::from(byte & 15), f64::from(byte >> 4));
                Weight::affine(half(factors) * scale, code, -half(factors >> 16) * minimum)
            }
            Format::Q3K => {
                let at = Column::new(self.cols, col, 16, 4);
                let code = planes.codes(&at, 2) + 4 * planes.codes(&at, 1);
                let scale = planes.blocks(&at, 4) + 16 * planes.blocks(&at, 2);
                let factor = half(planes.supers(&at, 2));
                Weight::offset(factor * (f64::from(scale) - 32.0), code, 4)
            }
            Format::Q4K | Format::Q5K => {
                let at = Column::new(self.cols, col, 32, 4);
                let mut code = planes.codes(&at, 4);
                if self.format == Format::Q5K {
                    code += 16 * planes.codes(&at, 1);
                }
                let byte = planes.blocks(&at, 8);
                let minimum = byte / 64 + 4 * planes.blocks(&at, 4);
                let factors = planes.supers(&at, 4);
                let scale = half(factors) * f64::from(byte % 64);
                Weight::affine(scale, code, -half(factors >> 16) * f64::from(minimum))
            }
            Format::Q6K => {
                let at = Column::new(self.cols, col, 16, 4);
                let code = planes.codes(&at, 4) + 16 * planes.codes(&at, 2);
                let scale = f64::from(planes.blocks(&at, 8)) - 128.0;
                Weight::offset(half(planes.supers(&at, 2)) * scale, code, 32)
            }
            Format::Iq4Nl => {
                let at = Column::new(self.cols, col, 32, 4);
                let code = planes.codes(&at, 4);
                Weight::exact(planes.half(&at) * IQ4_NL[code as usize])
            }
            Format::Iq4Xs => {
                let at = Column::new(self.cols, col, 32, 4);
                let code = planes.codes(&at, 4);
                let scale = planes.blocks(&at, 4) + 16 * planes.blocks(&at, 2);
                let factor = half(planes.supers(&at, 2));
                Weight::exact(factor * (f64::from(scale) - 32.0) * IQ4_NL[code as usize])
            }
            Format::Iq3Xxs => planes.iq3_xxs(&Column::new(self.cols, col, 8, 4)),
            Format::Iq3S => planes.iq3_s(&Column::new(self.cols, col, 8, 4)),
            Format::Iq2Xxs => planes.iq2_xxs(&Column::new(self.cols, col, 8, 4)),
            Format::Iq2Xs => planes.iq2_xs(&Column::new(self.cols, col, 8, 4)),
            Format::Iq2S => planes.iq2_s(&Column::new(self.cols, col, 8, 4)),
            Format::Iq1S => planes.iq1_s(&Column::new(self.cols, col, 8, 4)),
            Format::Iq1M => planes.iq1_m(&Column::new(self.cols, col, 8, 4)),
            Format::Mxfp4 => {
                let at = Column::new(self.cols, col, 32, 4);
                let code = planes.codes(&at, 4);
                let exponent = planes.blocks(&at, 8);
                Weight::exact((f64::from(exponent) - 127.0).exp2() * e2m1(code))
            }
            Format::Q1_0 => {
                let at = Column::new(self.cols, col, 128, 4);
                let scale_sign = if planes.signs(&at) == 1 { 1.0 } else { -1.0 };
                let value = scale_sign * planes.half(&at);
                Weight { value, magnitude: 2.0 * value.abs() }
            }
            Format::Q2_0 => {
                let at = Column::new(self.cols, col, 64, 4);
                let code = planes.codes(&at, 2);
                Weight::offset(planes.half(&at), code, 1)
            }
            Format::Tq1_0 => {
                let at = Column::new(self.cols, col, 8, 4);
                let five = planes.blocks(&at, 8);
                let three = planes.blocks(&at, 4) + 16 * planes.blocks(&at, 1);
                let number = if at.element < 5 { five } else { three };
                let digit = number / 3_u32.pow(at.element as u32 % 5) % 3;
                Weight::offset(half(planes.supers(&at, 2)), digit, 1)
            }
            Format::Tq2_0 => {
                let at = Column::new(self.cols, col, 128, 4);
                let code = planes.codes(&at, 2);
                Weight::offset(half(planes.supers(&at, 2)), code, 1)
            }
            Format::Tq2_0G128 => {
                let at = Column::new(self.cols, col, 128, 4);
                let code = planes.codes(&at, 2);
                Weight::offset(planes.half(&at), code, 1)
            }
            Format::E4m3G128 | Format::E4m3G32 => {
                let block = if self.format == Format::E4m3G128 { 128 } else { 32 };
                let at = Column::new(self.cols, col, block, 2);
                let code = planes.codes(&at, 8);
                Weight::exact(f64::from(f32::from_bits(planes.blocks(&at, 32))) * e4m3(code))
            }
            Format::Affine { bits, group, bf16, zeros } => {
                let at = Column::new(self.cols, col, group, if bits == 8 { 2 } else { 4 });
                let code = match bits {
                    3 => planes.codes(&at, 2) + 4 * planes.codes(&at, 1),
                    5 => planes.codes(&at, 4) + 16 * planes.codes(&at, 1),
                    6 => planes.codes(&at, 4) + 16 * planes.codes(&at, 2),
                    _ => planes.codes(&at, bits),
                };
                let pair = planes.blocks(&at, 32);
                let number = if bf16 { bfloat } else { half };
                let (scale, second) = (number(pair), number(pair >> 16));
                Weight::affine(scale, code, if zeros { -scale * second } else { second })
            }
        }
    }

    fn half_word(&self, row: usize, col: usize) -> u32 {
        little_endian(self.bytes, (row * self.cols + col) * 2, 2)
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
}

/// The planes of a matrix, one after another.
struct Planes<'a> {
    packed: Packed<'a>,
    row: usize,
    /// First byte of the next plane.
    start: usize,
}

impl Planes<'_> {
    /// Bytes of this row in the next plane of `bits` bits a row.
    fn next(&mut self, bits: usize) -> usize {
        let bytes = bits / 8;
        let row = self.start + self.row * bytes;
        self.start = (self.start + self.packed.rows * bytes).next_multiple_of(256);
        row
    }

    /// The next plane is `bits` bits of each code.
    fn codes(&mut self, at: &Column, bits: usize) -> u32 {
        let row = self.next(self.packed.cols * bits);
        // A lane's eight codes of a tile take as many bytes as a code has bits.
        let lane = row + at.first * TILE * bits / 8 + at.lane * at.count * bits;
        if bits == 8 {
            return self.packed.bytes[lane + at.tile * 8 + at.element].into();
        }
        let word_bits = (at.count * 8 * bits).min(32);
        let tiles_a_word = word_bits / (8 * bits);
        let word = little_endian(self.packed.bytes, lane + at.tile / tiles_a_word * (word_bits / 8), word_bits / 8);
        let (pair, second) = (at.element / 2, at.element % 2);
        let place = if word_bits == 32 { second * 16 + pair * 4 } else { at.element * (word_bits / 8) };
        word >> (place + at.tile % tiles_a_word * bits) & ((1 << bits) - 1)
    }

    /// The next plane is one bit a column, a byte per lane and tile.
    fn signs(&mut self, at: &Column) -> u32 {
        let row = self.next(self.packed.cols);
        let byte = self.packed.bytes[row + at.first * TILE / 8 + at.lane * at.count + at.tile];
        u32::from(byte >> at.element & 1)
    }

    /// The next plane is `bits` bits of each block.
    fn blocks(&mut self, at: &Column, bits: usize) -> u32 {
        self.groups(at, at.block, bits)
    }

    /// The next plane is `bits` bits of each so many columns.
    fn groups(&mut self, at: &Column, columns: usize, bits: usize) -> u32 {
        let row = self.next(self.packed.cols / columns * bits);
        let entry = at.first * (TILE / columns) + at.in_tile / columns * at.count + at.tile;
        let first_bit = entry * bits;
        if bits >= 8 {
            return little_endian(self.packed.bytes, row + first_bit / 8, bits / 8);
        }
        u32::from(self.packed.bytes[row + first_bit / 8]) >> (first_bit % 8) & ((1 << bits) - 1)
    }

    /// The next plane is a half a block.
    fn half(&mut self, at: &Column) -> f64 {
        half(self.blocks(at, 16))
    }

    /// The next plane is `bytes` bytes per 256 columns.
    fn supers(&mut self, at: &Column, bytes: usize) -> u32 {
        let row = self.next(self.packed.cols / TILE * bytes * 8);
        little_endian(self.packed.bytes, row + (at.first + at.tile) * bytes, bytes)
    }
}

fn little_endian(bytes: &[u8], at: usize, count: usize) -> u32 {
    bytes[at..at + count].iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// The number that the low 16 bits are as a binary16.
pub(super) fn half(bits: u32) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 31, f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2.0_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2.0_f64.powi(exponent.cast_signed() - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// The number that the low 16 bits are as the upper half of a binary32.
fn bfloat(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits << 16))
}

/// E4M3 of OCP 8-bit Floating Point 1.0: a sign, four bits of exponent, three of fraction.
fn e4m3(code: u32) -> f64 {
    let (exponent, fraction) = ((code >> 3 & 15).cast_signed(), f64::from(code & 7) / 8.0);
    let size = if exponent == 0 { fraction * 2.0_f64.powi(-6) } else { (1.0 + fraction) * 2.0_f64.powi(exponent - 7) };
    if code & 128 == 0 { size } else { -size }
}

/// E2M1 of OCP Microscaling Formats 1.0: a sign, two bits of exponent, one of fraction.
fn e2m1(code: u32) -> f64 {
    let (exponent, fraction) = (code >> 1 & 3, f64::from(code & 1));
    let size = if exponent == 0 { 0.5 * fraction } else { (1.0 + 0.5 * fraction) * f64::from(1_u32 << (exponent - 1)) };
    if code & 8 == 0 { size } else { -size }
}
