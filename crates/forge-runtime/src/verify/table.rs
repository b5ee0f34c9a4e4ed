//! What a generated project says of its kernels, as data: `src/checks.rs` holds the table.

use super::super::gpu::Source;
use super::super::profile::Cost;
use super::super::tune::Tuning;
pub use super::packed::Format;

/// Every kernel of a project, for `verify`, `profile` and `tune`.
#[derive(Debug)]
pub struct Checks {
    /// Version of Forge that generated the project.
    pub forge_version: &'static str,
    /// The kernels.
    pub source: &'static Source,
    /// One entry per kernel.
    pub kernels: &'static [KernelCheck],
    /// What each kernel moves and computes, in the same order.
    pub costs: &'static [Cost],
    /// Other geometries of the matrix-vector kernels.
    pub tuning: &'static Tuning,
}

/// One kernel, how the schedule dispatches it, and what it computes.
#[derive(Debug, Clone, Copy)]
pub struct KernelCheck {
    /// Index into the model's kernels.
    pub kernel: usize,
    /// The layer whose weights are used, of those that run it; `None` outside the layers.
    pub layer: Option<usize>,
    /// Rows (tokens of a step) to try.
    pub rows: &'static [usize],
    /// Threadgroups.
    pub grid: [Dim; 3],
    /// What it computes.
    pub operation: Operation,
    /// What is bound: index = `[[buffer(i)]]`.
    pub arguments: &'static [Argument],
}

/// Threadgroups along one axis.
#[derive(Debug, Clone, Copy)]
pub enum Dim {
    /// So many.
    Const(usize),
    /// The step's rows.
    Rows,
    /// The step's rows, that many at once.
    RowTiles(usize),
    /// Parts of the context.
    Parts,
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// What it is to the operation.
    pub role: Role,
    /// Whether the kernel reads it.
    pub reads: bool,
    /// Whether the kernel writes it.
    pub writes: bool,
    /// Where it comes from, or its size.
    pub data: Data,
}

impl Argument {
    /// One that the kernel only reads.
    pub const fn read(role: Role, data: Data) -> Self {
        Self { role, reads: true, writes: false, data }
    }

    /// One that the kernel only writes.
    pub const fn write(role: Role, data: Data) -> Self {
        Self { role, reads: false, writes: true, data }
    }

    /// One that the kernel reads and writes.
    pub const fn update(role: Role, data: Data) -> Self {
        Self { role, reads: true, writes: true, data }
    }
}

/// What an argument holds.
#[derive(Debug, Clone, Copy)]
pub enum Data {
    /// This tensor of the weights file.
    Tensor(&'static str),
    /// So many f32 or u32 per row of the step.
    Words(usize),
    /// A KV cache with so many elements per position.
    Cache(usize),
    /// The step's `StepParams`.
    Params,
}

/// What an argument is to its kernel: the names of the parameters in `kernels.metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A projection's first matrix.
    Weights,
    /// A projection's second matrix.
    Weights1,
    /// A projection's third matrix.
    Weights2,
    /// The embedding table.
    Table,
    /// Token ids to look up.
    Tokens,
    /// A projection's input.
    Input,
    /// Partial sums of the input's squares, for its norm.
    InputSums,
    /// Added to a projection.
    Bias,
    /// Result, or what a post-norm works on.
    Y,
    /// Partial sums of the result's squares.
    ResultSums,
    /// The residual stream, or a norm's input.
    X,
    /// Gamma of a norm.
    Gamma,
    /// The residual stream times the next norm's gamma.
    Scaled,
    /// Partial sums of the residual stream's squares.
    Sums,
    /// Gamma of a post-norm.
    PostGamma,
    /// Factor on the residual stream after a post-norm.
    Scale,
    /// What an activated projection is multiplied by.
    Multiplier,
    /// The embedding projected to all layers' own inputs.
    Projected,
    /// Queries, keys and values of a row.
    Qkv,
    /// Queries.
    Q,
    /// Results of the parts of a split context.
    Parts,
    /// The cache of keys.
    Keys,
    /// The cache of values.
    Values,
    /// Gamma of the query heads' norm.
    QGamma,
    /// Gamma of the key heads' norm.
    KGamma,
    /// Gamma of the value heads' norm.
    VGamma,
    /// The step's parameters.
    Step,
    /// A row of logits.
    Logits,
    /// One bit per token that occurred.
    Seen,
    /// Key and id of the best token of each share of the vocabulary.
    Best,
    /// How many candidates there are.
    Count,
    /// Tokens that may be drawn: key, id, weight.
    Candidates,
    /// The chosen token, for the next step.
    NextToken,
    /// The chosen token, for the host.
    Chosen,
}

/// A packed matrix of the weights file.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// How it is packed.
    pub format: Format,
    /// Output rows.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
}

