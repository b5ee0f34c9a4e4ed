//! Weights of the formats whose groups of weights are points of a grid.

use super::super::super::spec::grids::{self, Grid};
use super::{Column, Planes, Weight, half, little_endian};

/// Coordinate of a point, times a scale, negative where its bit of `signs` is set.
fn signed(grid: &Grid, point: u32, at: &Column, scale: f64, signs: u32) -> Weight {
    let size = scale * f64::from(grid.coordinate(point as usize, at.element % grid.width()));
    Weight::exact(if signs >> at.element & 1 == 1 { -size } else { size })
}

/// Seven signs with an eighth, so that an even number is negative.
fn with_eighth(seven: u32) -> u32 {
    let seven = seven % 128;
    if seven.count_ones() % 2 == 1 { seven + 128 } else { seven }
}

/// The signs of a column's eight in a word of four times seven.
fn signs_in(word: u32, at: &Column) -> u32 {
    with_eighth(word >> (at.in_tile % 32 / 8 * 7))
}

/// Coordinate of a point of IQ1_S's grid and an eighth, which `lower` takes away, times a scale. Kernels count coordinates
/// from 0 and take one away in the end.
fn shifted(point: u32, at: &Column, scale: f64, lower: u32) -> Weight {
    let coordinate = f64::from(grids::IQ1_S.coordinate(point as usize, at.element));
    let eighth = if lower == 1 { -0.125 } else { 0.125 };
    Weight { value: scale * (coordinate + eighth), magnitude: scale.abs() * (coordinate + 2.125) }
}

impl Planes<'_> {
    pub(super) fn iq3_xxs(&mut self, at: &Column) -> Weight {
        let point = self.blocks(at, 16) >> (at.element / 4 * 8) & 255;
        let word = self.groups(at, 32, 32);
        let scale = half(self.supers(at, 2)) * (f64::from(word >> 28) + 0.5) / 2.0;
        signed(&grids::IQ3_XXS, point, at, scale, signs_in(word, at))
    }

    pub(super) fn iq3_s(&mut self, at: &Column) -> Weight {
        let low = self.blocks(at, 16) >> (at.element / 4 * 8) & 255;
        let ninth = self.blocks(at, 2) >> (at.element / 4) & 1;
        let signs = self.blocks(at, 8);
        let scale = f64::from(2 * self.groups(at, 32, 4) + 1);
        signed(&grids::IQ3_S, low + 256 * ninth, at, half(self.supers(at, 2)) * scale, signs)
    }

    pub(super) fn iq2_xxs(&mut self, at: &Column) -> Weight {
        let point = self.blocks(at, 8);
        let word = self.groups(at, 32, 32);
        let scale = half(self.supers(at, 2)) * (f64::from(word >> 28) + 0.5) / 4.0;
        signed(&grids::IQ2_XXS, point, at, scale, signs_in(word, at))
    }

    pub(super) fn iq2_xs(&mut self, at: &Column) -> Weight {
        let word = self.blocks(at, 16);
        let scale = (f64::from(self.groups(at, 16, 4)) + 0.5) / 4.0;
        signed(&grids::IQ2_XS, word % 512, at, half(self.supers(at, 2)) * scale, with_eighth(word >> 9))
    }

    pub(super) fn iq2_s(&mut self, at: &Column) -> Weight {
        let word = self.blocks(at, 16);
        let point = word % 256 + 256 * self.blocks(at, 2);
        let scale = (f64::from(self.groups(at, 16, 4)) + 0.5) / 4.0;
        signed(&grids::IQ2_S, point, at, half(self.supers(at, 2)) * scale, word >> 8)
    }

    pub(super) fn iq1_s(&mut self, at: &Column) -> Weight {
        let low = self.blocks(at, 8);
        let word = self.groups(at, 32, 16);
        let point = low + 256 * (word >> (at.in_tile % 32 / 8 * 3) & 7);
        let scale = half(self.supers(at, 2)) * f64::from(2 * (word >> 12 & 7) + 1);
        shifted(point, at, scale, word >> 15)
    }

    pub(super) fn iq1_m(&mut self, at: &Column) -> Weight {
        let low = self.blocks(at, 8);
        let nibble = self.blocks(at, 4);
        let row = self.next(self.packed.cols / 4);
        let short = |i: usize| little_endian(self.packed.bytes, row + (at.first + at.tile) * 8 + 2 * i, 2);
        let factor = (0..4).map(|i| (short(i) >> 12) << (4 * i)).sum();
        let scale = short(at.in_tile / 64) >> (at.in_tile % 64 / 16 * 3) & 7;
        shifted(low + 256 * (nibble % 8), at, half(factor) * f64::from(2 * scale + 1), nibble >> 3)
    }
}
