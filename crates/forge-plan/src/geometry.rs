//! Geometry of matrix-vector kernels by format and shape, as data.
//!
//! The table holds, per class of formats and class of shapes, the best of 5 to 8 geometries timed by `bench-msl-cuda` on
//! one H200, whole and on a partition of 40 multiprocessors; where the two disagreed by little, the partition decided,
//! being nearer to an Apple GPU. Of shapes that write the residual stream it is the best of those whose threadgroups have eight rows,
//! where that costs nothing: each threadgroup writes a partial sum of squares, which every threadgroup of the next product adds
//! up. `docs/kernels-measured.md` has the figures.

use std::collections::BTreeMap;

use forge_formats::Format;

/// How a matrix is spread over simdgroups and threadgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Output rows that one simdgroup computes.
    pub rows_per_simdgroup: usize,
    /// Simdgroups in a threadgroup.
    pub simdgroups: usize,
    /// Simdgroups that share one row's columns; divides `simdgroups`.
    pub split_k: usize,
}

impl Geometry {
    /// That of a kernel that multiplies several tokens at once: columns are split in the same way. Where it makes partial `sums`, a
    /// simdgroup and a threadgroup have no fewer rows than here, so that each partial sum is made in one place.
    pub fn for_few_tokens(self, format: Format, sums: bool) -> Self {
        let halves = matches!(format, Format::F16 | Format::BF16);
        let rows = if halves { FEW_TOKENS_HALVES_ROWS } else { FEW_TOKENS_ROWS };
        let mut few = Geometry { rows_per_simdgroup: rows, simdgroups: self.fewest_simdgroups(), ..self };
        if sums {
            few.rows_per_simdgroup = rows.max(self.rows_per_simdgroup);
            few.simdgroups *= self.rows_per_threadgroup().div_ceil(few.rows_per_threadgroup());
        }
        few
    }

    /// Simdgroups of a threadgroup without those that the table has for more rows of a partial sum.
    pub fn fewest_simdgroups(self) -> usize {
        self.simdgroups.min(FEWEST_SIMDGROUPS.max(self.split_k))
    }

    /// Output rows that one threadgroup computes.
    pub fn rows_per_threadgroup(self) -> usize {
        self.rows_per_simdgroup * self.simdgroups / self.split_k
    }
}

/// Fewest rows of a matrix whose kernel keeps a table in threadgroup memory: with fewer, too few rows share the work of putting it
/// there.
pub const TABLE_ROWS: usize = 8_192;

/// Rows that a simdgroup of a kernel for several tokens computes: it holds a sum for each row and token, and loads each
/// token's input once for all of its rows.
const FEW_TOKENS_ROWS: usize = 4;

/// The same of floats of 16 bits, of which more rows have room: no scales and sums go with them.
const FEW_TOKENS_HALVES_ROWS: usize = 8;

/// Simdgroups of a threadgroup, where columns are not split among more: kernels for several tokens take so many registers that
/// larger ones are slower, and the experts' down rows were measured so.
const FEWEST_SIMDGROUPS: usize = 4;

/// What a geometry is chosen by: the matrix of a product, or stacked matrices with the format of the tallest; where layers
/// differ in format, that of the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Stored format.
    pub format: Format,
    /// Output rows.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
}

/// Choices that go before the table's, as `tune` of a generated project finds them.
pub type Geometries = BTreeMap<Shape, Geometry>;

/// Most rows of a simdgroup.
const MOST_ROWS: usize = 8;

/// Most simdgroups of a threadgroup; those that share rows are half as many.
const MOST_SIMDGROUPS: usize = 16;

/// Why a shape cannot have a geometry; the field is one of [`Geometry`], with the split as `split`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {found} is not {expected}")]
pub struct GeometryError {
    /// The number that is wrong.
    pub field: &'static str,
    /// What it is.
    pub found: usize,
    /// What it may be, as words.
    pub expected: &'static str,
}

impl Geometry {
    /// Whether kernels of this shape can have it.
    ///
    /// # Errors
    /// The first number that is out of its range.
    pub fn check(self, shape: Shape) -> Result<(), GeometryError> {
        let power = |n: usize, most: usize| n.is_power_of_two() && n <= most;
        let error = |field, found, expected| Err(GeometryError { field, found, expected });
        if !power(self.rows_per_simdgroup, MOST_ROWS) {
            return error("rows_per_simdgroup", self.rows_per_simdgroup, "1, 2, 4 or 8");
        }
        let (most, expected) = match self.split_k {
            1 => (MOST_SIMDGROUPS, "1, 2, 4, 8 or 16"),
            _ => (MOST_SIMDGROUPS / 2, "1, 2, 4 or 8"),
        };
        if !power(self.simdgroups, most) {
            return error("simdgroups", self.simdgroups, expected);
        }
        if !power(self.split_k, MOST_SIMDGROUPS) || !self.simdgroups.is_multiple_of(self.split_k) {
            return error("split", self.split_k, "a divisor of simdgroups");
        }
        if self.split_k > most_split(shape) {
            return error("split", self.split_k, "small enough to leave each simdgroup columns");
        }
        Ok(())
    }
}

