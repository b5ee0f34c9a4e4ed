//! Kernels as the plan knows them: a family with its constants, bindings, thread counts.

use forge_frontend::graph::{Activation, Attention, Rope};
pub use forge_spec::{Format, Matrix};

use crate::{attention, geometry};

/// Index into [`Plan::kernels`](crate::Plan::kernels).
pub type KernelId = usize;

/// One kernel of `kernels.metal`.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// The role's name, unique: `qkv_proj`, `down_proj_q6_k`.
    pub name: String,
    /// Family and constants.
    pub family: Family,
    /// Threads per threadgroup.
    pub threads: u32,
    /// Bytes of threadgroup memory; at most 32 768.
    pub threadgroup_bytes: u32,
    /// Buffer arguments, index = `[[buffer(i)]]`.
    pub bindings: Vec<Binding>,
}

/// One buffer argument of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Parameter name in MSL.
    pub name: &'static str,
    /// MSL element type.
    pub element: &'static str,
    /// Shape and format, for the comment: `[4096, 4096] q8_0`.
    pub shape: String,
    /// Whether the kernel reads and writes it.
    pub access: Access,
    /// `constant` reference rather than `device` pointer.
    pub constant: bool,
}

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written.
    Write,
    /// Read and written.
    ReadWrite,
}

impl Access {
    /// Whether the kernel reads it.
    pub fn reads(self) -> bool {
        self != Access::Write
    }
    /// Whether the kernel writes it.
    pub fn writes(self) -> bool {
        self != Access::Read
    }
}

/// Kernel families; each is one `.metal` file under `templates/msl`.
#[derive(Debug, Clone, PartialEq)]
pub enum Family {
    /// Token id to residual stream, decode: also `x * gamma` and partial sums of squares.
    Embed(Embed),
    /// Matrix times vector with a fused prologue and epilogue.
    Gemv(Gemv),
    /// Matrix times a tile of tokens.
    Gemm(Gemm),
    /// Head norms, RoPE and KV append, any number of rows.
    RopeAppend(RopeAppend),
    /// Causal attention of a tile of tokens over the cache.
    AttentionTile(AttentionKernel),
    /// Attention of one token over the whole context.
    AttentionDecode(AttentionKernel),
    /// Attention of one token over one part of the context.
    AttentionPart(AttentionKernel),
    /// Puts the parts together.
    AttentionCombine(AttentionKernel),
    /// Every layer's own input, from a projection of the embedding and a table, any number of rows.
    LayerInputs(LayerInputs),
    /// RMS norm of each row of a tile.
    RmsNorm(RmsNorm),
    /// `x += norm(y)` after a projection with a post-norm.
    PostNorm(PostNorm),
    /// Choice of the next token, step 1: the best of each share of the vocabulary.
    SampleBest(Sample),
    /// Step 2: tokens that may be drawn.
    SampleCollect(Sample),
    /// Step 3: filters and draw.
    SampleDraw(Sample),
}

/// Constants of the sampling kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Length of a row of logits.
    pub vocab: usize,
    /// Threadgroups that share the vocabulary.
    pub groups: usize,
}

/// Constants of the embedding kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// `[vocab, hidden]`.
    pub table: Matrix,
    /// Factor on the embedding.
    pub scale: f32,
    /// Decode: what the next projection needs. `None` in prefill.
    pub next: Option<NextNorm>,
}

/// Constants of the kernel of the layers' own inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInputs {
    /// `[vocab, layers * width]`.
    pub table: Matrix,
    /// Layers.
    pub layers: usize,
    /// Elements of a layer's input; the table and the projection have `layers * width` columns.
    pub width: usize,
    /// Added to the mean of squares of a layer's part of the projection.
    pub eps: f32,
    /// Factor on the table.
    pub scale: f32,
    /// Factor on the sum.
    pub factor: f32,
}

/// What a residual epilogue prepares for the next projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextNorm {
    /// Slots in the partial-sums buffer that the next projection adds up.
    pub partials: usize,
}

/// What scales a projection's result: the norm of its input, applied as one scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormScale {
    /// Partial sums of squares to add up.
    pub partials: usize,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// What happens to a projection's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Epilogue {
    /// Stored; `softcap` on logits; `partials` sums of squares for a post-norm.
    Store {
        /// `cap * tanh(y / cap)`.
        softcap: Option<f32>,
        /// Partial sums of squares of the result, for a post-norm.
        partials: Option<usize>,
    },
    /// Added to the residual stream times `factor`; decode also prepares the next norm.
    Residual {
        /// Factor on the projection.
        factor: f32,
        /// Decode: what the next projection needs.
        next: Option<NextNorm>,
    },
    /// `activation(gate) * up`: rows are gate rows, then up rows.
    Gated(Activation),
    /// `activation(y) * multiplier`, which another buffer holds.
    GatedBy(Activation),
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
    pub shape: geometry::Shape,
    /// Rows a simdgroup, simdgroups a threadgroup, simdgroups a row.
    pub geometry: geometry::Geometry,
    /// Norm of the input.
    pub norm: Option<NormScale>,
    /// Whether a bias vector `[rows]` is added.
    pub bias: bool,
    /// What happens to the result.
    pub epilogue: Epilogue,
    /// Most tokens in one step: 1 in decode, [`FEW_TOKENS`] in the kernels of short prefill tiles.
    pub tokens: usize,
}

