//! `tokenize`: the ids of a text or of a chat, as one JSON object on stdout.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::{Error, LanguageModel, Result};
use super::{Program, terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The text.
    #[arg(required_unless_present = "chat", conflicts_with = "chat", allow_hyphen_values = true)]
    text: Option<String>,
    /// Leave out the tokens that the tokenizer adds by itself.
    #[arg(long, conflicts_with = "chat")]
    no_special: bool,
    /// A JSON file with a list of messages, or an object with `messages` and other variables of the chat template,
    /// `continue_final_message` among them.
    #[arg(long, value_name = "FILE")]
    chat: Option<PathBuf>,
    /// A JSON file with a list of tools, for the chat template.
    #[arg(long, value_name = "FILE", requires = "chat")]
    tools: Option<PathBuf>,
    /// Leave out the opening of the assistant's answer.
    #[arg(long, requires = "chat")]
    no_generation_prompt: bool,
}

pub(super) fn run<M: LanguageModel + 'static>(program: &Program<M>, options: &Options) -> Result<()> {
    let text = program.text()?;
    let answer = if let Some(path) = &options.chat {
        let mut chat = match read_json(path)? {
            Value::Object(fields) => fields,
            messages => Map::from_iter([("messages".to_owned(), messages)]),
        };
        if let Some(path) = &options.tools {
            chat.insert("tools".into(), read_json(path)?);
        }
        if options.no_generation_prompt {
            chat.insert("add_generation_prompt".into(), false.into());
        }
        let rendered = text.prompt_of(&Value::Object(chat))?;
        json!({ "ids": text.tokenizer.encode(&rendered, false)?, "rendered": rendered })
    } else {
        let ids = text.tokenizer.encode(options.text.as_deref().unwrap_or_default(), !options.no_special)?;
        json!({ "ids": ids })
    };
    terminal::print(&format!("{answer}\n"))
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}
