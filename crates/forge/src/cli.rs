//! The command line: arguments, help texts, and how results and errors are shown.

use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use forge_codegen::Language;
use forge_plan::CacheType;

use crate::recipe::Quantize;
use crate::{Chip, Error, check, chips, generate, inspect, interrupt, list};

/// Turns a model checkpoint into a standalone Rust project that runs it on Apple-silicon GPUs through Metal
#[derive(Debug, Parser)]
#[command(name = "forge", version, propagate_version = true)]
#[command(after_help = "Examples:
  forge gen model.gguf -o my-model
  forge gen hf:Qwen/Qwen3-0.6B-GGUF:Q8_0 -o qwen
  forge list
  forge inspect model.gguf
  forge check my-model
  cd my-model && cargo run --release -- generate \"Once upon a time\"")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate a project from a checkpoint
    Gen(Box<GenArgs>),
    /// Show a checkpoint's configuration, its tensors, what would be generated and the memory it needs
    Inspect(InspectArgs),
    /// Check a project's kernels: statically, in checked mode, and each against a reference
    Check(CheckArgs),
    /// List the models of the hub's cache, Ollama and LM Studio on this machine
    List(ListArgs),
}

/// Arguments of `forge gen`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  forge gen model.Q8_0.gguf -o my-model
  forge gen ./Llama-3.2-1B-Instruct -o llama --context 4096
  forge gen hf:Qwen/Qwen3-0.6B -o qwen               a repository of the Hugging Face hub: its safetensors
  forge gen hf:Qwen/Qwen3-0.6B-GGUF:Q8_0 -o qwen     one of its GGUF files; without :Q8_0 you see what there is
  forge gen ollama:llama3.2:1b -o llama              what Ollama or LM Studio (lmstudio:NAME) hold, read where it lies
  forge gen ./Llama-3.2-1B-Instruct -o llama --quantize q4_k
  forge gen ./Llama-3.2-1B-Instruct -o llama --quantize auto:4.6 --imatrix imatrix.gguf
  forge gen ./Llama-3.2-1B-Instruct -o llama --quantize nvfp4 --measure text.txt      perplexity and KL divergence too
  forge gen model.gguf -o my-model --embed      one executable with everything in it
  forge gen model.gguf -o my-model --slots 4    holds four conversations at once
  forge gen model.gguf -o my-model --force      regenerate; edited files are kept as copies
  forge gen model.gguf -o my-model --force --tuning tuning.json

