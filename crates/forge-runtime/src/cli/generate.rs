//! `generate`: one prompt, one answer, streamed to stdout.

use std::io::Read;

use clap::Args;
use serde_json::{Map, json};

use super::super::chat_templates::Ending;
use super::super::generation::{Engine, Listener, Request, Summary};
use super::super::{Error, LanguageModel, Result};
use super::{Guesses, Program, Sampling, terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The prompt; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    prompt: String,
    /// Stop after this many tokens.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Continue the prompt as it is, without the chat template.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    guesses: Guesses,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let text = program.text()?;
    let sampling = text.defaults.sampling(&options.sampling.options())?;
    let prompt = match options.prompt.as_str() {
        "-" => read_stdin()?,
        prompt => prompt.to_owned(),
    };
    let raw = options.raw || text.templates.is_empty();
    let (prompt, special) = if raw {
        (prompt, true)
    } else {
        (text.render_chat(&json!([{ "role": "user", "content": prompt }]), Ending::Opened, &Map::new())?, false)
    };
    let context = program.load_options()?.context_for(program.info)?;
    let request = Request {
        prompt: text.tokenizer.encode_within(&prompt, special, context)?,
        max_tokens: Some(options.max_tokens),
        sampling,
        stop: Vec::new(),
        continues_prompt: raw,
        ..Request::default()
    };
    let mut engine = Engine::new(program.model()?, text);
    options.guesses.apply(&mut engine);
    let mut printer = Printer::default();
    let summary = engine.generate(&request, &mut printer)?;
    printer.end()?;
    terminal::note(&rates(&summary));
    Ok(())
}

/// Prints text as it comes; a failure to print ends the generation.
#[derive(Default)]
pub(super) struct Printer {
    pub(super) text: String,
    failure: Option<Error>,
}

impl Printer {
    /// Ends the last line.
    ///
    /// # Errors
    /// What went wrong with printing, now or before.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.failure.take() {
            Some(error) => Err(error),
            None if self.text.ends_with('\n') => Ok(()),
            None => terminal::print("\n"),
        }
    }
}

impl Listener for Printer {
    fn text(&mut self, text: &str) -> bool {
        self.text.push_str(text);
        self.failure = terminal::print(text).err();
        self.failure.is_none()
    }
}

/// One line on how fast it went.
pub(super) fn rates(summary: &Summary) -> String {
    let rate = |tokens: usize, time: std::time::Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let fresh = summary.prompt_tokens - summary.reused_tokens;
    let mut line = format!("prompt: {fresh} tokens, {:.1} tokens/s", rate(fresh, summary.prompt_time));
    if summary.reused_tokens > 0 {
        line += &format!(" ({} more from before)", summary.reused_tokens);
    }
    // The first token comes out of the prompt's own run.
    if let Some(decoded @ 1..) = summary.completion_tokens.checked_sub(1) {
        line += &format!("; generated: {} tokens, {:.1} tokens/s", decoded + 1, rate(decoded, summary.decode_time));
    }
    if summary.guessed_tokens > 0 {
        line += &format!("; {} of {} guessed tokens were right", summary.right_tokens, summary.guessed_tokens);
    }
    line
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    let io = |source| Error::Io { path: "standard input".into(), source };
    std::io::stdin().lock().read_to_string(&mut text).map_err(io)?;
    Ok(text)
}
