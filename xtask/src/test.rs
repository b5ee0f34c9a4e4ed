//! `cargo xtask test`: everything that has to hold, step by step, with one table at the end.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;
use forge_plan::CacheType;

use crate::table::Table;
use crate::{
    book, cases, check, check_msl, clang, counters, cross_check, demo, embed, library, mutate, python, shell,
    snapshots, tidy, tune,
};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only this step (repeatable)
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
    /// Not this step (repeatable)
    #[arg(long, value_name = "STEP")]
    skip: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// rustfmt
    Fmt,
    /// House rules
    Tidy,
    /// clippy, warnings denied
    Clippy,
    /// Unit and integration tests of the workspace
    Unit,
    /// Emitted projects against tests/snapshots
    Snapshots,
    /// Emitted kernels through the strict MSL gate
    CheckMsl,
    /// Generated projects against reference numbers
    Cases,
    /// The demo project tells a story
    Demo,
    /// The book: links, messages, pages of commands, and every command in it
    Book,
    /// The demo project as a library, without the program's dependencies
    Library,
    /// The demo project as one file, weights included
    Embed,
    /// `forge check` of the demo project, every kernel against its reference in checked mode, and of one with a wrong kernel
    Check,
    /// The bytes that the software device counts against those that the plan says
    Counters,
    /// `profile` and `tune` of the demo project, and a project with the geometries of a tuning file
    Tune,
    /// A sample of missing and wrong barriers, each reported by checked mode
    Mutate,
    /// Clients of PyPI and npm against a served project and a scripted model
    Openai,
    /// The pages in a browser: the server's, and those of plans and profiles
    Page,
    /// Emitted projects for macOS
    CrossCheck,
}

/// How a step ended, when it did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything it checks holds.
    Passed,
    /// It could not run here, and why.
    Skipped(String),
}

/// Runs the chosen steps, all of them even when one fails.
///
/// # Errors
/// None but those of the terminal; failures are in the table and the exit code.
pub fn main(options: &Options) -> Result<ExitCode> {
    let chosen = |step: &Step| (options.only.is_empty() || options.only.contains(step)) && !options.skip.contains(step);
    let mut table = Table::new(&["step", "seconds", "result"]);
    let (mut passed, mut skipped) = (0, 0);
    let mut errors = Vec::new();
    for step in Step::value_variants().iter().copied().filter(chosen) {
        let name = step.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        println!("\n== {name} ==");
        let start = Instant::now();
        let result = match run(step) {
            Ok(Outcome::Passed) => {
                passed += 1;
                "ok".to_owned()
            }
            Ok(Outcome::Skipped(reason)) => {
                skipped += 1;
                println!("skipped: {reason}");
                format!("skipped: {reason}")
            }
            Err(error) => {
                println!("error: {error:#}");
                errors.push(format!("{name}: {error:#}\n"));
                "FAILED".to_owned()
            }
        };
        table.row([name, format!("{:.1}", start.elapsed().as_secs_f64()), result]);
    }
    let failed = errors.len();
    println!("\n{table}\n{}{passed} passed, {failed} failed, {skipped} skipped", errors.concat());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn clippy(args: &[&str]) -> Result<()> {
    shell::run(shell::cargo().args(["clippy", "--quiet"]).args(args).args(["--", "-D", "warnings"]))
}

/// The tiny cases of weight formats, of which every form is run.
const FORMAT_CASES: [&str; 11] = [
    "fp4-groups",
    "fp4-mixed",
    "nvfp4",
    "nvfp4-moe",
    "toolchain-awq",
    "toolchain-compressed",
    "toolchain-fp8",
    "toolchain-gptq",
    "toolchain-gptq-3",
    "toolchain-gptq-v2",
    "toolchain-gptq-zeros",
];

/// The modules that the list of weight formats makes, which `cargo fmt` does not find.
fn listed_modules() -> Result<Vec<PathBuf>> {
    let folder = shell::root().join("crates/forge-formats/src/formats");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

fn run(step: Step) -> Result<Outcome> {
    match step {
        Step::Fmt => {
            shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
            let rustfmt = || Command::new("rustfmt");
            shell::run(
                rustfmt().current_dir(shell::root()).args(["--check", "--edition", "2024"]).args(listed_modules()?),
            )?;
        }
        Step::Tidy => tidy::main()?,
        Step::Clippy => {
            clippy(&["--workspace", "--all-targets"])?;
            clippy(&["--package", "metal-sim", "--all-targets", "--features", "cuda"])?;
            // What a project without its default features compiles.
            for features in ["", "cli", "server"] {
                clippy(&["--package", "forge-runtime", "--lib", "--no-default-features", "--features", features])?;
            }
        }
        Step::Unit => {
            clang::ensure()?;
            let nextest = shell::which("cargo-nextest").is_some();
            let runner: &[&str] = if nextest { &["nextest", "run", "--no-fail-fast"] } else { &["test", "--quiet"] };
            // Many tests compile the same kernels, each in a process of its own.
            shell::run(shell::cargo().args(runner).arg("--workspace").envs([shell::kernels_cache()]))?;
            shell::run(shell::cargo().args(runner).args(["--package", "metal-sim", "--features", "cuda", "--lib"]))?;
        }
        Step::Snapshots => snapshots::main(&snapshots::Options { bless: false })?,
        Step::CheckMsl => check_msl::main(&check_msl::Options::default())?,
        Step::Cases => {
            // The tiny random models show their architectures at full precision; half of it costs them more digits than
            // it does a trained model.
            let tiny = cases::Options { format: vec!["hf".into()], kv: Some("f32".into()), ..Default::default() };
            let whole = cases::Options { quantize: vec!["q8_0".into()], ..Default::default() };
            let q8_0 = cases::Options { kv: Some("q8_0".into()), ..Default::default() };
            let named = FORMAT_CASES.iter().map(|name| (*name).to_owned()).collect();
            let formats = cases::Options { only: named, ..Default::default() };
            let folders = [
                ("assets", &whole),
                ("tests/fixtures/models", &whole),
                ("crates/forge-frontend/tests/fixtures/tiny", &tiny),
                // Formats of other toolchains: a folder's type is that of what is not quantised there.
                ("crates/forge-frontend/tests/fixtures/tiny", &formats),
                ("assets", &q8_0),
            ];
            for (dir, options) in folders {
                let start = Instant::now();
                let totals = cases::run(&cases::Options { dir: shell::root().join(dir), ..options.clone() })?;
                println!("{dir}: {:.0} s", start.elapsed().as_secs_f64());
                if totals.failed + totals.unsupported > 0 {
                    bail!("{dir}: not every bundled case passes\n{}", totals.problems.join("\n"));
                }
            }
        }
        Step::Demo => demo::main()?,
        Step::Book => book::main(&book::Options::default())?,
        Step::Library => library::main()?,
        Step::Embed => embed::main()?,
        Step::Check => check::main()?,
        Step::Counters => {
            counters::main(&counters::Options::default())?;
            counters::main(&counters::Options { only: vec!["demo".into()], kv: CacheType::Q8_0 })?;
        }
        Step::Tune => tune::main()?,
        Step::Mutate => {
            let options =
                mutate::Options { case: vec!["demo".to_owned()], slots: 2, sample: Some(10), ..Default::default() };
            if mutate::main(&options)? != ExitCode::SUCCESS {
                bail!("checked mode does not notice every mutant");
            }
        }
        Step::Openai => return python::main(),
        Step::Page => return python::page(),
        Step::CrossCheck => return cross_check::snapshots(),
    }
    Ok(Outcome::Passed)
}
