//! Fusion: a block's operations become the few steps that have a kernel each, one rule a file.
//!
//! No step is a norm alone: the norm of a projection's input travels as `x * gamma` and partial sums of
//! squares, and the projection applies the one scalar. So whoever writes the residual stream has to know the norm that
//! reads it next ([`Next`]).

mod attention;
mod latent;
mod layer_inputs;
mod mixture;
mod projection;
mod recurrent;
mod residual;

use std::collections::HashMap;

use forge_frontend::graph::{
    Activation, Attention, Block, GatedDelta, Node, Op, PerHead, PositionScale, Rope, SlotId, StateSlotId, ValueId,
};

use forge_spec::Gates;

use crate::PlanError;
use crate::families::{HeadGate, HeadNorm};
use crate::plan::Place;
pub use latent::{LatentAppendStep, LatentStep};
pub use mixture::{BesideStep, MixtureStep, SharedStep};

/// A block as fused steps. A block whose branches stand side by side has the projections of both before either adds to the
/// residual stream.
#[derive(Debug, Clone, PartialEq)]
pub struct FusedBlock {
    /// The block's name.
    pub name: String,
    /// Steps in order.
    pub ops: Vec<Fused>,
}

impl FusedBlock {
    /// Every norm of whole rows before a projection.
    pub fn norms(&self) -> impl Iterator<Item = Norm> {
        self.ops.iter().filter_map(Fused::norm)
    }

    /// The norm that the block starts with, where it starts with one.
    pub fn leading_norm(&self) -> Option<SlotId> {
        self.ops.first()?.norm().map(|norm| norm.gamma)
    }
}

impl Fused {
    /// The norm of the residual stream that it reads, where it is a projection.
    fn norm(&self) -> Option<Norm> {
        match self {
            Self::Projection(Projection { input, .. }) => input.norm(),
            Self::Mixture(mixture) => mixture.input.norm(),
            Self::Embed { .. }
            | Self::RopeAppend(_)
            | Self::Attention(_)
            | Self::ShortConv(_)
            | Self::GatedDelta(_)
            | Self::HeadGate(_)
            | Self::LatentAppend(_)
            | Self::LatentAttention(_)
            | Self::LayerInputs(_) => None,
        }
    }
}

/// A norm of whole rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// `[width]`.
    pub gamma: SlotId,
    /// Added to the mean of squares, or to the variance.
    pub eps: f32,
    /// What is normed.
    pub kind: NormKind,
}

/// What a norm takes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// The row as it is: then the norm is one factor.
    Rms,
    /// The row less its mean.
    Layer {
        /// `[width]`, added to the result.
        beta: Option<SlotId>,
    },
}

/// Which norm reads the residual stream next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// One of the same block.
    Norm(Norm),
    /// The one that the next block starts with; where that starts with none, the head's.
    AfterBlock,
}

/// A fused step.
#[derive(Debug, Clone, PartialEq)]
pub enum Fused {
    /// Token to residual stream.
    Embed {
        /// `[vocab, hidden]`.
        table: SlotId,
        /// Factor.
        scale: f32,
        /// A norm without weights: added to the mean of squares.
        norm_eps: Option<f32>,
    },
    /// One or several matrices over one input.
    Projection(Projection),
    /// Head norms, RoPE, KV append.
    RopeAppend(RopeStep),
    /// Attention over the cache.
    Attention(AttentionStep),
    /// A short convolution between gates.
    ShortConv(ShortConvStep),
    /// The gated delta rule.
    GatedDelta(GatedDeltaStep),
    /// Gates of attention's result.
    HeadGate(HeadGate),
    /// Norms and rotation of latents, and their append.
    LatentAppend(LatentAppendStep),
    /// Attention over latents.
    LatentAttention(LatentStep),
    /// A projection of the embedding to every layer's own input.
    LayerInputs(LayerInputsStep),
    /// A mixture of experts, added to the residual stream.
    Mixture(Box<MixtureStep>),
}

/// One matrix of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    /// `[rows, cols]`.
    pub weight: SlotId,
    /// `[rows]`.
    pub bias: Option<SlotId>,
    /// Output rows.
    pub rows: usize,
}

/// Where a projection's input comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Input {
    /// The residual stream, through a norm or as it is.
    Stream(Option<Norm>),
    /// The residual stream through a norm that is a dispatch of its own, as another norm of it is prepared for.
    Apart(Norm),
    /// What an earlier step of the block left.
    Buffer(Place),
}

impl Input {
    /// The norm of the residual stream that it is through.
    fn norm(self) -> Option<Norm> {
        match self {
            Self::Stream(norm) => norm,
            Self::Buffer(_) | Self::Apart(_) => None,
        }
    }
}

