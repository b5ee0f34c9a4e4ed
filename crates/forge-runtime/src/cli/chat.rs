//! `chat`: a conversation on the terminal.

use std::io::BufRead;

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::chat_templates::Ending;
use super::super::generation::speculation::Speculation;
use super::super::generation::{Engine, Finish, Request};
use super::super::{Error, LanguageModel, Result};
use super::generate::{Printer, rates, speculate};
use super::{Program, Sampling, terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Instructions that come before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of one answer [default: what the context holds].
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    sampling: Sampling,
    /// Tokens to guess from what came before, as rows of a step that save steps where they are right and never change the
    /// text: off, a number, or auto for as many as pay.
    #[arg(long, value_name = "N", default_value = "off")]
    speculate: Speculation,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let text = program.text()?;
    if text.templates.is_empty() {
        return Err(Error::NoTemplate);
    }
    let sampling = text.defaults.sampling(&options.sampling.options())?;
    let mut engine = Engine::new(program.model()?, text.clone());
    speculate(&mut engine, options.speculate);
    terminal::note("An empty line or the end of input leaves; /new starts over.");
    let system = options.system.iter().map(|content| json!({ "role": "system", "content": content }));
    let opening: Vec<Value> = system.collect();
    let mut messages = opening.clone();
    while let Some(line) = ask()? {
        if line == "/new" {
            messages.clone_from(&opening);
            continue;
        }
        messages.push(json!({ "role": "user", "content": line }));
        let prompt = text.render_chat(&Value::Array(messages.clone()), Ending::Opened, &Map::new())?;
        let request = Request {
            prompt: text.tokenizer.encode_within(&prompt, false, engine.model().context())?,
            max_tokens: options.max_tokens,
            sampling: sampling.clone(),
            stop: Vec::new(),
            continues_prompt: false,
        };
        let mut printer = Printer::default();
        let summary = match engine.generate(&request, &mut printer) {
            Err(error @ Error::PromptTooLong { .. }) => {
                terminal::error(&format!("{error}; /new starts over"));
                messages.pop();
                continue;
            }
            other => other?,
        };
        printer.end()?;
        terminal::note(&rates(&summary));
        if summary.finish == Finish::Length && options.max_tokens.is_none() {
            terminal::note("The context is full; /new starts over.");
        }
        messages.push(json!({ "role": "assistant", "content": printer.text }));
    }
    Ok(())
}

fn ask() -> Result<Option<String>> {
    terminal::ask("> ");
    let mut line = String::new();
    let io = |source| Error::Io { path: "standard input".into(), source };
    std::io::stdin().lock().read_line(&mut line).map_err(io)?;
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}
