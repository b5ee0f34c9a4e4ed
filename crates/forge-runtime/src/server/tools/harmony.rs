//! Answers in channels (gpt-oss): `<|channel|>NAME<|message|>TEXT<|end|><|start|>assistant<|channel|>...`. What is on `analysis` is
//! reasoning, what goes `to=functions.NAME` is a call, and all else is content.
//!
//! Source of the form: OpenAI's documentation of the harmony format.

use std::ops::Range;

use serde_json::{Map, Value};

use super::super::super::generation::ReasoningMarks;
use super::Part;
use super::reader::begun;

pub(super) const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const START: &str = "<|start|>";
const END: &str = "<|end|>";
pub(super) const CALL: &str = "<|call|>";
const RETURN: &str = "<|return|>";
const CONSTRAIN: &str = "<|constrain|>";

/// Every tag, for the detokenizer: all are special tokens.
pub(super) const TAGS: [&str; 7] = [CHANNEL, MESSAGE, START, END, CALL, RETURN, CONSTRAIN];

/// What a call that begins an answer begins with, up to the function's name, and where it follows another message.
pub(super) const BEFORE_NAME: &str = "<|channel|>commentary to=functions.";
const BEFORE_NAME_IN_ROLE: &str = "<|start|>assistant to=functions.";
/// From there to the arguments, each.
pub(super) const BEFORE_ARGUMENTS: &str = " <|constrain|>json<|message|>";
const BEFORE_ARGUMENTS_IN_CHANNEL: &str = "<|channel|>commentary json<|message|>";

/// Both ways in which a call begins: up to its name, and from there to its arguments.
pub(super) const CALLS: [[&str; 2]; 2] =
    [[BEFORE_NAME, BEFORE_ARGUMENTS], [BEFORE_NAME_IN_ROLE, BEFORE_ARGUMENTS_IN_CHANNEL]];

/// Tags that end a message.
const ENDS: [&str; 5] = [END, CALL, RETURN, START, CHANNEL];

/// Tags of headers, which mean nothing in a message and are left out of it.
const OF_HEADERS: [&str; 2] = [MESSAGE, CONSTRAIN];

/// What headers begin with: a tag, or what may stand behind the tag that the prompt ends with.
const HEADERS: [&str; 3] = ["<|", "assistant", "to="];

/// Longest header; what is longer without its end is none.
const LONGEST_HEADER: usize = 512;

/// What reasoning in its channel is told by. What is ended is followed by the answer.
pub(super) fn reasoning_marks() -> ReasoningMarks {
    let open = format!("{CHANNEL}analysis{MESSAGE}");
    ReasoningMarks {
        open: vec![format!("{START}assistant{open}"), open],
        close: END.into(),
        parts: true,
        end: format!("{END}{START}assistant{CHANNEL}final{MESSAGE}"),
    }
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Content,
    Reasoning,
    /// A call of this function.
    Call(String),
}

/// The state of one answer.
#[derive(Debug)]
pub(super) struct Channels {
    /// Text that has not come out yet.
    held: String,
    /// `None` in a header.
    message: Option<Kind>,
    /// Blanks that come next are left out.
    fresh: bool,
    /// Whether calls are looked for.
    calls: bool,
    /// Whether there was content, and reasoning, in a message before.
    gave: [bool; 2],
    /// Bytes of text so far.
    bytes: usize,
    /// Where the content of parts was that came out last: the part's index, and bytes of the text.
    content: Vec<(usize, Range<usize>)>,
}

impl Channels {
    /// An answer whose prompt ended with the assistant's header, or, if `thinking`, inside of the reasoning.
    pub(super) fn new(calls: bool, thinking: bool) -> Self {
        Self {
            held: String::new(),
            message: thinking.then_some(Kind::Reasoning),
            fresh: true,
            calls,
            gave: [false; 2],
            bytes: 0,
            content: Vec::new(),
        }
    }

    pub(super) fn content(&self) -> &[(usize, Range<usize>)] {
        &self.content
    }

    pub(super) fn push(&mut self, piece: &str) -> Vec<Part> {
        self.held.push_str(piece);
        self.bytes += piece.len();
        self.read(false)
    }

    pub(super) fn finish(&mut self) -> Vec<Part> {
        self.read(true)
    }

    fn read(&mut self, end: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        self.content.clear();
        while self.step(end, &mut parts) {}
        parts
    }

    fn step(&mut self, end: bool, parts: &mut Vec<Part>) -> bool {
        match self.message.clone() {
            None => self.header(end),
            Some(kind) => self.body(&kind, end, parts),
        }
    }

