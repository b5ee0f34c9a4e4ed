//! Matrix times one vector, or a few.

use forge_spec::{Activation, Dim, Format, Matrix, Operation, Role};

use super::projection::{describe_all, matrix_bindings, operation, result_bindings};
use super::{Body, Epilogue, KernelFamily, Launch, NormScale, ONE, Rows};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::geometry::{Geometry, Shape, TABLE_ROWS};
use crate::linear::Linear;

/// Most rows of a step. Up to that many share one reading of the weights.
pub const FEW_TOKENS: usize = 8;

/// How many rows of a step a matrix-vector kernel multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// One.
    One,
    /// Up to [`FEW_TOKENS`], so many of them in a threadgroup, which decodes the weights once.
    Few(usize),
    /// Up to [`FEW_TOKENS`], each in threadgroups of its own.
    Each,
}

impl Tokens {
    /// Rows whose sums a simdgroup holds.
    pub fn at_once(self) -> usize {
        match self {
            Self::One | Self::Each => 1,
            Self::Few(room) => room,
        }
    }
}

/// Rows in a threadgroup of a kernel for a few: for two, and for more.
pub const ROOMS: [usize; 2] = [2, 4];

/// Columns of a tile of packed rows.
const TILE: usize = 256;

/// What a kernel for a matrix of many rows keeps in threadgroup memory for all rows of a threadgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The function that makes it and looks weights up in it, which is also its source's name.
    pub function: &'static str,
    /// Its size, a multiple of 16.
    pub bytes: usize,
    /// Elements of the input that are loaded for it of each eight columns, where simdgroups load none.
    pub loads: Option<usize>,
}

impl Table {
    /// A float for each lane.
    const ENTRY: usize = 32 * 4;

    /// That of a format.
    fn of(format: Format) -> Option<Self> {
        // Of each lane's columns in two tiles sums of three, three and two, these with an eighth of all; then the grid.
        let shifted = Self { function: "", bytes: 2 * (27 + 27 + 2 * 9) * Self::ENTRY + 4096, loads: Some(3 + 3 + 8) };
        Some(match format {
            // Sums of the two runs of four columns in four tiles.
            Format::Q1_0 => Self { function: "gemv_q1_0_sums", bytes: 4 * 2 * 16 * Self::ENTRY, loads: Some(8) },
            // Sums of three, three and two columns in four tiles.
            Format::Tq1_0 => {
                Self { function: "gemv_tq1_0_sums", bytes: 4 * (27 + 27 + 9) * Self::ENTRY, loads: Some(8) }
            }
            Format::Iq1S => Self { function: "gemv_iq1_s_sums", ..shifted },
            Format::Iq1M => Self { function: "gemv_iq1_m_sums", ..shifted },
            // The grid and the signs.
            Format::Iq2Xxs => Self { function: "gemv_iq2_xxs_shared", bytes: 256 * 8 + 128, loads: None },
            _ => return None,
        })
    }
}

/// Constants of a matrix-vector kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemv {
    /// Matrices over the same input, in the order of their output rows.
    pub matrices: Vec<Matrix>,
    /// Output rows of all matrices.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
    /// What the geometry is chosen by: the same for all layers, also where their formats differ.
    pub shape: Shape,
    /// Rows a simdgroup, simdgroups a threadgroup, simdgroups a row.
    pub geometry: Geometry,
    /// The geometry of the kernel for one row: each of its threadgroups makes one partial sum.
    pub one: Geometry,
    /// Norm of the input.
    pub norm: Option<NormScale>,
    /// Whether a bias vector `[rows]` is added.
    pub bias: bool,
    /// What happens to the result.
    pub epilogue: Epilogue,
    /// Rows of the step.
    pub tokens: Tokens,
}

impl Gemv {
    /// The kernel for several rows whose result for each has the same bits as that of this one for one row: a sum's terms, and
    /// the partial sums that a norm adds up, come in the same order.
    pub fn for_few_tokens(&self, room: usize) -> Self {
        if self.table().is_some() {
            // A table of sums is of one row's input; looked up weights are summed in another order than multiplied ones.
            return Self { tokens: Tokens::Each, ..self.clone() };
        }
        let geometry = self.one.for_few_tokens(self.shape.format, self.epilogue.partials() > 0);
        Self { geometry, tokens: Tokens::Few(room), ..self.clone() }
    }

