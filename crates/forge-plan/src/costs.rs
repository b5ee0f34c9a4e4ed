//! Exact accounting: bytes that each dispatch reads and writes, floating-point operations, threadgroups.
//!
//! All of it follows from the bindings' extents and how much of them a dispatch touches.
//!
//! Unique bytes count a byte once per dispatch however many threads touch it; that is what has to come from memory at
//! least. Requested bytes count every load of every thread; for the input of a projection they say how often it is
//! read again. The software Metal device counts the same numbers while it runs the kernels, and a test holds the two
//! equal.

use std::collections::{BTreeMap, BTreeSet};

use forge_formats::Format;
use forge_spec::Role;

use crate::attention;
use crate::binding::{Binding, Element, Touch};
use crate::families::{FEW_TOKENS, Family};
use crate::kernel::Kernel;
use crate::linear::{Counts, Linear};
use crate::pack::PackedTensor;
use crate::plan::{Arg, Choice, Counts as StepCounts, Dim, FieldId, Plan, Schedule, Stage, Visit, When};

/// Size of a step: what the kernels learn at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Rows of the step.
    pub rows: usize,
    /// Position of the first row of each sequence.
    pub position: usize,
    /// Sequences that the rows are of, as many of each.
    pub slots: usize,
}

/// Bytes of one binding in one dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes read, each once.
    pub read: u64,
    /// Bytes read, each time that a thread loads it; only for inputs of projections, else as `read`.
    pub requested: u64,
    /// Bytes written, each once.
    pub written: u64,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cost {
    /// In binding order.
    pub bindings: Vec<Traffic>,
    /// Multiplications and additions of matrix products and attention.
    pub flops: u64,
    /// Threadgroups along each axis; the most there may be where a buffer says how many.
    pub grid: [u64; 3],
    /// All of them.
    pub threadgroups: u64,
    /// Bytes read to learn how many.
    pub counts: u64,
}

impl Cost {
    /// Bytes read, each once.
    pub fn read(&self) -> u64 {
        self.counts + self.bindings.iter().map(|b| b.read).sum::<u64>()
    }
    /// Bytes read, each time that a thread loads them; see [`Traffic::requested`].
    pub fn requested(&self) -> u64 {
        self.counts + self.bindings.iter().map(|b| b.requested).sum::<u64>()
    }
    /// Bytes written, each once.
    pub fn written(&self) -> u64 {
        self.bindings.iter().map(|b| b.written).sum()
    }
}

/// All dispatches of one kernel in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTotal {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Dispatches.
    pub dispatches: u64,
    /// Barriers before them.
    pub barriers: u64,
    /// Bytes read, each once per dispatch.
    pub read: u64,
    /// Bytes of weights among them.
    pub weights: u64,
    /// Input bytes of projections, each time they are loaded.
    pub requested_input: u64,
    /// Bytes read, each time that a thread loads them; see [`Traffic::requested`].
    pub requested: u64,
    /// Bytes written.
    pub written: u64,
    /// See [`Cost::flops`].
    pub flops: u64,
    /// Threadgroups of the first dispatch.
    pub threadgroups: u64,
}

/// One pass over the model: a decode step or one tile of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassCost {
    /// By kernel, in file order; kernels of the other path are left out.
    pub kernels: Vec<KernelTotal>,
    /// What no schedule can avoid: matrices and vectors as stored in the checkpoint, the cache read and appended to,
    /// the logits.
    pub lower_bound: u64,
}

