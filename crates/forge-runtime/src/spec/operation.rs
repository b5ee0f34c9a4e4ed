//! What a kernel computes, with its sizes.

use super::Format;
use super::latent::{LatentAppend, LatentAttention, LatentExpand, LatentQueries, LatentRotate, LatentValues};
use super::mixture::{ExpertsDown, ExpertsUp, Routing, SharedWeight, SortExperts};

/// A packed matrix of the weights file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matrix {
    /// How it is packed.
    pub format: Format,
    /// Output rows.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
}

/// What a kernel computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation<'a> {
    /// Rows of a table times `scale`, through a norm without weights where there is one.
    Embed {
        /// The table.
        table: Matrix,
        /// Factor.
        scale: f32,
        /// The norm: added to the mean of squares.
        norm_eps: Option<f32>,
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
    Project(Projection<'a>),
    /// Head norms, rotation, and the append to the cache.
    RopeAppend(RopeAppend<'a>),
    /// `C * (conv(B * X) + bias)` of rows that hold B, C and X, the bias being an argument or 0: a causal convolution of each
    /// channel over the last `taps` rows. The state holds the last `taps - 1` rows of `B * X`, the oldest first.
    ShortConv {
        /// Elements of B, of C, of X and of the result.
        channels: usize,
        /// Rows that a result depends on, its own included.
        taps: usize,
    },
    /// The gated delta rule.
    GatedDelta(GatedDelta),
    /// `y * sigmoid(gate)`: in a row of `width` elements the gates of head h begin at `first + h * stride`.
    HeadGate {
        /// Heads.
        heads: usize,
        /// Elements of a head.
        head_dim: usize,
        /// Where the gates of the first head begin.
        first: usize,
        /// From the gates of one head to those of the next.
        stride: usize,
        /// Elements of a row of queries and gates, keys and values.
        width: usize,
    },
    /// Causal attention over the cache, with what its arguments have for each head.
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
    /// The append to a cache of latents.
    LatentAppend(LatentAppend<'a>),
    /// Queries over a cache of latents.
    LatentQueries(LatentQueries<'a>),
    /// Causal attention over a cache of latents.
    LatentAttention(LatentAttention),
    /// Keys or values of heads from a cache of latents.
    LatentExpand(LatentExpand),
    /// Queries over those.
    LatentRotate(LatentRotate<'a>),
    /// Values of heads from what attention over latents leaves.
    LatentValues(LatentValues),
    /// The power of two that takes the largest element of each row to 2^14 or above, and below 2^15: the argument `input_scales` of
    /// projections.
    RowScale {
        /// Elements of a row.
        width: usize,
        /// Such rows that a row of the step has.
        each: usize,
    },
    /// RMS norm of each row.
    RmsNorm {
        /// Elements of a row.
        width: usize,
        /// Added to the mean of squares.
        eps: f32,
    },
    /// `(x - mean) / sqrt(variance + eps) * gamma`, plus the argument `beta` where there is one, of each row.
    LayerNorm {
        /// Elements of a row.
        width: usize,
        /// Added to the variance.
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
    /// The experts of each row and their weights, from the router's logits.
    Route {
        /// The rule.
        routing: Routing,
        /// The weight of an expert that every row takes.
        shared: Option<SharedWeight>,
    },
    /// The order in which experts run over many rows.
    SortExperts(SortExperts),
    /// Gate, up and activation of experts.
    ExpertsUp(ExpertsUp<'a>),
    /// What experts add to the residual stream, or leave for the sum.
    ExpertsDown(ExpertsDown),
    /// `x += factor * sum of weight * result` over the experts of each row; where the kernel has the argument `y`, the sum is
    /// stored there.
    ExpertsSum {
        /// Elements of a row.
        width: usize,
        /// Experts of a row.
        chosen: usize,
        /// Whether there is one that every row takes: the argument `projected`.
        shared: bool,
        /// Factor on the sum.
        factor: f32,
    },
    /// The best token of each share of the vocabulary.
    SampleBest(Vocabulary),
    /// The tokens that may be drawn.
    SampleCollect(Vocabulary),
    /// The draw.
    SampleDraw(Vocabulary),
}

impl Operation<'_> {
    /// What kind of work it is, to sort kernels by.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Embed { .. } | Self::LayerInputs { .. } => "embedding",
            Self::Project(_) | Self::RowScale { .. } => "projection",
            Self::RopeAppend(_)
            | Self::HeadGate { .. }
            | Self::Attention(_)
            | Self::AttentionCombine { .. }
            | Self::LatentAppend(_)
            | Self::LatentQueries(_)
            | Self::LatentAttention(_)
            | Self::LatentValues(_)
            | Self::LatentExpand(_)
            | Self::LatentRotate(_) => "attention",
            Self::ShortConv { .. } | Self::GatedDelta(_) => "recurrent",
            Self::RmsNorm { .. } | Self::LayerNorm { .. } | Self::PostNorm { .. } => "norm",
            Self::Route { .. }
            | Self::SortExperts(_)
            | Self::ExpertsUp(_)
            | Self::ExpertsDown(_)
            | Self::ExpertsSum { .. } => "mixture",
            Self::SampleBest(_) | Self::SampleCollect(_) | Self::SampleDraw(_) => "choice",
        }
    }

    /// How the context is cut, for the kernels of a split one.
    pub const fn split(&self) -> Option<Split> {
        match self {
            Self::Attention(attention) => attention.split,
            Self::LatentAttention(attention) => attention.split,
            Self::AttentionCombine { split, .. } => Some(*split),
            Self::Embed { .. }
            | Self::LayerInputs { .. }
            | Self::Project(_)
            | Self::RopeAppend(_)
            | Self::ShortConv { .. }
            | Self::GatedDelta(_)
            | Self::HeadGate { .. }
            | Self::LatentAppend(_)
            | Self::LatentQueries(_)
            | Self::LatentExpand(_)
            | Self::LatentRotate(_)
            | Self::LatentValues(_)
            | Self::RowScale { .. }
            | Self::RmsNorm { .. }
            | Self::LayerNorm { .. }
            | Self::PostNorm { .. }
            | Self::Route { .. }
            | Self::SortExperts(_)
            | Self::ExpertsUp(_)
            | Self::ExpertsDown(_)
            | Self::ExpertsSum { .. }
            | Self::SampleBest(_)
            | Self::SampleCollect(_)
            | Self::SampleDraw(_) => None,
        }
    }
}

/// Sizes of the sampling kernels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vocabulary {
    /// Tokens.
    pub tokens: usize,
    /// Threadgroups that share them.
    pub groups: usize,
}

/// A projection of one or many rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Projection<'a> {
    /// Stacked: the first matrix has the first output rows.
    pub matrices: &'a [Matrix],
    /// Added to the mean of squares where the input's norm is applied to the result.
    pub norm_eps: Option<f32>,
    /// Operands of the multiplication are rounded to half; inputs after they are multiplied by the argument `input_scales`, where there is one.
    pub half_operands: bool,
    /// What happens to the result.
    pub epilogue: Epilogue,
}

/// What happens to a projection's result.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// `activation(y)`.
    Activated(Activation),
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
    /// `max(x, 0)^2`.
    ReluSquared,
    /// xIELU (Huang and Schlag, "Deriving Activation Functions Using Integration", 2024), with numbers `[alpha_p, alpha_n,
    /// beta, eps]` of the layer, eps below 0: `(alpha_p x + beta) x` where x is positive, else
    /// `alpha_n (expm1(min(x, eps)) - x) + beta x`.
    Xielu,
    /// gpt-oss's SwiGLU, which changes both of its inputs: `g * sigmoid(alpha g) * (u + 1)` of the gate `g`, at most `limit`, and
    /// `u` between `-limit` and `limit`. Both numbers in thousandths.
    ClampedSwiglu {
        /// How steep the sigmoid is.
        alpha: usize,
        /// The bound.
        limit: usize,
    },
}

impl Activation {
    /// How many numbers of the layer it takes.
    pub const fn parameters(self) -> usize {
        match self {
            Self::Silu | Self::GeluTanh | Self::ReluSquared | Self::ClampedSwiglu { .. } => 0,
            Self::Xielu => 4,
        }
    }
}

/// A factor that grows with the position: `1 + beta * ln(1 + floor(position / original_context))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionScale {
    /// How fast it grows.
    pub beta: f32,
    /// Positions below this have a factor of 1.
    pub original_context: usize,
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// Binary16.
    #[default]
    F16,
    /// Binary32.
    F32,
    /// Blocks of 32 elements of a head: signed codes of a byte and a binary16 scale, as GGUF's block_q8_0 has them. All codes
    /// of a position come first, then all scales, `templates/msl/kv_q8_0.metal` says why.
    Q8_0,
    /// Blocks of 32 elements of a head: codes of four bits and a binary16 scale, as GGUF's block_q4_0 has them but for the order of
    /// the codes. All codes of a position come first, two neighbours in a byte, then all scales.
    Q4_0,
}

