//! What an answer consists of, in no dialect's words: events as they come, and the items that they make.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use super::super::super::generation::{Finish, Score, Scored, Summary};
use super::super::super::tokenizer::Tokenizer;
use super::super::api_error::ApiError;
use super::super::tools::{CallForm, Part, Reader, Thinking, Tool};

/// An event of an answer.
#[derive(Debug)]
pub(in super::super) enum Output {
    /// Text for the reader.
    Text(Piece),
    /// Text of the model to itself.
    Reasoning(String),
    /// A call of a function begins.
    CallBegin {
        /// Which no other call has.
        id: String,
        /// The function's.
        name: String,
    },
    /// The next piece of its arguments, which together are a JSON object.
    CallArguments(String),
    /// It is whole.
    CallEnd,
    /// The end; nothing comes after it.
    End(End),
    /// The end where something went wrong.
    Failed(ApiError),
}

impl Output {
    /// The end, if it is that.
    pub(in super::super) fn end(&self) -> Option<&End> {
        match self {
            Self::End(end) => Some(end),
            _ => None,
        }
    }
}

/// Text for the reader, and how probable its tokens were, where that was asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct Piece {
    pub(in super::super) text: String,
    pub(in super::super) scores: Vec<Mark>,
}

/// A token of a piece of text.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Mark {
    /// Bytes of the piece before it; of one run of text where the piece is put together of several.
    pub(in super::super) at: usize,
    /// The token.
    pub(in super::super) token: Score,
    /// The most probable ones in its place, the best first; nothing is known of them at the beginning of a text.
    pub(in super::super) top: Option<Vec<Score>>,
}

impl Mark {
    /// A token that was chosen.
    pub(in super::super) fn new(at: usize, scored: Scored) -> Self {
        Self { at, token: scored.token, top: Some(scored.top) }
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Self { text, scores: Vec::new() }
    }
}

impl Piece {
    /// Adds what comes next.
    fn push(&mut self, next: &Self) {
        let before = self.text.len();
        self.text += &next.text;
        self.scores.extend(next.scores.iter().map(|mark| Mark { at: before + mark.at, ..mark.clone() }));
    }
}

/// A part of a whole answer.
#[derive(Debug, PartialEq)]
pub(in super::super) enum Item {
    /// Text for the reader.
    Text(Piece),
    /// Text of the model to itself.
    Reasoning(String),
    /// A call of a function.
    Call {
        /// Which no other call has.
        id: String,
        /// The function's.
        name: String,
        /// A JSON object.
        arguments: String,
    },
}

impl Item {
    /// Adds an event to the parts of an answer.
    pub(in super::super) fn add(items: &mut Vec<Self>, output: &Output) {
        match (output, items.last_mut()) {
            (Output::Text(piece), Some(Self::Text(text))) => text.push(piece),
            (Output::Text(piece), _) => items.push(Self::Text(piece.clone())),
            (Output::Reasoning(piece), Some(Self::Reasoning(text))) => text.push_str(piece),
            (Output::Reasoning(piece), _) => items.push(Self::Reasoning(piece.clone())),
            (Output::CallBegin { id, name }, _) => {
                items.push(Self::Call { id: id.clone(), name: name.clone(), arguments: String::new() });
            }
            (Output::CallArguments(piece), Some(Self::Call { arguments, .. })) => arguments.push_str(piece),
            (Output::CallArguments(_) | Output::CallEnd | Output::End(_) | Output::Failed(_), _) => {}
        }
    }
}

/// How an answer ended.
#[derive(Debug, Clone)]
pub(in super::super) struct End {
    /// Why.
    pub(in super::super) why: Why,
    /// What the generation came to.
    pub(in super::super) summary: Summary,
    /// Tokens of reasoning, as the tokenizer has its text.
    pub(in super::super) reasoning_tokens: usize,
}

