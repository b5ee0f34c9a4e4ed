//! `cargo xtask counters`: does the software device count what the plan says that a program reads and writes?
//!
//! `forge inspect --plan`, the documentation's figures and the roofline all rest on `forge_plan::costs`. Here projects of the
//! snapshots' checkpoints run in checked mode, which counts every byte that a kernel touches, and each dispatch is held against
//! its cost: which kernel, different bytes read and written through each of its buffers, and for the inputs of projections
//! every load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use forge_plan::binding::Touch;
use forge_plan::costs::{Encoded, StepSize, dispatches};
use forge_plan::families::FEW_TOKENS;
use forge_plan::plan::Stage;
use forge_plan::{CacheType, Family, Plan, PlanOptions};
use serde::Deserialize;

use crate::forge::{Forge, Mode, build_beside_others, constant};
use crate::snapshots::SOURCE_CASES;
use crate::{demo, pool, shell};

/// Options of `cargo xtask counters`.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Only these of the checkpoints
    pub only: Vec<String>,
    /// Element type of the KV cache, as of `forge gen`
    #[arg(long, default_value = "f16", value_parser = |name: &str| CacheType::named(name).ok_or("no such cache"))]
    pub kv: CacheType,
}

/// A run of the program, and how many tokens it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// `logits`, in tiles.
    Prefill(usize),
    /// `logits --last`: tiles whose logits nobody asks for, and a step.
    Prompt(usize),
    /// `logits --decode`.
    Decode(usize),
    /// `logits --side-by-side` of as many sequences as the program holds.
    Copies(usize),
}

/// Ragged tiles and whole ones; attention splits the context beyond 256 positions.
const RUNS: [Run; 6] =
    [Run::Prefill(1), Run::Prefill(7), Run::Prefill(65), Run::Prompt(70), Run::Decode(9), Run::Prompt(266)];
/// The same of programs that hold several sequences.
const RUNS_OF_SLOTS: [Run; 2] = [Run::Prefill(70), Run::Copies(40)];
/// Sequences that those hold.
const SLOTS: usize = 3;
/// Checkpoints of which such programs are made too.
const CASES_OF_SLOTS: [&str; 3] = ["demo", "gemma3", "gemma4"];

#[derive(Debug, Deserialize)]
struct CommandBuffer {
    dispatches: Vec<Counted>,
}

#[derive(Debug, Deserialize)]
struct Counted {
    kernel: String,
    threadgroups: [u64; 3],
    counts_bytes_read: u64,
    bindings: Vec<CountedBinding>,
}

#[derive(Debug, Deserialize)]
struct CountedBinding {
    name: String,
    bytes_read: u64,
    unique_bytes_read: u64,
    unique_bytes_written: u64,
}

/// Generates, builds and runs a project of each checkpoint and compares.
///
/// # Errors
/// A dispatch that is not as planned.
pub fn main(options: &Options) -> Result<()> {
    let cases = [("demo", demo::CHECKPOINT)].into_iter().chain(SOURCE_CASES);
    let chosen = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let cases: Vec<_> = cases.filter(|(name, _)| chosen(name)).collect();
    if cases.is_empty() {
        bail!("no checkpoint called {}", options.only.join(", "));
    }
    let forge = Forge::build()?;
    let mut jobs = Vec::new();
    for (name, checkpoint) in cases {
        for slots in if CASES_OF_SLOTS.contains(&name) { &[1, SLOTS][..] } else { &[1] } {
            jobs.push((name, checkpoint, *slots));
        }
    }
    let differing = pool::run(&jobs, |_, &(name, checkpoint, slots)| {
        let label = if slots == 1 { name.to_owned() } else { format!("{name} with {slots} slots") };
        match compare_checkpoint(&forge, name, &shell::root().join(checkpoint), slots, options.kv) {
            Ok(compared) => {
                println!("counters: {label}: {compared} dispatches read and write what the plan says");
                None
            }
            Err(error) => {
                println!("counters: {label}: {error:#}");
                Some(label)
            }
        }
    });
    let differing: Vec<String> = differing.into_iter().flatten().collect();
    if !differing.is_empty() {
        bail!("counters: {} differ", differing.join(", "));
    }
    Ok(())
}

