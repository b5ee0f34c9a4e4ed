//! `cargo xtask mutate`: does checked mode notice every missing barrier?
//!
//! Each barrier of a case's kernels is removed or given the wrong memory flags, and each barrier of its command
//! buffers is left out, one at a time. Each of these mutants has to be reported when the program runs in checked mode: a kernel's
//! barrier by every kernel that reaches it. What is not reported is a blind spot of checked mode or a barrier too many.

mod document;
mod sites;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::forge::{Forge, build_project, constant};
use crate::{demo, pool, shell};
use sites::{Change, Site};
use workload::{ALL, Fault, LABELS, Program, Reports, Workload};

/// Name, checkpoint relative to the repository, and KV format.
const CASES: [(&str, &str, &str); 7] = [
    ("demo", demo::CHECKPOINT, "f16"),
    ("llama", "tests/fixtures/models/llama/hf", "f32"),
    ("llama-q4_0", "tests/fixtures/models/llama/model.Q4_0.gguf", "f16"),
    // Norms before and after each half of a layer.
    ("gemma2", "crates/forge-frontend/tests/fixtures/tiny/gemma2/hf", "f16"),
    // Formats that differ within a projection and from layer to layer.
    ("mixed", "tests/fixtures/models/formats-gguf/model.MIXED.gguf", "f16"),
    // The gated delta rule beside attention, experts, one of them for every token.
    ("qwen3-next", "crates/forge-frontend/tests/fixtures/tiny/qwen3-next/hf", "f16"),
    // Attention over latents, and over keys and values made of them.
    ("deepseek-v2-wide", "crates/forge-frontend/tests/fixtures/tiny/deepseek-v2-wide/hf", "f16"),
];

/// Options of `cargo xtask mutate`.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// Only this case (repeatable)
    #[arg(long, value_name = "NAME")]
    pub case: Vec<String>,
    /// This checkpoint instead of the cases
    #[arg(long, value_name = "PATH", conflicts_with = "case")]
    pub checkpoint: Option<PathBuf>,
    /// KV format of --checkpoint
    #[arg(long, value_name = "FORMAT", default_value = "f16")]
    pub kv: String,
    /// Programs that hold this many sequences, of which a row each is also run side by side
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub slots: usize,
    /// Only this many mutants of each case, the same ones every time
    #[arg(long, value_name = "N")]
    pub sample: Option<usize>,
    /// Write the cases' tables into docs/verification.md, each in place of those that it has there
    #[arg(long, conflicts_with_all = ["checkpoint", "sample"])]
    pub write: bool,
}