impl End {
    /// What all choices of an answer came to: the prompt counts once.
    pub(in super::super) fn summary_of<'a>(ends: impl IntoIterator<Item = &'a Self>) -> Option<Summary> {
        let mut ends = ends.into_iter();
        let first = ends.next()?.summary.clone();
        Some(ends.fold(first, |mut all, End { summary, .. }| {
            all.completion_tokens += summary.completion_tokens;
            all.queue_time = all.queue_time.max(summary.queue_time);
            all.prompt_time = all.prompt_time.max(summary.prompt_time);
            all.decode_time = all.decode_time.max(summary.decode_time);
            all
        }))
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Why {
    /// The model had nothing more to say, or a stop string came.
    Stop,
    /// It called functions.
    Calls,
    /// A limit on tokens.
    Length,
}

/// How the answer of a chat is to be read.
#[derive(Clone)]
pub(in super::super) struct Reading {
    /// How calls are written; `None` where none are looked for.
    pub(in super::super) form: Option<CallForm>,
    /// What the request offers.
    pub(in super::super) tools: Vec<Tool>,
    /// How reasoning is marked.
    pub(in super::super) thinking: Thinking,
    /// Whether the prompt ends inside of it.
    pub(in super::super) inside: bool,
    /// What of the answer the prompt has already: the beginning of a call that was asked for.
    pub(in super::super) begun: String,
    /// Calls of earlier answers.
    pub(in super::super) calls_before: usize,
    /// Whether there may be several calls.
    pub(in super::super) parallel: bool,
}

/// What ids of calls look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// `call_` and what follows.
    Usual,
    /// Nine letters and digits, as Mistral's templates demand.
    Short,
    /// `functions.name:0`, counted through the whole chat, which Kimi's template writes in place of the name.
    Named,
}

/// From a generation's text to the events of an answer.
pub(in super::super) struct Outputs {
    /// Takes a chat's answer apart.
    reader: Option<Reader>,
    /// Most tool calls.
    most_calls: usize,
    ids: Ids,
    /// Calls of earlier answers.
    calls_before: usize,
    /// Tool calls so far.
    calls: usize,
    tokenizer: Arc<Tokenizer>,
    /// Reasoning so far.
    reasoning: String,
    /// Bytes of text so far, among them what the prompt has already of the answer.
    bytes: usize,
    /// Tokens whose text has not come out yet, with where it begins.
    scores: VecDeque<(usize, Scored)>,
    /// Bytes of the answer that the prompt has.
    begun: usize,
}

impl Outputs {
    /// Of an answer that has not begun; without a `reading` all of it is text.
    pub(in super::super) fn new(reading: Option<Reading>, tokenizer: Arc<Tokenizer>) -> Self {
        let form = reading.as_ref().and_then(|reading| reading.form.as_ref());
        let ids = match form {
            Some(form) if form.named_ids => Ids::Named,
            Some(form) if form.open.iter().any(|tag| tag.starts_with('[')) => Ids::Short,
            _ => Ids::Usual,
        };
        let mut outputs = Self {
            reader: None,
            most_calls: usize::MAX,
            ids,
            calls_before: 0,
            calls: 0,
            tokenizer,
            reasoning: String::new(),
            bytes: 0,
            scores: VecDeque::new(),
            begun: 0,
        };
        if let Some(Reading { form, tools, thinking, inside, begun, calls_before, parallel }) = reading {
            let mut reader = Reader::new(form, tools, &thinking, inside);
            // Nothing comes of the beginning of a call.
            reader.push(&begun);
            (outputs.bytes, outputs.begun) = (begun.len(), begun.len());
            outputs.reader = Some(reader);
            outputs.most_calls = if parallel { usize::MAX } else { 1 };
            outputs.calls_before = calls_before;
        }
        outputs
    }

    /// Takes how probable the next token was, whose text begins so many bytes into the generated text.
    pub(in super::super) fn scored(&mut self, scored: Scored, at: usize) {
        self.scores.push_back((self.begun + at, scored));
    }