impl PassCost {
    /// Bytes read and written.
    pub fn bytes(&self) -> u64 {
        self.kernels.iter().map(|k| k.read + k.written).sum()
    }
    /// Bytes read, each time that a thread loads them, and bytes written.
    pub fn requested_bytes(&self) -> u64 {
        self.kernels.iter().map(|k| k.requested + k.written).sum()
    }
    /// Dispatches.
    pub fn dispatches(&self) -> u64 {
        self.kernels.iter().map(|k| k.dispatches).sum()
    }
    /// Barriers.
    pub fn barriers(&self) -> u64 {
        self.kernels.iter().map(|k| k.barriers).sum()
    }
    /// See [`Cost::flops`].
    pub fn flops(&self) -> u64 {
        self.kernels.iter().map(|k| k.flops).sum()
    }
    /// Requested input bytes of matrix-vector products per byte of their weights.
    pub fn input_per_weight_byte(&self) -> f64 {
        let (input, weights) = self
            .kernels
            .iter()
            .filter(|k| k.requested_input > 0)
            .fold((0, 0), |(input, weights), k| (input + k.requested_input, weights + k.weights));
        input as f64 / (weights as f64).max(1.0)
    }
}

/// A decode step with `position` tokens before it.
pub fn decode(plan: &Plan, position: usize) -> PassCost {
    pass(plan, &plan.decode, StepSize { rows: 1, position, slots: 1 })
}

/// A step or a tile of this size.
pub fn pass(plan: &Plan, schedule: &Schedule, size: StepSize) -> PassCost {
    total(plan, &dispatches(plan, schedule, size), lower_bound(plan, schedule, size))
}

/// What the tokens of a prompt run whose logits nobody asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptSchedules {
    /// A tile: it ends with the last state.
    tile: Schedule,
    /// Of a few tokens that are left a step, without what comes after the layers.
    step: Schedule,
}

impl PromptSchedules {
    /// Those of a plan.
    pub fn new(plan: &Plan) -> Self {
        Self { tile: plan.prefill_of_states(), step: plan.decode.without(Stage::Head).without(Stage::Sample) }
    }

    /// That of so many tokens at once.
    pub fn of(&self, rows: usize) -> &Schedule {
        if rows <= FEW_TOKENS { &self.step } else { &self.tile }
    }
}

/// `tokens` tokens after `position` others, in tiles, without logits.
pub fn prompt(plan: &Plan, tokens: usize, position: usize) -> PassCost {
    let schedules = PromptSchedules::new(plan);
    let mut list = Vec::new();
    for first in (0..tokens).step_by(plan.prefill_tile) {
        let size = StepSize { rows: plan.prefill_tile.min(tokens - first), position: position + first, slots: 1 };
        list.extend(dispatches(plan, schedules.of(size.rows), size));
    }
    total(plan, &list, lower_bound(plan, &schedules.tile, StepSize { rows: tokens, position, slots: 1 }))
}

/// One dispatch of a pass, as it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The step's number among the schedule's.
    pub step: usize,
    /// The segment that it is of.
    pub stage: Stage,
    /// The layer that runs it.
    pub layer: Option<usize>,
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Whether a barrier precedes it.
    pub barrier: bool,
    /// What it costs.
    pub cost: Cost,
}

/// All dispatches of a schedule for a step of this size, in order.
pub fn dispatches(plan: &Plan, schedule: &Schedule, size: StepSize) -> Vec<Encoded> {
    let visits = visits(plan, schedule, size).into_iter();
    visits.filter(|(_, runs)| *runs).map(|(dispatch, _)| dispatch).collect()
}

/// Every dispatch that a schedule may have, in order, with its cost at this size; and whether a step or tile of this size has it, or only
/// one of shorter or longer contexts, of fewer or more rows.
pub fn visits(plan: &Plan, schedule: &Schedule, size: StepSize) -> Vec<(Encoded, bool)> {
    let mut list = Vec::new();
    for Visit { number, step, stage, layer } in schedule.visits(&plan.order()) {
        let kernel = match step.choice(size.rows) {
            Choice::Fixed(id) => id,
            Choice::PerLayer(table) => plan.tables[table].kernels[layer.unwrap_or(0)],
        };
        let window = plan.kernels[kernel].family.window().unwrap_or(usize::MAX);
        // The longest context among the rows says how attention goes.
        let longest = size.position + size.rows / size.slots;
        let split = attention::splits(longest.min(window));
        let many = plan.expands_from.is_some_and(|from| size.rows >= from);
        let second = if matches!(step.when, When::FewRows | When::ManyRows) { many } else { split };
        let cost = dispatch(&plan.kernels[kernel], size);
        let encoded = Encoded { step: number, stage, layer, kernel, barrier: step.barrier, cost };
        list.push((encoded, step.when.runs(second)));
    }
    list
}

