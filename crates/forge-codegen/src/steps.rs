//! Steps of a schedule as statements of `src/model.rs`, and what the methods that they stand in are given.

use forge_plan::plan::{Arg, Choice, Counts, Dim, Step, When};
use forge_plan::{KernelId, Plan};

use crate::model::{Kind, LINE};
use crate::naming::{constant, identifier, model_identifier};
use crate::places;

/// A dispatch as a Rust statement.
pub struct StepView {
    pub barrier: bool,
    pub call: String,
    /// Opens the branch for a context of one part, of this many positions at most (0: all).
    pub opens: Option<usize>,
    /// Opens the branch for a tile of fewer rows than this.
    pub opens_below: Option<usize>,
    /// Goes on to the branch for a split context, or for more rows.
    pub otherwise: bool,
    /// Closes the branches.
    pub closes: bool,
    /// Whether it is the last that a tile runs whose logits nobody asks for.
    pub ends: bool,
    /// Indentation.
    pub pad: &'static str,
}

/// The statements of steps over `rows` rows.
pub(crate) fn steps(plan: &Plan, steps: &[Step]) -> Vec<StepView> {
    let mut views = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let before = i.checked_sub(1).map_or(When::Always, |i| steps[i].when);
        let after = steps.get(i + 1).map_or(When::Always, |step| step.when);
        let second = |when: When| when.is_choice() && when.runs(true);
        let pad = if step.when.is_choice() { "            " } else { "        " };
        views.push(StepView {
            barrier: step.barrier,
            call: call(plan, step, pad),
            opens: (step.when == When::OnePart).then(|| window(plan, step)),
            opens_below: plan.expands_from.filter(|_| step.when == When::FewRows && before != When::FewRows),
            otherwise: second(step.when) && before.is_choice() && !second(before),
            closes: second(step.when) && !second(after),
            ends: false,
            pad,
        });
    }
    views
}

/// Whether decode attention splits long contexts.
pub(crate) fn splits(plan: &Plan) -> bool {
    (0..plan.decode.blocks().len()).any(|block| block_splits(plan, block))
}

/// Whether a tile's grids count the positions that it sees.
pub(crate) fn sees(plan: &Plan, block: usize) -> bool {
    let counts = |id: KernelId| plan.kernels[id].launch.grid.iter().any(|dim| matches!(dim, Dim::PositionTiles(_)));
    plan.prefill.blocks()[block].iter().any(|step| step.kernels(&plan.tables).any(counts))
}

/// Dispatches of a tile in words.
pub(crate) fn prefill_dispatches(plan: &Plan, block: usize) -> String {
    let count = |second: bool| plan.prefill.blocks()[block].iter().filter(|step| step.when.runs(second)).count();
    match plan.expands_from {
        Some(from) if count(false) != count(true) => {
            format!("{} dispatches, {} from {from} tokens on", count(false), count(true))
        }
        _ => format!("{} dispatches", count(false)),
    }
}

pub(crate) fn block_splits(plan: &Plan, block: usize) -> bool {
    plan.decode.blocks()[block].iter().any(|step| step.when == When::Split)
}

/// A method's head, broken into lines as rustfmt breaks it; with `positions` where attention splits.
pub(crate) fn signature(name: &str, params: &[&str], splits: bool) -> String {
    let mut params: Vec<&str> = std::iter::once("&self").chain(params.iter().copied()).collect();
    if splits {
        params.push("longest: usize");
    }
    let one = format!("fn {name}({}) {{", params.join(", "));
    if one.len() + 4 <= LINE {
        return one;
    }
    format!("fn {name}(\n        {},\n    ) {{", params.join(",\n        "))
}

/// Positions that the rows of a step see at most; 0 where they see all.
fn window(plan: &Plan, step: &Step) -> usize {
    let first = step.kernels(&plan.tables).next().expect("a step has a kernel");
    plan.kernels[first].family.window().unwrap_or(0)
}

