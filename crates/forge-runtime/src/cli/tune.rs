//! `tune`: the fastest geometry of each matrix-vector kernel on this device, as a file for `forge gen --tuning`.

use std::path::PathBuf;

use clap::Args;

use super::super::gpu::Gpu;
use super::super::profile::record_step;
use super::super::tune::{Geometry, Tuned, check_variants, tune_shape, tuning_file};
use super::super::verify::Verifier;
use super::super::weights::Weights;
use super::super::{Error, LanguageModel, Result};
use super::profile::gpu;
use super::{Program, terminal};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tune                        writes tuning.json
  tune --output m2-max.json
  forge gen CHECKPOINT -o PROJECT --force --tuning m2-max.json      bakes it in")]
pub(super) struct Options {
    /// The file to write.
    #[arg(short, long, value_name = "FILE", default_value = "tuning.json")]
    output: PathBuf,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let (info, checks, tuning) = (program.info, program.checks, program.checks.tuning);
    if tuning.shapes.is_empty() {
        return Err(Error::Usage("this model has no matrix-vector kernels".to_owned()));
    }
    terminal::progress("compiling kernels");
    // Gone before the model is loaded: the weights are not resident twice.
    let faults = {
        let gpu = Gpu::open(checks.source, info.kernels)?;
        let weights = Weights::open(&program.load_options()?.weights, info)?;
        let kernels = gpu.compile(tuning.source, tuning.kernels)?;
        let verifier = Verifier::new(&gpu, checks, info, &weights)?;
        let mut progress = |kernel: &str| terminal::progress(&format!("comparing {kernel} with its reference"));
        check_variants(&verifier, tuning, &kernels, &mut progress)
    };
    terminal::progress("");
    let mut model = program.model()?;
    let step = record_step(&mut model, 1, 0)?;
    let gpu = gpu(&model)?;
    let kernels = gpu.compile(tuning.source, tuning.kernels)?;
    let device = &gpu.limits().name;
    terminal::print(&format!("device  {device}\n"))?;
    if gpu.is_software() {
        terminal::print("These are times of the software device: they say nothing about a GPU.\n")?;
    }
    terminal::print(&format!(
        "\n{:24}  {:>8}  {:>10}  {:>5}  {:>10}\n",
        "matrix", "rows per", "simdgroups", "split", "us"
    ))?;
    let mut all = Vec::new();
    for shape in tuning.shapes {
        terminal::progress(&format!("timing {} [{}, {}]", shape.format, shape.rows, shape.cols));
        let tuned = tune_shape(gpu, checks, shape, &kernels, &faults, &step)?;
        terminal::progress("");
        terminal::print(&lines(&tuned))?;
        all.push(tuned);
    }
    let text = format!("{:#}\n", tuning_file(device, info.name, info.source, &all));
    std::fs::write(&options.output, text).map_err(|source| Error::Io { path: options.output.clone(), source })?;
    terminal::note(&format!("wrote {}; forge gen --tuning bakes it in", options.output.display()));
    Ok(())
}

/// One line per geometry.
fn lines(tuned: &Tuned) -> String {
    let shape = tuned.shape;
    let mut name = format!("{} [{}, {}]", shape.format, shape.rows, shape.cols);
    let best = tuned.best();
    let mut text = String::new();
    for tried in &tuned.tried {
        let Geometry { rows_per_simdgroup, simdgroups, split } = tried.geometry;
        let in_use = if tried.geometry == shape.chosen { ", in use" } else { "" };
        let (time, verdict) = match &tried.result {
            Ok(seconds) if tried.geometry == best => (format!("{:.2}", seconds * 1e6), format!("best{in_use}")),
            Ok(seconds) => (format!("{:.2}", seconds * 1e6), in_use.trim_start_matches(", ").to_owned()),
            Err(fault) => (String::new(), format!("WRONG: {fault}")),
        };
        let line = format!("{name:24}  {rows_per_simdgroup:>8}  {simdgroups:>10}  {split:>5}  {time:>10}  {verdict}");
        text += &format!("{}\n", line.trim_end());
        name.clear();
    }
    text
}