    /// Chunks of rows that a simdgroup has where one of the kernel for one row has one.
    pub fn chunks(&self) -> usize {
        self.geometry.rows_per_simdgroup / self.one.rows_per_simdgroup.min(self.geometry.rows_per_simdgroup)
    }

    /// The table that the kernel keeps in threadgroup memory, if it does.
    pub fn table(&self) -> Option<Table> {
        match (self.matrices.as_slice(), self.tokens) {
            ([only], Tokens::One | Tokens::Each) if self.rows >= TABLE_ROWS => Table::of(only.format),
            _ => None,
        }
    }

    /// Partial sums of squares of one row.
    pub fn partial_sums(&self) -> usize {
        self.rows.div_ceil(self.one.rows_per_threadgroup())
    }

    /// Threadgroups of the dispatch: each matrix starts at a new one.
    pub fn threadgroups(&self) -> usize {
        self.matrix_groups().iter().sum()
    }

    /// Threadgroups of each matrix.
    pub fn matrix_groups(&self) -> Vec<usize> {
        let per_group = self.geometry.rows_per_threadgroup();
        if self.epilogue.is_gated() {
            // Each simdgroup takes as many gate rows as up rows.
            return vec![(self.rows / 2).div_ceil(per_group / 2)];
        }
        self.matrices.iter().map(|s| s.rows.div_ceil(per_group)).collect()
    }

    /// Elements of one row of the input that threads load, over and over, for matrices of some formats.
    fn input_loads(&self, of: impl Fn(Format) -> bool) -> usize {
        if let Some(loads) = self.table().and_then(|table| table.loads) {
            // A threadgroup keeps what all of its simdgroups need.
            return if of(self.matrices[0].format) { self.threadgroups() * self.cols / 8 * loads } else { 0 };
        }
        // Of rows that are packed in tiles, lanes beyond the last column load what another lane does.
        let row = |matrix: &Matrix| match matrix.format {
            _ if !of(matrix.format) => 0,
            Format::F32 | Format::F16 | Format::BF16 => self.cols,
            _ => self.cols.next_multiple_of(TILE),
        };
        // Simdgroups that share rows read the input once together, and one without rows reads nothing.
        let rows = self.geometry.rows_per_simdgroup;
        if self.epilogue.is_gated() {
            let teams = (self.rows / 2).div_ceil(rows / 2);
            return teams * self.matrices.iter().map(row).sum::<usize>();
        }
        self.matrices.iter().map(|matrix| matrix.rows.div_ceil(rows) * row(matrix)).sum()
    }

    /// How much of the input is loaded. A simdgroup that decodes its weights once loads as many rows as it has room for,
    /// whether they are there or not.
    fn input_touch(&self) -> Touch {
        match self.tokens {
            Tokens::One | Tokens::Each => Touch::Loads(self.input_loads(|_| true)),
            Tokens::Few(room) => Touch::TileLoads {
                row: self.input_loads(|format| !format.decodes_once()),
                tile: room * self.input_loads(Format::decodes_once),
            },
        }
    }

    /// Floats of threadgroup memory: partial results of rows that several simdgroups share, then scales of several tokens, then sums of
    /// squares for each simdgroup.
    pub fn shared_floats(&self) -> [usize; 3] {
        let g = self.geometry;
        let rows = self.tokens.at_once();
        let split = if g.split_k > 1 { g.simdgroups * g.rows_per_simdgroup * rows } else { 0 };
        let scales = if self.norm.is_some() && matches!(self.tokens, Tokens::Few(_)) { rows } else { 0 };
        let sums = if self.epilogue.partials() > 0 { g.simdgroups * self.chunks() * rows } else { 0 };
        [split, scales, sums]
    }
}

