//! `cargo xtask cases`: generated projects against the numbers of independent implementations.
//!
//! Cases run on all processors. Each thread generates its projects into one folder in turn, with `--force`, so that the update of an
//! existing project is exercised as well.

pub mod compare;
mod experts;
mod files;
mod long;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use safetensors::SafeTensors;

use crate::forge::{Forge, Generated, Mode, build_beside_others};
use crate::table::Table;
use crate::{pool, shell};
use compare::{Agreement, Reference, compare};
use files::{Case, Checkpoint};
pub use files::{Variant, context, discover, read_reference};

/// Options of `cargo xtask cases`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Folder of case folders, or one case folder
    pub dir: PathBuf,
    /// Only the case of this name (repeatable)
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Only checkpoints of this format: hf, mlx, F16, Q8_0, ... (repeatable)
    #[arg(long, value_name = "FORMAT")]
    pub format: Vec<String>,
    /// Only this element type of the KV cache: f16, f32, q8_0 or q4_0
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<String>,
    /// Also let `forge gen` quantise Hugging Face folders to this format (repeatable), against the reference for the
    /// GGUF file of that format
    #[arg(long, value_name = "FORMAT")]
    pub quantize: Vec<String>,
    /// Generate with the geometries of this file
    #[arg(long, value_name = "FILE")]
    pub tuning: Option<String>,
    /// Generate programs that hold so many sequences, and compare rows side by side with the same rows alone
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,
    /// Exit with 0 although some checkpoints are not supported
    #[arg(long)]
    pub allow_unsupported: bool,
}

/// How many rows of the table ended which way, and why those that did not pass.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    /// Within all bounds.
    pub passed: usize,
    /// Outside a bound, or an error.
    pub failed: usize,
    /// Not supported by Forge.
    pub unsupported: usize,
    /// What is wrong with those that did not pass, a line each.
    pub problems: Vec<String>,
}

/// Runs the cases and prints the table.
///
/// # Errors
/// No cases, or a Forge that does not build.
pub fn main(options: &Options) -> Result<ExitCode> {
    let totals = run(options)?;
    let fine = totals.failed == 0 && (totals.unsupported == 0 || options.allow_unsupported);
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the cases, prints the table and counts.
///
/// # Errors
/// No cases, or a Forge that does not build.
pub fn run(options: &Options) -> Result<Totals> {
    let mut cases = discover(&options.dir)?;
    cases.retain(|case| options.only.is_empty() || options.only.contains(&case.name));
    if cases.is_empty() {
        bail!("{}: no case called {}", options.dir.display(), options.only.join(", "));
    }
    let forge = Forge::build()?;
    let mut jobs = Vec::new();
    for case in &cases {
        for checkpoint in &case.checkpoints {
            if options.format.is_empty() || options.format.contains(&checkpoint.label) {
                let variants = Variant::all(case, checkpoint, &options.quantize, options.kv.as_deref())?;
                let chosen = |variant: &Variant| options.kv.as_ref().is_none_or(|kv| kv == variant.kv);
                let variants = variants.into_iter().filter(chosen).map(|variant| Variant {
                    tuning: options.tuning.clone(),
                    slots: options.slots,
                    ..variant
                });
                jobs.push((case, checkpoint, variants.collect::<Vec<_>>()));
            }
        }
    }
    let scratch = shell::scratch("cases")?;
    let rows = pool::run(&jobs, |thread, (case, checkpoint, variants)| {
        let place = Place {
            project: scratch.join(format!("project-{thread}")),
            program: scratch.join(format!("program-{thread}")),
        };
        run_checkpoint(&forge, &place, case, checkpoint, variants)
    });
    let mut report = Report::new();
    for row in rows.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        report.add(row);
    }
    println!("\n{}", report.table);
    let Totals { passed, failed, unsupported, problems } = &report.totals;
    for problem in problems {
        println!("{problem}");
    }
    println!("cases: {passed} passed, {failed} failed, {unsupported} unsupported");
    Ok(report.totals)
}

struct Report {
    table: Table,
    totals: Totals,
}

impl Report {
    fn new() -> Self {
        let header =
            ["case", "format", "kv", "bound", "prefill", "decode", "top-1", "greedy", "experts", "long", "tokens", ""];
        Self { table: Table::new(&header), totals: Totals::default() }
    }

    fn add(&mut self, row: Row) {
        self.totals.problems.extend(row.problems);
        self.table.row(row.cells.into_iter().chain([row.verdict.to_owned()]));
        match row.verdict {
            "ok" => self.totals.passed += 1,
            "unsupported" => self.totals.unsupported += 1,
            _ => self.totals.failed += 1,
        }
    }
}

/// A row of the table, with what there is to say about it.
struct Row {
    cells: [String; 11],
    verdict: &'static str,
    problems: Vec<String>,
}

/// Where a thread has its project, and the program built of it.
struct Place {
    project: PathBuf,
    program: PathBuf,
}