The folder appears when everything in it is complete. An interrupted or failed run leaves nothing behind. What is fetched from the
hub is in the hub's own cache, and an interrupted transfer goes on where it stopped. HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE and OLLAMA_MODELS are honoured.")]
pub struct GenArgs {
    /// A GGUF file, a Hugging Face folder or an MLX folder; hf:OWNER/NAME[@REVISION][:FILE], ollama:NAME[:TAG] or
    /// lmstudio:[PUBLISHER/]NAME[:FILE]
    pub checkpoint: PathBuf,
    /// Fetch nothing: take what the hub's cache holds
    #[arg(long)]
    pub offline: bool,
    /// The folder to create
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Name of the project and its program [default: the folder's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Longest context of the project in tokens [default: what the model was trained for; with longrope, what its
    /// factors for short texts hold for]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Element type of the KV cache
    #[arg(long, default_value = CacheType::ALL[0].name(), value_parser = cache_types())]
    pub kv: CacheType,
    /// Sequences that the program holds side by side, each with a KV cache of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = slots)]
    pub slots: usize,
    /// Most tokens of a prompt that run at once [default: 256, and up to 2048 where the experts of a mixture would have few of
    /// them each]
    #[arg(long, value_name = "TOKENS", value_parser = tile)]
    pub tile: Option<usize>,
    /// Quantise F32, F16 and BF16 matrices and report each one's error: to a format (q8_0, q6_k, q5_k, q4_k, q4_0, q4_1, nvfp4,
    /// mxfp4, mlx4, affine<BITS>_g<GROUP>), to others by role (q4_k,ffn_down=q6_k,token_embd=q8_0), or to a size in bits a weight, with formats
    /// chosen by measured error (auto:4.6). Vectors, matrices that are quantised already and those whose rows are no whole
    /// number of blocks stay as they are
    #[arg(long, value_name = "RECIPE", value_parser = clap::value_parser!(Quantize))]
    pub quantize: Option<Quantize>,
    /// With --quantize auto: llama.cpp's importance matrix (GGUF), by which errors are weighted
    #[arg(long, value_name = "FILE", requires = "quantize")]
    pub imatrix: Option<PathBuf>,
    /// With --quantize: run this text through the source's program and the result's, which takes building both, and report perplexity and
    /// KL divergence
    #[arg(long, value_name = "TEXT", requires = "quantize")]
    pub measure: Option<PathBuf>,
    /// With --measure: tokens of the text, from its beginning
    #[arg(long, value_name = "N", default_value_t = 2048, requires = "measure")]
    pub measure_tokens: usize,
    /// Geometries of kernels, from the generated program's tune command
    #[arg(long, value_name = "FILE")]
    pub tuning: Option<PathBuf>,
    /// Make the weights part of the program, so that it is one file; building it links them in, which takes as long as copying
    /// them. Other projects can do the same with --features embed
    #[arg(long)]
    pub embed: bool,
    /// Also make libraries for other languages, below bindings/ in the project: c, swift, python
    #[arg(long, value_name = "LANGUAGES", value_delimiter = ',', value_parser = languages())]
    pub bindings: Vec<Language>,
    /// Regenerate an existing project: replaces what forge wrote and keeps copies of edited files
    #[arg(long)]
    pub force: bool,
    /// Print nothing but warnings and errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `forge inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  forge inspect model.Q8_0.gguf
  forge inspect ./Llama-3.2-1B-Instruct --context 32768
  forge inspect model.gguf --plan --prompt 2000 --bandwidth 273
  forge inspect model.gguf --html plan.html
  forge inspect model.gguf --plan --json | jq '.decode.dispatches[] | {kernel, layer, read, written}'

--plan accounts for every kernel: dispatches, barriers, threadgroups, threadgroup memory (shared), bytes and floating-point
operations, for a token at the end of --context and for a prompt.")]
pub struct InspectArgs {
    /// A GGUF file, a Hugging Face folder or an MLX folder; hf:OWNER/NAME[@REVISION][:FILE], ollama:NAME[:TAG] or
    /// lmstudio:[PUBLISHER/]NAME[:FILE]
    pub checkpoint: PathBuf,
    /// Fetch nothing: take what the hub's cache holds
    #[arg(long)]
    pub offline: bool,
    /// Context in tokens for the memory table [default: 8192 or what the model was trained for, the smaller]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// Element type of the KV cache
    #[arg(long, default_value = CacheType::ALL[0].name(), value_parser = cache_types())]
    pub kv: CacheType,
    /// Sequences that the program holds side by side, each with a KV cache of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = slots)]
    pub slots: usize,
    /// Account for every kernel of a decode step and of a prompt
    #[arg(long, group = "shown")]
    pub plan: bool,
    /// With --plan: write it as one JSON document; docs/inspecting.md describes it
    #[arg(long, requires = "plan")]
    pub json: bool,
    /// Write the plan as a page that draws itself in a browser, one file without anything from elsewhere: every dispatch of every layer,
    /// memory, roofline, and a token's time by context and chip
    #[arg(long, value_name = "FILE", group = "shown", conflicts_with = "json")]
    pub html: Option<PathBuf>,
    /// With --plan or --html: tokens of the prompt [default: 512, or the context if that is smaller]
    #[arg(long, value_name = "TOKENS", requires = "shown", value_parser = at_least_one)]
    pub prompt: Option<usize>,
    /// Memory bandwidth in GB/s to predict decoding for [default: a table of Apple chips]
    #[arg(long, value_name = "GB/S", value_parser = bandwidth)]
    pub bandwidth: Option<f64>,
}

/// Tokens of the shortest and of the longest tile that may be asked for.
const TILES: std::ops::RangeInclusive<usize> = 32..=4096;

fn tile(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tokens) if TILES.contains(&tokens) => Ok(tokens),
        _ => Err(format!("expected a number from {} to {}", TILES.start(), TILES.end())),
    }
}