/// Sums by kernel.
fn total(plan: &Plan, dispatches: &[Encoded], lower_bound: u64) -> PassCost {
    let mut kernels: Vec<KernelTotal> = Vec::new();
    for Encoded { kernel, barrier, cost, .. } in dispatches {
        let (weights, input) = projection_traffic(&plan.kernels[*kernel], cost);
        let index = kernels.iter().position(|k| k.kernel == *kernel).unwrap_or_else(|| {
            kernels.push(KernelTotal {
                kernel: *kernel,
                dispatches: 0,
                barriers: 0,
                read: 0,
                weights: 0,
                requested_input: 0,
                requested: 0,
                written: 0,
                flops: 0,
                threadgroups: cost.threadgroups,
            });
            kernels.len() - 1
        });
        let total = &mut kernels[index];
        total.dispatches += 1;
        total.barriers += u64::from(*barrier);
        total.read += cost.read();
        total.weights += weights;
        total.requested_input += input;
        total.requested += cost.requested();
        total.written += cost.written();
        total.flops += cost.flops;
    }
    kernels.sort_by_key(|k| k.kernel);
    PassCost { kernels, lower_bound }
}

/// Weight bytes of a projection, and its input's requested bytes where it is a matrix-vector product.
fn projection_traffic(kernel: &Kernel, cost: &Cost) -> (u64, u64) {
    if kernel.family.projection().is_none() {
        return (0, 0);
    }
    let of = |matches: fn(&Binding) -> bool, bytes: fn(&Traffic) -> u64| {
        let pairs = kernel.bindings.iter().zip(&cost.bindings);
        pairs.filter(|(binding, _)| matches(binding)).map(|(_, traffic)| bytes(traffic)).sum()
    };
    let weights = of(|binding| matches!(binding.element, Element::Packed(_)), |traffic| traffic.read);
    let input = of(|binding| binding.role == Role::Input, |traffic| traffic.requested);
    let tiles = matches!(kernel.family, Family::Gemm(_) | Family::ExpertsUpTile(_) | Family::ExpertsDownTile(_));
    (weights, if tiles { 0 } else { input })
}

fn stored(format: Format, rows: usize, cols: usize) -> u64 {
    (format.row_bytes(cols).unwrap_or(0) * rows) as u64
}

/// A layer's field, or one of the model.
type Tensor = (Option<usize>, FieldId);

/// The tensors that a schedule touches: whether all of each, or a row for each row of the step.
fn touched(plan: &Plan, schedule: &Schedule) -> BTreeMap<Tensor, Touch> {
    let mut touched = BTreeMap::new();
    for Visit { step, layer, .. } in schedule.visits(&plan.order()) {
        for binding in step.kernels(&plan.tables).take(1).flat_map(|id| &plan.kernels[id].bindings) {
            let next = layer.map_or(0, |layer| layer + 1);
            let tensor = match (step.args.get(&binding.role), plan.first_norm) {
                (Some(Arg::Layer(field)), _) => (layer, *field),
                (Some(Arg::Model(field)), _) => (None, *field),
                (Some(Arg::NextGamma), Some(norm)) if next < plan.layers.len() => (Some(next), norm),
                (Some(Arg::NextGamma), _) => (None, plan.final_norm),
                _ => continue,
            };
            let touch = touched.entry(tensor).or_insert(binding.touch);
            if binding.touch != Touch::PerRow {
                *touch = binding.touch;
            }
        }
    }
    touched
}

