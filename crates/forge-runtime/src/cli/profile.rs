//! `profile`: GPU time, bytes and share of the memory's bandwidth by kernel, as a table and as a trace.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::page::page;
use super::super::profile::{
    Device, Pass, Role, Size, document, measure_bandwidth, profile, record_prefill, record_step, trace,
};
use super::super::{Error, LanguageModel, Result};
use super::bench::check_rows;
use super::{Program, terminal};

/// Tokens of the prompt where none are asked for.
const PROMPT: usize = 512;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  profile                                    a token at the end of the default context, and a prompt
  profile --context 4096 --prompt 0          a token after 4095 others, no prompt
  profile --rows 8 --prompt 0                a step of eight sequences, as a server has it
  profile --bandwidth 273 --trace out.json   against 273 GB/s; a trace for chrome://tracing or ui.perfetto.dev
  profile --html profile.html                a page that draws timeline and roofline in a browser")]
pub(super) struct Options {
    /// Tokens of the prompt; 0 leaves this part out [default: 512 or what the context holds].
    #[arg(long, value_name = "N")]
    prompt: Option<usize>,
    /// Sequences of the step, each at the end of its context.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rows: usize,
    /// The memory's bandwidth [default: measured by copying].
    #[arg(long, value_name = "GB/S", value_parser = positive)]
    bandwidth: Option<f64>,
    /// Write a Chrome trace to this file.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write a page to this file that draws the measured times beside what the bytes take, one file without anything from elsewhere.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err("not a number above 0".to_owned()),
    }
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let checks = program.checks;
    let info = program.info;
    let mut model = program.model()?;
    let context = model.context();
    let prompt = options.prompt.unwrap_or(PROMPT.min(context));
    if prompt > context {
        return Err(Error::PromptTooLong { tokens: prompt, context });
    }
    check_rows(options.rows, info)?;
    let device = gpu(&model)?.limits().name.clone();
    terminal::progress("measuring the memory's bandwidth");
    let bandwidth = match options.bandwidth {
        Some(given) => given * 1e9,
        None => measure_bandwidth(gpu(&model)?)?,
    };
    terminal::progress("");
    let source = if options.bandwidth.is_some() { "as given" } else { "by copying" };
    terminal::print(&format!("device     {device}\nbandwidth  {:.1} GB/s, {source}\n", bandwidth / 1e9))?;
    if gpu(&model)?.is_software() {
        terminal::print("These are times of the software device: they say nothing about a GPU.\n")?;
    }
    let mut prompt_passes = Vec::new();
    let tokens: Vec<u32> = (0..prompt).map(|index| (index.wrapping_mul(7919) % info.vocab_size) as u32).collect();
    for (index, tile) in tokens.chunks(info.prefill_tile.max(1)).enumerate() {
        let position = index * info.prefill_tile;
        let buffers = record_prefill(&mut model, tile, position)?;
        let size = Size { rows: tile.len(), position, sequences: 1 };
        let mut progress = |kernel: &str| terminal::progress(&format!("prompt, tokens from {position}: {kernel}"));
        prompt_passes.push(profile(gpu(&model)?, checks, &buffers, size, &mut progress)?);
    }
    let size = Size { rows: options.rows, position: context - 1, sequences: options.rows };
    let buffers = record_step(&mut model, size.rows, size.position)?;
    let mut progress = |kernel: &str| terminal::progress(&format!("decode: {kernel}"));
    let decode_passes = [profile(gpu(&model)?, checks, &buffers, size, &mut progress)?];
    terminal::progress("");
    let title = match options.rows {
        1 => format!("decode, one token in a context of {context}"),
        rows => format!("decode, {rows} sequences in contexts of {context}"),
    };
    terminal::print(&table(&title, &decode_passes, bandwidth))?;
    if prompt > 0 {
        terminal::print(&table(&format!("prompt of {prompt} tokens"), &prompt_passes, bandwidth))?;
    }
    if let Some(path) = &options.trace {
        let timelines = [("decode", &decode_passes[..]), ("prompt", &prompt_passes[..])];
        write(path, format!("{}\n", trace(&device, &timelines)))?;
    }
    if let Some(path) = &options.html {
        let software = gpu(&model)?.is_software();
        let device = Device { name: &device, bandwidth, source, software };
        let decode = decode_passes.iter().map(|pass| (title_of(pass.size), pass));
        let prompt = prompt_passes.iter().map(|pass| {
            let Size { rows, position, .. } = pass.size;
            (format!("a prompt's tokens {position} to {}", position + rows - 1), pass)
        });
        let passes: Vec<(String, &Pass)> = decode.chain(prompt).collect();
        write(path, page(&document(info, &device, &passes).to_string()))?;
    }
    Ok(())
}

/// What a page calls a step.
fn title_of(size: Size) -> String {
    match size.sequences {
        1 => format!("a token after {} others", size.position),
        sequences => format!("{sequences} sequences, a token after {} others each", size.position),
    }
}

fn write(path: &Path, text: String) -> Result<()> {
    std::fs::write(path, text).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    terminal::note(&format!("wrote {}", path.display()));
    Ok(())
}

/// The device of a model that has kernels.
pub(super) fn gpu<M: LanguageModel>(model: &M) -> Result<&super::super::gpu::Gpu> {
    model.gpu().ok_or_else(|| Error::Usage("this model has no kernels".to_owned()))
}

/// One line per kernel over all passes, and the sums.
fn table(title: &str, passes: &[Pass], bandwidth: f64) -> String {
    let mut roles: Vec<Role> = Vec::new();
    for role in passes.iter().flat_map(|pass| &pass.roles) {
        match roles.iter_mut().find(|known| known.kernel == role.kernel) {
            Some(known) => {
                known.dispatches += role.dispatches;
                known.seconds += role.seconds;
                known.bytes += role.bytes;
                known.flops += role.flops;
            }
            None => roles.push(role.clone()),
        }
    }
    let sum = Role {
        kernel: "sum",
        kind: "",
        dispatches: roles.iter().map(|role| role.dispatches).sum(),
        seconds: roles.iter().map(|role| role.seconds).sum(),
        bytes: roles.iter().map(|role| role.bytes).sum(),
        flops: roles.iter().map(|role| role.flops).sum(),
    };
    let whole = Role { kernel: "whole", seconds: passes.iter().map(|pass| pass.seconds).sum(), ..sum.clone() };
    let width = roles.iter().map(|role| role.kernel.len()).max().unwrap_or(0).max("kernel".len());
    let mut text = format!(
        "\n{title}\n{:width$}  {:>10}  {:>9}  {:>9}  {:>6}  {:>10}  {:>8}  {:>8}  {:>9}\n",
        "kernel", "dispatches", "us each", "ms", "share", "MB", "GB/s", "roofline", "GFLOP/s"
    );
    for role in roles.iter().chain([&sum, &whole]) {
        let rate = role.bytes as f64 / role.seconds.max(1e-9);
        text += &format!(
            "{:width$}  {:>10}  {:>9.2}  {:>9.3}  {:>5.1}%  {:>10.3}  {:>8.1}  {:>7.1}%  {:>9.1}\n",
            role.kernel,
            role.dispatches,
            role.seconds * 1e6 / role.dispatches.max(1) as f64,
            role.seconds * 1e3,
            100.0 * role.seconds / sum.seconds.max(1e-9),
            role.bytes as f64 / 1e6,
            rate / 1e9,
            100.0 * rate / bandwidth,
            role.flops as f64 / role.seconds.max(1e-9) / 1e9
        );
    }
    text + "sum: kernels by themselves; whole: the schedule as it runs, where they may overlap\n"
}
