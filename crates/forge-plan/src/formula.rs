//! What a dispatch costs as a formula of the step's size, for programs that learn the size when they run.
//!
//! The coefficients are differences of [`costs::dispatch`](crate::costs::dispatch), which stays the one place that knows.

use crate::attention::{self, UNSPLIT_POSITIONS};
use crate::costs::{self, StepSize};
use crate::kernel::{Family, Kernel};
use crate::plan::Dim;

/// `fixed + per_row * rows + per_tile * tiles + per_position * positions + per_part * parts`; exact for every family
/// there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Linear {
    /// Whatever the size.
    pub fixed: u64,
    /// For each row of the step.
    pub per_row: u64,
    /// For each tile of rows, of as many as the grid says.
    pub per_tile: u64,
    /// For each position of the cache that is read (of bytes), or each pair of a row and a position it sees (of
    /// operations).
    pub per_position: u64,
    /// For each part of a split context.
    pub per_part: u64,
}

/// What one dispatch of a kernel moves and computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formula {
    /// Bytes read and written, each once.
    pub bytes: Linear,
    /// Multiplications and additions of matrix products and attention.
    pub flops: Linear,
}

impl Formula {
    /// The formula of a kernel that is dispatched over `grid`.
    pub fn of(kernel: &Kernel, grid: &[Dim; 3]) -> Self {
        let window = window(&kernel.family).unwrap_or(usize::MAX);
        let at = |rows, position| {
            let cost = costs::dispatch(kernel, grid, StepSize { rows, position });
            [cost.read() + cost.written(), cost.flops]
        };
        let tile_rows = grid.iter().find_map(|dim| match dim {
            Dim::RowTiles(rows) => Some(*rows),
            _ => None,
        });
        let linear = |which: usize| {
            let cost = |rows, position| at(rows, position)[which];
            let seen = |position: usize| (position + 1).min(window) as u64;
            // A window of one position never sees a second; what it reads counts as the row's.
            let per_position = cost(1, 1).saturating_sub(cost(1, 0)) / (seen(1) - seen(0)).max(1);
            let split = (UNSPLIT_POSITIONS - 1, UNSPLIT_POSITIONS);
            let more_parts = (attention::parts(seen(split.1) as usize) - 1) as u64;
            let more_positions = seen(split.1) - seen(split.0);
            let per_part =
                (cost(1, split.1).saturating_sub(cost(1, split.0) + per_position * more_positions)) / more_parts.max(1);
            // One row at position 0 sees one position; two rows read two, in as many pairs as both see.
            let second = if which == 0 { 1 } else { seen(1) };
            let per_row = cost(2, 0).saturating_sub(cost(1, 0) + per_position * second);
            let per_tile = tile_rows.map_or(0, |rows| {
                let positions = if which == 0 { 1 } else { seen(rows) };
                cost(rows + 1, 0).saturating_sub(cost(rows, 0) + per_row + per_position * positions)
            });
            let fixed = cost(1, 0).saturating_sub(per_row + per_tile + per_position + per_part);
            Linear { fixed, per_row, per_tile, per_position, per_part }
        };
        Formula { bytes: linear(0), flops: linear(1) }
    }
}

fn window(family: &Family) -> Option<usize> {
    match family {
        Family::AttentionDecode(a)
        | Family::AttentionPart(a)
        | Family::AttentionCombine(a)
        | Family::AttentionTile(a) => a.attention.window,
        _ => None,
    }
}
