//! What `forge inspect --plan --json` writes: a plan as one JSON document. Its text and its page show the same one.
//!
//! The same checkpoint and options give the same bytes. Sizes are bytes and tokens unless their name says otherwise. A change that a
//! reader of an older document would stumble over raises [`VERSION`]; fields may be added without. `docs/inspecting.md` describes it.

use serde::Serialize;

/// What a document says it is.
pub const FORMAT: &str = "forge-plan";
/// The version of what is described here.
pub const VERSION: u32 = 1;

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// [`FORMAT`].
    pub format: &'static str,
    /// [`VERSION`].
    pub version: u32,
    /// The model.
    pub model: Model,
    /// What was asked for.
    pub options: Options,
    /// The weights.
    pub weights: Weights,
    /// The states of one sequence.
    pub states: Vec<State>,
    /// Memory of the generated program.
    pub memory: Memory,
    /// What the memory of each chip allows for.
    pub chips: Vec<ChipRate>,
    /// Positions up to which a context is one part: a dispatch that is there for `one_part` runs while no row sees more, one for
    /// `split` where one does; of a kernel with a window a row sees no more than that.
    pub split_above: usize,
    /// Rows from which on a tile has the dispatches for `many_rows` in place of those for `few_rows`; none where it has neither.
    pub many_rows_from: Option<usize>,
    /// All kernels, in file order.
    pub kernels: Vec<Kernel>,
    /// One token at the end of [`Options::context`], the choice of the next one included.
    pub decode: Pass,
    /// The first tile of a prompt of [`Options::prompt`] tokens, whose logits nobody asks for.
    pub tile: Pass,
    /// The whole of that prompt.
    pub prompt: Prompt,
}

/// The model's sizes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Its name, as the checkpoint has it: any text.
    pub name: String,
    /// The checkpoint's word for its architecture.
    pub architecture: String,
    /// What kind of checkpoint it is: `GGUF v3`, `Hugging Face folder`.
    pub checkpoint: String,
    /// Elements of all weights.
    pub parameters: u64,
    /// Those that a token is multiplied with.
    pub active_parameters: u64,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, the largest.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Longest context that it was trained for.
    pub trained_context: usize,
    /// How many experts a token takes, of how many; a rule for each kind of layer that has one of its own.
    pub experts: Vec<Experts>,
    /// Bytes of all experts, as stored in the checkpoint.
    pub expert_bytes: u64,
    /// Kinds of layers.
    pub blocks: Vec<Block>,
    /// The kind of each layer: an index into `blocks`.
    pub layers: Vec<usize>,
}

/// A rule of a mixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Experts {
    /// Experts that a token takes.
    pub chosen: usize,
    /// Experts there are.
    pub of: usize,
}

/// A kind of layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Block {
    /// Its name: `layer`, `sliding_layer`.
    pub name: String,
    /// How many layers are of it.
    pub layers: usize,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Options {
    /// Tokens of context that [`Document::decode`] is at the end of.
    pub context: usize,
    /// The longest context that the program can have.
    pub longest_context: usize,
    /// Storage of keys and values: `f16`.
    pub kv: &'static str,
    /// Sequences that the program holds side by side.
    pub slots: usize,
    /// Most tokens of a tile.
    pub tile: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// A bandwidth to predict decoding for, GB/s.
    pub bandwidth: Option<f64>,
}

/// The weights, in the checkpoint and in the program's file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Weights {
    /// Length of `weights.safetensors`.
    pub file_bytes: u64,
    /// Formats of the checkpoint's tensors.
    pub stored: Vec<Stored>,
    /// The tensors of the file, in its order.
    pub tensors: Vec<Tensor>,
}

/// All of a checkpoint's tensors of one format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// The format's name: `Q4_K`.
    pub format: String,
    /// Tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One tensor of the weights file: matrices of one format stacked by rows, or a vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tensor {
    /// Its name: `layers.0.qkv_proj`.
    pub name: String,
    /// The layer that it is of.
    pub layer: Option<usize>,
    /// What it is there for: `qkv_proj`.
    pub role: String,
    /// Its format: `q4_k`; `f32` of vectors.
    pub format: String,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Bytes.
    pub bytes: u64,
}