/// What a kernel computes.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// Rows of a table times `scale`.
    Embed {
        /// The table.
        table: Matrix,
        /// Factor.
        scale: f32,
    },
    /// Every layer's own input, `[layers, rows, width]`: `factor * (norm(projected) + scale * table[token])`, each layer's
    /// part with a norm of its own.
    LayerInputs {
        /// `[vocab, layers * width]`.
        table: Matrix,
        /// Layers.
        layers: usize,
        /// Added to the mean of squares.
        eps: f32,
        /// Factor on the table.
        scale: f32,
        /// Factor on the sum.
        factor: f32,
    },
    /// Matrices over one input.
    Project(Projection),
    /// Head norms, rotation, and the append to the cache.
    RopeAppend(RopeAppend),
    /// Causal attention over the cache.
    Attention(Attention),
    /// Puts the parts of a split context together.
    AttentionCombine {
        /// Query heads.
        heads: usize,
        /// Elements of a head.
        head_dim: usize,
        /// How the context was cut.
        split: Split,
    },
    /// RMS norm of each row.
    RmsNorm {
        /// Elements of a row.
        width: usize,
        /// Added to the mean of squares.
        eps: f32,
    },
    /// `x = (x + factor * norm(y)) * scale`, the scale being an argument or 1.
    PostNorm {
        /// Elements of a row.
        width: usize,
        /// Added to the mean of squares.
        eps: f32,
        /// Factor on the normed value.
        factor: f32,
    },
    /// The best token of each share of the vocabulary.
    SampleBest(Vocabulary),
    /// The tokens that may be drawn.
    SampleCollect(Vocabulary),
    /// The draw.
    SampleDraw(Vocabulary),
}

/// Sizes of the sampling kernels.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary {
    /// Tokens.
    pub tokens: usize,
    /// Threadgroups that share them.
    pub groups: usize,
}

/// A projection of one or many rows.
#[derive(Debug, Clone, Copy)]
pub struct Projection {
    /// Stacked: the first matrix has the first output rows.
    pub matrices: &'static [Matrix],
    /// Added to the mean of squares where the input's norm is applied to the result.
    pub norm_eps: Option<f32>,
    /// Operands of the multiplication are rounded to half.
    pub half_operands: bool,
    /// What happens to the result.
    pub epilogue: Epilogue,
}

/// What happens to a projection's result.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue {
    /// Stored.
    Store {
        /// `cap * tanh(y / cap)`.
        softcap: Option<f32>,
    },
    /// Added to the residual stream, times `factor`.
    Residual {
        /// Factor.
        factor: f32,
    },
    /// `activation(gate) * up`; gate rows come first.
    Gated(Activation),
    /// `activation(y)` times the argument `multiplier`.
    GatedBy(Activation),
}

/// A non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU with the tanh approximation.
    GeluTanh,
}

/// Element type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheType {
    /// Binary16.
    F16,
    /// Binary32.
    F32,
}

impl CacheType {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A norm of heads.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm {
    /// Added to the mean of squares.
    pub eps: f32,
    /// One norm over all heads together rather than one per head.
    pub across_heads: bool,
}

/// Sizes of the RoPE kernel.
#[derive(Debug, Clone, Copy)]
pub struct RopeAppend {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; 0 where the layer reads another layer's cache.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Values are the keys before their norm and rotation.
    pub keys_as_values: bool,
    /// Norms of queries, keys and values.
    pub norms: [Option<HeadNorm>; 3],
    /// Rotations per position of each pair, `[rotary_dim / 2]`; none where heads do not rotate.
    pub inv_freq: &'static [f32],
    /// Pairs are (2i, 2i + 1) rather than (i, i + rotary_dim / 2).
    pub interleaved: bool,
    /// Factor on cos and sin.
    pub magnitude: f32,
    /// Element type of the cache.
    pub cache: CacheType,
    /// Positions that the cache wraps at.
    pub wrap: Option<usize>,
}

/// Sizes of an attention kernel.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Bound on the scores, `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Positions that a token sees, its own included.
    pub window: Option<usize>,
    /// Element type of the cache.
    pub cache: CacheType,
    /// Positions that the cache wraps at.
    pub wrap: Option<usize>,
    /// Queries and probabilities are rounded to half.
    pub half_operands: bool,
    /// The kernel leaves results of parts of the context: `[parts, heads, head_dim]` sums, then `[parts, heads, 2]` highest
    /// score in powers of two, and weight.
    pub split: Option<Split>,
}

/// How a long context is cut into parts.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// Contexts of up to so many positions are not.
    pub above: usize,
    /// Positions of a part, while there are fewer than `most`.
    pub positions: usize,
    /// Most parts.
    pub most: usize,
    /// Positions that a token sees, its own included.
    pub window: Option<usize>,
}

impl Split {
    /// Parts of the context of a token at `position`.
    pub fn parts(&self, position: usize) -> usize {
        (position + 1).min(self.window.unwrap_or(usize::MAX)).div_ceil(self.positions).min(self.most)
    }
}