impl KernelFamily for Gemv {
    fn bindings(&self) -> Vec<Binding> {
        let input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.cols]));
        let mut list: Vec<Binding> = matrix_bindings(&self.matrices).collect();
        list.push(input.touching(self.input_touch()));
        list.extend(
            self.norm.map(|norm| Binding::read(Role::InputSums, Element::F32, Extent::Rows(vec![norm.partials]))),
        );
        list.extend(self.bias.then(|| Binding::read(Role::Bias, Element::F32, Extent::Fixed(vec![self.rows]))));
        list.extend(result_bindings(self.epilogue, self.rows));
        // Last, so that a step's arguments for one row are the first ones of those for several.
        list.extend((self.tokens != Tokens::One).then(Binding::params));
        list
    }

    fn launch(&self) -> Launch {
        let floats: usize = self.shared_floats().iter().sum();
        let table = self.table().map_or(0, |table| table.bytes);
        let groups = Dim::Const(self.threadgroups());
        let grid = match self.tokens {
            Tokens::One => [groups, ONE, ONE],
            // Those that follow one another have the same weights, so that the second finds them in a cache.
            Tokens::Few(room) => [Dim::RowTiles(room), groups, ONE],
            Tokens::Each => [groups, Dim::Rows, ONE],
        };
        Launch {
            threads: 32 * self.geometry.simdgroups as u32,
            threadgroup_bytes: ((4 * floats).next_multiple_of(16) + table) as u32,
            grid,
        }
    }

    fn title(&self) -> String {
        let g = self.geometry;
        let split = if g.split_k > 1 { format!(", {} simdgroups share a row", g.split_k) } else { String::new() };
        let tokens = match self.tokens {
            Tokens::One => String::new(),
            Tokens::Few(room) => format!(" for up to {FEW_TOKENS} rows, {room} in a threadgroup"),
            Tokens::Each => format!(" for each of up to {FEW_TOKENS} rows"),
        };
        let (rows, simdgroups) = (g.rows_per_simdgroup, g.simdgroups);
        let matrices = describe_all(&self.matrices);
        format!("{matrices}{tokens}: {rows} rows per simdgroup, {simdgroups} simdgroups per threadgroup{split}")
    }

    fn body(&self) -> Body<'_> {
        Body::Gemv(self)
    }

    fn sources(&self) -> &'static [&'static str] {
        match self.epilogue {
            Epilogue::Activated(Activation::Xielu) => &["activation", "rows", "activated", "xielu"],
            Epilogue::Activated(_) => &["activation", "rows", "activated"],
            _ => &["activation", "rows"],
        }
    }

    fn table_source(&self) -> Option<&'static str> {
        self.table().map(|table| table.function)
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        operation(&self.matrices, self.norm.map(|norm| norm.eps), false, self.epilogue)
    }

    fn flops(&self) -> Linear {
        Linear::per_row(2 * (self.rows * self.cols) as u64)
    }

    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn rows(&self) -> Rows {
        if self.tokens == Tokens::One { Rows::One } else { Rows::Few }
    }

    fn projection(&self) -> Option<[usize; 2]> {
        Some([self.rows, self.cols])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel for one row.
    fn gemv(matrices: &[(Format, usize)], cols: usize, [rows, simdgroups, split_k]: [usize; 3], gated: bool) -> Gemv {
        let matrices = matrices.iter().map(|&(format, rows)| Matrix { format, rows, cols }).collect::<Vec<_>>();
        let rows_of_all = matrices.iter().map(|matrix| matrix.rows).sum();
        let store = Epilogue::Store { softcap: None, partials: None };
        Gemv {
            matrices,
            rows: rows_of_all,
            cols,
            shape: Shape { format: forge_formats::Format::Q8_0, rows: rows_of_all, cols },
            geometry: Geometry { rows_per_simdgroup: rows, simdgroups, split_k },
            one: Geometry { rows_per_simdgroup: rows, simdgroups, split_k },
            norm: None,
            bias: false,
            epilogue: if gated { Epilogue::Gated(Activation::Silu) } else { store },
            tokens: Tokens::One,
        }
    }

    /// Elements that threads load of one row of the input.
    fn loads(matrices: &[(Format, usize)], cols: usize, geometry: [usize; 3], gated: bool) -> usize {
        gemv(matrices, cols, geometry, gated).input_loads(|_| true)
    }

    #[test]
    fn rows_that_share_weights_are_loaded_whether_they_are_there_or_not() {
        // Simdgroups of four rows now, three for the second matrix.
        let one = gemv(&[(Format::Q8_0, 64), (Format::Iq3S, 10)], 384, [2, 4, 1], false);
        assert_eq!(one.for_few_tokens(4).input_touch(), Touch::TileLoads { row: 3 * 512, tile: 4 * 16 * 512 });
        assert_eq!(one.for_few_tokens(2).input_touch(), Touch::TileLoads { row: 3 * 512, tile: 2 * 16 * 512 });
        assert_eq!(one.input_touch(), Touch::Loads(32 * 512 + 5 * 512));
    }

    #[test]
    fn partial_sums_are_those_of_one_row() {
        let sums = Epilogue::Store { softcap: None, partials: Some(64) };
        let cases = [(1, 4), (2, 4), (4, 4), (8, 8)].map(|(rows, few)| (Format::Q4_0, rows, few));
        let floats = [1, 2, 4, 8].map(|rows| (Format::F16, rows, 8));
        for (format, rows, few_rows) in cases.into_iter().chain(floats) {
            let mut one = Gemv { epilogue: sums, ..gemv(&[(format, 130)], 1024, [rows, 4, 2], false) };
            if format == Format::F16 {
                one.shape.format = forge_formats::Format::F16;
            }
            let few = one.for_few_tokens(4);
            assert_eq!(few.geometry.rows_per_simdgroup, few_rows, "each chunk of rows lies in one simdgroup");
            assert_eq!(few.chunks() * rows, few_rows);
            assert_eq!(few.partial_sums(), one.threadgroups(), "one a threadgroup");
            assert_eq!((few.partial_sums(), few.geometry.split_k), (one.partial_sums(), 2));
        }
    }

    #[test]
    fn a_partial_sum_is_made_in_one_threadgroup() {
        let sums = Epilogue::Store { softcap: None, partials: Some(64) };
        for rows in [1, 2, 4, 8] {
            for (simdgroups, split) in [(2, 1), (4, 1), (8, 1), (4, 2), (8, 2), (4, 4), (8, 4), (8, 8)] {
                let one =
                    Gemv { epilogue: sums, ..gemv(&[(Format::Q8_0, 512)], 4096, [rows, simdgroups, split], false) };
                let few = one.for_few_tokens(4);
                let (each, of_one) = (few.geometry.rows_per_threadgroup(), one.geometry.rows_per_threadgroup());
                assert!(each.is_multiple_of(of_one), "{:?} of {:?}", few.geometry, one.geometry);
                assert_eq!(few.geometry.split_k, split, "columns are split alike");
                assert_eq!(few.partial_sums(), one.threadgroups());
                // No more simdgroups than either needs.
                let stored = Gemv { epilogue: Epilogue::Store { softcap: None, partials: None }, ..one.clone() };
                let least = stored.for_few_tokens(4).geometry.simdgroups;
                assert_eq!(least, simdgroups.min(4.max(split)));
                assert!(few.geometry.simdgroups == least || each == of_one, "{:?}", few.geometry);
            }
        }
    }

    #[test]
    fn inputs_are_loaded_by_simdgroups_with_rows() {
        // 22 of the 24 simdgroups of three threadgroups have rows.
        assert_eq!(loads(&[(Format::F32, 173)], 64, [8, 8, 1], false), 22 * 64);
        // Pairs of simdgroups share rows and columns.
        assert_eq!(loads(&[(Format::F32, 173)], 64, [8, 8, 2], false), 22 * 64);
        // A packed row ends in a tile of 256 columns, whatever there is of it.
        assert_eq!(loads(&[(Format::Q8_0, 64)], 384, [4, 4, 1], false), 16 * 512);
        assert_eq!(loads(&[(Format::Q8_0, 64)], 512, [4, 4, 1], false), 16 * 512);
        // Each matrix by its own format.
        assert_eq!(loads(&[(Format::Q8_0, 64), (Format::F16, 10)], 384, [4, 4, 1], false), 16 * 512 + 3 * 384);
        // Gate and up rows together, or one after the other where they are of two matrices.
        assert_eq!(loads(&[(Format::Q4_0, 128)], 256, [4, 4, 1], true), 32 * 256);
        assert_eq!(loads(&[(Format::Q4_0, 64), (Format::F32, 64)], 128, [4, 4, 1], true), 32 * (256 + 128));
    }
}
