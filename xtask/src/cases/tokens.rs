//! `tokenizer_cases.json` through the tokenizer of a generated project.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::files::Case;
use crate::shell;

#[derive(Deserialize)]
struct Cases {
    strings: Vec<Text>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    ids_no_special: Vec<u32>,
}

#[derive(Deserialize)]
struct Chat {
    messages: Value,
    add_generation_prompt: bool,
    rendered: String,
    ids: Vec<u32>,
}

/// What `tokenize` prints.
#[derive(Deserialize)]
struct Tokenized {
    ids: Vec<u32>,
    rendered: Option<String>,
}

/// How many checks were made, and a line for each that failed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Checks made.
    pub checks: usize,
    /// What differed.
    pub failures: Vec<String>,
}

impl Outcome {
    fn check(&mut self, what: impl FnOnce() -> String, equal: bool) {
        self.checks += 1;
        if !equal {
            self.failures.push(what());
        }
    }
}

/// Runs every string and chat of the case through `program tokenize`.
///
/// # Errors
/// Unreadable cases; a program that fails counts as a failed check.
pub fn run(case: &Case, program: &Path) -> Result<Outcome> {
    let path = case.path.join("tokenizer_cases.json");
    let mut outcome = Outcome::default();
    if !path.is_file() {
        return Ok(outcome);
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let cases: Cases =
        serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    for Text { text, ids, ids_no_special } in &cases.strings {
        for (flags, expected) in [(&[][..], ids), (&["--no-special"][..], ids_no_special)] {
            let found = tokenize(Command::new(program).arg("tokenize").args(flags).args(["--", text]));
            let equal = matches!(&found, Ok(found) if found.ids == *expected);
            let found = found.map(|found| found.ids);
            outcome.check(|| format!("{flags:?} {text:?}: {found:?}, expected {expected:?}"), equal);
        }
    }
    let scratch = tempfile::tempdir()?;
    for (index, chat) in cases.chats.iter().enumerate() {
        let file = scratch.path().join("messages.json");
        let request = json!({
            "messages": chat.messages,
            "add_generation_prompt": chat.add_generation_prompt,
        });
        std::fs::write(&file, request.to_string())?;
        let found = tokenize(Command::new(program).args(["tokenize", "--chat"]).arg(&file));
        let equal = matches!(&found, Ok(found)
            if found.ids == chat.ids && found.rendered.as_ref() == Some(&chat.rendered));
        let found = found.map(|found| (found.rendered, found.ids));
        let expected = (&chat.rendered, &chat.ids);
        outcome.check(|| format!("chat {index}: {found:?}, expected {expected:?}"), equal);
    }
    Ok(outcome)
}

fn tokenize(command: &mut Command) -> Result<Tokenized> {
    let text = shell::capture(command)?;
    serde_json::from_str(&text).with_context(|| format!("{} printed {text:?}", shell::display(command)))
}