/// What happens to a projection's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// Stored for a later step of the block.
    Store(Place),
    /// The model's result.
    Logits {
        /// `cap * tanh(y / cap)`.
        softcap: Option<f32>,
    },
    /// Added to the residual stream.
    Residual {
        /// Factor on the projection.
        factor: f32,
        /// Norm of the projection before it is added.
        post_norm: Option<Norm>,
        /// `[1]`: factor on the sum; only with a post-norm.
        scale: Option<SlotId>,
        /// What is to be prepared.
        next: Next,
    },
    /// `activation(y)`.
    Activated {
        /// The non-linearity.
        activation: Activation,
        /// Its numbers, where it takes some.
        parameters: Option<SlotId>,
    },
    /// `activation(first) * second`.
    Gated(Activation),
    /// `activation(y)` times the layer's own input.
    GatedByInput(Activation),
}

/// `factor * (norm(projected) + scale * table[token])`, each layer's part with a norm of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInputsStep {
    /// `[vocab, layers * width]`.
    pub table: SlotId,
    /// Factor on the table.
    pub scale: f32,
    /// Norm of each layer's part, `[width]`.
    pub norm: Norm,
    /// Layers.
    pub layers: usize,
    /// Elements of a layer's part.
    pub width: usize,
    /// Factor on the sum.
    pub factor: f32,
}

/// Matrices over one input, with the norm before and the operation after.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// The input.
    pub input: Input,
    /// The matrices, in output order.
    pub matrices: Vec<Matrix>,
    /// Input width.
    pub cols: usize,
    /// What happens to the result.
    pub outcome: Outcome,
}

/// Norms, rotation and append before attention.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeStep {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads appended; 0 where the layer only reads a cache.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Values are the keys before their norm and rotation; the buffer has none of their own.
    pub keys_as_values: bool,
    /// Where gates are.
    pub gates: Gates,
    /// Norms of q, k, v with their gamma.
    pub norms: [Option<(HeadNorm, Option<SlotId>)>; 3],
    /// Norms of q and k come after the rotation.
    pub norms_last: bool,
    /// Rotation.
    pub rope: Option<Rope>,
    /// Factor on the queries.
    pub query_scale: Option<PositionScale>,
    /// The cache.
    pub state: StateSlotId,
}

/// A short convolution of [`Place::MixerInput`] to [`Place::Mixed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvStep {
    /// Channels.
    pub channels: usize,
    /// Rows that a result depends on.
    pub taps: usize,
    /// `[channels * taps]`.
    pub weight: SlotId,
    /// `[channels]`.
    pub bias: Option<SlotId>,
    /// The recurrent state.
    pub state: StateSlotId,
}

/// The gated delta rule from [`Place::MixerInput`] to [`Place::Mixed`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedDeltaStep {
    /// Sizes.
    pub delta: GatedDelta,
    /// `[channels * taps]`.
    pub conv: SlotId,
    /// `[value_heads]`.
    pub decay: SlotId,
    /// `[value_heads]`.
    pub time_bias: SlotId,
    /// `[value_dim]`.
    pub gamma: SlotId,
    /// The recurrent state.
    pub state: StateSlotId,
}

/// Attention of the rows over the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionStep {
    /// Query heads.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Scale, window, soft-cap.
    pub attention: Attention,
    /// Vectors with a number for each head.
    pub per_head: Vec<PerHead>,
    /// The cache.
    pub state: StateSlotId,
}

/// Fuses one block.
///
/// # Errors
/// [`PlanError::Unsupported`] where an operation fits no pattern.
pub fn fuse(block: &Block) -> Result<FusedBlock, PlanError> {
    Fuser { block, done: vec![false; block.nodes.len()], buffers: HashMap::new() }.run()
}

struct Fuser<'a> {
    block: &'a Block,
    done: Vec<bool>,
    /// Where a value lies, and the row it starts at.
    buffers: HashMap<ValueId, (Place, usize)>,
}

