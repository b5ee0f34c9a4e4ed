//! The view of `src/checks.rs`: each kernel's operation, sizes and arguments as data for `verify`.
//!
//! A kernel that several layers run is checked with one layer's weights, from the middle of those that run it.

use std::collections::BTreeMap;

use askama::Template;
use forge_frontend::Graph;
use forge_plan::binding::{Binding, Extent};
use forge_plan::costs::formula;
use forge_plan::families::{FEW_TOKENS, Rows};
use forge_plan::pack::PackPart;
use forge_plan::plan::{Arg, Choice, Step};
use forge_plan::{KernelId, Plan, roles};
use forge_spec::{Argument, Data};

use crate::literal::{Literal, table_name};
use crate::naming::{identifier, wrap};
use crate::places;

/// Numbers of rows that kernels of tiles are tried with: less than a tile of anything, ragged, whole, one more.
const ROWS: [usize; 4] = [1, 7, 64, 65];
/// The same for kernels of steps.
const FEW_ROWS: [usize; 4] = [1, 2, 7, FEW_TOKENS];

/// `src/checks.rs`.
#[derive(Template)]
#[template(path = "project/checks.rs")]
pub struct ChecksFile<'a> {
    pub title: &'a str,
    pub version: &'static str,
    pub source: &'a str,
    pub tables: Vec<TableView>,
    pub slots: usize,
    pub checks: Vec<CheckView>,
    pub costs: Vec<CostView>,
    /// Fields of the weights with what is stacked in each, as Rust expressions.
    pub matrices: Vec<String>,
}

/// What a kernel moves and computes.
pub struct CostView {
    pub name: String,
    pub cost: String,
}

/// A table of RoPE frequencies.
pub struct TableView {
    pub name: String,
    pub len: usize,
    pub lines: Vec<String>,
}

/// One kernel; every field but the name is a Rust expression.
pub struct CheckView {
    pub name: String,
    pub kernel: KernelId,
    pub layer: String,
    pub rows: String,
    /// Whether the rows of a step may be of several sequences.
    pub mixed: bool,
    pub grid: String,
    pub operation: String,
    pub arguments: Vec<String>,
}

/// A step that runs a kernel, and where.
struct Place<'a> {
    step: &'a Step,
    layer: Option<usize>,
    prefill: bool,
}

impl<'a> ChecksFile<'a> {
    /// The view of a plan's kernels.
    pub fn new(plan: &'a Plan, graph: &Graph, title: &'a str, source: &'a str) -> Self {
        // Costs and checks go by the kernel's index, so that none may be left out.
        let places = (0..plan.kernels.len()).map(|id| {
            let name = &plan.kernels[id].name;
            (id, place(plan, id).unwrap_or_else(|| panic!("{name} is in no schedule")))
        });
        ChecksFile {
            title,
            version: env!("CARGO_PKG_VERSION"),
            source,
            tables: plan.rope_tables.iter().enumerate().map(|(i, table)| rope_table(i, table)).collect(),
            slots: plan.slots,
            matrices: matrices(plan, graph),
            checks: places.map(|(id, place)| check(plan, id, &place)).collect(),
            costs: plan
                .kernels
                .iter()
                .map(|k| CostView { name: identifier(&k.name), cost: formula(k).literal(&plan.rope_tables) })
                .collect(),
        }
    }
}

/// Each field with the names that its matrices have in GGUF.
fn matrices(plan: &Plan, graph: &Graph) -> Vec<String> {
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for tensor in plan.weights.tensors.iter().filter(|tensor| !tensor.is_vector()) {
        // A layer's tensors have its name before the field's.
        let layer = tensor.layer.map_or_else(String::new, |layer| format!("layers.{layer}."));
        let field = tensor.name.strip_prefix(&layer).unwrap_or(&tensor.name);
        let role = |part: &PackPart| match part {
            PackPart::Weight(id) => Some(roles::gguf(&graph.weights[*id].role)),
            PackPart::Zeros(_) => None,
        };
        fields.entry(field).or_insert_with(|| tensor.parts.iter().filter_map(role).collect());
    }
    fields.into_iter().map(|(field, roles)| format!("({field:?}, &{roles:?})")).collect()
}