/// Weights in their stored size, the states, the logits.
fn lower_bound(plan: &Plan, schedule: &Schedule, size: StepSize) -> u64 {
    let touched = touched(plan, schedule);
    let rows = |tensor: &PackedTensor| match touched.get(&(tensor.layer, tensor.field)) {
        Some(Touch::PerRow) => size.rows,
        Some(Touch::Chosen { of, each_row } | Touch::ChosenOfMany { of, each_row }) => {
            tensor.rows / of * each_row.saturating_mul(size.rows).min(*of)
        }
        Some(_) => tensor.rows,
        None => 0,
    };
    let weights = plan.weights.tensors.iter().map(|tensor| stored(tensor.format, rows(tensor), tensor.cols));
    let mut bytes: u64 = weights.sum();
    bytes += size.slots as u64 * least_of_states(plan, schedule, size);
    if !schedule.head().is_empty() {
        bytes += (plan.config.vocab_size * 4 * size.rows) as u64;
    }
    bytes
}

/// What the states of one sequence cost at least: each read once by every layer that looks at it, and written by the layer that does.
fn least_of_states(plan: &Plan, schedule: &Schedule, size: StepSize) -> u64 {
    let rows = size.rows / size.slots;
    // Of each layer the slots of its states that it reads, and those that it writes.
    let mut touched = BTreeSet::new();
    for Visit { step, layer, .. } in schedule.visits(&plan.order()) {
        let Some(layer) = layer else { continue };
        for binding in step.kernels(&plan.tables).take(1).flat_map(|id| &plan.kernels[id].bindings) {
            if let Some(slot) = step.args.get(&binding.role).and_then(Arg::state) {
                let how = [(binding.access.reads(), false), (binding.access.writes(), true)];
                touched.extend(how.iter().filter(|(does, _)| *does).map(|(_, writes)| (layer, slot, *writes)));
            }
        }
    }
    let cost = |&(layer, slot, writes): &(usize, usize, bool)| {
        let state = &plan.states[plan.layers[layer].states[slot]];
        if writes { state.written(plan.kv, rows) } else { state.least_read(plan.kv, rows, size.position) }
    };
    touched.iter().map(cost).sum()
}

/// What one dispatch of a kernel costs; of an indirect one, at most.
pub fn dispatch(kernel: &Kernel, size: StepSize) -> Cost {
    let counts = Counts::new(size, &kernel.launch.grid, kernel.family.window(), kernel.family.split());
    let grid = kernel.launch.grid.map(|dim| match dim {
        Dim::Const(n) => n as u64,
        Dim::Rows => counts.rows,
        Dim::RowTiles(_) | Dim::PositionTiles(_) => counts.tiles,
        Dim::Parts => counts.most_parts,
        Dim::Indirect { per_row, most } => (per_row as u64 * counts.rows).min(most as u64),
    });
    let traffic = |binding: &Binding| {
        // Before the first position a recurrent state is zeros.
        let starts = size.position == 0 && binding.is_state();
        let sequences = if binding.is_state() { size.slots as u64 } else { 1 };
        let (reads, writes) = (binding.access.reads() && !starts, binding.access.writes());
        let bytes = |does: bool, count: Linear| if does { sequences * count.at(counts) } else { 0 };
        Traffic {
            read: bytes(reads, binding.bytes()),
            requested: bytes(reads, binding.loaded()),
            written: bytes(writes, binding.bytes()),
        }
    };
    Cost {
        bindings: kernel.bindings.iter().map(traffic).collect(),
        flops: kernel.family.flops().at(counts.of_pairs()),
        grid,
        threadgroups: grid.iter().product(),
        counts: counts_bytes(kernel),
    }
}

/// Bytes that a dispatch reads to learn its threadgroups.
pub fn counts_bytes(kernel: &Kernel) -> u64 {
    if kernel.launch.is_indirect() { StepCounts::BYTES as u64 } else { 0 }
}

/// What one dispatch of a kernel moves (bytes read and written, each once) and computes, for programs that learn the step's
/// size when they run.
pub fn formula(kernel: &Kernel) -> forge_spec::Cost {
    let bytes: Linear = kernel
        .bindings
        .iter()
        .map(|binding| binding.bytes() * (u64::from(binding.access.reads()) + u64::from(binding.access.writes())))
        .chain([Linear::fixed(counts_bytes(kernel))])
        .sum();
    forge_spec::Cost { bytes: bytes.terms(), flops: kernel.family.flops().terms() }
}
