//! `verify`: the weights file is read whole and its hash compared, then every kernel is compared with a reference; asked for,
//! sequences side by side with the same sequences alone.

use std::time::Instant;

use clap::Args;
use sha2::{Digest, Sha256};

use super::super::gpu::Gpu;
use super::super::verify::{Verifier, batches};
use super::super::weights::{Weights, verify};
use super::super::{Error, LanguageModel, Result};
use super::{Program, terminal};

/// What to verify.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Also run the whole model: sequences side by side, copied and cut back, against the same sequences alone, bit for bit.
    #[arg(long)]
    batches: bool,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, asked: &Options) -> Result<()> {
    let options = program.load_options()?;
    let weights = Weights::open(&options.weights, program.info)?;
    let (digest, compared) = verify(&options.weights, |_| {})?;
    let verdict = if compared { "matches its record" } else { "no record to compare with" };
    terminal::print(&format!("{}: length and header match; blake3 {digest}, {verdict}\n", options.weights))?;
    if program.checks.kernels.is_empty() {
        return Ok(());
    }
    kernels(&program, &weights)?;
    if asked.batches { side_by_side(program) } else { Ok(()) }
}

/// The report on sequences side by side.
fn side_by_side<M: LanguageModel + 'static>(program: Program<M>) -> Result<()> {
    let mut model = program.model()?;
    let all = batches(&mut model)?;
    terminal::print("\nrows                                                   numbers  difference  result\n")?;
    for compared in &all {
        let (what, numbers, result) = (&compared.what, compared.numbers, compared.fault.as_deref().unwrap_or("ok"));
        terminal::print(&format!("{what:52}  {numbers:>8}  {:>10}  {result}\n", size(compared.difference.into())))?;
    }
    match all.iter().filter(|compared| compared.fault.is_some()).count() {
        0 => Ok(()),
        failed => Err(Error::Verify { failed, runs: all.len() }),
    }
}

/// The report on all kernels, fit to paste into an issue.
fn kernels<M>(program: &Program<M>, weights: &Weights) -> Result<()> {
    let (info, checks) = (program.info, program.checks);
    let gpu = Gpu::open(checks.source, info.kernels)?;
    let verifier = Verifier::new(&gpu, checks, info, weights)?;
    let kernels: String =
        Sha256::digest(checks.source.metal).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    terminal::print(&format!(
        "\nForge    {}\nmodel    {} ({}), from {}\nkernels  {} in kernels.metal, sha256 {kernels}...\n\
         device   {}\nsystem   {}\n\n",
        checks.forge_version,
        info.name,
        info.architecture,
        info.source,
        info.kernels.len(),
        verifier.device(),
        system()
    ))?;
    let shapes: Vec<String> = verifier.checks().iter().map(|check| check.operation.describe()).collect();
    let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let name_width = longest(&mut verifier.checks().iter().map(|check| verifier.name(check).len())).max(6);
    let shape_width = longest(&mut shapes.iter().map(String::len)).max(5);
    terminal::print(&format!(
        "{:name_width$}  {:>5}  {:shape_width$}  {:>4}  {:>9}  {:>9}  {:>9}  result\n",
        "kernel", "layer", "shape", "rows", "error", "bound", "relative"
    ))?;
    let start = Instant::now();
    let (mut runs, mut faults) = (0, Vec::new());
    for (check, shape) in verifier.checks().iter().zip(&shapes) {
        let name = verifier.name(check);
        let layer = check.layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string());
        for outcome in verifier.run(check) {
            runs += 1;
            let result = if outcome.fault.is_some() { "FAILED" } else { "ok" };
            terminal::print(&format!(
                "{name:name_width$}  {layer:>5}  {shape:shape_width$}  {:>4}  {:>9}  {:>9}  {:>9}  {result}\n",
                outcome.rows,
                size(outcome.error),
                size(outcome.bound),
                size(outcome.relative)
            ))?;
            if let Some(fault) = outcome.fault {
                faults.push(format!("{name}, {} rows: {fault}\n", outcome.rows));
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if faults.is_empty() {
        return terminal::print(&format!("\nall {runs} runs are within their bounds ({seconds:.1} s)\n"));
    }
    terminal::print(&format!("\n{}", faults.concat()))?;
    Err(Error::Verify { failed: faults.len(), runs })
}

/// A number for the table.
fn size(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") }
}

/// The operating system and its version, where it says so.
fn system() -> String {
    let version = if cfg!(target_os = "macos") {
        let list = std::fs::read_to_string("/System/Library/CoreServices/SystemVersion.plist").unwrap_or_default();
        let after = list.split("<key>ProductVersion</key>").nth(1).unwrap_or_default();
        after.split("<string>").nth(1).and_then(|rest| rest.split('<').next()).map(str::to_owned)
    } else {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        release.lines().find_map(|line| Some(line.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_owned()))
    };
    let names = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    version.map_or_else(|| names.clone(), |version| format!("{names}, {version}"))
}