impl CacheType {
    /// All of them, the default first.
    pub const ALL: [Self; 4] = [Self::F16, Self::F32, Self::Q8_0, Self::Q4_0];

    /// What it is called in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv| kv.name() == name)
    }

    /// What it is, for who has to choose one.
    pub const fn description(self) -> &'static str {
        match self {
            Self::F16 => "Half precision",
            Self::F32 => "Single precision",
            Self::Q8_0 => "8.5 bits an element: blocks of 32; for heads of a multiple of 32 elements",
            Self::Q4_0 => "4.5 bits an element, likewise",
        }
    }

    /// What its elements are called: MSL's type where each is a number by itself.
    pub const fn element(self) -> &'static str {
        match self {
            Self::F16 => "half",
            Self::F32 => "float",
            Self::Q8_0 | Self::Q4_0 => self.name(),
        }
    }

    /// Elements that are stored together; heads are whole blocks.
    pub const fn block(self) -> usize {
        match self {
            Self::F16 | Self::F32 => 1,
            Self::Q8_0 | Self::Q4_0 => 32,
        }
    }

    /// Bytes of `count` elements, whole blocks.
    pub const fn bytes(self, count: usize) -> usize {
        match self {
            Self::F16 => 2 * count,
            Self::F32 => 4 * count,
            Self::Q8_0 => count + count / 16,
            Self::Q4_0 => count / 2 + count / 16,
        }
    }

    /// Bytes from a position of `width` elements to the next.
    pub const fn stride(self, width: usize) -> usize {
        match self {
            Self::F16 | Self::F32 => self.bytes(width),
            Self::Q8_0 | Self::Q4_0 => self.bytes(width).next_multiple_of(8),
        }
    }
}