impl Fuser<'_> {
    fn run(mut self) -> Result<FusedBlock, PlanError> {
        let mut ops = Vec::new();
        let mut stream = 0;
        // Norms of the residual stream, and which value the stream was then.
        let mut normed: HashMap<ValueId, (ValueId, Norm)> = HashMap::new();
        let mut layer_inputs = self.block.layer_inputs.map(|value| self.layer_inputs(value)).transpose()?;
        for index in 0..self.block.nodes.len() {
            if self.done[index] {
                continue;
            }
            let node = &self.block.nodes[index];
            match &node.op {
                Op::Embedding { table, scale } => {
                    let norm = self.embedding_norm(node)?;
                    stream = norm.map_or(stream, |(normed, _)| normed);
                    ops.push(Fused::Embed { table: *table, scale: *scale, norm_eps: norm.map(|(_, eps)| eps) });
                }
                Op::RmsNorm { gamma, eps } if node.inputs[0] == stream => {
                    let norm = Norm { gamma: *gamma, eps: *eps, kind: NormKind::Rms };
                    normed.insert(self.output(node)?, (stream, norm));
                }
                Op::LayerNorm { gamma, beta, eps } if node.inputs[0] == stream => {
                    let norm = Norm { gamma: *gamma, eps: *eps, kind: NormKind::Layer { beta: *beta } };
                    normed.insert(self.output(node)?, (stream, norm));
                }
                Op::Linear { .. } => {
                    let input = node.inputs[0];
                    let source = match (normed.get(&input), self.buffers.get(&input)) {
                        (Some((of, norm)), _) if *of == stream => Input::Stream(Some(*norm)),
                        // Only the stream as it is now has a buffer.
                        (Some(_), _) => return Err(self.unsupported("a projection of an earlier residual stream")),
                        (None, Some((place, 0))) => Input::Buffer(*place),
                        (None, None) if input == stream => Input::Stream(None),
                        (None, _) => return Err(self.unsupported("the input of a projection")),
                    };
                    if self.routes(node) {
                        let (mixture, sum) = self.mixture(index, source, stream, &normed)?;
                        stream = sum;
                        ops.push(Fused::Mixture(Box::new(mixture)));
                        continue;
                    }
                    let for_layers = layer_inputs.take_if(|(projected, _)| node.output == Some(*projected));
                    let (projection, sum) = self.projection(index, source, stream, for_layers.is_some())?;
                    stream = sum.unwrap_or(stream);
                    ops.push(Fused::Projection(projection));
                    ops.extend(for_layers.map(|(_, step)| Fused::LayerInputs(step)));
                }
                Op::Attention { state, heads, attention, per_head } => {
                    let (rope, attention) = self.attention(node, *state, *heads, *attention, per_head)?;
                    ops.push(Fused::RopeAppend(rope));
                    ops.push(Fused::Attention(attention));
                    self.buffers.insert(self.output(node)?, (Place::Attention, 0));
                }
                Op::ShortConv { .. } => {
                    ops.push(Fused::ShortConv(self.short_conv(node)?));
                    self.buffers.insert(self.output(node)?, (Place::Mixed, 0));
                }
                Op::GatedDelta { .. } => {
                    ops.push(Fused::GatedDelta(self.gated_delta(node)?));
                    self.buffers.insert(self.output(node)?, (Place::Mixed, 0));
                }
                Op::RmsNorm { gamma, eps } if self.norms_queries(node) => {
                    ops.push(Fused::LatentAppend(self.latent_append(index, Some((*gamma, *eps)))?));
                    self.buffers.insert(self.output(node)?, (Place::QueryLatent, 0));
                }
                Op::LatentAttention { .. } => {
                    let (append, attention) = self.latent_attention(index)?;
                    ops.extend(append.map(Fused::LatentAppend));
                    ops.push(Fused::LatentAttention(attention));
                    self.buffers.insert(self.output(node)?, (Place::Attention, 0));
                }
                Op::SigmoidGate => {
                    ops.push(Fused::HeadGate(self.head_gate(node)?));
                    self.buffers.insert(self.output(node)?, (Place::Attention, 0));
                }
                // Whoever reads their results takes them along.
                Op::RmsNorm { .. }
                | Op::HeadNorm { .. }
                | Op::Rope { .. }
                | Op::HeadHalf { .. }
                | Op::PositionScale { .. }
                | Op::KvAppend { .. } => continue,
                other @ (Op::GatedActivation { .. }
                | Op::Activation { .. }
                | Op::Route { .. }
                | Op::ScaleExperts { .. }
                | Op::Experts { .. }
                | Op::LayerNorm { .. }
                | Op::Add
                | Op::Scale { .. }
                | Op::ScaleBy { .. }
                | Op::SoftCap { .. }) => return Err(self.unsupported(&format!("{other:?}"))),
            }
            self.done[index] = true;
        }
        if let Some(index) = self.done.iter().position(|done| !done) {
            return Err(self.unsupported(&format!("{:?}", self.block.nodes[index].op)));
        }
        residual::link(&mut ops);
        Ok(FusedBlock { name: self.block.name.clone(), ops })
    }

    /// The norm without weights that an embedding goes through, where it does: its result and epsilon.
    fn embedding_norm(&mut self, embedding: &Node) -> Result<Option<(ValueId, f32)>, PlanError> {
        let Some(user) = self.only_user(self.output(embedding)?) else { return Ok(None) };
        let node = &self.block.nodes[user];
        let Op::HeadNorm { gamma: None, heads: 1, eps, .. } = node.op else { return Ok(None) };
        self.done[user] = true;
        Ok(Some((self.output(node)?, eps)))
    }

    fn unsupported(&self, what: &str) -> PlanError {
        PlanError::Unsupported { block: self.block.name.clone(), what: what.to_owned() }
    }

    fn output(&self, node: &Node) -> Result<ValueId, PlanError> {
        node.output.ok_or_else(|| self.unsupported("an operation without a result"))
    }

    fn producer(&self, value: ValueId) -> Option<usize> {
        self.block.nodes.iter().position(|node| node.output == Some(value))
    }

    /// The only node that reads `value`; `None` where several do or the block returns it.
    fn only_user(&self, value: ValueId) -> Option<usize> {
        let mut users = (0..self.block.nodes.len()).filter(|&index| self.block.nodes[index].inputs.contains(&value));
        let first = users.next()?;
        (users.next().is_none() && self.block.output != value).then_some(first)
    }
}