    /// Looks for the end of a header.
    fn header(&mut self, end: bool) -> bool {
        let header = self.held.trim_start();
        let begins = HEADERS.iter().any(|begin| header.starts_with(begin));
        if !begins && !end && HEADERS.iter().any(|begin| begin.starts_with(header)) {
            return false;
        }
        match header.find(MESSAGE).filter(|at| begins && *at <= LONGEST_HEADER) {
            Some(at) => {
                let kind = self.kind(&header[..at]);
                let used = self.held.len() - header.len() + at + MESSAGE.len();
                self.held.drain(..used);
                self.message = Some(kind);
                self.fresh = true;
                true
            }
            None if begins && !end && header.len() < LONGEST_HEADER + MESSAGE.len() => false,
            // An answer that ends in a header has nothing more to say.
            None if header.is_empty() || end && header.starts_with(HEADERS[0]) && header.len() <= LONGEST_HEADER => {
                self.held.clear();
                false
            }
            // A model that writes no channels, or a header without end: what is left would begin with one again.
            None => {
                if header.starts_with(CHANNEL) {
                    self.held.drain(..self.held.len() - header.len() + CHANNEL.len());
                }
                self.message = Some(Kind::Content);
                true
            }
        }
    }

    fn kind(&self, header: &str) -> Kind {
        let recipient = header.split("to=").nth(1).map(|rest| {
            let end = rest.find(|c: char| c.is_whitespace() || c == '<').unwrap_or(rest.len());
            &rest[..end]
        });
        if let Some(name) = recipient.and_then(|name| name.strip_prefix("functions.")).filter(|name| !name.is_empty())
            && self.calls
        {
            return Kind::Call(name.to_owned());
        }
        let channel = header.rsplit(CHANNEL).next().unwrap_or_default().trim();
        // Other tools' arguments are for nobody to read.
        if channel.starts_with("analysis") { Kind::Reasoning } else { Kind::Content }
    }

    fn body(&mut self, kind: &Kind, end: bool, parts: &mut Vec<Part>) -> bool {
        let start = self.bytes - self.held.len();
        // Arguments are looked at once they are whole.
        let is_call = matches!(kind, Kind::Call(_));
        let left_out = if is_call { &[][..] } else { &OF_HEADERS };
        let found = ENDS.iter().chain(left_out).filter_map(|tag| Some((self.held.find(tag)?, *tag))).min();
        if let Some((at, tag)) = found {
            let text = self.held[..at].to_owned();
            if left_out.contains(&tag) {
                self.held.drain(..at + tag.len());
                self.give(kind, &text, start, false, parts);
                return true;
            }
            // What begins a header is a part of it.
            let drop = if tag == CHANNEL { at } else { at + tag.len() };
            self.held.drain(..drop);
            self.give(kind, &text, start, true, parts);
            self.message = None;
            return true;
        }
        if end {
            let text = std::mem::take(&mut self.held);
            self.give(kind, &text, start, true, parts);
            return false;
        }
        if is_call {
            return false;
        }
        let kept = ENDS.iter().chain(left_out).map(|tag| begun(&self.held, tag)).max().unwrap_or(0);
        let certain = self.held[..self.held.len() - kept].trim_end().len();
        let text: String = self.held.drain(..certain).collect();
        self.give(kind, &text, start, false, parts);
        false
    }

    /// Gives out text of a message, which begins at `start` and ends here if it is the `last`.
    fn give(&mut self, kind: &Kind, text: &str, start: usize, last: bool, parts: &mut Vec<Part>) {
        let blanks = if self.fresh { text.len() - text.trim_start().len() } else { 0 };
        let (text, start) = (&text[blanks..], start + blanks);
        let text = if last { text.trim_end() } else { text };
        let range = start..start + text.len();
        let first = self.fresh && !text.is_empty();
        self.fresh &= text.is_empty();
        let text = match kind {
            Kind::Content | Kind::Reasoning => {
                let gave = &mut self.gave[usize::from(*kind == Kind::Reasoning)];
                let apart = if first && *gave { "\n\n" } else { "" };
                *gave |= first;
                &format!("{apart}{text}")
            }
            Kind::Call(_) => text,
        };
        match kind {
            Kind::Call(name) => {
                let arguments = if text.is_empty() { "{}" } else { text };
                if serde_json::from_str::<Map<String, Value>>(arguments).is_ok() {
                    parts.push(Part::Call { name: name.clone(), arguments: arguments.to_owned() });
                } else {
                    self.give_without_tags(text, range.start, parts);
                }
            }
            Kind::Content => self.give_content(text, range, parts),
            Kind::Reasoning if text.is_empty() => {}
            Kind::Reasoning => parts.push(Part::Reasoning(text.into())),
        }
    }

    /// Gives out what was to be a call's arguments as content, from `start` on.
    fn give_without_tags(&mut self, mut text: &str, mut start: usize, parts: &mut Vec<Part>) {
        while let Some((at, tag)) = OF_HEADERS.iter().filter_map(|tag| Some((text.find(tag)?, *tag))).min() {
            self.give_content(&text[..at], start..start + at, parts);
            (text, start) = (&text[at + tag.len()..], start + at + tag.len());
        }
        self.give_content(text, start..start + text.len(), parts);
    }

    /// Gives out content of this range.
    fn give_content(&mut self, text: &str, range: Range<usize>, parts: &mut Vec<Part>) {
        if !text.is_empty() {
            self.content.push((parts.len(), range));
            parts.push(Part::Content(text.into()));
        }
    }
}