/// One thing to leave out or to do wrong.
#[derive(Debug, Clone)]
enum Mutant {
    /// Of a barrier in the kernels, by its number.
    Kernel(usize, Change),
    /// An encoder barrier of command buffers with this label.
    Schedule(&'static str, usize),
}

/// A mutant, and what was said of it.
#[derive(Debug)]
struct Outcome {
    mutant: Mutant,
    reports: Reports,
}

/// A case with all of its outcomes.
#[derive(Debug)]
struct Finished {
    name: String,
    slots: usize,
    sites: Vec<Site>,
    outcomes: Vec<Outcome>,
}

impl Finished {
    fn silent(&self, outcome: &Outcome) -> Vec<String> {
        silent(&self.sites, &outcome.mutant, &outcome.reports)
    }
}

/// Who ought to have reported the mutant and did not; empty when it was noticed.
fn silent(sites: &[Site], mutant: &Mutant, reports: &Reports) -> Vec<String> {
    match mutant {
        Mutant::Kernel(site, _) => {
            let noticed = &reports.kernels() | &reports.unreached;
            sites[*site].kernels.difference(&noticed).cloned().collect()
        }
        Mutant::Schedule(..) if reports.lines.is_empty() => vec!["checked mode".to_owned()],
        Mutant::Schedule(..) => Vec::new(),
    }
}

fn describe(sites: &[Site], mutant: &Mutant) -> String {
    match mutant {
        Mutant::Kernel(site, change) => {
            let Site { line, function, barrier, .. } = &sites[*site];
            format!("kernels.metal:{line}: {barrier} of {function}, {}", change.name())
        }
        Mutant::Schedule(label, index) => format!("{label} barrier {index} left out"),
    }
}

/// Runs the mutants and prints those that nobody noticed.
///
/// # Errors
/// A project that cannot be generated or built, or whose unchanged kernels are reported.
pub fn main(options: &Options) -> Result<ExitCode> {
    let forge = Forge::build()?;
    let mut cases: Vec<(String, PathBuf, String)> = CASES
        .iter()
        .map(|(name, checkpoint, kv)| ((*name).to_owned(), PathBuf::from(checkpoint), (*kv).to_owned()))
        .filter(|(name, ..)| options.case.is_empty() || options.case.contains(name))
        .collect();
    if let Some(checkpoint) = &options.checkpoint {
        let checkpoint = std::path::absolute(checkpoint)?;
        cases = vec![("checkpoint".to_owned(), checkpoint, options.kv.clone())];
    }
    if cases.is_empty() {
        bail!("no such case; there are {}", CASES.map(|(name, ..)| name).join(", "));
    }
    let mut survivors = 0;
    let mut finished = Vec::new();
    for (name, checkpoint, kv) in &cases {
        let case = run_case(&forge, name, &shell::root().join(checkpoint), kv, options)?;
        survivors += case.outcomes.iter().filter(|outcome| !case.silent(outcome).is_empty()).count();
        println!("{}", document::table(&case));
        if options.write {
            document::write(&case)?;
        }
        finished.push(case);
    }
    let mutants: usize = finished.iter().map(|case| case.outcomes.len()).sum();
    println!("mutate: {mutants} mutants, {} noticed, {survivors} not", mutants - survivors);
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_case(forge: &Forge, name: &str, checkpoint: &Path, kv: &str, options: &Options) -> Result<Finished> {
    println!("{name}: {} --kv {kv} --slots {}", checkpoint.display(), options.slots);
    let scratch = shell::scratch("mutate")?;
    let (project, built) = if checkpoint.ends_with(demo::CHECKPOINT) && kv == "f16" && options.slots == 1 {
        demo::project()?
    } else {
        // One folder for all, as for `cargo xtask cases`: only what differs is compiled again.
        let project = scratch.join("project");
        let slots = options.slots.to_string();
        forge.must_generate(checkpoint, &project, &["--name", "mutant", "--kv", kv, "--slots", &slots, "--force"])?;
        let built = build_project(&project)?;
        (project, built)
    };
    let text = std::fs::read_to_string(project.join("shaders/kernels.metal"))?;
    let model = std::fs::read_to_string(project.join("src/model.rs"))?;
    let folder = tempfile::tempdir_in(&scratch)?;
    let program = Program {
        path: built,
        kernels: folder.path().join("kernels.so"),
        scratch: folder.path().to_owned(),
        vocab: constant(&model, "VOCAB")?,
        context: constant(&model, "CONTEXT")?,
        slots: options.slots,
    };
    let sites = sites::find(&text);
    let checked = metal_sim::CompileOptions { checked: true };
    metal_sim::compile(&sites::switched(&text, &sites), "kernels.metal", &checked, &program.kernels)
        .context("kernels.metal")?;
    let fitting: Vec<Workload> = ALL.into_iter().filter(|workload| program.fits(*workload)).collect();
    let unchanged = pool::run(&fitting, |thread, &workload| {
        Some((workload, program.run(workload, Fault::None, &format!("run-{thread}"))))
    });
    let mut baseline = Reports::default();
    for (workload, reports) in unchanged.into_iter().flatten() {
        let reports = reports?;
        if let Some(line) = reports.lines.first() {
            bail!("{name}: {workload:?}: the unchanged program is reported: {line}");
        }
        for (label, count) in reports.barriers {
            let most = baseline.barriers.entry(label).or_default();
            *most = count.max(*most);
        }
    }
    let reach = reach(&program, &sites, &fitting)?;
    let mut kernel = Vec::new();
    for (number, site) in sites.iter().enumerate().filter(|(_, site)| !site.kernels.is_empty()) {
        kernel.extend(site.changes().into_iter().map(|change| Mutant::Kernel(number, change)));
    }
    let mut schedule = Vec::new();
    for (label, _) in LABELS {
        let count = baseline.barriers.get(label).copied().unwrap_or_default();
        if count == 0 {
            bail!("{name}: no run submits a command buffer called {label} with barriers");
        }
        schedule.extend((0..count).map(|index| Mutant::Schedule(label, index)));
    }
    let mutants = match options.sample {
        Some(count) => [spread(&kernel, count.div_ceil(2)), spread(&schedule, count / 2)].concat(),
        None => [kernel, schedule].concat(),
    };
    let outcomes = run_all(&program, &sites, &reach, mutants)?;
    Ok(Finished { name: name.to_owned(), slots: options.slots, sites, outcomes })
}

/// A run, and the kernels that come to each barrier in it, by the barrier's number.
struct Reach {
    workload: Workload,
    seconds: f64,
    met: BTreeMap<usize, BTreeSet<String>>,
}

/// Who comes to which barrier in each run, as traps before all of them tell; the shortest run first.
fn reach(program: &Program, sites: &[Site], workloads: &[Workload]) -> Result<Vec<Reach>> {
    let runs = pool::run(workloads, |thread, &workload| {
        let start = Instant::now();
        let reports = program.run(workload, Fault::Kernel(sites::TRAPS), &format!("run-{thread}"));
        Some((workload, start.elapsed().as_secs_f64(), reports))
    });
    let mut list = Vec::new();
    for (workload, seconds, reports) in runs.into_iter().flatten() {
        let mut met: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for line in reports?.lines {
            let kernel = line.split(": ").nth(1).map(str::to_owned);
            let at =
                line.split("kernels.metal:").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect());
            let number: Option<u32> = at.and_then(|digits: String| digits.parse().ok());
            if let (Some(kernel), Some(number)) = (kernel, number) {
                let at_line = sites.iter().enumerate().filter(|(_, site)| site.line == number);
                at_line.for_each(|(number, _)| _ = met.entry(number).or_default().insert(kernel.clone()));
            }
        }
        list.push(Reach { workload, seconds, met });
    }
    // Traps tell who comes to a barrier only if they are reported.
    if list.iter().all(|reach| reach.met.is_empty()) {
        bail!("no trap before a barrier is reported");
    }
    list.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(list)
}

/// `count` of them, far from each other.
fn spread(mutants: &[Mutant], count: usize) -> Vec<Mutant> {
    let count = count.min(mutants.len());
    (0..count).map(|at| mutants[at * mutants.len() / count].clone()).collect()
}

/// Runs the mutants on all cores; outcomes are in their order.
fn run_all(program: &Program, sites: &[Site], reach: &[Reach], mutants: Vec<Mutant>) -> Result<Vec<Outcome>> {
    let (done, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = pool::run(&mutants, |thread, mutant| {
        // What is left of a run that has failed tells nothing.
        if broken.load(Ordering::Relaxed) {
            return None;
        }
        let result = run_mutant(program, sites, reach, mutant, &format!("run-{thread}"));
        match &result {
            Ok(reports) => {
                let silent = silent(sites, mutant, reports);
                if !silent.is_empty() {
                    println!("{}: not noticed by {}", describe(sites, mutant), silent.join(", "));
                }
            }
            Err(_) => broken.store(true, Ordering::Relaxed),
        }
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(10) {
            println!("{count} of {} mutants", mutants.len());
        }
        Some(result)
    });
    let outcomes = results.into_iter().zip(&mutants).filter_map(|(result, mutant)| Some((result?, mutant.clone())));
    outcomes.map(|(reports, mutant)| Ok(Outcome { mutant, reports: reports? })).collect()
}

/// Runs the workloads until all who ought to notice have.
fn run_mutant(program: &Program, sites: &[Site], reach: &[Reach], mutant: &Mutant, run: &str) -> Result<Reports> {
    let mut all = Reports::default();
    match mutant {
        Mutant::Kernel(number, change) => {
            let site = &sites[*number];
            let fault = Fault::Kernel(sites::code(*number, *change));
            let met = |reach: &Reach| reach.met.get(number).map_or_else(BTreeSet::new, |met| met & &site.kernels);
            let wanted: BTreeSet<String> = reach.iter().flat_map(met).collect();
            for reach in reach {
                if !met(reach).is_subset(&all.kernels()) {
                    all.lines.extend(program.run(reach.workload, fault, run)?.lines);
                }
            }
            all.unreached = &site.kernels - &wanted;
        }
        Mutant::Schedule(label, index) => {
            let workloads = LABELS.iter().find(|(name, _)| name == label).map_or(&[][..], |(_, workloads)| workloads);
            for &workload in workloads.iter().filter(|workload| program.fits(**workload)) {
                all.lines.extend(program.run(workload, Fault::Schedule(label, *index), run)?.lines);
                if !all.lines.is_empty() {
                    break;
                }
            }
        }
    }
    Ok(all)
}

/// The kernels on both sides of an encoder barrier, as the reports name them.
fn between(reports: &Reports) -> BTreeSet<(String, String)> {
    let kernel = |text: &str| text.split_once('(').and_then(|(_, rest)| Some(rest.split_once(')')?.0.to_owned()));
    let pair = |line: &String| {
        let (first, second) = line.split_once("no barrier between ")?.1.split_once(" and ")?;
        Some((kernel(first)?, kernel(second)?))
    };
    reports.lines.iter().filter_map(pair).collect()
}
