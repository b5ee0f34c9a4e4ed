//! Matrix times a tile of tokens.

use forge_spec::{Activation, Dim, Matrix, Operation, Role};

use super::projection::{describe_all, matrix_bindings, operation, result_bindings};
use super::{Body, Epilogue, KernelFamily, Launch, ONE};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::linear::Linear;

/// Tokens in one tile of a matrix-matrix kernel.
pub const GEMM_TOKENS: usize = 64;
/// Weight rows in one tile of a matrix-matrix kernel.
pub const GEMM_ROWS: usize = 64;

/// Bytes of threadgroup memory of products of so many tokens: half operands twice, or float ones.
pub(super) fn product_bytes(tokens: usize) -> u32 {
    ((tokens + GEMM_ROWS) * 32 * 4) as u32
}

/// What the operands of a tile's products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// Halves: the input cannot leave their range.
    Halves,
    /// Halves: each row of the input is multiplied by a power of two, and its products are divided by it.
    ScaledHalves,
    /// Floats: the weights may be out of the range of halves.
    Floats,
}

impl Operands {
    /// Halves or floats, of rows as they are.
    pub fn unscaled(halves: bool) -> Self {
        if halves { Self::Halves } else { Self::Floats }
    }

    /// Whether they are halves, of scaled rows or not.
    pub fn are_halves(self) -> bool {
        self != Self::Floats
    }

    /// Whether rows of the input have scales.
    pub fn are_scaled(self) -> bool {
        self == Self::ScaledHalves
    }
}

/// Scales that the lanes of a threadgroup of tiles load before its products: two each.
const SCALE_LOADS: usize = 256;

/// Constants of a matrix-matrix kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemm {
    /// Matrices over the same input, in the order of their output rows.
    pub matrices: Vec<Matrix>,
    /// Output rows of all matrices.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
    /// What tiles hold.
    pub operands: Operands,
    /// Whether a bias vector `[rows]` is added.
    pub bias: bool,
    /// What happens to the result.
    pub epilogue: Epilogue,
}

impl Gemm {
    /// Tiles of weight rows of the dispatch: each matrix starts at a new one.
    pub fn row_tiles(&self) -> usize {
        self.matrix_tiles().iter().sum()
    }

    /// Tiles of weight rows of each matrix.
    pub fn matrix_tiles(&self) -> Vec<usize> {
        if self.epilogue.is_gated() {
            return vec![(self.rows / 2).div_ceil(GEMM_ROWS / 2)];
        }
        self.matrices.iter().map(|s| s.rows.div_ceil(GEMM_ROWS)).collect()
    }
}

impl KernelFamily for Gemm {
    fn bindings(&self) -> Vec<Binding> {
        let input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.cols]));
        let mut list: Vec<Binding> = matrix_bindings(&self.matrices).collect();
        list.push(input.touching(Touch::Loads(self.row_tiles() * self.cols)));
        if self.operands.are_scaled() {
            // One more for each of a row's results.
            let row = if self.epilogue.is_gated() { self.rows / 2 } else { self.rows };
            let scales = Binding::read(Role::InputScales, Element::F32, Extent::Rows(vec![1]));
            list.push(scales.touching(Touch::TileLoads { row, tile: SCALE_LOADS * self.row_tiles() }));
        }
        list.extend(self.bias.then(|| Binding::read(Role::Bias, Element::F32, Extent::Fixed(vec![self.rows]))));
        list.extend(result_bindings(self.epilogue, self.rows));
        list.push(Binding::params());
        list
    }

    fn launch(&self) -> Launch {
        Launch {
            threads: 128,
            threadgroup_bytes: product_bytes(GEMM_TOKENS),
            grid: [Dim::Const(self.row_tiles()), Dim::RowTiles(GEMM_TOKENS), ONE],
        }
    }

    fn title(&self) -> String {
        let matrices = describe_all(&self.matrices);
        format!("{matrices}, a tile of {GEMM_TOKENS} tokens and {GEMM_ROWS} rows per threadgroup")
    }

    fn body(&self) -> Body<'_> {
        Body::Gemm(self)
    }

    fn sources(&self) -> &'static [&'static str] {
        match self.epilogue {
            Epilogue::Activated(Activation::Xielu) => &["activation", "activated", "xielu", "product", "gemm"],
            Epilogue::Activated(_) => &["activation", "activated", "product", "gemm"],
            Epilogue::Store { .. } | Epilogue::Residual { .. } | Epilogue::Gated(_) | Epilogue::GatedBy(_) => {
                &["activation", "product", "gemm"]
            }
        }
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        operation(&self.matrices, None, self.operands.are_halves(), self.epilogue)
    }

    /// Those of whole tiles; the last one of a prompt takes half of it where it has 32 tokens or fewer.
    fn flops(&self) -> Linear {
        let per_tile = 2 * (self.row_tiles() * GEMM_ROWS * GEMM_TOKENS * self.cols) as u64;
        Linear { per_tile, ..Linear::default() }
    }

    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn projection(&self) -> Option<[usize; 2]> {
        Some([self.rows, self.cols])
    }
}
