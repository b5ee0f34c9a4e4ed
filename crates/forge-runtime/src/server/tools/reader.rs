//! Takes an answer apart, piece by piece: content, reasoning, tool calls.
//!
//! What comes out, put together, depends on the text alone and not on where its pieces were cut. What may turn out to be a tag
//! or a call is held back until it is certain. Tags never come out, nor do the blanks around them; what stands where a call
//! should and is none comes out as content.

use std::ops::Range;

use super::call::{self, Begun, FUNCTION, Scan};
use super::harmony::Channels;
use super::{CallForm, Style, Thinking, Tool};
use super::{invoke, keys, python, separated};

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text for the reader.
    Content(String),
    /// Text of the model to itself.
    Reasoning(String),
    /// A whole call.
    Call {
        /// Name of the function.
        name: String,
        /// A JSON object, as text.
        arguments: String,
    },
}

/// The state of one answer.
#[derive(Debug)]
pub struct Reader {
    /// Reads all of it where it comes in channels.
    channels: Option<Channels>,
    /// Tags of reasoning.
    think: [String; 2],
    form: Option<CallForm>,
    tools: Vec<Tool>,
    tags: Vec<Tag>,
    state: State,
    /// Text that has not come out yet.
    held: String,
    /// Blanks that come next are left out.
    after_tag: bool,
    /// Bytes of text so far.
    bytes: usize,
    /// Where the content of parts was that came out last: the part's index, and bytes of the text.
    content: Vec<(usize, Range<usize>)>,
}

#[derive(Debug)]
struct Tag {
    text: String,
    kind: TagKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagKind {
    /// A call follows.
    Open,
    /// A call follows, of which the tag is the beginning.
    Function,
    /// A call ended.
    Close,
}

#[derive(Debug)]
enum State {
    /// Nothing but blanks has come, or nothing since the reasoning.
    Start { thought: bool },
    /// Inside of the reasoning.
    Reasoning,
    /// Content, until a tag.
    Text,
    /// A call is awaited; in a list, another; without a tag, if it is one.
    Call { scan: Scan, in_list: bool, bare: bool },
    /// A call has ended, maybe inside of a list.
    AfterCall { in_list: bool },
}

impl Reader {
    /// A reader of an answer that has not begun. Without a `form` there are no calls. `inside` says that the prompt ended
    /// inside of the reasoning.
    pub fn new(form: Option<CallForm>, tools: Vec<Tool>, thinking: &Thinking, inside: bool) -> Self {
        let in_channels = *thinking == Thinking::Channels;
        let calls_in_channels = form.as_ref().is_some_and(|form| form.style == Style::Channels);
        let channels = (in_channels || calls_in_channels).then(|| Channels::new(calls_in_channels, inside));
        let think = match thinking {
            Thinking::Tags { open, close } => [open.clone(), close.clone()],
            Thinking::Channels => Default::default(),
        };
        let mut tags = Vec::new();
        if let Some(form) = &form {
            let tag = |kind| move |text: &String| Tag { text: text.clone(), kind };
            tags.extend(form.open.iter().map(tag(TagKind::Open)));
            tags.extend(form.close.iter().map(tag(TagKind::Close)));
            tags.extend((form.style == Style::Xml).then(|| Tag { text: FUNCTION.into(), kind: TagKind::Function }));
        }
        let state = if inside { State::Reasoning } else { State::Start { thought: false } };
        Self {
            channels,
            think,
            form,
            tools,
            tags,
            state,
            held: String::new(),
            after_tag: inside,
            bytes: 0,
            content: Vec::new(),
        }
    }

    /// Where in the text, in bytes, the content was that came out last, with the index that its part had among all that came. A part
    /// consists of what stood in several places where there was a tag between.
    pub fn content(&self) -> &[(usize, Range<usize>)] {
        match &self.channels {
            Some(channels) => channels.content(),
            None => &self.content,
        }
    }

    /// Takes the next piece of text and gives what is certain by now.
    pub fn push(&mut self, piece: &str) -> Vec<Part> {
        if let Some(channels) = &mut self.channels {
            return channels.push(piece);
        }
        self.held.push_str(piece);
        self.bytes += piece.len();
        self.read(false)
    }

    /// Gives the rest of an answer that has ended.
    pub fn finish(&mut self) -> Vec<Part> {
        if let Some(channels) = &mut self.channels {
            return channels.finish();
        }
        self.read(true)
    }