fn rope_table(index: usize, table: &[f32]) -> TableView {
    TableView {
        name: table_name(index),
        len: table.len(),
        lines: wrap(table.iter().map(|value| format!("{value:?}")), 112),
    }
}

/// Where the schedules run a kernel.
fn place<'a>(plan: &'a Plan, id: KernelId) -> Option<Place<'a>> {
    let mut found: Option<Place<'a>> = None;
    for (schedule, prefill) in [(&plan.decode, false), (&plan.prefill, true)] {
        let mut add = |step, layer| {
            let place = found.get_or_insert(Place { step, layer, prefill });
            // A kernel of both paths is dispatched as prefill does it, which takes any number of rows.
            if prefill && !place.prefill {
                *place = Place { step, layer, prefill };
            }
        };
        let variants = |step: &'a Step| step.choices().map(move |kernel| (step, kernel));
        let stages = [schedule.embed(), schedule.head(), schedule.sample()];
        for (step, kernel) in stages.into_iter().flatten().flat_map(variants) {
            if kernel == Choice::Fixed(id) {
                add(step, None);
            }
        }
        for (block, steps) in schedule.blocks().iter().enumerate() {
            for (step, kernel) in steps.iter().flat_map(variants) {
                let runs = |layer: usize| match kernel {
                    Choice::Fixed(kernel) => kernel == id,
                    Choice::PerLayer(table) => plan.tables[table].kernels[layer] == id,
                };
                let layers: Vec<usize> =
                    (0..plan.layers.len()).filter(|&i| plan.layers[i].block == block && runs(i)).collect();
                if let Some(&layer) = layers.get(layers.len() / 2) {
                    add(step, Some(layer));
                }
            }
        }
    }
    found
}

fn check(plan: &Plan, id: KernelId, place: &Place<'_>) -> CheckView {
    let kernel = &plan.kernels[id];
    let rows: Vec<String> = match (kernel.family.rows(), place.prefill) {
        (Rows::One, _) => vec!["1".into()],
        (Rows::Few | Rows::Any, false) => FEW_ROWS.map(|rows| rows.to_string()).into(),
        (Rows::Few | Rows::Any, true) => {
            ROWS.into_iter().filter(|&rows| rows <= plan.prefill_tile).map(|rows| rows.to_string()).collect()
        }
    };
    CheckView {
        name: identifier(&kernel.name),
        kernel: id,
        layer: place.layer.map_or_else(|| "None".into(), |layer| format!("Some({layer})")),
        rows: rows.join(", "),
        mixed: !place.prefill,
        grid: kernel.launch.grid.literal(&plan.rope_tables),
        operation: kernel.family.operation(&plan.rope_tables).literal(&plan.rope_tables),
        arguments: kernel
            .bindings
            .iter()
            .map(|binding| {
                let arg = place.step.args[&binding.role];
                let mut tensor = String::new();
                let data = data(plan, binding, arg, place.layer, &mut tensor);
                let (reads, writes) = (binding.access.reads(), binding.access.writes());
                Argument { role: binding.role, reads, writes, data }.literal(&plan.rope_tables)
            })
            .collect(),
    }
}

/// Where an argument comes from, or how large it is.
fn data<'a>(plan: &Plan, binding: &Binding, arg: Arg, layer: Option<usize>, tensor: &'a mut String) -> Data<'a> {
    match arg {
        Arg::Layer(_) | Arg::Model(_) | Arg::NextGamma => {
            *tensor = places::argument(plan, arg, layer);
            Data::Tensor(tensor)
        }
        Arg::Keys(_) | Arg::Values(_) | Arg::Latents(_) => Data::Cache(binding.words()),
        Arg::State(_) => Data::State(binding.words()),
        Arg::Params => Data::Params,
        Arg::Buffer(_) | Arg::LayerPart { .. } | Arg::Logits | Arg::Sampler(_) | Arg::Chosen => {
            let words = binding.words();
            match binding.extent {
                Extent::Slots { .. } => Data::Slots(words),
                Extent::Positions(_) => Data::Positions(words),
                Extent::Fixed(_)
                | Extent::Rows(_)
                | Extent::State { .. }
                | Extent::LayerRows { .. }
                | Extent::Parts { .. } => Data::Words(words),
            }
        }
    }
}
