//! An answer as it comes: printed, and kept as the message that it becomes.

use std::io::IsTerminal;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::super::assets::Text;
use super::super::super::generation::Listener;
#[cfg(feature = "server")]
use super::super::super::server::tools::{Part, Reader, Thinking};
use super::super::super::{Error, Result};
use super::super::{interrupt, terminal};

/// Hears one answer. On a terminal its reasoning is dimmed and its marks are left out; elsewhere everything comes as the model
/// writes it. What knows reasoning is part of the server: without that feature all of an answer is content.
pub struct Answer {
    reader: Taker,
    /// Whether reasoning is shown as such.
    dimmed: bool,
    content: String,
    reasoning: String,
    /// What was printed last, for the end of its line.
    printed: String,
    inside: bool,
    failure: Option<Error>,
}

/// Takes an answer apart.
#[cfg(feature = "server")]
struct Taker {
    reader: Reader,
    tags: Vec<(u32, String)>,
}

/// Takes an answer as it is.
#[cfg(not(feature = "server"))]
struct Taker;

#[cfg(feature = "server")]
impl Taker {
    fn new(text: &Text, prompt: &str) -> Self {
        let thinking = Thinking::of(text);
        let inside = thinking.is_open_at_end_of(prompt);
        Self { tags: thinking.special_tags(text), reader: Reader::new(None, Vec::new(), &thinking, inside) }
    }

    fn special(&self, token: u32) -> Option<&str> {
        self.tags.iter().find(|(id, _)| *id == token).map(|(_, tag)| tag.as_str())
    }

    /// Pieces, and whether each is reasoning.
    fn push(&mut self, piece: &str) -> Vec<(bool, String)> {
        pieces(self.reader.push(piece))
    }

    fn finish(&mut self) -> Vec<(bool, String)> {
        pieces(self.reader.finish())
    }
}

#[cfg(feature = "server")]
fn pieces(parts: Vec<Part>) -> Vec<(bool, String)> {
    let piece = |part| match part {
        Part::Content(text) => Some((false, text)),
        Part::Reasoning(text) => Some((true, text)),
        // Nobody offered a function.
        Part::Call { .. } => None,
    };
    parts.into_iter().filter_map(piece).collect()
}

#[cfg(not(feature = "server"))]
impl Taker {
    fn new(_: &Text, _: &str) -> Self {
        Self
    }

    fn special(&self, _: u32) -> Option<&str> {
        None
    }

    fn push(&mut self, piece: &str) -> Vec<(bool, String)> {
        vec![(false, piece.to_owned())]
    }

    fn finish(&mut self) -> Vec<(bool, String)> {
        Vec::new()
    }
}

impl Answer {
    /// An answer to this prompt, which may end inside of the reasoning.
    pub fn new(text: &Arc<Text>, prompt: &str) -> Self {
        Self {
            reader: Taker::new(text, prompt),
            dimmed: std::io::stdout().is_terminal(),
            content: String::new(),
            reasoning: String::new(),
            printed: String::new(),
            inside: false,
            failure: None,
        }
    }

    fn take(&mut self, pieces: Vec<(bool, String)>) {
        for (is_reasoning, text) in pieces {
            if self.dimmed {
                if self.inside && !is_reasoning {
                    self.print("\n\n");
                }
                let shown = if is_reasoning { terminal::dim(&text) } else { text.clone() };
                self.print(&shown);
            }
            self.inside = is_reasoning;
            if is_reasoning { &mut self.reasoning } else { &mut self.content }.push_str(&text);
        }
    }

    fn print(&mut self, text: &str) {
        if self.failure.is_none() {
            self.failure = terminal::print(text).err();
        }
        if !text.is_empty() {
            self.printed.clear();
            self.printed.push_str(text);
        }
    }

    /// Ends the last line; the message.
    ///
    /// # Errors
    /// What went wrong with printing.
    pub fn end(mut self) -> Result<Value> {
        let rest = self.reader.finish();
        self.take(rest);
        if !self.printed.ends_with('\n') {
            self.print("\n");
        }
        if let Some(error) = self.failure {
            return Err(error);
        }
        let mut message = json!({ "role": "assistant", "content": self.content });
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = self.reasoning.into();
        }
        Ok(message)
    }
}

impl Listener for Answer {
    fn text(&mut self, text: &str) -> bool {
        if !self.dimmed {
            self.print(text);
        }
        let pieces = self.reader.push(text);
        self.take(pieces);
        self.failure.is_none()
    }

    fn special(&self, token: u32) -> Option<&str> {
        self.reader.special(token)
    }

    fn keep_going(&mut self) -> bool {
        !interrupt::asked()
    }
}
