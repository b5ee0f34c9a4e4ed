//! Lines from the terminal, edited and remembered, or from standard input.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use super::super::super::{Error, Result};
use super::super::terminal;

const PROMPT: &str = "> ";
/// A line of its own around several.
const FENCE: &str = "\"\"\"";
/// Lines that are remembered.
const REMEMBERED: usize = 1000;

/// What was typed.
pub enum Line {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    End,
}

/// Where lines come from.
pub enum Input {
    /// A terminal; the file remembers lines for the next time.
    Editor(Box<Editor<Whole, FileHistory>>, Option<PathBuf>),
    /// Something else, or a terminal that cannot be edited on.
    Lines,
}

impl Input {
    /// The terminal, if standard input and what is said beside answers go to one.
    pub fn open(program: &str) -> Self {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return Self::Lines;
        }
        let config =
            Config::builder().max_history_size(REMEMBERED).map(|config| config.auto_add_history(false).build());
        let Ok(mut editor) = config.and_then(Editor::with_config) else { return Self::Lines };
        editor.set_helper(Some(Whole));
        let history = history(program);
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Self::Editor(Box::new(editor), history)
    }

    /// What there is to know before the first line.
    pub fn greeting(&self) -> &'static str {
        match self {
            Self::Editor(..) => "Ctrl-D leaves; Ctrl-C ends an answer; /help shows commands.",
            Self::Lines => "An empty line or the end of input leaves; /new starts over.",
        }
    }

    /// The next message or command.
    pub fn read(&mut self) -> Result<Line> {
        let (editor, history) = match self {
            Self::Lines => return read_line(),
            Self::Editor(editor, history) => (editor, history),
        };
        loop {
            let line = match editor.readline(PROMPT) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => return Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => return Ok(Line::End),
                Err(ReadlineError::Io(source)) => return Err(stdin_error(source)),
                Err(error) => return Err(stdin_error(std::io::Error::other(error.to_string()))),
            };
            let text = joined(&line);
            if text.is_empty() {
                continue;
            }
            let _ = editor.add_history_entry(line.as_str());
            if let Some(path) = history {
                // A history that cannot be kept is no reason to stop.
                let _ = editor.append_history(path);
            }
            return Ok(Line::Text(text));
        }
    }
}

fn read_line() -> Result<Line> {
    terminal::ask(PROMPT);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(stdin_error)?;
    let line = line.trim();
    Ok(if line.is_empty() { Line::End } else { Line::Text(line.to_owned()) })
}

fn stdin_error(source: std::io::Error) -> Error {
    Error::Io { path: "standard input".into(), source }
}

/// `FORGE_HISTORY`, which may be empty for none; else a file of the program's own in `XDG_STATE_HOME` or `~/.local/state`.
fn history(program: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FORGE_HISTORY") {
        return (!path.is_empty()).then(|| path.into());
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    let folder = state.join(program);
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("chat-history"))
}

/// A message as it was meant: without what only said that a line goes on.
fn joined(typed: &str) -> String {
    let typed = typed.trim();
    if let Some(rest) = typed.strip_prefix(FENCE) {
        return rest.strip_suffix(FENCE).unwrap_or(rest).trim_matches('\n').to_owned();
    }
    typed.replace("\\\n", "\n")
}

/// Whether what is typed wants another line.
fn goes_on(typed: &str) -> bool {
    match typed.trim_start().strip_prefix(FENCE) {
        Some(rest) => !rest.trim_end().ends_with(FENCE),
        None => typed.ends_with('\\'),
    }
}

/// Tells the editor when a message is whole.
pub struct Whole;

impl Validator for Whole {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if goes_on(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Completer for Whole {
    type Candidate = String;
}

impl Hinter for Whole {
    type Hint = String;
}

impl Highlighter for Whole {}
impl Helper for Whole {}

#[cfg(test)]
mod tests {
    use super::{goes_on, joined};

    #[test]
    fn messages_of_several_lines() {
        for (typed, expected) in
            [("a\\", true), ("a\\\nb", false), ("\"\"\"", true), ("\"\"\"\na\n", true), ("\"\"\"a\"\"\"", false)]
        {
            assert_eq!(goes_on(typed), expected, "{typed}");
        }
        assert_eq!(joined("a\\\nb"), "a\nb");
        assert_eq!(joined("\"\"\"\na\n\nb\n\"\"\""), "a\n\nb");
        assert_eq!(joined("  a "), "a");
    }
}