/// Constants of a matrix-matrix kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemm {
    /// Matrices over the same input, in the order of their output rows.
    pub matrices: Vec<Matrix>,
    /// Output rows of all matrices.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
    /// Tiles hold half (true) or float operands.
    pub half_tiles: bool,
    /// Whether a bias vector `[rows]` is added.
    pub bias: bool,
    /// What happens to the result.
    pub epilogue: Epilogue,
}

/// Prefill tiles of up to that many tokens run on matrix-vector kernels, which read the weights once for all of them.
pub const FEW_TOKENS: usize = 8;
/// Tokens in one tile of a matrix-matrix kernel.
pub const GEMM_TOKENS: usize = 64;
/// Weight rows in one tile of a matrix-matrix kernel.
pub const GEMM_ROWS: usize = 64;

/// A norm of heads, and whether it has weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNorm {
    /// Epsilon, and which elements it is over.
    pub norm: forge_spec::HeadNorm,
    /// Multiplied by `[head_dim]` weights.
    pub gamma: bool,
}

/// Constants of the norm + RoPE + append kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeAppend {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; 0 where the layer reads another layer's cache.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Values are the keys before their norm and rotation.
    pub keys_as_values: bool,
    /// Norm of the queries.
    pub q_norm: Option<HeadNorm>,
    /// Norm of the keys.
    pub k_norm: Option<HeadNorm>,
    /// Norm of the values.
    pub v_norm: Option<HeadNorm>,
    /// Rotation; `None` for layers without positions.
    pub rope: Option<Rope>,
    /// Index of the frequency table in [`Plan::rope_tables`](crate::Plan::rope_tables).
    pub table: Option<usize>,
    /// Storage of the cache.
    pub kv: crate::CacheType,
    /// Positions that the cache wraps at; `None` for a cache of the whole context.
    pub wrap: Option<usize>,
}

/// Constants of the attention kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionKernel {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Scale, window, soft-cap.
    pub attention: Attention,
    /// Storage of the cache.
    pub kv: crate::CacheType,
    /// Positions that the cache wraps at.
    pub wrap: Option<usize>,
}

impl RopeAppend {
    /// Elements of a row before rotation.
    pub fn width(&self) -> usize {
        (self.heads + if self.keys_as_values { 1 } else { 2 } * self.kv_heads) * self.head_dim
    }
}

impl AttentionKernel {
    /// Floats that one part leaves for all heads: sums, highest score, weight.
    pub fn part_floats(&self) -> usize {
        self.heads * (self.head_dim + 2)
    }

    /// Bytes of an operand of the tiled kernel.
    pub fn operand_bytes(&self) -> usize {
        if attention::half_operands(self.head_dim, self.kv) { 2 } else { 4 }
    }

    /// Keys in one tile of the tiled kernel.
    pub fn tile_keys(&self) -> usize {
        attention::tile_keys(self.head_dim, self.operand_bytes() == 2)
    }

    /// Floats of threadgroup memory of the tiled kernel: the tile of keys or values, scores, probabilities and a
    /// diagonal matrix per simdgroup.
    pub fn tile_shared(&self) -> usize {
        let (keys, bytes) = (self.tile_keys(), self.operand_bytes());
        keys * self.head_dim * bytes / 4 + 32 * keys + 32 * keys * bytes / 4 + 4 * 64
    }
}

/// Constants of the row norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNorm {
    /// Row width.
    pub width: usize,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// Constants of the post-norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PostNorm {
    /// Row width.
    pub width: usize,
    /// Added to the mean of squares.
    pub eps: f32,
    /// Factor on the normed value.
    pub factor: f32,
    /// Whether a number of the checkpoint multiplies the sum.
    pub scaled: bool,
    /// Partial sums of squares to add up; `None`: the kernel sums the row itself (prefill).
    pub partials: Option<usize>,
    /// Decode: what the next projection needs.
    pub next: Option<NextNorm>,
}

impl Gemv {
    /// Whether the kernel keeps all signed sums of four inputs in threadgroup memory and looks weights up four at a time
    /// (`gemv_q1_0_sums`).
    pub fn signed_sums(&self) -> bool {
        let one_matrix = matches!(self.matrices.as_slice(), [only] if only.format == Format::Q1_0);
        one_matrix && self.tokens == 1 && self.rows >= geometry::SIGNED_SUMS_ROWS
    }

    /// Threadgroups of the dispatch: each matrix starts at a new one.
    pub fn threadgroups(&self) -> usize {
        self.segment_groups().iter().sum()
    }

    /// Threadgroups of each matrix.
    pub fn segment_groups(&self) -> Vec<usize> {
        let per_group = self.geometry.rows_per_threadgroup();
        if matches!(self.epilogue, Epilogue::Gated(_)) {
            // Each simdgroup takes as many gate rows as up rows.
            return vec![(self.rows / 2).div_ceil(per_group / 2)];
        }
        self.matrices.iter().map(|s| s.rows.div_ceil(per_group)).collect()
    }
}

impl Gemm {
    /// Tiles of weight rows of the dispatch: each matrix starts at a new one.
    pub fn row_tiles(&self) -> usize {
        self.segment_tiles().iter().sum()
    }

    /// Tiles of weight rows of each matrix.
    pub fn segment_tiles(&self) -> Vec<usize> {
        if matches!(self.epilogue, Epilogue::Gated(_)) {
            return vec![(self.rows / 2).div_ceil(GEMM_ROWS / 2)];
        }
        self.matrices.iter().map(|s| s.rows.div_ceil(GEMM_ROWS)).collect()
    }
}
