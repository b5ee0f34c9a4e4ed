//! The intermediate representation: typed operations over `[tokens, width]` values, a weight table and the
//! map from layers to blocks.
//!
//! A [`Block`] describes one distinct kind of layer once; a [`Layer`] says which weights and states fill
//! its slots. Nothing here knows an architecture by name, a kernel or a file format's container.
//! It is long because all operations stand beside one another, each with its formula.

use std::ops::Range;

use forge_formats::{Format, Repack};
use forge_spec::Role;
pub use forge_spec::{Activation, GatedDelta, GroupScore, Groups, LatentSizes, PositionScale, Routing, Scores};

use crate::config::ModelConfig;
pub use crate::strides::Strides;

/// Index into [`Graph::weights`].
pub type WeightId = usize;
/// Index into [`Graph::states`].
pub type StateId = usize;
/// Index into [`Block::values`].
pub type ValueId = usize;
/// Index into [`Block::slots`]: a weight that differs from layer to layer.
pub type SlotId = usize;
/// Index into [`Block::state_slots`].
pub type StateSlotId = usize;

/// A whole model: what is computed, and where its weights lie in the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Neutral, validated sizes.
    pub config: ModelConfig,
    /// Every weight the graph uses, once.
    pub weights: Vec<Weight>,
    /// Every KV cache and recurrent state.
    pub states: Vec<State>,
    /// Token ids to the first residual value.
    pub embed: Stage,
    /// One per distinct kind of layer.
    pub blocks: Vec<Block>,
    /// What fills the slots of the block of each layer.
    pub layers: Vec<Layer>,
    /// Last residual value to logits.
    pub head: Stage,
}

impl Graph {
    /// Elements of all weights, each once.
    pub fn parameters(&self) -> u64 {
        self.weights.iter().map(|weight| weight.rows as u64 * weight.cols as u64).sum()
    }

    /// Elements of the weights that one token is multiplied with: of experts those that it takes, of a table of embeddings
    /// one row.
    pub fn active_parameters(&self) -> u64 {
        self.active().iter().sum()
    }

    /// Those of them that are in layers.
    pub fn active_layer_parameters(&self) -> u64 {
        let active = self.active();
        self.weights.iter().zip(active).filter(|(weight, _)| weight.layer.is_some()).map(|(_, active)| active).sum()
    }

    /// Elements of each weight that one token is multiplied with.
    fn active(&self) -> Vec<u64> {
        let stages = [&self.embed, &self.head].map(|stage| (&stage.block, &stage.weights));
        let layers = self.layers.iter().map(|layer| (&self.blocks[layer.block], &layer.weights));
        let mut active = vec![0; self.weights.len()];
        for (block, ids) in stages.into_iter().chain(layers) {
            let chosen = block.nodes.iter().find_map(|node| match &node.op {
                Op::Route { routing, .. } => Some((routing.chosen as u64, routing.experts as u64)),
                _ => None,
            });
            for node in &block.nodes {
                for slot in node.op.slots() {
                    let weight = &self.weights[ids[slot]];
                    let all = weight.rows as u64 * weight.cols as u64;
                    let elements = match (&node.op, chosen) {
                        (Op::Experts { .. }, Some((chosen, experts))) => all / experts * chosen,
                        (Op::Embedding { .. }, _) => weight.cols as u64,
                        _ => all,
                    };
                    active[ids[slot]] = elements.max(active[ids[slot]]);
                }
            }
        }
        active
    }

    /// The context that a model is built for unless another is asked for, in tokens: the trained one, or the longest for
    /// which the frequencies of short texts hold.
    pub fn default_context(&self) -> usize {
        let ropes = self.blocks.iter().flat_map(|block| &block.nodes).filter_map(|node| match &node.op {
            Op::Rope { rope, .. } | Op::LatentAttention { rope, .. } => rope.long.as_ref(),
            _ => None,
        });
        ropes.map(|long| long.above).fold(self.config.trained_context, usize::min)
    }
}

/// A block that runs once per token rather than once per layer, with its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The operations.
    pub block: Block,
    /// What fills `block.slots`.
    pub weights: Vec<WeightId>,
}

