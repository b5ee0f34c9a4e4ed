//! From a checkpoint and its plan to the [`Document`]: every figure of it is the plan's own account, and nothing here counts anew.

use std::collections::BTreeMap;

use forge_codegen::argument;
use forge_frontend::graph::{Graph, Op};
use forge_frontend::{Checkpoint, ModelConfig};
use forge_pack::Header;
use forge_plan::attention::UNSPLIT_POSITIONS;
use forge_plan::costs::{self, Encoded, PassCost, PromptSchedules, StepSize};
use forge_plan::families::Rows;
use forge_plan::linear::Linear;
use forge_plan::plan::{Dim, Schedule, Stage, StatePlan, Step, When};
use forge_plan::{Plan, format_name, memory};

use super::document::{
    AtContext, Axis, Binding, Block, ChipRate, Dispatch, Document, Experts, FORMAT, Kernel, KernelTotal, Memory, Model,
    Options, Pass, Prompt, Split, State, Stored, Tensor, Terms, Totals, Use, VERSION, Weights,
};
use crate::chips::{self, CHIPS};

/// The shortest context of which memory is told.
const SHORTEST: usize = 256;

/// What is asked of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Tokens of context, the decoded one included.
    pub context: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// A bandwidth to predict decoding for, GB/s.
    pub bandwidth: Option<f64>,
}

/// The document of a checkpoint's plan.
pub fn document(checkpoint: &Checkpoint, plan: &Plan, asked: Asked) -> Document {
    let header = Header::new(&plan.weights);
    let step = StepSize { rows: 1, position: asked.context - 1, slots: 1 };
    let decode = pass(plan, &plan.decode, step);
    let prompt = PromptSchedules::new(plan);
    let first = StepSize { rows: asked.prompt.min(plan.prefill_tile), position: 0, slots: 1 };
    let bytes = decode.totals.bytes;
    Document {
        format: FORMAT,
        version: VERSION,
        model: model(checkpoint, plan),
        options: Options {
            context: asked.context,
            longest_context: plan.context,
            kv: plan.kv.name(),
            slots: plan.slots,
            tile: plan.prefill_tile,
            prompt: asked.prompt,
            bandwidth: asked.bandwidth,
        },
        weights: weights(&checkpoint.graph, plan, header.file_bytes),
        states: (0..plan.states.len()).map(|id| state(plan, id)).collect(),
        memory: memory_of(plan, header.file_bytes, asked.context),
        chips: CHIPS
            .iter()
            .map(|chip| ChipRate {
                name: chip.name,
                bandwidth: chip.bandwidth,
                tflops: chip.tflops,
                tokens_per_second: chips::tokens_per_second(chip.bandwidth.into(), bytes),
            })
            .collect(),
        split_above: UNSPLIT_POSITIONS,
        many_rows_from: plan.expands_from,
        kernels: plan.kernels.iter().map(|one| kernel(plan, one)).collect(),
        decode,
        tile: pass(plan, prompt.of(first.rows), first),
        prompt: {
            let cost = costs::prompt(plan, asked.prompt, 0);
            Prompt {
                tokens: asked.prompt,
                tiles: asked.prompt.div_ceil(plan.prefill_tile),
                totals: totals(&cost),
                kernels: by_kernel(plan, &cost),
            }
        },
    }
}

fn model(checkpoint: &Checkpoint, plan: &Plan) -> Model {
    let graph = &checkpoint.graph;
    let layers = plan.order();
    let block = |(index, name): (usize, &String)| Block {
        name: name.clone(),
        layers: layers.iter().filter(|&&block| block == index).count(),
    };
    let blocks = plan.blocks.iter().enumerate().map(block).collect();
    let ModelConfig {
        architecture,
        name,
        hidden_size,
        intermediate_size,
        num_layers: _,
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim,
        vocab_size: vocabulary,
        trained_context,
    } = graph.config.clone();
    let (experts, expert_bytes) = experts(graph);
    Model {
        name,
        architecture,
        checkpoint: checkpoint.kind.to_string(),
        parameters: graph.parameters(),
        active_parameters: graph.active_parameters(),
        hidden_size,
        intermediate_size,
        heads,
        kv_heads,
        head_dim,
        vocabulary,
        trained_context,
        experts,
        expert_bytes,
        blocks,
        layers,
    }
}

