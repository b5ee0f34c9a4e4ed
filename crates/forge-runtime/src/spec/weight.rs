//! What the fields of a packed weight mean, in f64: `verify` judges kernels by these.

use super::grids::{self, Grid};
use super::scheme::Plane;

/// One weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weight {
    /// The weight.
    pub value: f64,
    /// Size of the terms it is the sum of, such as scale * (code + offset): what rounding errors are relative to.
    pub magnitude: f64,
}

/// What a format's planes have for one column.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields {
    /// The bits in each plane, in the order of the planes.
    pub planes: [u64; 6],
    /// Column within its tile.
    pub column: usize,
    /// Which of the eight columns of its lane it is.
    pub element: usize,
    /// Tile within its group.
    pub tile: usize,
}

impl Fields {
    /// Plane `plane`'s lowest 32 bits.
    pub fn bits(&self, plane: usize) -> u32 {
        self.planes[plane] as u32
    }

    /// Plane `plane` as a number.
    pub fn number(&self, plane: usize) -> f64 {
        f64::from(self.bits(plane))
    }

    /// Plane `plane` as a binary16.
    pub fn half(&self, plane: usize) -> f64 {
        half(self.bits(plane))
    }

    /// The binary16 above another in plane `plane`.
    pub fn upper_half(&self, plane: usize) -> f64 {
        half(self.bits(plane) >> 16)
    }

    /// Plane `plane` as a binary32.
    pub fn single(&self, plane: usize) -> f64 {
        f64::from(f32::from_bits(self.bits(plane)))
    }
}

impl Weight {
    /// A product without a sum.
    pub fn exact(value: f64) -> Self {
        Self { value, magnitude: value.abs() }
    }

    /// `scale * (code - offset)`.
    pub fn offset(scale: f64, code: u32, offset: u32) -> Self {
        let (code, offset) = (f64::from(code), f64::from(offset));
        Self { value: scale * (code - offset), magnitude: scale.abs() * (code + offset) }
    }

    /// `scale * code + bias`.
    pub fn affine(scale: f64, code: u32, bias: f64) -> Self {
        let product = scale * f64::from(code);
        Self { value: product + bias, magnitude: product.abs() + bias.abs() }
    }

    /// A scale with a sign of one bit; kernels add twice the scale to the negative.
    pub fn sign(scale: f64, positive: u32) -> Self {
        let value = if positive == 1 { scale } else { -scale };
        Self { value, magnitude: 2.0 * value.abs() }
    }

    /// Coordinate of a point, times a scale, negative where its bit of `signs` is set.
    pub fn signed(fields: &Fields, grid: &Grid, point: u32, scale: f64, signs: u32) -> Self {
        let size = scale * f64::from(grid.coordinate(point as usize, fields.element % grid.width()));
        Self::exact(if signs >> fields.element & 1 == 1 { -size } else { size })
    }

    /// Coordinate of a point of IQ1_S's grid and an eighth, which `lower` takes away, times a scale. Kernels count coordinates
    /// from 0 and take one away in the end. The point is that of the first plane.
    pub fn shifted(fields: &Fields, scale: f64, lower: u32) -> Self {
        let point = fields.bits(0) & ((1 << Plane::POINT_BITS) - 1);
        let coordinate = f64::from(grids::IQ1_S.coordinate(point as usize, fields.element));
        let eighth = if lower == 1 { -0.125 } else { 0.125 };
        Self { value: scale * (coordinate + eighth), magnitude: scale.abs() * (coordinate + 2.125) }
    }
}

/// Levels of [`super::Format::Iq4Nl`] and [`super::Format::Iq4Xs`] (GGML's `kvalues_iq4nl`).
pub const IQ4_NL: [f64; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Seven signs with an eighth, so that an even number is negative.
pub fn with_eighth(seven: u32) -> u32 {
    let seven = seven % 128;
    if seven.count_ones() % 2 == 1 { seven + 128 } else { seven }
}

/// The signs of a column's eight in a word of four times seven.
pub fn signs_in(word: u32, fields: &Fields) -> u32 {
    with_eighth(word >> (fields.column % 32 / 8 * 7))
}

/// The number that the low 16 bits are as a binary16.
pub fn half(bits: u32) -> f64 {
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
pub fn bfloat(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits << 16))
}

/// E8M0 of OCP Microscaling Formats 1.0: a power of two.
pub fn e8m0(exponent: u32) -> f64 {
    (f64::from(exponent) - 127.0).exp2()
}

/// E4M3 of OCP 8-bit Floating Point 1.0: a sign, four bits of exponent, three of fraction.
pub fn e4m3(code: u32) -> f64 {
    let (exponent, fraction) = ((code >> 3 & 15).cast_signed(), f64::from(code & 7) / 8.0);
    let size = if exponent == 0 { fraction * 2.0_f64.powi(-6) } else { (1.0 + fraction) * 2.0_f64.powi(exponent - 7) };
    if code & 128 == 0 { size } else { -size }
}

/// E2M1 of OCP Microscaling Formats 1.0: a sign, two bits of exponent, one of fraction.
pub fn e2m1(code: u32) -> f64 {
    let (exponent, fraction) = (code >> 1 & 3, f64::from(code & 1));
    let size = if exponent == 0 { 0.5 * fraction } else { (1.0 + 0.5 * fraction) * f64::from(1_u32 << (exponent - 1)) };
    if code & 8 == 0 { size } else { -size }
}
