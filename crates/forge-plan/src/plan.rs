//! What a plan is made of: types alone.

use std::collections::BTreeMap;

use forge_frontend::ModelConfig;
use forge_spec::Role;
pub use forge_spec::{CacheType, Dim};

use crate::binding::{Binding, Element};
use crate::geometry::Geometries;
use crate::kernel::{Kernel, KernelId};
use crate::pack::PackPlan;
pub use crate::schedule::{End, Schedule, Segment, Stage, Steps, Visit};
pub use crate::state::{KvPlan, StatePlan};

/// What the user chooses.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Largest context in tokens; the graph's default unless given.
    pub context: Option<usize>,
    /// Storage of keys and values.
    pub kv: CacheType,
    /// Sequences whose state is held side by side; at least 1.
    pub slots: usize,
    /// Most tokens of a prompt that run at once; as the graph suggests unless given.
    pub tile: Option<usize>,
    /// Geometries of matrix-vector products that go before the table's.
    pub geometries: Geometries,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { context: None, kv: CacheType::default(), slots: 1, tile: None, geometries: Geometries::default() }
    }
}

/// Everything the emitted project is rendered from.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The model's sizes.
    pub config: ModelConfig,
    /// Storage of keys and values.
    pub kv: CacheType,
    /// Sequences whose state is held side by side.
    pub slots: usize,
    /// Largest context, tokens.
    pub context: usize,
    /// Most tokens in one prefill tile.
    pub prefill_tile: usize,
    /// Rows of a tile from which on attention over latents is attention over keys and values that are made of them; none where it
    /// never is.
    pub expands_from: Option<usize>,
    /// Layers encoded into one command buffer of a prefill tile, so that none runs for long.
    pub prefill_layers: usize,
    /// All kernels, in file order.
    pub kernels: Vec<Kernel>,
    /// Distinct RoPE frequency tables.
    pub rope_tables: Vec<Vec<f32>>,
    /// Activation buffers of steps, [`FEW_TOKENS`](crate::families::FEW_TOKENS) rows each.
    pub decode_buffers: Vec<BufferPlan>,
    /// Activation buffers of tiles, `prefill_tile` rows each.
    pub prefill_buffers: Vec<BufferPlan>,
    /// Weight fields of a layer.
    pub layer_fields: Vec<Field>,
    /// Weight fields outside the layers.
    pub model_fields: Vec<Field>,
    /// Per-layer kernel choices, where layers differ in format.
    pub tables: Vec<KernelTable>,
    /// A step: one row or a few, each of a sequence and at a position of its own.
    pub decode: Schedule,
    /// A tile: many rows that follow one another in one sequence.
    pub prefill: Schedule,
    /// States of one sequence.
    pub states: Vec<StatePlan>,
    /// Block and states of each layer.
    pub layers: Vec<LayerPlan>,
    /// Block names.
    pub blocks: Vec<String>,
    /// Layer field of the norm that every layer starts with, where layers start with one.
    pub first_norm: Option<FieldId>,
    /// Model field of the norm before the head.
    pub final_norm: FieldId,
    /// The weights file.
    pub weights: PackPlan,
}

impl Plan {
    /// The block of each layer.
    pub fn order(&self) -> Vec<usize> {
        self.layers.iter().map(|layer| layer.block).collect()
    }

    /// A tile whose logits nobody asks for: it ends with the last step that writes a state. Layers that have none of their own (Gemma 4's
    /// that share caches) do not run at all where nothing behind them has.
    pub fn prefill_of_states(&self) -> Schedule {
        Schedule { end: self.last_state(), ..self.prefill.without(Stage::Head) }
    }

    /// The last step of a tile that writes a state; none where none does.
    pub fn last_state(&self) -> Option<End> {
        let blocks = self.prefill.blocks();
        let writes = |step: &Step| {
            let bound = |binding: &Binding| step.args.get(&binding.role).and_then(Arg::state);
            let written = |binding: &Binding| binding.access.writes() && bound(binding).is_some();
            step.kernels(&self.tables).any(|id| self.kernels[id].bindings.iter().any(written))
        };
        self.layers.iter().enumerate().rev().find_map(|(layer, of)| {
            let last = blocks[of.block].iter().rposition(writes)?;
            Some(End { layer, steps: last + 1 })
        })
    }
}

/// An activation buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferPlan {
    /// What it holds.
    pub place: Place,
    /// Words per row: f32, or u32 where the place holds those; of one that holds positions, elements of a position.
    pub width: usize,
}

