//! Properties of the plans of random small graphs: barriers that suffice and are all needed, found by comparing every pair of
//! dispatches; arguments, extents and order hold by the validator, which planning runs.

mod common;
#[path = "common/indirect.rs"]
mod indirect;
#[path = "common/lists.rs"]
mod lists;
#[path = "common/random.rs"]
mod random;

use std::collections::BTreeMap;

use common::Sizes;
use forge_formats::Format;
use forge_frontend::graph::*;
use forge_plan::plan::{Arg, Choice, Place, SamplerBuffer, Schedule, Stage, Step};
use forge_plan::{CacheType, KernelId, Plan, PlanError, PlanOptions, barriers, plan, valid};
use forge_spec::Role;
use random::Random;

/// A llama of random sizes with a random choice of what other architectures have.
fn graph(random: &mut Random) -> Graph {
    let kv_heads = 1 + random.below(3);
    let sizes = Sizes {
        hidden: 32 * (1 + random.below(6)),
        ffn: 32 * (1 + random.below(8)),
        heads: kv_heads * (1 + random.below(4)),
        kv_heads,
        head_dim: [16, 32, 64, 80, 128][random.below(5)],
        vocab: 100 + random.below(2000),
        layers: 1 + random.below(5),
        context: [100, 600, 4000][random.below(3)],
    };
    let formats = [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0];
    let format = formats[random.below(5)];
    let mut graph = if random.below(3) == 0 { common::hybrid(sizes, format) } else { common::llama(sizes, format) };
    // Layers and matrices of other formats.
    for weight in graph.weights.iter_mut().filter(|weight| weight.rows > 1) {
        if random.below(4) == 0 && weight.cols.is_multiple_of(32) {
            weight.format = formats[random.below(5)];
        }
    }
    let window = (random.below(2) == 0).then(|| 1 + random.below(sizes.context));
    let slots = graph.blocks.iter_mut().flat_map(|block| &mut block.state_slots);
    for spec in graph.states.iter_mut().map(|state| &mut state.spec).chain(slots) {
        if let StateSpec::Kv(cache) = spec {
            cache.window = window;
        }
    }
    let softcap = (random.below(3) == 0).then_some(30.0);
    let with_sinks = (random.below(3) == 0).then(|| vector(&mut graph, "attn_sinks", sizes.heads));
    for node in &mut graph.blocks[0].nodes {
        if let Op::Attention { attention, per_head, .. } = &mut node.op {
            *attention = Attention { window, softcap, ..*attention };
            *per_head = with_sinks.map(|slot| PerHead { role: Role::Sinks, slot }).into_iter().collect();
        }
    }
    for role in ["attn_output", "ffn_down"] {
        if random.below(2) == 0 {
            post_norm(&mut graph, role);
        }
    }
    if random.below(2) == 0 {
        bias(&mut graph, "attn_q");
    }
    if random.below(2) == 0 {
        unrotated(&mut graph);
    }
    graph
}

/// A vector more in every layer of the first block.
fn vector(graph: &mut Graph, role: &str, cols: usize) -> SlotId {
    let block = &mut graph.blocks[0];
    block.slots.push(Slot { role: role.into(), rows: 1, cols });
    for (index, layer) in graph.layers.iter_mut().enumerate().filter(|(_, layer)| layer.block == 0) {
        graph.weights.push(Weight {
            tensor: role.into(),
            role: role.into(),
            layer: Some(index),
            rows: 1,
            cols,
            format: Format::F32,
            source: Source::Rows(FileRange { file: 0, range: 0..0 }),
            offset: 0.0,
            factor: 1.0,
            negated_exp: false,
            max_abs: Some(1.0),
        });
        layer.weights.push(graph.weights.len() - 1);
    }
    graph.blocks[0].slots.len() - 1
}

/// A norm between the projection `role` and the sum it goes into.
fn post_norm(graph: &mut Graph, role: &str) {
    let hidden = graph.config.hidden_size;
    let gamma = vector(graph, &format!("{role}_post_norm"), hidden);
    let block = &mut graph.blocks[0];
    let at = linear(block, role);
    let value = block.nodes[at].output.expect("a result");
    block.values.push(Value { name: "normed".into(), width: hidden });
    let normed = block.values.len() - 1;
    for node in &mut block.nodes {
        node.inputs.iter_mut().filter(|input| **input == value).for_each(|input| *input = normed);
    }
    let node = Node { op: Op::RmsNorm { gamma, eps: 1e-6 }, inputs: vec![value], output: Some(normed) };
    block.nodes.insert(at + 1, node);
}