    fn read(&mut self, end: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        self.content.clear();
        while self.step(end, &mut parts) {}
        parts
    }

    /// One step; whether there may be another.
    fn step(&mut self, end: bool, parts: &mut Vec<Part>) -> bool {
        if self.after_tag {
            let blanks = self.held.len() - self.held.trim_start().len();
            self.held.drain(..blanks);
            self.after_tag = self.held.is_empty();
        }
        match self.state {
            State::Start { thought } => self.start(thought, end),
            State::Reasoning => self.reasoning(end, parts),
            State::Text => self.text(end, parts),
            State::Call { .. } => self.call(end, parts),
            State::AfterCall { in_list } => self.after_call(in_list, end),
        }
    }

    fn start(&mut self, thought: bool, end: bool) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() && !end || !thought && !end && is_begun(text, &self.think[0]) {
            return false;
        }
        if let Some(rest) = text.strip_prefix(self.think[0].as_str()).filter(|_| !thought) {
            self.held = rest.to_owned();
            self.enter(State::Reasoning);
        } else if text.starts_with(['{', '[']) && self.form.as_ref().is_some_and(|form| form.bare) {
            self.state = State::Call { scan: Scan::default(), in_list: false, bare: true };
        } else {
            self.state = State::Text;
        }
        true
    }

    fn reasoning(&mut self, end: bool, parts: &mut Vec<Part>) -> bool {
        if let Some(at) = self.held.find(&self.think[1]) {
            self.give(at, parts);
            self.held.drain(..self.think[1].len());
            self.enter(State::Start { thought: true });
            return true;
        }
        let certain = if end { self.held.len() } else { self.held.len() - begun(&self.held, &self.think[1]) };
        self.give_before_blanks(certain, parts);
        false
    }

    fn text(&mut self, end: bool, parts: &mut Vec<Part>) -> bool {
        let found = self.tags.iter().filter_map(|tag| Some((self.held.find(&tag.text)?, tag)));
        if let Some((at, tag)) = found.min_by_key(|(at, tag)| (*at, usize::MAX - tag.text.len())) {
            let (kind, length) = (tag.kind, tag.text.len());
            self.give(at, parts);
            self.tag(kind, length);
            return true;
        }
        if end || self.tags.is_empty() {
            self.give_all(parts);
        } else {
            let begun = self.tags.iter().map(|tag| begun(&self.held, &tag.text)).max().unwrap_or(0);
            self.give_before_blanks(self.held.len() - begun, parts);
        }
        false
    }

    fn call(&mut self, end: bool, parts: &mut Vec<Part>) -> bool {
        let State::Call { scan, in_list, bare } = &mut self.state else { return false };
        let (bare, mut in_list) = (*bare, *in_list);
        let mut text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix('[').filter(|_| !in_list) {
            (text, in_list) = (rest.trim_start(), true);
        }
        let after_bracket = || self.tags.iter().any(|tag| tag.kind == TagKind::Open && tag.text.starts_with('['));
        let style = self.form.as_ref().map_or(&Style::Json, |form| &form.style);
        let begun = match (text.chars().next(), style) {
            (None, _) => Begun::Open,
            (Some(_), Style::Pairs) => call::pairs(text),
            (Some(_), Style::Python) => python::read(text),
            (Some(_), Style::Separated(separator)) => separated::read(text, separator, scan),
            (Some('{'), _) => call::json(text, scan),
            (Some('<'), Style::Invoke(mark)) => invoke::read(text, mark, &self.tools),
            (Some('<'), _) => call::xml(text, &self.tools),
            (Some(_), Style::Keys) => {
                let close = self.form.as_ref().and_then(|form| form.close.first());
                keys::read(text, &self.tools, close.map_or(keys::USUAL_END, String::as_str))
            }
            (Some(_), _) if !in_list && after_bracket() => call::named(text, scan),
            (Some(_), _) => Begun::Other,
        };
        match begun {
            Begun::Open if !end => false,
            Begun::Call { name, arguments, bytes } if !bare || self.tools.iter().any(|tool| tool.name == name) => {
                let used = self.held.len() - text.len() + bytes;
                self.held.drain(..used);
                parts.push(Part::Call { name, arguments });
                self.enter(State::AfterCall { in_list });
                true
            }
            _ => {
                // It would be taken for the beginning of a call again.
                if text.starts_with(FUNCTION) && self.tags.iter().any(|tag| tag.kind == TagKind::Function) {
                    let used = self.held.len() - text.len() + FUNCTION.len();
                    self.held.drain(..used);
                }
                self.state = State::Text;
                self.after_tag = !bare;
                true
            }
        }
    }