/// One distinct kind of layer. Values are in static single assignment form; the first
/// [`Block::inputs`] values are given, `output` is the block's result.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// Identifier, used for generated names: `layer`, `sliding_layer`, `global_layer`.
    pub name: String,
    /// How many of the first values are inputs (the residual stream is value 0, a layer's own input value 1).
    pub inputs: usize,
    /// Weight slots.
    pub slots: Vec<Slot>,
    /// State slots: index i is filled by `Layer::states[i]`.
    pub state_slots: Vec<StateSpec>,
    /// All values, inputs first.
    pub values: Vec<Value>,
    /// Operations in execution order.
    pub nodes: Vec<Node>,
    /// The block's result.
    pub output: ValueId,
    /// A second result of the embedding stage, `[tokens, layers * width]`: each layer's block gets its own `width` elements
    /// as its second input.
    pub layer_inputs: Option<ValueId>,
}

/// A weight slot of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The field's name for it: `attn_q`, `attn_norm`, `ffn_down`.
    pub role: String,
    /// Output features; 1 for a vector.
    pub rows: usize,
    /// Input features, or the vector's length.
    pub cols: usize,
}

/// A value `[tokens, width]`, f32 in exact arithmetic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Identifier for generated names.
    pub name: String,
    /// Elements per token.
    pub width: usize,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Operands, in the order the operation's documentation gives.
    pub inputs: Vec<ValueId>,
    /// The result; `None` for an operation that only writes state.
    pub output: Option<ValueId>,
}

