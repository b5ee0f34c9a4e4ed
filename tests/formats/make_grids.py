#!/usr/bin/env python3
"""Writes crates/forge-runtime/src/spec/grids.rs: the grids of GGML's IQ formats, from the gguf package (`pip install
gguf==0.19.0`), which has them in the same compact form. They are facts of the formats; this ran once."""

from pathlib import Path

import gguf.quants as quants

OUT = Path(__file__).resolve().parents[2] / "crates/forge-runtime/src/spec/grids.rs"
NAMES = ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
HEAD = '''//! The grids of GGML's IQ formats: tables of points, of which a format stores the indices.
//!
//! Each point's coordinates are levels of the grid, 2 bits a level with eight coordinates or 4 bits with four, the first
//! lowest: 16 bits, written as the hexadecimal digits of two bytes, low byte first. Taken from the gguf package 0.19.0 by
//! `tests/formats/make_grids.py`.

/// Points that groups of weights are chosen from.
#[derive(Debug, PartialEq, Eq)]
pub struct Grid {
    /// The format that it is named after, in lower case.
    pub name: &'static str,
    /// Values that coordinates have.
    pub levels: &'static [i8],
    /// Four digits a point.
    digits: &'static str,
}

impl Grid {
    /// Number of points.
    pub const fn points(&self) -> usize {
        self.digits.len() / 4
    }

    /// Coordinates of a point: 4 or 8.
    pub const fn width(&self) -> usize {
        if self.levels.len() > 4 { 4 } else { 8 }
    }

    /// A point as its levels' numbers, `16 / width` bits each, the first lowest.
    ///
    /// # Panics
    /// There is no such point.
    pub fn codes(&self, point: usize) -> u16 {
        let digit = |at: usize| match self.digits.as_bytes()[4 * point + at] {
            digit @ b'0'..=b'9' => u16::from(digit - b'0'),
            letter => u16::from(letter - b'a') + 10,
        };
        digit(0) << 4 | digit(1) | digit(2) << 12 | digit(3) << 8
    }

    /// Coordinate `i` of a point.
    ///
    /// # Panics
    /// There is no such point or coordinate.
    pub fn coordinate(&self, point: usize, i: usize) -> i8 {
        let bits = 16 / self.width();
        self.levels[usize::from(self.codes(point) >> (bits * i)) & ((1 << bits) - 1)]
    }
}

/// Every grid.
pub const GRIDS: [&Grid; 6] = [&IQ1_S, &IQ2_XXS, &IQ2_XS, &IQ2_S, &IQ3_XXS, &IQ3_S];
'''
text = HEAD
for name in NAMES:
    kind = getattr(quants, name)
    digits = b"".join(kind.grid_hex.split()).decode() if isinstance(kind.grid_hex, bytes) else kind.grid_hex
    points, width = kind.grid_shape
    assert len(digits) == 4 * points and digits == digits.lower() and width == (8 if len(kind.grid_map) == 3 else 4)
    also = " and IQ1_M" if name == "IQ1_S" else ""
    text += f"\n/// The grid of {name}{also}.\npub static {name}: Grid = Grid {{\n    name: \"{name.lower()}\",\n"
    text += f"    levels: &[{', '.join(map(str, kind.grid_map))}],\n    digits: \"\\\n"
    lines = [digits[i : i + 112] for i in range(0, len(digits), 112)]
    text += "".join(f"        {line}\\\n" for line in lines[:-1]) + f"        {lines[-1]}\",\n}};\n"
OUT.write_text(text)