    fn after_call(&mut self, in_list: bool, end: bool) -> bool {
        if self.held.is_empty() {
            return false;
        }
        if let Some(tag) = self.tags.iter().find(|tag| self.held.starts_with(&tag.text)) {
            let (kind, length) = (tag.kind, tag.text.len());
            self.tag(kind, length);
            return true;
        }
        let style = self.form.as_ref().map_or(&Style::Json, |form| &form.style);
        // The end of a fenced block.
        if let Style::Separated(_) = style
            && !end
            && is_begun(&self.held, separated::FENCE)
        {
            return false;
        }
        if let Some(rest) = self.held.strip_prefix(separated::FENCE).filter(|_| matches!(style, Style::Separated(_))) {
            self.held = rest.to_owned();
            self.enter(State::AfterCall { in_list });
            return true;
        }
        let opening = match style {
            Style::Invoke(mark) => invoke::opening(mark),
            _ => FUNCTION.to_owned(),
        };
        let bare = self.form.as_ref().is_some_and(|form| form.bare);
        let another = |in_list| State::Call { scan: Scan::default(), in_list, bare };
        match self.held.as_bytes()[0] {
            b',' if in_list => {
                self.held.drain(..1);
                self.enter(another(true));
            }
            b']' if in_list => {
                self.held.drain(..1);
                self.enter(State::AfterCall { in_list: false });
            }
            b';' if bare => {
                self.held.drain(..1);
                self.enter(another(false));
            }
            b'{' => self.state = another(false),
            b'c' if *style == Style::Pairs => self.state = another(false),
            b'<' if self.held.starts_with(&opening) => self.state = another(false),
            _ if !end && self.tags.iter().any(|tag| is_begun(&self.held, &tag.text)) => return false,
            _ if !end && is_begun(&self.held, &opening) => return false,
            _ => self.state = State::Text,
        }
        true
    }

    /// Goes past a tag that the held text begins with.
    fn tag(&mut self, kind: TagKind, length: usize) {
        let call = State::Call { scan: Scan::default(), in_list: false, bare: false };
        match kind {
            TagKind::Function => self.state = call,
            TagKind::Open => {
                self.held.drain(..length);
                self.enter(call);
            }
            TagKind::Close => {
                self.held.drain(..length);
                self.enter(State::Text);
            }
        }
    }

    /// A state that begins after a tag, where blanks mean nothing.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.after_tag = true;
    }

    /// Gives out `length` bytes but for the blanks at their end, which are dropped.
    fn give(&mut self, length: usize, parts: &mut Vec<Part>) {
        let kept = self.held[..length].trim_end().len();
        self.give_out(kept, parts);
        self.held.drain(..length - kept);
    }

    /// Gives out `length` bytes but for the blanks at their end, which wait for what comes next.
    fn give_before_blanks(&mut self, length: usize, parts: &mut Vec<Part>) {
        self.give_out(self.held[..length].trim_end().len(), parts);
    }

    fn give_all(&mut self, parts: &mut Vec<Part>) {
        self.give_out(self.held.len(), parts);
    }

    fn give_out(&mut self, length: usize, parts: &mut Vec<Part>) {
        if length == 0 {
            return;
        }
        let start = self.bytes - self.held.len();
        let rest = self.held.split_off(length);
        let text = std::mem::replace(&mut self.held, rest);
        let reasoning = matches!(self.state, State::Reasoning);
        match parts.last_mut() {
            Some(Part::Reasoning(last)) if reasoning => last.push_str(&text),
            Some(Part::Content(last)) if !reasoning => last.push_str(&text),
            _ if reasoning => parts.push(Part::Reasoning(text)),
            _ => parts.push(Part::Content(text)),
        }
        if !reasoning {
            self.content.push((parts.len() - 1, start..start + length));
        }
    }
}

/// Whether `text` is the beginning of `tag` and not all of it.
fn is_begun(text: &str, tag: &str) -> bool {
    text.len() < tag.len() && tag.starts_with(text)
}

/// Bytes of the longest end of `text` that `tag` begins with.
pub(super) fn begun(text: &str, tag: &str) -> usize {
    let longest = text.len().min(tag.len().saturating_sub(1));
    (1..=longest).rev().find(|length| text.as_bytes().ends_with(&tag.as_bytes()[..*length])).unwrap_or(0)
}