/// What lies between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The residual stream.
    Stream,
    /// The residual stream times the next norm's gamma.
    Scaled,
    /// Partial sums of the residual stream's squares.
    Sums,
    /// The normed residual stream.
    Normed,
    /// Queries, keys and values, before RoPE.
    Qkv,
    /// The normed latent of queries.
    QueryLatent,
    /// Queries made of it, before RoPE.
    HeadQueries,
    /// Queries after RoPE; over latents, as wide as a position of the cache.
    Queries,
    /// The keys of all heads, made of latents.
    HeadKeys,
    /// Their values.
    HeadValues,
    /// Attention's result.
    Attention,
    /// The latents that attention over latents results in, one for each head.
    AttentionLatents,
    /// Attention's results by part of the context.
    AttentionParts,
    /// The gated activation.
    Gated,
    /// What a recurrent step works on.
    MixerInput,
    /// What it leaves.
    Mixed,
    /// Every layer's own input.
    LayerInputs,
    /// The embedding projected to the layers' own inputs.
    LayerModel,
    /// A layer's own input, gated.
    LayerGate,
    /// A projection before its norm.
    Projected,
    /// Partial sums of its squares.
    ProjectedSums,
    /// Powers of two for the rows of a projection's input.
    InputScales,
    /// A dense feed-forward beside experts, before its norm.
    Branch,
    /// Threadgroups of indirect grids, three words each.
    Threadgroups,
    /// The router's logits.
    RouterLogits,
    /// Each row's experts.
    Experts,
    /// Their weights.
    ExpertWeights,
    /// Rows and experts, in order of the experts.
    Pairs,
    /// Tiles of those.
    Tiles,
    /// The results of each row's experts.
    ExpertResults,
}

impl Place {
    /// Whether it holds elements of each position of one sequence, as a cache does, rather than words of each row.
    pub fn holds_positions(self) -> bool {
        matches!(self, Self::HeadKeys | Self::HeadValues)
    }

    /// What a word of it is, or an element of a position in a program whose cache is stored so.
    pub fn element(self, kv: CacheType) -> Element {
        match self {
            Self::HeadKeys | Self::HeadValues => Element::Cache(kv),
            Self::Stream
            | Self::Scaled
            | Self::Sums
            | Self::Normed
            | Self::Qkv
            | Self::QueryLatent
            | Self::HeadQueries
            | Self::Queries
            | Self::AttentionLatents
            | Self::Attention
            | Self::AttentionParts
            | Self::Gated
            | Self::LayerInputs
            | Self::LayerModel
            | Self::LayerGate
            | Self::Projected
            | Self::Branch
            | Self::ProjectedSums
            | Self::InputScales
            | Self::MixerInput
            | Self::Mixed
            | Self::RouterLogits
            | Self::ExpertWeights
            | Self::ExpertResults => Element::F32,
            Self::Threadgroups | Self::Experts | Self::Pairs | Self::Tiles => Element::U32,
        }
    }
}

/// Index into [`Plan::layer_fields`] or [`Plan::model_fields`].
pub type FieldId = usize;

/// A packed weight that a layer (or the model) has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// `qkv_proj`.
    pub name: String,
    /// Shape and format of the first layer's tensor; all formats where they differ.
    pub comment: String,
    /// Fields are emitted in the order of the block's slots.
    pub order: usize,
    /// Whether only some of the layers have it.
    pub optional: bool,
}

/// A kernel that depends on the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTable {
    /// Constant's name: `DOWN_PROJ`.
    pub name: String,
    /// Kernel of each layer (of other blocks' layers: the block's first).
    pub kernels: Vec<KernelId>,
}

/// A layer's block and states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlan {
    /// Index into [`Plan::blocks`].
    pub block: usize,
    /// Index into [`Plan::states`].
    pub states: Vec<usize>,
}

/// One dispatch. Its grid is the kernel's; what an indirect one is read from is the step's.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Which kernel.
    pub kernel: Choice,
    /// What each of the kernel's bindings is bound to.
    pub args: BTreeMap<Role, Arg>,
    /// Whether an encoder barrier precedes it.
    pub barrier: bool,
    /// When it runs.
    pub when: When,
    /// The kernels that run instead where the step has two rows, and where it has more, with the same arguments.
    pub few: Option<[Choice; 2]>,
    /// Where the threadgroups are, of a kernel whose grid is indirect.
    pub counts: Option<Counts>,
}

/// Three words of a buffer: threadgroups along each axis, which an earlier step of the schedule writes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The buffer.
    pub place: Place,
    /// The first of the words, from the buffer's start.
    pub word: usize,
}

impl Counts {
    /// How many words.
    pub const WORDS: usize = 3;
    /// Their bytes.
    pub const BYTES: usize = 4 * Self::WORDS;

    /// The first byte, from the buffer's start.
    pub fn offset(self) -> usize {
        4 * self.word
    }
}

