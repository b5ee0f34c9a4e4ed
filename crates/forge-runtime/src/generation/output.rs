//! From ids to a listener: detokenizing, and holding back what may turn out to be a stop string.

use std::sync::Arc;

use super::super::Result;
use super::super::assets::Text;
use super::super::tokenizer::{Detokenizer, Tokenizer};
use super::{Finish, Listener, Request};

/// Whether a text goes on.
pub(super) enum Flow {
    Continue,
    Stop(Finish),
}

/// The text of one sequence.
pub(super) struct Output {
    detokenizer: Detokenizer<Arc<Tokenizer>>,
    stops: StopMatcher,
    /// Bytes of text so far.
    bytes: usize,
}

impl Output {
    pub(super) fn new(text: &Text, request: &Request) -> Result<Self> {
        let tokenizer = text.tokenizer.clone();
        let detokenizer = if request.continues_prompt {
            Detokenizer::after(tokenizer, &request.prompt)?
        } else {
            Detokenizer::new(tokenizer)
        };
        Ok(Self { detokenizer, stops: StopMatcher::new(request.stop.clone()), bytes: 0 })
    }

    /// Bytes of text so far, what is held back among them; half a character is not.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next token.
    pub(super) fn push(&mut self, token: u32, listener: &mut dyn Listener) -> Result<Flow> {
        let tokenizer = self.detokenizer.tokenizer();
        let piece = match listener.special(token).filter(|_| tokenizer.is_special(token)) {
            Some(tag) => {
                // What comes after it is a text of its own.
                let next = Detokenizer::new(tokenizer.clone());
                std::mem::replace(&mut self.detokenizer, next).finish()? + tag
            }
            None => self.detokenizer.push(token)?,
        };
        self.bytes += piece.len();
        Ok(self.pass_on(&piece, listener))
    }

    fn pass_on(&mut self, piece: &str, listener: &mut dyn Listener) -> Flow {
        let (certain, stopped) = self.stops.push(piece);
        if !certain.is_empty() && !listener.text(&certain) {
            return Flow::Stop(Finish::Cancelled);
        }
        if stopped { Flow::Stop(Finish::Stop) } else { Flow::Continue }
    }

    /// Passes on what was held back. A stop string may still show up in it.
    /// Gives the stop string that the text ended with, if it did.
    pub(super) fn finish(self, finish: Finish, listener: &mut dyn Listener) -> Result<Option<String>> {
        let Self { detokenizer, mut stops, .. } = self;
        if finish == Finish::Cancelled {
            return Ok(None);
        }
        if stops.matched.is_some() {
            return Ok(stops.matched);
        }
        let (mut rest, stopped) = stops.push(&detokenizer.finish()?);
        if !stopped {
            rest.push_str(&stops.held);
        }
        if !rest.is_empty() {
            listener.text(&rest);
        }
        Ok(stops.matched)
    }
}

/// Finds stop strings in a text that comes in pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    /// The one that was found.
    matched: Option<String>,
}

impl StopMatcher {
    /// Looks for `stops`; empty ones are ignored.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), matched: None }
    }

    /// Takes the next piece. Gives the text that is certainly not part of a stop string, and whether one was found; the text
    /// then ends before it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop)?, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, _)| *at) {
            self.matched = Some(stop.clone());
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.stops.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }
}

/// Bytes of the longest end of `text` that `stop` begins with.
fn begun(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|len| text.as_bytes().ends_with(&stop.as_bytes()[..*len])).unwrap_or(0)
}
