//! Reasoning that is held to so many tokens.

use std::sync::Arc;

use super::super::Result;
use super::super::tokenizer::Tokenizer;
use super::Constraint;

/// Most tokens beyond the limit that a character may need to its end.
const REST_OF_CHARACTER: usize = 3;

/// How a model marks its reasoning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReasoningMarks {
    /// What begins it, one of these, at the beginning of an answer and, if it comes in several parts, behind each.
    pub open: Vec<String>,
    /// What ends it, or a part of it.
    pub close: String,
    /// Whether further parts may follow.
    pub parts: bool,
    /// What it is ended with where the model does not end it.
    pub end: String,
}

/// Ends reasoning after so many tokens. All else is as free, or as held, as it was.
#[derive(Clone)]
pub struct Budget {
    tokenizer: Arc<Tokenizer>,
    marks: ReasoningMarks,
    /// Tokens of what it is ended with.
    end: Vec<u32>,
    most: usize,
    /// Tokens of reasoning so far.
    used: usize,
    at: At,
    /// What the tokens are held to besides.
    form: Option<Box<dyn Constraint>>,
}

/// Where an answer is.
#[derive(Debug, Clone)]
enum At {
    /// Where reasoning may begin, behind this much of what begins it.
    Start(Vec<u8>),
    /// In it; the end of its text.
    Inside(Vec<u8>),
    /// So many tokens of its end were said.
    Ending(usize),
    /// Behind it.
    Behind,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("most", &self.most).field("used", &self.used).field("at", &self.at).finish()
    }
}

impl Budget {
    /// Of `most` tokens. `inside` says that the prompt ends in the reasoning; `form` is what the answer is held to besides.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](super::super::Error::Tokenizer) of marks that cannot be tokenized.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        marks: ReasoningMarks,
        most: usize,
        inside: bool,
        form: Option<Box<dyn Constraint>>,
    ) -> Result<Self> {
        let end = tokenizer.encode(&marks.end, false)?;
        let at = match (end.is_empty(), inside) {
            (true, _) => At::Behind,
            (false, true) => At::Inside(Vec::new()),
            (false, false) => At::Start(Vec::new()),
        };
        Ok(Self { tokenizer, marks, end, most, used: 0, at, form })
    }

    /// The token that comes next whatever the model says.
    fn due(&self) -> Option<u32> {
        match &self.at {
            At::Ending(said) => self.end.get(*said).copied(),
            At::Inside(tail) => {
                let beyond = self.used.checked_sub(self.most)?;
                (beyond >= REST_OF_CHARACTER || ends_whole(tail)).then(|| self.end.first().copied())?
            }
            At::Start(_) | At::Behind => None,
        }
    }
}

impl Constraint for Budget {
    fn allow(&mut self, allowed: &mut [u32]) -> Result<()> {
        match &mut self.form {
            Some(form) => form.allow(allowed)?,
            None => allowed.fill(u32::MAX),
        }
        if let Some(due) = self.due() {
            allowed.fill(0);
            if let Some(word) = allowed.get_mut(due as usize / 32) {
                *word = 1 << (due % 32);
            }
        }
        Ok(())
    }

    fn forced(&mut self) -> &[u32] {
        let due = self.due().is_some();
        match (&self.at, &mut self.form) {
            (At::Ending(said), _) => self.end.get(*said..).unwrap_or_default(),
            (At::Inside(_), _) if due => &self.end,
            (At::Behind, Some(form)) => form.forced(),
            (At::Start(_) | At::Inside(_) | At::Behind, _) => &[],
        }
    }

    fn take(&mut self, token: u32) -> Result<bool> {
        let due = self.due();
        let text = self.tokenizer.bytes_or_name(token);
        let next = match &mut self.at {
            At::Start(begun) => {
                begun.extend(text);
                let begun = begun.trim_ascii_start();
                if self.marks.open.iter().any(|open| begun.starts_with(open.as_bytes())) {
                    Some(At::Inside(Vec::new()))
                } else {
                    let open = self.marks.open.iter().any(|open| open.as_bytes().starts_with(begun));
                    (!open).then_some(At::Behind)
                }
            }
            At::Inside(_) if due == Some(token) => Some(At::Ending(1)),
            At::Inside(tail) => {
                self.used += 1;
                tail.extend(text);
                let close = self.marks.close.as_bytes();
                if !close.is_empty() && tail.windows(close.len()).any(|part| part == close) {
                    Some(if self.marks.parts { At::Start(Vec::new()) } else { At::Behind })
                } else {
                    let keep = tail.len().min(close.len().max(4));
                    tail.drain(..tail.len() - keep);
                    None
                }
            }
            At::Ending(said) => {
                *said += 1;
                None
            }
            At::Behind => None,
        };
        if let Some(next) = next {
            self.at = next;
        }
        if let At::Ending(said) = self.at
            && said >= self.end.len()
        {
            self.at = At::Behind;
        }
        match &mut self.form {
            Some(form) => form.take(token),
            None => Ok(false),
        }
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// Whether a text does not end within a character.
fn ends_whole(text: &[u8]) -> bool {
    let Some(last) = text.iter().rposition(|byte| byte & 0xC0 != 0x80) else { return true };
    let length = match text[last] {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF7 => 4,
        _ => 1,
    };
    text.len() - last >= length
}