/// A norm of heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNorm {
    /// Added to the mean of squares.
    pub eps: f32,
    /// One norm over all heads together rather than one per head.
    pub across_heads: bool,
}

/// Where the gates of attention's result are in a row of queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// Nowhere.
    None,
    /// Those of each head follow its queries.
    ByHead,
    /// Those of all heads follow the values.
    Last,
}

impl Gates {
    /// From the queries of one head to those of the next, in heads.
    pub const fn query_stride(self) -> usize {
        match self {
            Self::None | Self::Last => 1,
            Self::ByHead => 2,
        }
    }

    /// Heads of a row of so many query heads and so many of keys and values, gates among them.
    pub const fn row(self, heads: usize, others: usize) -> usize {
        match self {
            Self::None => heads + others,
            Self::ByHead | Self::Last => 2 * heads + others,
        }
    }
}

/// Sizes of the RoPE kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeAppend<'a> {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; 0 where the layer reads another layer's cache.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Values are the keys before their norm and rotation.
    pub keys_as_values: bool,
    /// Gates, which are passed over.
    pub gates: Gates,
    /// Norms of queries, keys and values.
    pub norms: [Option<HeadNorm>; 3],
    /// Norms of queries and keys are taken after their rotation rather than before.
    pub norms_last: bool,
    /// Rotations per position of each pair, `[rotary_dim / 2]`; none where heads do not rotate.
    pub inv_freq: &'a [f32],
    /// Pairs are (2i, 2i + 1) rather than (i, i + rotary_dim / 2).
    pub interleaved: bool,
    /// Factor on cos and sin.
    pub magnitude: f32,
    /// Factor on the queries.
    pub query_scale: Option<PositionScale>,
    /// Element type of the cache.
    pub cache: CacheType,
    /// Positions that the cache wraps at.
    pub wrap: Option<usize>,
}

/// Sizes of the gated delta rule.
///
/// A row is q and k of the key heads, v of the value heads, a gate z for each value, then b and a of each value head. q, k and v go
/// through a causal convolution of each channel and SiLU; then q and k of a head are divided by their length, `sqrt(sum x^2 +
/// 1e-6)`, and q by `sqrt(key_dim)`. The state S `[value_dim, key_dim]` of a value head becomes `exp(decay * softplus(a +
/// time_bias)) S`, then `u = sigmoid(b) (v - S k)` is written, `S + u k^T`, and read, `o = S q`. The result is
/// `o / rms(o) * gamma * silu(z)`, each head by itself. (Yang et al., "Gated Delta Networks", 2024.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedDelta {
    /// Heads of q and k.
    pub key_heads: usize,
    /// Heads of v; a multiple of `key_heads`.
    pub value_heads: usize,
    /// Elements of a head of q and of k.
    pub key_dim: usize,
    /// Elements of a head of v.
    pub value_dim: usize,
    /// Rows that the convolution depends on, its own included.
    pub taps: usize,
    /// Value head j has key head `j % key_heads`; else neighbours share one.
    pub tiled_heads: bool,
    /// Added to the mean of squares of a result.
    pub eps: f32,
}

impl GatedDelta {
    /// Channels that are convolved: q, k and v of all heads.
    pub const fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    /// Elements of a row.
    pub const fn row_width(&self) -> usize {
        self.channels() + self.value_heads * self.value_dim + 2 * self.value_heads
    }

    /// Elements of a value head's state: `[value_dim, key_dim]`, then the last `taps - 1` rows of its own q, k and v before the
    /// convolution, the oldest first. Value heads of one key head hold its rows each for themselves.
    pub const fn head_state(&self) -> usize {
        self.value_dim * self.key_dim + (self.taps - 1) * (2 * self.key_dim + self.value_dim)
    }

    /// Elements of the state of all heads.
    pub const fn state_width(&self) -> usize {
        self.value_heads * self.head_state()
    }
}

/// Sizes of an attention kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head's queries and keys.
    pub head_dim: usize,
    /// Elements of a head's values; as many where it is split.
    pub value_dim: usize,
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
#[derive(Debug, Clone, Copy, PartialEq)]
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
        let seen = (position + 1).min(self.window.unwrap_or(usize::MAX));
        if seen <= self.above { 1 } else { seen.div_ceil(self.positions).min(self.most) }
    }
}
