//! Sums that grow with the size of a step, as programs evaluate them when they learn it.

use std::ops::{Add, Mul};

use forge_spec::Split;

use crate::costs::StepSize;
use crate::plan::Dim;

/// `fixed + per_row * rows + per_tile * tiles + per_position * positions + per_part * parts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Linear {
    /// Whatever the size.
    pub fixed: u64,
    /// For each row of the step.
    pub per_row: u64,
    /// For each tile of rows, or of positions, of as many as the grid says.
    pub per_tile: u64,
    /// For each position of the cache that is read (of bytes), or each pair of a row and a position it sees (of
    /// operations).
    pub per_position: u64,
    /// For each part of a split context.
    pub per_part: u64,
}

/// What [`Linear`] multiplies, for one step of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Rows of the step.
    pub rows: u64,
    /// Tiles of rows, or of positions.
    pub tiles: u64,
    /// Positions that some row sees.
    pub positions: u64,
    /// Pairs of a row and a position that it sees.
    pub pairs: u64,
    /// Parts that the contexts of the rows are split into.
    pub parts: u64,
    /// Parts of the longest of them.
    pub most_parts: u64,
}

impl Counts {
    /// Those of a kernel with this grid whose rows see `window` positions at most, in such parts.
    pub fn new(size: StepSize, grid: &[Dim; 3], window: Option<usize>, split: Option<Split>) -> Self {
        let seen = |position: usize| (position + 1).min(window.unwrap_or(usize::MAX));
        let rows = size.rows / size.slots;
        let positions = || size.position..size.position + rows;
        let parts = |position: usize| split.map_or(1, |split| split.parts(position));
        let tiles = grid.iter().find_map(|dim| match dim {
            Dim::RowTiles(rows) => Some(size.rows.div_ceil(*rows)),
            Dim::PositionTiles(positions) => Some((size.position + rows).div_ceil(*positions)),
            Dim::Const(_) | Dim::Rows | Dim::Parts | Dim::Indirect { .. } => None,
        });
        Self {
            rows: size.rows as u64,
            tiles: tiles.unwrap_or(0) as u64,
            positions: (size.slots * (rows - 1 + seen(size.position))) as u64,
            pairs: (size.slots * positions().map(seen).sum::<usize>()) as u64,
            parts: (size.slots * positions().map(parts).sum::<usize>()) as u64,
            most_parts: positions().map(parts).max().unwrap_or(1) as u64,
        }
    }

    /// The same with pairs in place of positions, as operations are counted.
    pub fn of_pairs(self) -> Self {
        Self { positions: self.pairs, ..self }
    }
}

impl Linear {
    /// The same whatever the size.
    pub fn fixed(fixed: u64) -> Self {
        Self { fixed, ..Self::default() }
    }

    /// So much for each row.
    pub fn per_row(per_row: u64) -> Self {
        Self { per_row, ..Self::default() }
    }

    /// Its value.
    pub fn at(self, counts: Counts) -> u64 {
        self.fixed
            + self.per_row * counts.rows
            + self.per_tile * counts.tiles
            + self.per_position * counts.positions
            + self.per_part * counts.parts
    }

    /// Its terms, in the order of [`forge_spec::Cost`].
    pub fn terms(self) -> [u64; 5] {
        [self.fixed, self.per_row, self.per_tile, self.per_position, self.per_part]
    }
}

impl Add for Linear {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            fixed: self.fixed + other.fixed,
            per_row: self.per_row + other.per_row,
            per_tile: self.per_tile + other.per_tile,
            per_position: self.per_position + other.per_position,
            per_part: self.per_part + other.per_part,
        }
    }
}

impl Mul<u64> for Linear {
    type Output = Self;

    fn mul(self, by: u64) -> Self {
        Self {
            fixed: self.fixed * by,
            per_row: self.per_row * by,
            per_tile: self.per_tile * by,
            per_position: self.per_position * by,
            per_part: self.per_part * by,
        }
    }
}

impl std::iter::Sum for Linear {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::default(), Add::add)
    }
}