impl Step {
    /// A step that always runs, in one way, without a barrier yet.
    pub(crate) fn new(kernel: Choice) -> Self {
        Self { kernel, args: BTreeMap::new(), barrier: false, when: When::Always, few: None, counts: None }
    }

    /// With an argument more.
    pub(crate) fn bind(mut self, role: Role, arg: Arg) -> Self {
        self.args.insert(role, arg);
        self
    }

    /// With several arguments more.
    pub(crate) fn bind_all(mut self, args: impl IntoIterator<Item = (Role, Arg)>) -> Self {
        self.args.extend(args);
        self
    }

    /// With the threadgroups of its kernel's indirect grid in a buffer.
    pub fn with_counts(self, counts: Counts) -> Self {
        Self { counts: Some(counts), ..self }
    }

    /// Every kernel that it may run.
    pub fn kernels<'a>(&self, tables: &'a [KernelTable]) -> impl Iterator<Item = KernelId> + use<'a> {
        let of = |choice: Choice| match choice {
            Choice::Fixed(id) => vec![id],
            Choice::PerLayer(table) => tables[table].kernels.clone(),
        };
        self.choices().flat_map(of)
    }

    /// Its kernels for one row, for two and for more.
    pub fn choices(&self) -> impl Iterator<Item = Choice> + use<> {
        std::iter::once(self.kernel).chain(self.few.into_iter().flatten())
    }

    /// The kernel for so many rows.
    pub fn choice(&self, rows: usize) -> Choice {
        match (self.few, rows) {
            (None, _) | (_, 0 | 1) => self.kernel,
            (Some([two, _]), 2) => two,
            (Some([_, more]), _) => more,
        }
    }
}

/// When a step runs: decode attention has one step for short contexts and two for long ones, a tile's over latents other steps where
/// there are many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// Always.
    #[default]
    Always,
    /// While the context is one part.
    OnePart,
    /// When the context is split.
    Split,
    /// While a tile has fewer than [`Plan::expands_from`] rows.
    FewRows,
    /// When it has as many.
    ManyRows,
}

impl When {
    /// Whether it runs where the second of two ways is taken (a split context, many rows), or the first: a schedule has one such choice.
    pub fn runs(self, second: bool) -> bool {
        match self {
            Self::Always => true,
            Self::OnePart | Self::FewRows => !second,
            Self::Split | Self::ManyRows => second,
        }
    }

    /// Whether it runs in one of the ways alone.
    pub fn is_choice(self) -> bool {
        self != Self::Always
    }
}

/// A kernel, fixed or by layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The same in all layers.
    Fixed(KernelId),
    /// Index into [`Plan::tables`].
    PerLayer(usize),
}

/// An argument of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// A layer's weight field.
    Layer(FieldId),
    /// A weight outside the layers.
    Model(FieldId),
    /// The gamma of the norm that follows the block: the next layer's first norm, or the final one.
    NextGamma,
    /// An activation buffer.
    Buffer(Place),
    /// The layer's own part of a buffer `[layers, rows, width]`.
    LayerPart {
        /// The buffer.
        place: Place,
        /// f32 elements per row and layer.
        width: usize,
    },
    /// Keys of the layer's state slot.
    Keys(usize),
    /// Values of the layer's state slot.
    Values(usize),
    /// Latents of the layer's state slot.
    Latents(usize),
    /// The recurrent state of the layer's state slot.
    State(usize),
    /// The step's parameters.
    Params,
    /// Logits.
    Logits,
    /// A buffer of the sampler.
    Sampler(SamplerBuffer),
    /// Where the host reads the chosen tokens, one a row.
    Chosen,
}

impl Arg {
    /// The layer's state slot that it is of.
    pub fn state(&self) -> Option<usize> {
        match self {
            Self::Keys(slot) | Self::Values(slot) | Self::Latents(slot) | Self::State(slot) => Some(*slot),
            Self::Layer(_)
            | Self::Model(_)
            | Self::NextGamma
            | Self::Buffer(_)
            | Self::LayerPart { .. }
            | Self::Params
            | Self::Logits
            | Self::Sampler(_)
            | Self::Chosen => None,
        }
    }
}

/// What the choice of a token works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SamplerBuffer {
    /// A bit for each token that occurred.
    Seen,
    /// What is added to each token's logit.
    LogitBias,
    /// How often each token was chosen.
    Times,
    /// A bit for each token that may be chosen.
    Allowed,
    /// Best key and id of each threadgroup's share.
    Best,
    /// Candidates so far.
    Count,
    /// Key, id, weight of each.
    Candidates,
    /// What each slot's next step embeds.
    NextToken,
}