/// The operations, at the level the field speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Row `token` of the table, times `scale`. Takes no value: the token id is the stage's own input.
    Embedding {
        /// `[vocab, hidden]`.
        table: SlotId,
        /// 1 for most models; sqrt(hidden) for Gemma.
        scale: f32,
    },
    /// `x / sqrt(mean(x^2) + eps) * gamma`, over the whole width.
    RmsNorm {
        /// `[width]`; already `1 + w` where the architecture stores `w`.
        gamma: SlotId,
        /// Added to the mean of squares.
        eps: f32,
    },
    /// `(x - mean) / sqrt(variance + eps) * gamma + beta`, over the whole width.
    LayerNorm {
        /// `[width]`.
        gamma: SlotId,
        /// `[width]`.
        beta: Option<SlotId>,
        /// Added to the variance.
        eps: f32,
    },
    /// RMS norm of each head separately; `gamma` `[head_dim]` (or none: V norm of some models).
    HeadNorm {
        /// `[head_dim]`.
        gamma: Option<SlotId>,
        /// Heads in the value.
        heads: usize,
        /// Elements per head.
        head_dim: usize,
        /// Added to the mean of squares.
        eps: f32,
    },
    /// `x W^T + b`.
    Linear {
        /// `[rows, cols]`.
        weight: SlotId,
        /// `[rows]`.
        bias: Option<SlotId>,
    },
    /// Rotary position embedding of each head.
    Rope {
        /// Heads in the value.
        heads: usize,
        /// Elements per head.
        head_dim: usize,
        /// Pairing and frequencies.
        rope: Rope,
    },
    /// Multiplication by a factor that grows with the token's position.
    PositionScale {
        /// The factor.
        scale: PositionScale,
    },
    /// Appends keys (input 0) and values (input 1) at the token's position.
    KvAppend {
        /// The cache.
        state: StateSlotId,
    },
    /// `C * (conv(B * X) + bias)` of an input `[tokens, 3 * channels]` that holds B, C and X in this order: a causal
    /// convolution of each channel by itself over the last `taps` tokens, between two gates.
    ShortConv {
        /// The last `taps - 1` rows of `B * X`, the oldest first.
        state: StateSlotId,
        /// `[channels * taps]`, a channel's taps together, the newest token's last.
        weight: SlotId,
        /// `[channels]`.
        bias: Option<SlotId>,
        /// Tokens that a result depends on, its own included.
        taps: usize,
    },
    /// The gated delta rule over q, k and v of all heads side by side (input 0), z (1), b (2) and a (3).
    GatedDelta {
        /// See [`GatedDelta::state_width`].
        state: StateSlotId,
        /// Sizes, and what it computes.
        delta: GatedDelta,
        /// `[channels * taps]`, a channel's taps together, the newest token's last.
        conv: SlotId,
        /// `[value_heads]`, below 0.
        decay: SlotId,
        /// `[value_heads]`.
        time_bias: SlotId,
        /// `[value_dim]`, of the norm of each head's result.
        gamma: SlotId,
    },
    /// The first or the second `head_dim` elements of each head's `2 * head_dim`.
    HeadHalf {
        /// Heads in the value.
        heads: usize,
        /// Elements per head of the result.
        head_dim: usize,
        /// Whether it is the second.
        second: bool,
    },
    /// Causal attention of queries (input 0) over the cache.
    Attention {
        /// The cache.
        state: StateSlotId,
        /// Query heads.
        heads: usize,
        /// Sizes, scale, window, soft-cap.
        attention: Attention,
        /// What has a number for each query head, in the order in which kernels take it.
        per_head: Vec<PerHead>,
    },
    /// Attention of queries `[tokens, heads * (nope + rope)]` (input 0) over latents: latent and shared key of the token, side by
    /// side (input 1), are normed, rotated and appended first. The result is `[tokens, heads * value]`; see [`LatentSizes`].
    LatentAttention {
        /// The cache.
        state: StateSlotId,
        /// Sizes.
        sizes: LatentSizes,
        /// `[latent]`, of the latent's norm.
        gamma: SlotId,
        /// Added to the mean of its squares.
        eps: f32,
        /// Of the shared key and of each head's part for it.
        rope: Rope,
        /// Factor on the scores.
        scale: f32,
        /// Keys of heads: `[heads * nope, latent]`, or `[heads * latent, nope]`.
        keys: SlotId,
        /// Whether they are the first of these, which a checkpoint has that stores keys and values together.
        by_key: bool,
        /// `[heads * value, latent]`.
        values: SlotId,
    },
    /// `activation(gate) * up`, inputs in this order.
    GatedActivation {
        /// The gate's non-linearity.
        activation: Activation,
    },
    /// The experts that each token takes, from the router's logits `[tokens, experts]`. The result is as wide: the weight of
    /// each expert that is chosen, and 0 for the others.
    Route {
        /// The rule.
        routing: Routing,
        /// `[experts]`, added to the scores for the choice alone.
        bias: Option<SlotId>,
    },
    /// The weights of experts (input 0, `[tokens, experts]`) times a number of each expert.
    ScaleExperts {
        /// `[experts]`.
        scale: SlotId,
    },
    /// Sum over the experts of a token (input 0) of its weight (input 1, `[tokens, experts]`) times
    /// `down(activation(gate x) * up x)`. Of stacked matrices those of the first expert come first.
    Experts {
        /// `[experts * width, hidden]`.
        gate: SlotId,
        /// The same.
        up: SlotId,
        /// `[experts * hidden, width]`.
        down: SlotId,
        /// Added to what gate, up and down make, the last before the weight: `[experts * width]` twice, `[experts * hidden]`.
        biases: Option<[SlotId; 3]>,
        /// Experts.
        experts: usize,
        /// The gate's non-linearity.
        activation: Activation,
    },
    /// `x * sigmoid(g)`, inputs in this order; the gate is as wide as `x`, or one number for all of it.
    SigmoidGate,
    /// `activation(x)`: a feed-forward without a gate.
    Activation {
        /// The non-linearity.
        activation: Activation,
        /// Its numbers, where it takes some.
        parameters: Option<SlotId>,
    },
    /// Sum of two values; the first is the residual stream where one is.
    Add,
    /// Multiplication by a constant.
    Scale {
        /// The factor.
        factor: f32,
    },
    /// Multiplication by a number of the checkpoint.
    ScaleBy {
        /// `[1]`.
        scale: SlotId,
    },
    /// `cap * tanh(x / cap)`.
    SoftCap {
        /// The bound.
        cap: f32,
    },
}

/// How RoPE pairs elements, and its angles: `angle(i) = position * inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which elements form a pair.
    pub pairing: RopePairing,
    /// Elements of each head that rotate, from the first on; the rest pass through.
    pub rotary_dim: usize,
    /// `[rotary_dim / 2]`, all scaling (linear, llama3, YaRN, divisors from a tensor) already in it.
    pub inv_freq: Vec<f32>,
    /// Factor on cos and sin (YaRN, longrope); 1 otherwise.
    pub magnitude: f32,
    /// Other frequencies for long texts.
    pub long: Option<LongRope>,
}

/// Longrope's frequencies for long texts: transformers uses them for all positions of a text that is longer, llama.cpp for
/// all texts in a context that is longer.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Longest text, in tokens, for which [`Rope::inv_freq`] holds.
    pub above: usize,
    /// In place of [`Rope::inv_freq`].
    pub inv_freq: Vec<f32>,
}