fn run_checkpoint(
    forge: &Forge,
    place: &Place,
    case: &Case,
    checkpoint: &Checkpoint,
    variants: &[Variant],
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for variant in variants {
        let label = match &variant.quantize {
            Some(format) => format!("{} to {format}", checkpoint.label),
            None => checkpoint.label.clone(),
        };
        let reference = files::reference(case, &variant.reference(checkpoint))?;
        let name = format!("{} {label} --kv {}", case.name, variant.kv);
        let mut cells = [const { String::new() }; 11];
        cells[0] = case.name.clone();
        cells[1] = label;
        cells[2] = variant.kv.to_owned();
        cells[3] = format!("{:.0e}", variant.bound);
        let (verdict, problems) = match run_variant(forge, place, case, checkpoint, variant, &reference, &mut cells) {
            Ok(Verdict::Unsupported(reason)) => ("unsupported", vec![format!("unsupported: {reason}")]),
            Ok(Verdict::Compared(problems)) => (if problems.is_empty() { "ok" } else { "FAILED" }, problems),
            Err(error) => ("FAILED", vec![format!("{error:#}")]),
        };
        println!("{}  {verdict}", cells.join("  "));
        let problems = problems.iter().map(|problem| format!("{name}: {problem}")).collect();
        rows.push(Row { cells, verdict, problems });
        if verdict == "unsupported" {
            break;
        }
    }
    Ok(rows)
}

enum Verdict {
    Unsupported(String),
    /// With a line for each thing that is wrong.
    Compared(Vec<String>),
}

fn run_variant(
    forge: &Forge,
    place: &Place,
    case: &Case,
    checkpoint: &Checkpoint,
    variant: &Variant,
    reference: &Reference,
    cells: &mut [String; 11],
) -> Result<Verdict> {
    let Place { project, program } = place;
    let mut args = vec!["--kv", variant.kv, "--name", "case", "--force"];
    if let Some(format) = &variant.quantize {
        args.extend(["--quantize", format]);
    }
    let context = context(case)?;
    if let Some(context) = &context {
        args.extend(["--context", context]);
    }
    let slots = variant.slots.map(|slots| slots.to_string());
    if let Some(slots) = &slots {
        args.extend(["--slots", slots]);
    }
    if let Some(file) = &variant.tuning {
        args.extend(["--tuning", file]);
    }
    match forge.generate(&checkpoint.path, project, &args)? {
        Generated::Done => {}
        Generated::Unsupported(reason) => return Ok(Verdict::Unsupported(reason)),
    }
    let modes: &[Mode] = if variant.slots.is_some() { &[Mode::Fast, Mode::Checked] } else { &[Mode::Fast] };
    build_beside_others(project, modes, program)?;
    let mut problems = Vec::new();
    if variant.slots.is_some() {
        let mut command = Command::new(program);
        command.args(["verify", "--batches"]).env("METAL_SIM_CHECKED", "1").envs([shell::kernels_cache()]);
        problems.extend(shell::capture(&mut command).err().map(|error| format!("verify --batches: {error:#}")));
    }
    let mut agreements = Vec::new();
    for (cell, flags) in [(4, &[][..]), (5, &["--decode"][..])] {
        let logits = logits(program, &reference.fed_ids(), flags)?;
        let agreement = compare(reference, &logits, variant.bound);
        cells[cell] = format!("{:.1e}", agreement.max_abs);
        let path = if flags.is_empty() { "prefill" } else { "decode" };
        problems.extend(describe(path, &agreement, variant.bound));
        agreements.push(agreement);
    }
    let least = |count: fn(&Agreement) -> (usize, usize)| {
        let worst = agreements.iter().map(count).min_by_key(|(right, _)| *right);
        worst.map_or_else(String::new, |(right, of)| format!("{right}/{of}"))
    };
    cells[6] = least(|a| (a.top1_required - a.top1_wrong, a.top1_required));
    cells[7] = least(|a| (a.greedy_wrong.unwrap_or(a.greedy_required), a.greedy_required));
    if files::is_reference_of_weights(case, &variant.reference(checkpoint))? {
        let experts = experts::run(case, program, &reference.input_ids, variant.bound)?;
        cells[8] = experts.cell();
        problems.extend(experts.failures);
    }
    if checkpoint.exact && variant.quantize.is_none() {
        let long = long::run(case, variant.bound, |ids, flags| logits(program, ids, flags))?;
        cells[9] = format!("{}/{}", long.checks - long.failures.len(), long.checks);
        problems.extend(long.failures);
    }
    let tokens = tokens::run(case, program)?;
    cells[10] = format!("{}/{}", tokens.checks - tokens.failures.len(), tokens.checks);
    problems.extend(tokens.failures.into_iter().map(|failure| format!("tokenize {failure}")));
    Ok(Verdict::Compared(problems))
}

/// What is wrong with an agreement, in words.
fn describe(path: &str, agreement: &Agreement, bound: f32) -> Option<String> {
    if agreement.within(bound) {
        return None;
    }
    let mut text = format!(
        "{path}: largest difference {:.3e} (bound {bound:.0e}), {} of {} top-1 tokens differ",
        agreement.max_abs, agreement.top1_wrong, agreement.top1_required
    );
    if let Some(step) = agreement.greedy_wrong {
        text.push_str(&format!(", greedy text differs at token {step}"));
    }
    Some(text)
}

/// Logits of a generated project for `ids`, one row each; with `--last` one row.
///
/// # Errors
/// A program that fails, or gives something else.
pub fn logits(program: &Path, ids: &[u32], flags: &[&str]) -> Result<compare::Logits> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("logits.safetensors");
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(program);
    command.args(["logits", "--ids", &list]).args(flags).arg("-o").arg(&file);
    shell::capture(&mut command)?;
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let tensors = SafeTensors::deserialize(&bytes).context("logits.safetensors")?;
    let logits = files::logits(&tensors, "logits")?;
    let rows = if flags.contains(&"--last") { 1 } else { ids.len() };
    if logits.rows() != rows {
        bail!("logits has {} rows for {} tokens", logits.rows(), ids.len());
    }
    Ok(logits)
}