/// Up to three geometries to try besides the chosen one: the other way to split rows, and more and fewer rows per
/// simdgroup. Gated products need even numbers of rows.
pub fn candidates(shape: Shape, chosen: Geometry, gated: bool) -> Vec<Geometry> {
    let Geometry { rows_per_simdgroup: rows, simdgroups, split_k } = chosen;
    let split = if split_k > 1 {
        Geometry { rows_per_simdgroup: rows, simdgroups: 2, split_k: 1 }
    } else {
        let split_k = 4.min(most_split(shape));
        Geometry { rows_per_simdgroup: rows, simdgroups: if simdgroups == 4 { 8 } else { 4 }, split_k }
    };
    let all = [
        split,
        Geometry { rows_per_simdgroup: rows * 2, ..chosen },
        Geometry { rows_per_simdgroup: rows / 2, ..chosen },
        Geometry { rows_per_simdgroup: rows * 2, ..split },
    ];
    let fits = |g: &Geometry| g.check(shape).is_ok() && !(gated && g.rows_per_simdgroup % 2 == 1) && *g != chosen;
    let mut list: Vec<Geometry> = Vec::new();
    for geometry in all.into_iter().filter(fits) {
        if !list.contains(&geometry) {
            list.push(geometry);
        }
    }
    list.truncate(3);
    list
}

/// Rows per simdgroup, simdgroups, split.
type Entry = (usize, usize, usize);

/// Measured choices for one class of formats.
struct Row {
    /// Fewer than 2,048 rows.
    short: Entry,
    /// Fewer than 8,192 rows.
    middle: Entry,
    /// Fewer than 8,192 rows of 8,192 columns or more.
    long: Entry,
    /// Fewer than 32,768 rows.
    tall: Entry,
    /// More rows: heads of large vocabularies.
    head: Entry,
}

#[rustfmt::skip]
fn measured(format: Format) -> Row {
    let row = |short, middle, long, tall, head| Row { short, middle, long, tall, head };
    match format {
        //                                short      middle     long       tall       head
        Format::F32               => row((1, 4, 4), (1, 4, 4), (1, 4, 4), (1, 2, 1), (1, 2, 1)),
        Format::F16 | Format::BF16 => row((2, 8, 8), (4, 8, 4), (4, 8, 4), (4, 4, 4), (4, 2, 1)),
        Format::Q8_0              => row((2, 8, 8), (2, 8, 2), (2, 8, 2), (2, 4, 2), (2, 2, 1)),
        Format::Q4_0              => row((2, 4, 4), (2, 8, 2), (4, 4, 2), (4, 2, 1), (4, 2, 1)),
        Format::Q4_1              => row((2, 4, 4), (4, 4, 4), (2, 8, 2), (4, 4, 4), (2, 2, 1)),
        Format::Q4K               => row((2, 4, 4), (2, 8, 2), (4, 4, 2), (2, 2, 1), (4, 2, 1)),
        Format::Q6K               => row((2, 4, 4), (2, 8, 2), (4, 4, 2), (2, 4, 2), (2, 2, 1)),
        Format::Q2K | Format::Q3K | Format::Q5K => row((2, 4, 4), (2, 8, 2), (2, 8, 2), (2, 4, 2), (4, 2, 1)),
        Format::Tq2_0G128         => row((2, 4, 4), (8, 4, 4), (4, 4, 2), (8, 4, 4), (8, 2, 1)),
        Format::Q1_0              => row((4, 4, 4), (8, 4, 4), (8, 4, 4), (4, 8, 1), (8, 8, 1)),
        Format::Affine { bits: 2 | 3, .. } => row((2, 4, 4), (4, 4, 4), (2, 4, 4), (4, 4, 4), (4, 2, 1)),
        Format::Affine { bits: 6, .. } => row((2, 4, 4), (4, 4, 2), (4, 4, 2), (4, 4, 4), (2, 2, 1)),
        Format::Affine { bits: 8, .. } => row((2, 8, 8), (4, 4, 4), (4, 8, 4), (2, 4, 2), (2, 2, 1)),
        Format::Affine { .. }     => row((2, 4, 4), (4, 4, 4), (2, 8, 2), (4, 4, 4), (2, 2, 1)),
        Format::Tq2_0 | Format::Q2_0 => row((2, 4, 4), (8, 4, 4), (4, 4, 2), (4, 4, 4), (4, 2, 1)),
        Format::Nvfp4             => row((2, 4, 4), (4, 4, 2), (4, 4, 2), (4, 4, 4), (4, 2, 1)),
        Format::Mxfp8             => row((2, 4, 4), (2, 8, 2), (2, 8, 2), (2, 4, 2), (2, 2, 1)),
        Format::E4m3G128 | Format::E4m3G32 => row((2, 4, 4), (4, 4, 4), (2, 8, 2), (2, 4, 2), (8, 2, 1)),
        Format::Iq4Xs             => row((2, 4, 4), (4, 4, 4), (4, 4, 4), (4, 4, 4), (4, 2, 1)),
        Format::Iq3S              => row((2, 4, 4), (2, 8, 2), (2, 4, 4), (4, 4, 4), (4, 2, 1)),
        Format::Iq3Xxs | Format::Iq2Xs | Format::Iq2S => row((2, 4, 4), (2, 8, 2), (2, 8, 2), (4, 4, 4), (4, 2, 1)),
        Format::Iq2Xxs            => row((2, 4, 4), (2, 8, 2), (2, 8, 2), (4, 4, 1), (8, 4, 1)),
        Format::Iq1S              => row((2, 4, 4), (4, 4, 4), (2, 4, 4), (4, 8, 1), (8, 16, 1)),
        Format::Iq1M              => row((2, 4, 4), (4, 4, 2), (2, 4, 4), (4, 8, 1), (8, 8, 1)),
        Format::Tq1_0             => row((2, 4, 4), (4, 4, 2), (4, 4, 2), (4, 8, 1), (8, 16, 1)),
        // Formats without a row of their own have that of their width: IQ4_NL and MXFP4, Q5_0 and Q5_1.
        other => match 8 * other.block_bytes() / other.block_elements() {
            0..5                  => row((2, 4, 4), (4, 4, 2), (4, 4, 2), (4, 4, 4), (4, 2, 1)),
            _                     => row((2, 4, 4), (2, 8, 2), (2, 8, 2), (2, 4, 2), (2, 2, 1)),
        },
    }
}