/// The experts of a mixture: how many a token takes, and their weights' bytes as stored.
fn experts(graph: &Graph) -> (Vec<Experts>, u64) {
    let mut rules: Vec<Experts> = Vec::new();
    let mut bytes = 0;
    for layer in &graph.layers {
        for node in &graph.blocks[layer.block].nodes {
            match &node.op {
                Op::Route { routing, .. } => {
                    let rule = Experts { chosen: routing.chosen, of: routing.experts };
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
                Op::Experts { .. } => {
                    let weights = node.op.slots().into_iter().map(|slot| &graph.weights[layer.weights[slot]]);
                    bytes +=
                        weights.map(|w| w.format.row_bytes(w.cols).unwrap_or(0) as u64 * w.rows as u64).sum::<u64>();
                }
                _ => {}
            }
        }
    }
    (rules, bytes)
}

fn weights(graph: &Graph, plan: &Plan, file_bytes: u64) -> Weights {
    let mut stored: BTreeMap<_, (usize, u64, u64)> = BTreeMap::new();
    for weight in &graph.weights {
        let (tensors, elements, bytes) = stored.entry(weight.format).or_default();
        *tensors += 1;
        *elements += weight.rows as u64 * weight.cols as u64;
        *bytes += weight.format.row_bytes(weight.cols).unwrap_or(0) as u64 * weight.rows as u64;
    }
    let stored = stored.into_iter().map(|(format, (tensors, parameters, bytes))| Stored {
        format: format.to_string(),
        tensors,
        parameters,
        bytes,
    });
    let tensors = plan.weights.tensors.iter().map(|tensor| Tensor {
        name: tensor.name.clone(),
        layer: tensor.layer,
        role: match tensor.layer {
            Some(_) => plan.layer_fields[tensor.field].name.clone(),
            None => plan.model_fields[tensor.field].name.clone(),
        },
        format: format_name(tensor.format),
        rows: tensor.rows,
        cols: tensor.cols,
        bytes: forge_pack::packed_bytes(tensor),
    });
    Weights { file_bytes, stored: stored.collect(), tensors: tensors.collect() }
}

fn state(plan: &Plan, id: usize) -> State {
    let state = &plan.states[id];
    let one = state.bytes(plan.kv, 1);
    let (kind, window, capacity) = match state {
        StatePlan::Kv(cache) => ("kv", cache.window, cache.capacity),
        StatePlan::Latent(_) => ("latent", None, None),
        StatePlan::Recurrent { .. } => ("recurrent", None, None),
    };
    let layers = plan.layers.iter().enumerate().filter(|(_, layer)| layer.states.contains(&id));
    State {
        kind,
        layers: layers.map(|(layer, _)| layer).collect(),
        fixed_bytes: if state.is_recurrent() { one } else { 0 },
        position_bytes: if state.is_recurrent() { 0 } else { one },
        window,
        capacity,
    }
}

fn memory_of(plan: &Plan, weights: u64, context: usize) -> Memory {
    let (activations, recurrent) = (memory::activation_bytes(plan), memory::recurrent_bytes(plan));
    let activations_per_token = memory::activation_bytes_per_token(plan);
    let at = |context: usize| {
        let kv = memory::kv_bytes(plan, context);
        let activations = activations + activations_per_token * context as u64;
        AtContext { context, kv, activations, total: weights + activations + recurrent + kv }
    };
    let doubled = std::iter::successors(Some(SHORTEST), |context| context.checked_mul(2));
    let contexts = doubled.take_while(|&context| context < plan.context).chain([plan.context]);
    Memory {
        weights,
        activations,
        activations_per_token,
        recurrent,
        per_token: memory::kv_bytes_per_token(plan),
        windowed: memory::windowed_bytes(plan),
        element: plan.kv.element(),
        asked: at(context),
        contexts: contexts.map(at).collect(),
    }
}

fn kernel(plan: &Plan, kernel: &forge_plan::Kernel) -> Kernel {
    let axis = |dim: Dim| match dim {
        Dim::Const(count) => Axis::Fixed(count),
        Dim::Rows => Axis::Rows,
        Dim::RowTiles(rows) => Axis::RowTiles(rows),
        Dim::PositionTiles(positions) => Axis::PositionTiles(positions),
        Dim::Parts => Axis::Parts,
        Dim::Indirect { per_row, most } => Axis::Indirect { per_row, most },
    };
    let when = |does: bool, bytes: Linear| if does { terms(bytes) } else { Terms::default() };
    let binding = |binding: &forge_plan::binding::Binding| Binding {
        role: binding.role.name(),
        state: binding.is_state(),
        read: when(binding.access.reads(), binding.bytes()),
        written: when(binding.access.writes(), binding.bytes()),
    };
    Kernel {
        name: kernel.name.clone(),
        family: family(kernel),
        kind: kernel.family.operation(&plan.rope_tables).kind(),
        title: kernel.family.title(),
        rows: match kernel.family.rows() {
            Rows::One => "one",
            Rows::Few => "few",
            Rows::Any => "any",
        },
        threads: kernel.launch.threads,
        threadgroup_bytes: kernel.launch.threadgroup_bytes,
        grid: kernel.launch.grid.map(axis),
        window: kernel.family.window(),
        split: kernel.family.split().map(|split| Split {
            above: split.above,
            positions: split.positions,
            most: split.most,
            window: split.window,
        }),
        grid_bytes: costs::counts_bytes(kernel),
        bindings: kernel.bindings.iter().map(binding).collect(),
        flops: terms(kernel.family.flops()),
    }
}

/// The family's name as its file is called: `attention_decode`.
fn family(kernel: &forge_plan::Kernel) -> String {
    let mut name = String::new();
    for letter in kernel.family.name().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn terms(sum: Linear) -> Terms {
    let Linear { fixed, per_row: row, per_tile: tile, per_position: position, per_part: part } = sum;
    Terms { fixed, row, tile, position, part }
}

fn pass(plan: &Plan, schedule: &Schedule, size: StepSize) -> Pass {
    let steps: Vec<&Step> = schedule.steps().collect();
    let (mut dispatches, mut otherwise) = (Vec::new(), Vec::new());
    for (order, (encoded, runs)) in costs::visits(plan, schedule, size).into_iter().enumerate() {
        let list = if runs { &mut dispatches } else { &mut otherwise };
        list.push(dispatch(plan, steps[encoded.step], order, &encoded));
    }
    let cost = costs::pass(plan, schedule, size);
    Pass {
        rows: size.rows,
        position: size.position,
        totals: totals(&cost),
        kernels: by_kernel(plan, &cost),
        dispatches,
        otherwise,
    }
}

fn dispatch(plan: &Plan, step: &Step, order: usize, encoded: &Encoded) -> Dispatch {
    let kernel = &plan.kernels[encoded.kernel];
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for (binding, traffic) in kernel.bindings.iter().zip(&encoded.cost.bindings) {
        let of = |bytes| Use {
            role: binding.role.name(),
            buffer: argument(plan, step.args[&binding.role], encoded.layer),
            bytes,
        };
        reads.extend(binding.access.reads().then(|| of(traffic.read)));
        writes.extend(binding.access.writes().then(|| of(traffic.written)));
    }
    Dispatch {
        order,
        stage: match encoded.stage {
            Stage::Embed => "embed",
            Stage::Layers => "layers",
            Stage::Head => "head",
            Stage::Sample => "sample",
        },
        layer: encoded.layer,
        block: encoded.layer.map(|layer| plan.layers[layer].block),
        kernel: kernel.name.clone(),
        family: family(kernel),
        when: match step.when {
            When::Always => "always",
            When::OnePart => "one_part",
            When::Split => "split",
            When::FewRows => "few_rows",
            When::ManyRows => "many_rows",
        },
        barrier: encoded.barrier,
        grid: encoded.cost.grid,
        threads: kernel.launch.threads,
        reads,
        writes,
        read: encoded.cost.read(),
        written: encoded.cost.written(),
        loaded: encoded.cost.requested(),
        flops: encoded.cost.flops,
    }
}

fn totals(cost: &PassCost) -> Totals {
    let sum = |of: fn(&costs::KernelTotal) -> u64| cost.kernels.iter().map(of).sum();
    Totals {
        dispatches: cost.dispatches(),
        barriers: cost.barriers(),
        read: sum(|kernel| kernel.read),
        written: sum(|kernel| kernel.written),
        bytes: cost.bytes(),
        loaded: sum(|kernel| kernel.requested),
        flops: cost.flops(),
        lower_bound: cost.lower_bound,
    }
}

fn by_kernel(plan: &Plan, cost: &PassCost) -> Vec<KernelTotal> {
    let total = |total: &costs::KernelTotal| KernelTotal {
        kernel: plan.kernels[total.kernel].name.clone(),
        dispatches: total.dispatches,
        barriers: total.barriers,
        threadgroups: total.threadgroups,
        read: total.read,
        written: total.written,
        loaded: total.requested,
        flops: total.flops,
    };
    cost.kernels.iter().map(total).collect()
}