/// Dispatches compared, all of them as planned.
fn compare_checkpoint(forge: &Forge, name: &str, checkpoint: &Path, slots: usize, kv: CacheType) -> Result<usize> {
    let (project_name, count) = (format!("counters-{name}"), slots.to_string());
    let project = shell::scratch("counters")?.join(format!("{name}-{slots}"));
    let program = project.with_extension("program");
    let args = ["--name", &project_name, "--slots", &count, "--kv", kv.name(), "--force"];
    forge.must_generate(checkpoint, &project, &args)?;
    build_beside_others(&project, &[Mode::Checked], &program)?;
    let plan = forge_plan::plan(
        &forge_frontend::load(checkpoint)?.graph,
        &PlanOptions { slots, kv, ..PlanOptions::default() },
    )?;
    let model = std::fs::read_to_string(project.join("src/model.rs"))?;
    let tiles = Tiles { prompt: constant(&model, "PREFILL_TILE")?, logits: constant(&model, "LOGITS_TILE")? };
    let mut compared = 0;
    // The first dispatch of each kernel that is not as planned.
    let mut differing = BTreeMap::new();
    for run in runs(&plan, if slots == 1 { &RUNS } else { &RUNS_OF_SLOTS }) {
        let counted = counted(&project, &program, run, plan.config.vocab_size)?;
        let planned = planned(&plan, run, tiles);
        if counted.len() != planned.len() {
            bail!("{run:?}: {} dispatches counted, {} planned", counted.len(), planned.len());
        }
        // Of one row.
        let several = !matches!(run, Run::Decode(_) | Run::Prefill(1));
        for (at, (counted, planned)) in counted.iter().zip(&planned).enumerate() {
            if let Err(error) = compare(&plan, counted, planned, several) {
                let kernel = planned.kernel;
                differing.entry(kernel).or_insert_with(|| format!("{run:?}, dispatch {at}: {error}"));
            }
        }
        compared += counted.len();
    }
    if !differing.is_empty() {
        bail!("{}", differing.into_values().collect::<Vec<_>>().join("\n    "));
    }
    Ok(compared)
}

/// Most tokens of a tile.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    /// Of which the states alone are wanted.
    prompt: usize,
    /// Of which all logits are.
    logits: usize,
}

/// Runs as far as the model's context goes.
fn runs(plan: &Plan, runs: &[Run]) -> Vec<Run> {
    let fitting = runs.iter().map(|run| match *run {
        Run::Prefill(tokens) => Run::Prefill(tokens.min(plan.context)),
        // The plan counts a row of the embedding for each token of a tile: a small vocabulary has not as many.
        Run::Prompt(tokens) if tokens > plan.config.vocab_size => Run::Decode(tokens.min(plan.context)),
        Run::Prompt(tokens) => Run::Prompt(tokens.min(plan.context)),
        Run::Decode(tokens) => Run::Decode(tokens.min(plan.context)),
        Run::Copies(tokens) => Run::Copies(tokens.min(plan.context)),
    });
    let mut runs: Vec<Run> = fitting.collect();
    runs.dedup();
    runs
}

/// What the device counted.
fn counted(project: &Path, program: &Path, run: Run, vocab: usize) -> Result<Vec<Counted>> {
    let folder = tempfile::tempdir_in(shell::scratch("counters")?)?;
    let (counters, logits): (PathBuf, PathBuf) = (folder.path().join("counters"), folder.path().join("logits"));
    let (Run::Prefill(tokens) | Run::Prompt(tokens) | Run::Decode(tokens) | Run::Copies(tokens)) = run;
    let ids: Vec<String> = (0..tokens).map(|at| ((at * 37 + 11) % vocab).to_string()).collect();
    let mut command = Command::new(program);
    // As many programs run at a time as there are processors.
    command.env("METAL_SIM_THREADS", "1").env("METAL_SIM_CHECKED", "1");
    command.env("METAL_SIM_COUNTERS", &counters).envs([shell::kernels_cache()]);
    command.args(["logits", "--ids", &ids.join(",")]).arg("--weights").arg(project).arg("-o").arg(logits);
    match run {
        Run::Prefill(_) => {}
        Run::Prompt(_) => _ = command.arg("--last"),
        Run::Decode(_) => _ = command.arg("--decode"),
        Run::Copies(_) => _ = command.args(["--side-by-side", &SLOTS.to_string()]),
    }
    shell::capture(&mut command)?;
    let mut list = Vec::new();
    for line in std::fs::read_to_string(&counters)?.lines() {
        list.extend(serde_json::from_str::<CommandBuffer>(line)?.dispatches);
    }
    Ok(list)
}