impl Rope {
    /// The frequencies for texts, or a context, of `tokens`.
    pub fn frequencies(&self, tokens: usize) -> &[f32] {
        self.long.as_ref().filter(|long| tokens > long.above).map_or(&self.inv_freq, |long| &long.inv_freq)
    }
}

/// Which elements of a head RoPE rotates together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// `(i, i + rotary_dim / 2)`: Hugging Face order, GPT-NeoX.
    Halves,
    /// `(2i, 2i + 1)`: the original order, which Llama GGUFs keep.
    Interleaved,
}

/// Parameters of causal attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// Factor on the scores, `1 / sqrt(head_dim)` unless the model says otherwise.
    pub scale: f32,
    /// A token sees itself and the `window - 1` tokens before it.
    pub window: Option<usize>,
    /// `cap * tanh(score / cap)` on the scaled scores.
    pub softcap: Option<f32>,
}

/// A layer: the block it runs and what fills its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Index into [`Graph::blocks`].
    pub block: usize,
    /// One per slot of the block.
    pub weights: Vec<WeightId>,
    /// One per state slot; several layers may share a state.
    pub states: Vec<StateId>,
}

/// A state kept between tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its sizes.
    pub spec: StateSpec,
}

/// A state's kind and sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateSpec {
    /// Keys and values of each position.
    Kv(KvSpec),
    /// Of each position a latent and a key that all heads share.
    Latent(LatentSpec),
    /// What stands for all positions so far; zeros before the first.
    Recurrent {
        /// f32 elements.
        width: usize,
    },
}

impl StateSpec {
    /// The sizes of a KV cache, where it is one.
    pub fn kv(&self) -> Option<KvSpec> {
        match self {
            Self::Kv(spec) => Some(*spec),
            Self::Latent(_) | Self::Recurrent { .. } => None,
        }
    }
}

/// Sizes of a cache of latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentSpec {
    /// Elements of a latent.
    pub latent: usize,
    /// Elements of the shared key.
    pub rope: usize,
}

/// Sizes of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvSpec {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements per head, of K and of V.
    pub head_dim: usize,
    /// Only the last `window` positions are needed.
    pub window: Option<usize>,
}

/// One weight of the checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// The checkpoint's own name, for errors and reports.
    pub tensor: String,
    /// The field's name for it, as in [`Slot::role`].
    pub role: String,
    /// Layer index, `None` for embedding, head and final norm.
    pub layer: Option<usize>,
    /// Output features; 1 for a vector.
    pub rows: usize,
    /// Input features, or the vector's length.
    pub cols: usize,
    /// Format: that of the checkpoint, or for [`Source::Quantize`] the one to convert to.
    pub format: Format,
    /// Where the bytes lie.
    pub source: Source,
    /// Added to every element when packed: 1 for norms stored as `w` of `1 + w`, else 0. Vectors only.
    pub offset: f32,
    /// Multiplied with every element, `offset` included, when packed; 1 but for a factor on the logits, which is folded
    /// into the final norm. Vectors only.
    pub factor: f32,
    /// What is packed in place of an element `w` is `-exp(w)`, before `offset` and `factor`. Vectors only.
    pub negated_exp: bool,
    /// Largest magnitude of a vector's elements, `offset` and `factor` included; `None` for matrices.
    pub max_abs: Option<f32>,
}

impl Weight {
    /// A stored vector's element as it is packed.
    pub fn element(&self, stored: f32) -> f32 {
        let value = if self.negated_exp { -stored.exp() } else { stored };
        (value + self.offset) * self.factor
    }
}

