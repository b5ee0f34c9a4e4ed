//! Output: stdout that reports a closed pipe, notes and errors on stderr, colour on terminals only.

use std::io::{IsTerminal, Write};

use super::super::{Error, Result};

/// Writes to stdout at once.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(stdout_error)
}

fn stdout_error(source: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), source }
}

/// A remark on stderr, dimmed on a terminal.
pub(super) fn note(text: &str) {
    say(&paint("2", text));
}

/// `text` for stdout, dimmed on a terminal.
pub(super) fn dim(text: &str) -> String {
    painted(std::io::stdout().is_terminal(), "2", text)
}

/// An error on stderr.
pub(super) fn error(text: &str) {
    say(&format!("{} {text}", paint("1;31", "error:")));
}

/// `text` on stderr without a newline; for prompts.
pub(super) fn ask(text: &str) {
    let mut err = std::io::stderr().lock();
    // A stderr that nobody reads is no reason to stop.
    let _ = write!(err, "{}", paint("1", text)).and_then(|()| err.flush());
}

/// What is being done, in place of what was said before; on terminals only. Nothing to say clears the line.
pub(super) fn progress(text: &str) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn paint(code: &str, text: &str) -> String {
    painted(std::io::stderr().is_terminal(), code, text)
}

fn painted(on_terminal: bool, code: &str, text: &str) -> String {
    if on_terminal && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