/// What the plan says of the same run.
fn planned(plan: &Plan, run: Run, tiles: Tiles) -> Vec<Encoded> {
    // Without the choice of a token.
    let step = plan.decode.without(Stage::Sample);
    let steps = |tokens: usize, slots: usize| {
        let size = move |position| StepSize { rows: slots, position, slots };
        (0..tokens).flat_map(|position| dispatches(plan, &step, size(position))).collect()
    };
    match run {
        // A rest of a few tokens is a step.
        Run::Prefill(tokens) if tokens <= FEW_TOKENS => {
            dispatches(plan, &step, StepSize { rows: tokens, position: 0, slots: 1 })
        }
        Run::Prefill(tokens) => (0..tokens)
            .step_by(tiles.logits)
            .flat_map(|position| {
                let size = StepSize { rows: tiles.logits.min(tokens - position), position, slots: 1 };
                dispatches(plan, &plan.prefill, size)
            })
            .collect(),
        Run::Prompt(tokens) => {
            let tiles = (0..tokens - 1).step_by(tiles.prompt).flat_map(|position| {
                let rows = tiles.prompt.min(tokens - 1 - position);
                dispatches(plan, &plan.prefill_of_states(), StepSize { rows, position, slots: 1 })
            });
            let last = StepSize { rows: 1, position: tokens - 1, slots: 1 };
            tiles.chain(dispatches(plan, &step, last)).collect()
        }
        Run::Decode(tokens) => steps(tokens, 1),
        Run::Copies(tokens) => steps(tokens, SLOTS),
    }
}

/// A dispatch against its plan; `several` where its step has rows that may choose the same experts.
fn compare(plan: &Plan, counted: &Counted, planned: &Encoded, several: bool) -> Result<()> {
    let kernel = &plan.kernels[planned.kernel];
    if counted.kernel != kernel.name {
        bail!("{} ran, planned was {}", counted.kernel, kernel.name);
    }
    if counted.bindings.len() != planned.cost.bindings.len() {
        bail!("{}: {} buffers, planned were {}", kernel.name, counted.bindings.len(), planned.cost.bindings.len());
    }
    let threadgroups: u64 = counted.threadgroups.iter().product();
    let (most, indirect) = (planned.cost.threadgroups, kernel.launch.is_indirect());
    if threadgroups > most || (threadgroups < most && !indirect) || counted.counts_bytes_read != planned.cost.counts {
        bail!("{}: {threadgroups} threadgroups counted, {most} planned", kernel.name);
    }
    for (binding, (counted, traffic)) in counted.bindings.iter().zip(&planned.cost.bindings).enumerate() {
        if kernel.bindings[binding].is_params() {
            continue; // the step's parameters, or the token ids: a few bytes that every thread reads
        }
        let counts_loads =
            matches!(kernel.family, Family::Gemv(_) | Family::Gemm(_) | Family::ExpertsUp(_) | Family::ExpertsDown(_));
        let projection = counts_loads && counted.name == "input";
        // Rows of one sequence see the same positions, each for itself.
        let shared = !several && matches!(kernel.bindings[binding].touch, Touch::SeenBy(_));
        let loads = projection || shared;
        let pairs = [
            ("different bytes read", counted.unique_bytes_read, traffic.read),
            ("different bytes written", counted.unique_bytes_written, traffic.written),
            ("bytes loaded", counted.bytes_read, if loads { traffic.requested } else { counted.bytes_read }),
        ];
        // Of a tile's experts, and what lists them, the plan knows how much there may be.
        let at_most = match kernel.bindings[binding].touch {
            Touch::AtMost | Touch::ChosenOfMany { .. } => true,
            Touch::Chosen { .. } => several,
            Touch::All
            | Touch::PerRow
            | Touch::Columns(_)
            | Touch::Seen
            | Touch::SeenBy(_)
            | Touch::SeenColumns(_)
            | Touch::Loads(_)
            | Touch::TileLoads { .. }
            | Touch::One
            | Touch::Never => false,
        };
        for (what, counted_bytes, planned_bytes) in pairs {
            let as_planned = counted_bytes == planned_bytes
                || at_most && counted_bytes < planned_bytes && (counted_bytes > 0) == (planned_bytes > 0);
            if !as_planned {
                bail!("{}, {}: {what}: {counted_bytes} counted, {planned_bytes} planned", kernel.name, counted.name);
            }
        }
    }
    Ok(())
}