/// The dispatch statement, broken into lines as rustfmt breaks it.
fn call(plan: &Plan, step: &Step, pad: &str) -> String {
    let kernel = |choice: Choice| match choice {
        Choice::Fixed(id) => format!("kernel::{}", constant(&plan.kernels[id].name)),
        Choice::PerLayer(table) => format!("{}[i]", constant(&plan.tables[table].name)),
    };
    let grid = |choice: Choice| format!("[{}]", plan.kernels[first_of(plan, choice)].launch.grid.map(dim).join(", "));
    // Those of the kernels for several rows, where there are some, are all of them.
    let last = step.kernels(&plan.tables).last().expect("a step has a kernel");
    let bindings = &plan.kernels[last].bindings;
    let args: Vec<String> = bindings.iter().map(|b| argument(plan, step.args[&b.role])).collect();
    let (function, first, grids) = match (step.few, step.counts) {
        (Some([two, more]), _) => {
            let kernels = [step.kernel, two, more].map(|choice| format!("k({})", kernel(choice)));
            let kernels = format!("[{}]", kernels.join(", "));
            let grid = if grids_differ(plan, step) {
                format!("by_rows(rows, {}, {}, {})", grid(step.kernel), grid(two), grid(more))
            } else {
                grid(more)
            };
            ("project", vec!["pass".into(), "rows".into(), kernels], vec![grid])
        }
        (None, None) => ("pass.dispatch", vec![format!("k({})", kernel(step.kernel))], vec![grid(step.kernel)]),
        (None, Some(counts)) => (
            "pass.dispatch_indirect",
            vec![format!("k({})", kernel(step.kernel))],
            vec![threadgroups(counts), grid(step.kernel)],
        ),
    };
    let one = format!("{function}({}, &[{}], {});", first.join(", "), args.join(", "), grids.join(", "));
    if one.len() + pad.len() <= LINE {
        return one;
    }
    let list = format!("&[{}]", args.join(", "));
    let list = if list.len() + pad.len() + 5 <= LINE {
        list
    } else {
        format!("&[\n{pad}        {},\n{pad}    ]", args.join(&format!(",\n{pad}        ")))
    };
    let lines = [first, vec![list], grids].concat();
    format!("{function}(\n{pad}    {},\n{pad});", lines.join(&format!(",\n{pad}    ")))
}

/// Whether a kernel for several rows has another grid than the one for one row.
pub(crate) fn grids_differ(plan: &Plan, step: &Step) -> bool {
    let grid = |choice: Choice| plan.kernels[first_of(plan, choice)].launch.grid;
    step.choices().any(|choice| grid(choice) != grid(step.kernel))
}

/// The kernel that is chosen, that of layer 0 where it depends on the layer: kernels of one table have one grid.
fn first_of(plan: &Plan, choice: Choice) -> KernelId {
    match choice {
        Choice::Fixed(id) => id,
        Choice::PerLayer(table) => plan.tables[table].kernels[0],
    }
}

/// Where an indirect grid's threadgroups are.
fn threadgroups(counts: Counts) -> String {
    format!("&b.{}.slice({}, {})", places::name(counts.place), counts.offset(), Counts::BYTES)
}

fn argument(plan: &Plan, arg: Arg) -> String {
    match arg {
        Arg::Layer(field) => format!("&layer.{}", identifier(&plan.layer_fields[field].name)),
        Arg::Model(field) => format!("&self.{}", model_identifier(&plan.model_fields[field].name)),
        Arg::NextGamma => "next_gamma".into(),
        Arg::Buffer(place) => format!("&b.{}", places::name(place)),
        Arg::LayerPart { place, .. } => format!("&layer_part(&b.{}, i, rows)", places::name(place)),
        Arg::Keys(slot) => format!("&{}.keys", Kind::Kv.name(slot)),
        Arg::Values(slot) => format!("&{}.values", Kind::Kv.name(slot)),
        Arg::Latents(slot) => Kind::Latents.name(slot),
        Arg::State(slot) => Kind::Recurrent.name(slot),
        Arg::Params => "params".into(),
        Arg::Logits => "logits".into(),
        Arg::Sampler(buffer) => format!("&self.sampler.{}", places::sampler(buffer)),
        Arg::Chosen => "chosen".into(),
    }
}

fn dim(dim: Dim) -> String {
    match dim {
        Dim::Const(n) => n.to_string(),
        Dim::Rows => "rows".into(),
        Dim::RowTiles(n) => format!("rows.div_ceil({n})"),
        Dim::PositionTiles(n) => format!("seen.div_ceil({n})"),
        Dim::Parts => "parts".into(),
        // The most there may be.
        Dim::Indirect { per_row: 1, most } => format!("rows.min({most})"),
        Dim::Indirect { per_row, most } => format!("(rows * {per_row}).min({most})"),
    }
}