fn bias(graph: &mut Graph, role: &str) {
    let at = linear(&graph.blocks[0], role);
    let Op::Linear { weight, .. } = graph.blocks[0].nodes[at].op else { unreachable!("found as one") };
    let rows = graph.blocks[0].slots[weight].rows;
    let slot = vector(graph, &format!("{role}_bias"), rows);
    if let Op::Linear { bias, .. } = &mut graph.blocks[0].nodes[at].op {
        *bias = Some(slot);
    }
}

/// No rotation: operands of attention are what the projections gave.
fn unrotated(graph: &mut Graph) {
    let block = &mut graph.blocks[0];
    let renamed: BTreeMap<ValueId, ValueId> = block
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::Rope { .. }))
        .map(|node| (node.output.expect("a result"), node.inputs[0]))
        .collect();
    block.nodes.retain(|node| !matches!(node.op, Op::Rope { .. }));
    for input in block.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
        *input = renamed.get(input).copied().unwrap_or(*input);
    }
}

fn linear(block: &Block, role: &str) -> usize {
    let is = |node: &Node| matches!(node.op, Op::Linear { weight, .. } if block.slots[weight].role == role);
    block.nodes.iter().position(is).expect("a projection")
}

/// Memory that a dispatch touches.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Memory {
    Buffer(Place),
    Latents(usize),
    State(usize),
    Keys(usize),
    Values(usize),
    Logits,
    Sampler(SamplerBuffer),
    Chosen,
}

/// One dispatch of a walk: its step's number, its barrier, and what it touches with what access.
struct Dispatch {
    step: usize,
    barrier: bool,
    touched: Vec<(Memory, bool)>,
}

/// The dispatches of one pass that goes the first of its two ways, or the second.
fn walk(plan: &Plan, schedule: &Schedule, second: bool) -> Vec<Dispatch> {
    let numbers: Vec<&Step> = schedule.steps().collect();
    let mut list = Vec::new();
    let mut add = |step: &Step, states: &[usize]| {
        if !step.when.runs(second) {
            return;
        }
        let id = step.kernels(&plan.tables).next().expect("a kernel");
        // The device reads an indirect grid as a kernel reads an argument.
        let counts = step.counts.map(|counts| (Memory::Buffer(counts.place), false));
        let touched = plan.kernels[id].bindings.iter().filter_map(|binding| {
            let memory = match step.args[&binding.role] {
                Arg::Buffer(place) | Arg::LayerPart { place, .. } => Memory::Buffer(place),
                Arg::Latents(slot) => Memory::Latents(states[slot]),
                Arg::State(slot) => Memory::State(states[slot]),
                Arg::Keys(slot) => Memory::Keys(states[slot]),
                Arg::Values(slot) => Memory::Values(states[slot]),
                Arg::Logits => Memory::Logits,
                Arg::Sampler(buffer) => Memory::Sampler(buffer),
                Arg::Chosen => Memory::Chosen,
                Arg::Layer(_) | Arg::Model(_) | Arg::NextGamma | Arg::Params => return None,
            };
            Some((memory, binding.access.writes()))
        });
        let number = numbers.iter().position(|other| std::ptr::eq(*other, step)).expect("is in the schedule");
        list.push(Dispatch { step: number, barrier: step.barrier, touched: touched.chain(counts).collect() });
    };
    schedule.embed().iter().for_each(|step| add(step, &[]));
    for layer in &plan.layers {
        schedule.blocks()[layer.block].iter().for_each(|step| add(step, &layer.states));
    }
    schedule.head().iter().chain(schedule.sample()).for_each(|step| add(step, &[]));
    list
}

/// The first two dispatches that touch the same memory, one of them writing, with no barrier after the first up to the
/// second; barriers of step `without` left out.
fn race(walk: &[Dispatch], without: Option<usize>) -> Option<(usize, usize)> {
    for second in 0..walk.len() {
        for first in (0..second).rev() {
            let between = &walk[first + 1..=second];
            if between.iter().any(|dispatch| dispatch.barrier && Some(dispatch.step) != without) {
                break;
            }
            let conflict = walk[first].touched.iter().any(|(memory, writes)| {
                walk[second].touched.iter().any(|(other, also)| memory == other && (*writes || *also))
            });
            if conflict {
                return Some((first, second));
            }
        }
    }
    None
}