/// A state of one sequence. With a context of `n` tokens it takes
/// `fixed_bytes + position_bytes * min(n, capacity)` bytes, and that for each of [`Options::slots`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// `kv`: keys and values of each position; `latent`: a latent and a shared key of each; `recurrent`: one for all positions so far.
    pub kind: &'static str,
    /// The layers that read or write it.
    pub layers: Vec<usize>,
    /// Bytes whatever the context.
    pub fixed_bytes: u64,
    /// Bytes of a position.
    pub position_bytes: u64,
    /// Positions that a token looks at; all where there is none.
    pub window: Option<usize>,
    /// Positions that are kept; the whole context where there is none.
    pub capacity: Option<usize>,
}

/// Memory of the generated program. What a context takes is the sum of [`Document::states`], and activations of each token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The weights.
    pub weights: u64,
    /// Activations, logits and the sampler's buffers, whatever the context.
    pub activations: u64,
    /// Activations that one more token of context takes.
    pub activations_per_token: u64,
    /// Recurrent states.
    pub recurrent: u64,
    /// Keys and values that one more token takes; nothing of windowed caches.
    pub per_token: u64,
    /// Of the keys and values at the longest context, those of windowed caches.
    pub windowed: u64,
    /// MSL's type of an element of keys and values.
    pub element: &'static str,
    /// At [`Options::context`].
    pub asked: AtContext,
    /// At other lengths, the shortest first.
    pub contexts: Vec<AtContext>,
}

/// Memory at one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AtContext {
    /// Tokens.
    pub context: usize,
    /// Keys and values, or latents.
    pub kv: u64,
    /// Activations.
    pub activations: u64,
    /// All that the program takes.
    pub total: u64,
}

/// A chip, and what it may do with a token of [`Document::decode`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChipRate {
    /// Apple's name for it.
    pub name: &'static str,
    /// Peak bandwidth of its memory, GB/s.
    pub bandwidth: u32,
    /// Peak of its GPU's single-precision arithmetic as Apple announced it, TFLOP/s; none where it did not.
    pub tflops: Option<f64>,
    /// Tokens a second at most: bandwidth over the token's bytes.
    pub tokens_per_second: f64,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kernel {
    /// Its name in `kernels.metal`.
    pub name: String,
    /// Its family: `gemv`, `attention_decode`.
    pub family: String,
    /// What kind of work it is: `embedding`, `projection`, `attention`, `recurrent`, `mixture`, `norm`, `choice`.
    pub kind: &'static str,
    /// What it is.
    pub title: String,
    /// Rows that it works on: `one`, `few` (up to eight, of any sequences), `any`.
    pub rows: &'static str,
    /// Threads of a threadgroup.
    pub threads: u32,
    /// Bytes of threadgroup memory.
    pub threadgroup_bytes: u32,
    /// Threadgroups along each axis.
    pub grid: [Axis; 3],
    /// Positions that a row sees at most, where it looks at a cache with a window.
    pub window: Option<usize>,
    /// How long contexts are cut into parts, where they are.
    pub split: Option<Split>,
    /// Bytes that a dispatch reads to learn its threadgroups.
    pub grid_bytes: u64,
    /// Its buffer arguments, in the order of `[[buffer(i)]]`.
    pub bindings: Vec<Binding>,
    /// Multiplications and additions of a dispatch; the terms by position are for each pair of a row and a position that it sees.
    pub flops: Terms,
}

/// Threadgroups along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// So many.
    Fixed(usize),
    /// The rows of the step.
    Rows,
    /// The rows of the step, so many at once.
    RowTiles(usize),
    /// The positions that the last row of a tile sees, so many at once.
    PositionTiles(usize),
    /// Parts of the context.
    Parts,
    /// As many as a buffer says.
    Indirect {
        /// Most of them for each row of the step.
        per_row: usize,
        /// Most of them.
        most: usize,
    },
}

/// How a long context is cut into parts. A row that sees `s` positions, itself included, has one part where `s <= above`, else
/// `min(ceil(s / positions), most)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Split {
    /// Contexts of up to so many positions are one part.
    pub above: usize,
    /// Positions of a part.
    pub positions: usize,
    /// Most parts.
    pub most: usize,
    /// Positions that a row sees at most.
    pub window: Option<usize>,
}

/// A buffer argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// What it is to the kernel, and its name there: `weights`, `input`.
    pub role: &'static str,
    /// Whether it is a recurrent state, of which the first row of a sequence reads nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub state: bool,
    /// Bytes that a dispatch reads, each once.
    pub read: Terms,
    /// Bytes that a dispatch writes, each once.
    pub written: Terms,
}

