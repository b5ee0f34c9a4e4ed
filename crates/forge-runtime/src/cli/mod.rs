//! The command line: what every command shares, and one file for each command.
//!
//! Answers go to stdout, everything else to stderr. Exit codes: 0, 1 for an error (one line, `error: ...`), 2 for a command line
//! that does not parse. A reader that closes stdout early is no error.

mod bench;
mod chat;
mod generate;
mod imatrix;
mod info;
mod interrupt;
mod logits;
mod perplexity;
mod profile;
#[cfg(feature = "server")]
mod serve;
mod terminal;
mod tokenize;
mod tune;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::assets::{Assets, SamplingOptions, Text};
use super::generation::Engine;
use super::generation::speculation::Speculation;
use super::gpu::format_bytes;
use super::verify::Checks;
use super::{Error, LanguageModel, LoadOptions, ModelInfo, Result, gpu, weights};

#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Tokens of context to hold; memory grows with it.
    #[arg(long, global = true, value_name = "TOKENS")]
    context: Option<usize>,
    /// The weights file, or the folder it is in [default: in the program, where it was built so, else beside it].
    #[arg(long, global = true, value_name = "FILE")]
    weights: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer one prompt.
    Generate(generate::Options),
    /// Talk with the model.
    Chat(chat::Options),
    /// Serve the APIs of OpenAI and Anthropic, and a page, over HTTP.
    #[cfg(feature = "server")]
    Serve(serve::Options),
    /// Write the logits of given tokens to a file.
    Logits(logits::Options),
    /// Show the tokens of a text or of a chat, as JSON.
    Tokenize(tokenize::Options),
    /// Show sizes and memory.
    Info,
    /// Measure tokens per second.
    Bench(bench::Options),
    /// Measure how well the model knows a text, and how far it is from another program.
    Perplexity(perplexity::Options),
    /// Collect which columns of each matrix a text needs most, for `forge gen --imatrix`.
    Imatrix(imatrix::Options),
    /// Measure GPU time and bytes of each kernel.
    Profile(profile::Options),
    /// Find the fastest geometry of each matrix-vector kernel on this device.
    Tune(tune::Options),
    /// Check that the weights are whole, and every kernel against a reference on this device.
    Verify(verify::Options),
}

/// Options of the commands that sample.
#[derive(Debug, Args)]
struct Sampling {
    /// Divides the logits; 0 always takes the most probable token [default: the checkpoint's].
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Choose among the K most probable tokens; 0 for all.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the fewest tokens that together have probability P; 1 for all.
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Choose among tokens at least P times as probable as the most probable one; 0 for all.
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens that occurred less probable; 1 changes nothing.
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// Take X from the logits of tokens that the answer has already.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Take X from them for each time that the answer has them.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// The same seed gives the same text.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Sampling {
    fn options(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: Vec::new(),
            seed: self.seed,
        }
    }
}

/// Options of the commands that generate.
#[derive(Debug, Args)]
struct Guesses {
    /// Tokens to guess from what prompt and answer had before: auto for as many as pay, off, or a number. They are looked at as rows of one
    /// step, which saves steps where they are right and changes no text.
    #[arg(long, value_name = "auto|off|N", default_value = "auto")]
    speculate: Speculation,
}

impl Guesses {
    /// Has tokens guessed. Who asked for a number of them is told why there are none.
    fn apply<M: LanguageModel>(&self, engine: &mut Engine<M>) {
        if let (Err(reason), Speculation::Depth(_)) = (engine.speculate(self.speculate), self.speculate) {
            terminal::note(&format!("no tokens are guessed: {reason}"));
        }
    }
}

type Load<M> = Box<dyn FnOnce(&LoadOptions) -> Result<M> + Send>;

/// What commands work with.
struct Program<M> {
    info: &'static ModelInfo,
    checks: &'static Checks,
    assets: Assets,
    global: Global,
    load: Load<M>,
}

impl<M: LanguageModel + 'static> Program<M> {
    fn text(&self) -> Result<Arc<Text>> {
        Ok(Arc::new(Text::load(&self.assets)?))
    }

    fn load_options(&self) -> Result<LoadOptions> {
        let options = LoadOptions {
            weights: weights::locate(self.global.weights.as_deref(), &self.assets)?,
            context: self.global.context,
        };
        options.context_for(self.info)?;
        Ok(options)
    }

    /// Loads the model and says so on stderr.
    fn model(self) -> Result<M> {
        let options = self.load_options()?;
        let start = std::time::Instant::now();
        let model = (self.load)(&options)?;
        terminal::note(&format!(
            "{}: {} of weights, context {} of {} tokens, loaded in {:.2} s",
            self.info.name,
            format_bytes(self.info.weights_bytes),
            model.context(),
            self.info.trained_context,
            start.elapsed().as_secs_f64()
        ));
        Ok(model)
    }
}

/// Runs the program: reads the command line, loads the model with `load` if the command needs it, and gives the exit code.
/// `checks` tell `verify` what the kernels are.
///
/// Call it first thing in `main`.
pub fn run<M: LanguageModel + 'static>(
    info: &'static ModelInfo,
    checks: &'static Checks,
    assets: Assets,
    load: impl FnOnce(&LoadOptions) -> Result<M> + Send + 'static,
) -> ExitCode {
    // SAFETY: this is the start of the program, before any thread of ours.
    unsafe { gpu::prepare_process() };
    let cli = match parse(info) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nothing is left to do when even printing fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // One type for every model, so that the commands are compiled here, once, and not with each of them.
    let load = move |options: &LoadOptions| load(options).map(|model| Box::new(model) as Box<dyn LanguageModel>);
    let program = Program { info, checks, assets, global: cli.global, load: Box::new(load) };
    match dispatch(program, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            terminal::error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(program: Program<Box<dyn LanguageModel>>, command: Command) -> Result<()> {
    match command {
        Command::Generate(options) => generate::run(program, &options),
        Command::Chat(options) => chat::run(program, &options),
        #[cfg(feature = "server")]
        Command::Serve(options) => serve::run(program, &options),
        Command::Logits(options) => logits::run(program, &options),
        Command::Tokenize(options) => tokenize::run(&program, &options),
        Command::Info => info::run(&program),
        Command::Bench(options) => bench::run(program, &options),
        Command::Perplexity(options) => perplexity::run(program, &options),
        Command::Imatrix(options) => imatrix::run(program, &options),
        Command::Profile(options) => profile::run(program, &options),
        Command::Tune(options) => tune::run(program, &options),
        Command::Verify(options) => verify::run(program, &options),
    }
}

fn parse(info: &ModelInfo) -> Result<Cli, clap::Error> {
    let name = info.name;
    let about = format!(
        "{name}: a {} model of {} parameters, generated by Forge from {}",
        info.architecture,
        count(info.parameters),
        info.source
    );
    let serve = if cfg!(feature = "server") { format!("  {name} serve --port 8080\n") } else { String::new() };
    let examples = format!(
        "Examples:\n  {name} generate \"Once upon a time\"\n  {name} generate --raw --temperature 0 --max-tokens 50 \"Once upon\"\n  \
         echo \"Tell me a story.\" | {name} generate -\n  {name} chat --system \"Be brief.\"\n{serve}  \
         {name} bench --prompt 512 --gen 64\n  {name} profile --context 4096 --trace trace.json"
    );
    let command = Cli::command().name(name).about(about).after_help(examples);
    Cli::from_arg_matches(&command.try_get_matches()?)
}

/// A count as a person says it: `1.24 B`, `135 M`.
fn count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.0} K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}