/// Most sequences that a program may hold.
const MOST_SLOTS: usize = 64;

fn slots(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MOST_SLOTS).contains(&count) => Ok(count),
        _ => Err(format!("expected a number from 1 to {MOST_SLOTS}")),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a number from 1 up".to_owned()),
    }
}

fn bandwidth(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(gigabytes) if gigabytes.is_finite() && gigabytes > 0.0 => Ok(gigabytes),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// Arguments of `forge check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  forge check my-model
  forge check model.Q4_K_M.gguf

A checkpoint is generated from into a temporary folder. Building needs cargo, and off macOS clang++; CARGO_TARGET_DIR
keeps what was built for the next time. The exit code is 0 when every check passed.")]
pub struct CheckArgs {
    /// A generated project, or a checkpoint as for gen
    pub path: PathBuf,
    /// For a checkpoint of the hub: fetch nothing, take what its cache holds
    #[arg(long)]
    pub offline: bool,
    /// For a checkpoint: longest context of the project in tokens [default: what the model was trained for; with longrope, what its
    /// factors for short texts hold for]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
    /// For a checkpoint: element type of the KV cache
    #[arg(long, default_value = CacheType::ALL[0].name(), value_parser = cache_types())]
    pub kv: CacheType,
    /// For a checkpoint: sequences that the program holds side by side, each with a KV cache of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = slots)]
    pub slots: usize,
    /// Run the whole of a large model in checked mode too
    #[arg(long)]
    pub full: bool,
}

/// Arguments of `forge list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  forge list
  forge list --chip 'M4 Max, 40 cores'
  forge list --json

Each name can be given to forge gen and forge inspect.")]
pub struct ListArgs {
    /// The chip for which speed is given [default: this Mac's, elsewhere M4]
    #[arg(long, value_parser = chip)]
    pub chip: Option<Chip>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn chip(text: &str) -> Result<Chip, String> {
    let known = || chips::CHIPS.map(|chip| chip.name).join("; ");
    Chip::named(text).ok_or_else(|| format!("expected one of: {}", known()))
}

/// The names of cache types, with what each is.
fn cache_types() -> impl TypedValueParser<Value = CacheType> {
    let values = CacheType::ALL.map(|kv| PossibleValue::new(kv.name()).help(kv.description()));
    PossibleValuesParser::new(values).map(|name| CacheType::named(&name).expect("a possible value"))
}

/// The names of languages that a project can be used from.
fn languages() -> impl TypedValueParser<Value = Language> {
    let values = Language::ALL.map(|language| PossibleValue::new(language.name()));
    PossibleValuesParser::new(values).map(|name| Language::named(&name).expect("a possible value"))
}

/// Parses the command line, runs it, shows the error if there is one.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::install();
    let result = match &cli.command {
        Command::Gen(args) => generate::run(args),
        Command::Check(args) => check::run(args),
        Command::List(args) => list::run(args).map(|text| anstream::print!("{text}")),
        Command::Inspect(args) => inspect::run(args).and_then(|inspection| {
            anstream::print!("{}", inspection.text);
            inspection.problem.map_or(Ok(()), Err)
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show("error", AnsiColor::Red, &error.to_string());
            if matches!(error, Error::Interrupted) { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

/// One line on stderr: `warning: text`, coloured on a terminal.
pub(crate) fn warn(text: &str) {
    show("warning", AnsiColor::Yellow, text);
}

fn show(label: &str, color: AnsiColor, text: &str) {
    let style = Style::new().bold().fg_color(Some(color.into()));
    // Messages of other programs may have several lines; ours are one.
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A tensor may be called anything, escape sequences of the terminal included.
    let line = line.replace(|c: char| c.is_control(), "\u{fffd}");
    anstream::eprintln!("{style}{label}{style:#}: {line}");
}