/// A sum that grows with the size of a step:
/// `fixed + row * rows + tile * tiles + position * positions + part * parts`. Terms of nothing are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Terms {
    /// Whatever the size.
    #[serde(skip_serializing_if = "is_zero")]
    pub fixed: u64,
    /// For each row.
    #[serde(skip_serializing_if = "is_zero")]
    pub row: u64,
    /// For each tile of rows or of positions, of as many as [`Axis::RowTiles`] or [`Axis::PositionTiles`] says.
    #[serde(skip_serializing_if = "is_zero")]
    pub tile: u64,
    /// For each position that some row sees.
    #[serde(skip_serializing_if = "is_zero")]
    pub position: u64,
    /// For each part of a row's context.
    #[serde(skip_serializing_if = "is_zero")]
    pub part: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A pass over the model: a decode step, or a tile of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pass {
    /// Rows.
    pub rows: usize,
    /// Position of the first of them.
    pub position: usize,
    /// Sums.
    pub totals: Totals,
    /// Sums by kernel, in file order.
    pub kernels: Vec<KernelTotal>,
    /// Every dispatch, in order.
    pub dispatches: Vec<Dispatch>,
    /// The dispatches that a pass of shorter or longer contexts, or a tile of fewer or more rows, has in the place of some, as they would
    /// be here.
    pub otherwise: Vec<Dispatch>,
}

/// A prompt, tile by tile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prompt {
    /// Tokens.
    pub tokens: usize,
    /// Tiles.
    pub tiles: usize,
    /// Sums.
    pub totals: Totals,
    /// Sums by kernel, in file order.
    pub kernels: Vec<KernelTotal>,
}

/// Sums over dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Dispatches.
    pub dispatches: u64,
    /// Barriers between them.
    pub barriers: u64,
    /// Bytes read, each once a dispatch.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Both.
    pub bytes: u64,
    /// Bytes that threads load, for the inputs of projections each time; else as read.
    pub loaded: u64,
    /// Multiplications and additions of matrix products and attention.
    pub flops: u64,
    /// Bytes that no program can avoid: weights as stored, the states read and appended to, the logits, each once.
    pub lower_bound: u64,
}

/// Sums over the dispatches of one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelTotal {
    /// The kernel's name.
    pub kernel: String,
    /// Dispatches.
    pub dispatches: u64,
    /// Barriers before them.
    pub barriers: u64,
    /// Threadgroups of the first.
    pub threadgroups: u64,
    /// See [`Totals::read`].
    pub read: u64,
    /// See [`Totals::written`].
    pub written: u64,
    /// See [`Totals::loaded`].
    pub loaded: u64,
    /// See [`Totals::flops`].
    pub flops: u64,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dispatch {
    /// Its place among all of [`Pass::dispatches`] and [`Pass::otherwise`].
    pub order: usize,
    /// The segment that it is of: `embed`, `layers`, `head`, `sample`.
    pub stage: &'static str,
    /// The layer that runs it.
    pub layer: Option<usize>,
    /// The layer's kind: an index into [`Model::blocks`].
    pub block: Option<usize>,
    /// The kernel's name.
    pub kernel: String,
    /// The kernel's family.
    pub family: String,
    /// `always`; `one_part`, while contexts are one part, `split`, when they are more; `few_rows` and `many_rows`, see
    /// [`Document::many_rows_from`].
    pub when: &'static str,
    /// Whether a barrier precedes it.
    pub barrier: bool,
    /// Threadgroups along each axis; the most there may be where a buffer says how many.
    pub grid: [u64; 3],
    /// Threads of each.
    pub threads: u32,
    /// What it reads.
    pub reads: Vec<Use>,
    /// What it writes.
    pub writes: Vec<Use>,
    /// Bytes of `reads`, and of its threadgroups where a buffer says how many.
    pub read: u64,
    /// Bytes of `writes`.
    pub written: u64,
    /// See [`Totals::loaded`].
    pub loaded: u64,
    /// See [`Totals::flops`].
    pub flops: u64,
}

/// What a dispatch does with one of its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Use {
    /// The argument: [`Binding::role`].
    pub role: &'static str,
    /// A tensor of the weights file, a part of a state by its number in [`Document::states`] (`states.0.keys`), or a buffer as the
    /// generated sources call it.
    pub buffer: String,
    /// Bytes, each once.
    pub bytes: u64,
}