    /// What the next piece of text adds to the answer.
    pub(in super::super) fn text(&mut self, text: String) -> Vec<Output> {
        let start = self.bytes;
        self.bytes += text.len();
        match &mut self.reader {
            Some(reader) => {
                let parts = reader.push(&text);
                self.outputs(parts)
            }
            None => {
                let scores = self.scores_of(start..self.bytes);
                vec![Output::Text(Piece { text, scores })]
            }
        }
    }

    /// The tokens of which a range of the text consists, in whole or in part. Those before it are no text for the reader, and are dropped.
    fn scores_of(&mut self, range: Range<usize>) -> Vec<Mark> {
        let mut marks = Vec::new();
        while self.scores.front().is_some_and(|(at, _)| *at < range.end) {
            let Some((at, scored)) = self.scores.pop_front() else { break };
            // The parts of a character all begin where it begins.
            let end = self.scores.iter().map(|(next, _)| *next).find(|next| *next > at).unwrap_or(self.bytes);
            if at >= range.start || end > range.start {
                marks.push(Mark::new(at.saturating_sub(range.start), scored));
            }
        }
        marks
    }

    /// What the end adds, the end itself last.
    pub(in super::super) fn end(&mut self, summary: Summary) -> Vec<Output> {
        let rest = self.reader.as_mut().map(Reader::finish).unwrap_or_default();
        let mut outputs = self.outputs(rest);
        let why = match summary.finish {
            Finish::Stop if self.calls > 0 => Why::Calls,
            Finish::Stop => Why::Stop,
            // Only a server that stops cancels a generation that somebody still listens to.
            Finish::Length | Finish::Cancelled => Why::Length,
        };
        // Where it cannot be tokenized again, nothing is known of it.
        let reasoning_tokens = self.tokenizer.encode(&self.reasoning, false).map_or(0, |ids| ids.len());
        outputs.push(Output::End(End { why, summary, reasoning_tokens }));
        outputs
    }

    fn outputs(&mut self, parts: Vec<Part>) -> Vec<Output> {
        let mut outputs = Vec::new();
        let places = self.reader.as_ref().map(|reader| reader.content().to_vec()).unwrap_or_default();
        for (index, part) in parts.into_iter().enumerate() {
            match part {
                Part::Content(text) => {
                    let places = places.iter().filter(|(part, _)| *part == index);
                    let scores = places.flat_map(|(_, range)| self.scores_of(range.clone())).collect();
                    outputs.push(Output::Text(Piece { text, scores }));
                }
                Part::Reasoning(piece) => {
                    self.reasoning += &piece;
                    outputs.push(Output::Reasoning(piece));
                }
                Part::Call { name, arguments } => {
                    self.calls += 1;
                    if self.calls <= self.most_calls {
                        let id = self.id(&name);
                        let begin = Output::CallBegin { id, name };
                        outputs.extend([begin, Output::CallArguments(arguments), Output::CallEnd]);
                    }
                }
            }
        }
        outputs
    }

    /// Of the call that was counted last.
    fn id(&self, name: &str) -> String {
        match self.ids {
            Ids::Usual => format!("call_{}", call_id()),
            Ids::Short => call_id(),
            Ids::Named => format!("functions.{name}:{}", self.calls_before + self.calls - 1),
        }
    }
}

/// Nine letters and digits that no other call of this process has, and that do not begin alike in another.
fn call_id() -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const COUNT: u64 = 62_u64.pow(9);
    // Has no divisor in common with COUNT, so that its multiples come round to no earlier one.
    const STEP: u64 = 8_366_379_594_239_857;
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one("calls") % COUNT));
    let next = |id: u64| Some((id + STEP) % COUNT);
    let mut rest = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|id| id);
    let mut id = String::new();
    for _ in 0..9 {
        id.push(char::from(DIGITS[(rest % 62) as usize]));
        rest /= 62;
    }
    id
}