/// Most simdgroups that can share a row and each have columns: more than it has groups of tiles would leave some idle.
fn most_split(shape: Shape) -> usize {
    1 << (shape.cols / shape.format.columns_at_once()).max(1).ilog2()
}

/// The geometry for one `[rows, cols]` matrix.
pub fn gemv_geometry(format: Format, rows: usize, cols: usize) -> Geometry {
    let table = measured(format);
    let (rows_per_simdgroup, simdgroups, split) = match rows {
        0..2_048 => table.short,
        2_048..8_192 if cols >= 8_192 => table.long,
        2_048..8_192 => table.middle,
        8_192..32_768 => table.tall,
        _ => table.head,
    };
    let split_k = split.min(most_split(Shape { format, rows, cols }));
    Geometry { rows_per_simdgroup, simdgroups, split_k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_geometry_is_one_that_kernels_can_have() {
        for format in Format::all() {
            for rows in [64, 1024, 4096, 12_288, 151_936] {
                for cols in [64, 256, 576, 2560, 4096, 12_288] {
                    let g = gemv_geometry(format, rows, cols);
                    assert!(g.simdgroups.is_multiple_of(g.split_k), "{format} {rows}x{cols}: {g:?}");
                    assert!(g.simdgroups <= 16 && g.rows_per_simdgroup <= 8, "{format} {rows}x{cols}: {g:?}");
                    assert!(g.split_k == 1 || cols / format.columns_at_once() >= g.split_k, "{format}: {g:?}");
                    let shape = Shape { format, rows, cols };
                    assert_eq!(g.check(shape), Ok(()), "{format} {rows}x{cols}");
                    for gated in [false, true] {
                        let even = Geometry { rows_per_simdgroup: g.rows_per_simdgroup.next_multiple_of(2), ..g };
                        let chosen = if gated { even } else { g };
                        let others = candidates(shape, chosen, gated);
                        assert!((2..=3).contains(&others.len()), "{format} {rows}x{cols}: {others:?}");
                        for other in &others {
                            assert_eq!(other.check(shape), Ok(()), "{format} {rows}x{cols}");
                            assert!(*other != chosen && !(gated && other.rows_per_simdgroup == 1), "{other:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn wrong_geometries_are_named() {
        let shape = Shape { format: Format::Q8_0, rows: 512, cols: 1024 };
        let check = |rows_per_simdgroup, simdgroups, split_k| {
            Geometry { rows_per_simdgroup, simdgroups, split_k }.check(shape).map_err(|error| error.to_string())
        };
        assert_eq!(check(2, 4, 2), Ok(()));
        assert_eq!(check(3, 4, 1), Err("rows_per_simdgroup: 3 is not 1, 2, 4 or 8".into()));
        assert_eq!(check(2, 16, 1), Ok(()));
        assert_eq!(check(2, 32, 1), Err("simdgroups: 32 is not 1, 2, 4, 8 or 16".into()));
        assert_eq!(check(2, 16, 2), Err("simdgroups: 16 is not 1, 2, 4 or 8".into()));
        assert_eq!(check(2, 2, 4), Err("split: 4 is not a divisor of simdgroups".into()));
        assert_eq!(check(2, 4, 4), Err("split: 4 is not small enough to leave each simdgroup columns".into()));
    }
}