/// Where a weight's bytes lie.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Rows one after another in the weight's format.
    Rows(FileRange),
    /// Not in the checkpoint as they are: the front end has made them of what is. Vectors only.
    Values(Vec<f32>),
    /// Floats of the weight's format that do not lie side by side.
    Strided {
        /// All of them, and what lies between.
        elements: FileRange,
        /// Where each is.
        strides: Strides,
    },
    /// Rows of floats, to be quantised to the weight's format when packed.
    Quantize {
        /// `[rows, cols]` of `from`: [`Source::Rows`] or [`Source::Strided`].
        floats: Box<Source>,
        /// Format of the checkpoint: F32, F16 or BF16.
        from: Format,
    },
    /// Codes and scales in two tensors; row r is row `first + step * r` of either.
    Apart {
        /// Rows of codes, a stream of bits each.
        codes: FileRange,
        /// `[.., cols / group]` bytes.
        scales: FileRange,
        /// Row of the tensors that is the first.
        first: usize,
        /// Rows of the tensors from one to the next.
        step: usize,
    },
    /// MLX affine quantisation: three tensors of the same rows.
    Affine {
        /// `[rows, cols * bits / 32]` u32.
        quants: FileRange,
        /// `[rows, cols / group]`.
        scales: FileRange,
        /// `[rows, cols / group]`.
        biases: FileRange,
        /// Format of scales and biases: F16, BF16 or F32.
        scale_format: Format,
    },
    /// Tensors of another toolchain, of which rows in the weight's format are made when packed, without a change of any number.
    Repack {
        /// How.
        repack: Repack,
        /// Its parts.
        parts: Vec<FileRange>,
        /// First of its rows that is meant.
        first_row: usize,
    },
    /// Rows that are multiplied by a number besides: each of the factors is that of equally many rows.
    Factored {
        /// [`Source::Rows`] or [`Source::Apart`].
        rows: Box<Source>,
        /// At least one.
        factors: Vec<f32>,
    },
    /// Matrices of equally many rows one after another, each from a place of its own: experts that a checkpoint does not
    /// store together. None of them is a stack.
    Stack(Vec<Source>),
}

impl Source {
    /// The places that rows come from, each of as many.
    pub fn pieces(&self) -> &[Source] {
        match self {
            Self::Stack(pieces) => pieces,
            Self::Rows(_)
            | Self::Values(_)
            | Self::Strided { .. }
            | Self::Quantize { .. }
            | Self::Repack { .. }
            | Self::Apart { .. }
            | Self::Factored { .. }
            | Self::Affine { .. } => std::slice::from_ref(self),
        }
    }

    /// Every range of bytes.
    pub fn ranges(&self) -> Vec<&FileRange> {
        match self {
            Self::Rows(range) | Self::Strided { elements: range, .. } => vec![range],
            Self::Quantize { floats: rows, .. } | Self::Factored { rows, .. } => rows.ranges(),
            Self::Apart { codes, scales, .. } => vec![codes, scales],
            Self::Affine { quants, scales, biases, .. } => vec![quants, scales, biases],
            Self::Repack { parts, .. } => parts.iter().collect(),
            Self::Values(_) => Vec::new(),
            Self::Stack(pieces) => pieces.iter().flat_map(Self::ranges).collect(),
        }
    }
}

/// Bytes of one of the checkpoint's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRange {
    /// Index into the checkpoint's files.
    pub file: usize,
    /// Byte range in that file.
    pub range: Range<u64>,
}

/// A vector `[heads]` that attention takes beside queries and cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerHead {
    /// The argument of its kernels that it is, which says what they do with it.
    pub role: Role,
    /// Its weights.
    pub slot: SlotId,
}

impl Op {
    /// The operation's weight slots, in order.
    pub fn slots(&self) -> Vec<SlotId> {
        match self {
            Op::Embedding { table, .. } => vec![*table],
            Op::RmsNorm { gamma, .. } => vec![*gamma],
            Op::HeadNorm { gamma, .. } => gamma.iter().copied().collect(),
            Op::Attention { per_head, .. } => per_head.iter().map(|vector| vector.slot).collect(),
            Op::ScaleBy { scale } | Op::ScaleExperts { scale } => vec![*scale],
            Op::LayerNorm { gamma, beta, .. } => [Some(*gamma), *beta].into_iter().flatten().collect(),
            Op::Linear { weight, bias } | Op::ShortConv { weight, bias, .. } => {
                [Some(*weight), *bias].into_iter().flatten().collect()
            }
            Op::GatedDelta { conv, decay, time_bias, gamma, .. } => vec![*conv, *decay, *time_bias, *gamma],
            Op::LatentAttention { gamma, keys, values, .. } => vec![*gamma, *keys, *values],
            Op::Route { bias, .. } => bias.iter().copied().collect(),
            Op::Experts { gate, up, down, biases, .. } => {
                [*gate, *up, *down].into_iter().chain(biases.iter().flatten().copied()).collect()
            }
            Op::Activation { parameters, .. } => parameters.iter().copied().collect(),
            Op::Rope { .. }
            | Op::PositionScale { .. }
            | Op::HeadHalf { .. }
            | Op::KvAppend { .. }
            | Op::GatedActivation { .. }
            | Op::SigmoidGate
            | Op::Add
            | Op::Scale { .. }
            | Op::SoftCap { .. } => Vec::new(),
        }
    }
}