/// Asserts that the barriers of a schedule suffice and that each is needed; how many there are.
fn assert_barriers(plan: &Plan, schedule: &Schedule) -> usize {
    let walks = [false, true].map(|second| walk(plan, schedule, second));
    for walk in &walks {
        assert_eq!(race(walk, None), None, "a barrier is missing");
    }
    let mut barriers = 0;
    for (number, step) in schedule.steps().enumerate().filter(|(_, step)| step.barrier) {
        let needed = walks.iter().any(|walk| race(walk, Some(number)).is_some());
        assert!(needed, "step {number}, {:?}, needs no barrier", step.args);
        barriers += 1;
    }
    barriers
}

/// Makes the grid of a random kernel of a prefill indirect, and lets a step count it: before the layers, or in each of them
/// before the first that has it.
fn indirect_step(plan: &mut Plan, random: &mut Random) {
    let order = plan.order();
    let steps = plan.prefill.blocks()[0].iter().enumerate().filter(|(_, step)| step.few.is_none());
    let fixed: Vec<(usize, KernelId)> = steps
        .filter_map(|(at, step)| match step.kernel {
            Choice::Fixed(id) => Some((at, id)),
            Choice::PerLayer(_) => None,
        })
        .collect();
    let (_, kernel) = fixed[random.below(fixed.len())];
    let first = fixed.iter().find(|(_, id)| *id == kernel).expect("it is one of them").0;
    let counting = indirect::make_indirect(plan, kernel);
    let outside = plan.prefill.embed().iter().any(|step| step.counts.is_some());
    let step = indirect::counting_step(counting);
    if outside || random.below(2) == 0 {
        let before = plan.prefill.embed().iter().position(|step| step.counts.is_some());
        let at = random.below(before.unwrap_or(plan.prefill.embed().len()) + 1);
        lists::once(&mut plan.prefill, Stage::Embed).insert(at, step);
    } else {
        lists::block(&mut plan.prefill, 0).insert(random.below(first + 1), step);
    }
    // A kernel that both paths run would need counts in decode too.
    plan.decode = Schedule::default();
    plan.prefill.steps_mut().for_each(|step| step.barrier = false);
    barriers::place(&mut plan.prefill, &order, &plan.kernels, &plan.tables);
}

/// The same with a grid that a step of the schedule counts.
#[test]
fn barriers_suffice_and_each_is_needed_with_an_indirect_grid() {
    let mut random = Random::new(11);
    let (mut barriers, mut indirect) = (0, 0);
    for _ in 0..300 {
        // Layers of a second kind would run the same kernel.
        let graph =
            std::iter::repeat_with(|| graph(&mut random)).find(|graph| graph.blocks.len() == 1).expect("endless");
        let mut plan = plan(&graph, &PlanOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        indirect_step(&mut plan, &mut random);
        barriers += assert_barriers(&plan, &plan.prefill);
        let walk = walk(&plan, &plan.prefill, false);
        let counts = |dispatch: &&Dispatch| dispatch.touched.contains(&(Memory::Buffer(Place::Threadgroups), false));
        indirect += walk.iter().filter(counts).count();
        // The counts are read as the arguments are: without their step nothing is left of the plan.
        let wrong = |plan: &Plan| match valid::check(plan) {
            Err(PlanError::Invalid { what, .. }) => what,
            Ok(()) => String::new(),
            Err(other) => panic!("{other}"),
        };
        let counting = Choice::Fixed(plan.kernels.len() - 1);
        lists::once(&mut plan.prefill, Stage::Embed).retain(|step| step.kernel != counting);
        lists::block(&mut plan.prefill, 0).retain(|step| step.kernel != counting);
        assert_eq!(wrong(&plan), "its grid: Threadgroups is read before anything is written");
    }
    println!("{barriers} barriers, {indirect} indirect dispatches");
    assert!(barriers > 2000 && indirect >= 300);
}

#[test]
fn barriers_suffice_and_each_is_needed() {
    let mut random = Random::new(3);
    let (mut plans, mut barriers) = (0, 0);
    for _ in 0..300 {
        let graph = graph(&mut random);
        let kv = [CacheType::F16, CacheType::F32][random.below(2)];
        let plan = plan(&graph, &PlanOptions { kv, ..PlanOptions::default() }).unwrap_or_else(|e| panic!("{e}"));
        valid::check(&plan).expect("planning has checked it");
        for schedule in [&plan.decode, &plan.prefill] {
            barriers += assert_barriers(&plan, schedule);
        }
        plans += 1;
    }
    println!("{plans} plans, {barriers} barriers");
    assert!(plans == 300 && barriers > 3000);
}
