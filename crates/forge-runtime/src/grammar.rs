//! Structured output: answers that are held to a JSON schema or a grammar, by the `llguidance` crate.
//!
//! The crate knows the vocabulary as bytes, a text per token, and says after each token which may come next. Special tokens are no text: they come
//! only where a grammar names them.
//!
//! Where a form leaves one text alone, as it does in the midst of a property's name, that comes in the tokens that the tokenizer makes of it: so a model
//! has seen it, and a run of tokens is known before its logits are.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::assets::Text;
use super::generation::Constraint;
use super::tokenizer::Tokenizer;
use super::{Error, Result};

/// Bytes of a schema as JSON, or of a grammar.
pub const MAX_FORM_BYTES: usize = 64 * 1024;

/// States of a lexer, of a KiB or two each.
const MAX_LEXER_STATES: usize = 30_000;

/// Symbols of a grammar.
const MAX_GRAMMAR_SIZE: usize = 100_000;

/// White space between the parts of JSON: enough for deep indents, and an end to it.
const BLANKS: &str = r"[\x20\x0A\x0D\x09]{1,64}";

/// Longest token of nothing but white space that may come between reasoning and an answer, and most of them.
const BLANK_BYTES: usize = 2;
const BLANK_TOKENS: usize = 2;

/// What an answer is held to.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// A value that this JSON schema allows.
    Schema(Value),
    /// A text of this grammar, in llguidance's form of Lark.
    Grammar(String),
}

impl Form {
    /// Any JSON object.
    pub fn object() -> Self {
        Self::Schema(json!({ "type": "object" }))
    }
}

/// Where in an answer it is held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    /// Everything up to this text, itself included, is free, and no end.
    pub after: Option<String>,
    /// An answer may begin with this token instead, and is then free up to that text.
    pub unless: Option<(u32, String)>,
    /// Whether a call that a text begins may come where an answer is free up to a text, too.
    pub calls_before: bool,
}

/// Calls that an answer may have, or consist of: what begins one, and what follows that, to the call's end.
pub type Calls = [(Opening, Form)];

/// What begins a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// A token.
    Token(u32),
    /// The end of a text, in whatever tokens; those that go on beyond it do not come there.
    Text(String),
}

/// Forms for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
}

/// The vocabulary as bytes.
#[derive(Debug)]
struct Vocabulary {
    words: Vec<Vec<u8>>,
    ends: Vec<u32>,
    /// Short tokens of white space.
    blanks: Vec<u32>,
}

impl Vocabulary {
    /// What a token says; its name of a special one.
    fn text(&self, id: u32) -> &[u8] {
        let word = self.words.get(id as usize).map_or(&[][..], Vec::as_slice);
        word.strip_prefix(&[TokTrie::SPECIAL_TOKEN_MARKER]).unwrap_or(word)
    }
}

impl Grammars {
    /// Forms for a model with a row of logits of `vocab_size`. Takes a part of a second for a large vocabulary.
    ///
    /// # Errors
    /// [`Error::Constraint`] of a model without an end token, whose answers could not end.
    pub fn new(text: &Text, vocab_size: usize) -> Result<Self> {
        let tokenizer = &text.tokenizer;
        let word = |id: u32| match tokenizer.bytes(id) {
            // What begins so is a special token to the crate.
            Some(bytes) if !bytes.starts_with(&[TokTrie::SPECIAL_TOKEN_MARKER]) => bytes,
            Some(_) => Vec::new(),
            None => tokenizer
                .token(id)
                .map_or_else(Vec::new, |token| [&[TokTrie::SPECIAL_TOKEN_MARKER], token.as_bytes()].concat()),
        };
        let words: Vec<Vec<u8>> = (0..vocab_size as u32).map(word).collect();
        let mut ends = text.defaults.end_token_ids.clone();
        ends.retain(|&id| (id as usize) < vocab_size);
        let Some(&first) = ends.first() else {
            return Err(Error::Constraint("this model has no end token".into()));
        };
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, first), &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(Environment { trie, tokenizer: text.tokenizer.clone() });
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| Error::Constraint(error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_lexer_states = MAX_LEXER_STATES;
        limits.max_grammar_size = MAX_GRAMMAR_SIZE;
        limits.verbose_errors = false;
        let is_blank =
            |word: &Vec<u8>| (1..=BLANK_BYTES).contains(&word.len()) && word.iter().all(u8::is_ascii_whitespace);
        let blanks = (0..).zip(&words).filter(|(_, word)| is_blank(word)).map(|(id, _)| id).collect();
        Ok(Self { factory, vocabulary: Arc::new(Vocabulary { words, ends, blanks }) })
    }

    /// What holds an answer to a form.
    ///
    /// # Errors
    /// [`Error::Constraint`] of one that cannot be held, in the crate's words.
    pub fn hold(&self, form: &Form, scope: &Scope) -> Result<Box<dyn Constraint>> {
        self.hold_all(Some(form), None, scope)
    }

    /// What holds each call of an answer to its form, and what is not calls to another: an answer is then calls, or of that form, or else free
    /// but for the calls. Beside another form a text begins a call only where [`Scope::calls_before`] says so.
    ///
    /// # Errors
    /// As [`Grammars::hold`].
    pub fn hold_calls(&self, content: Option<&Form>, calls: &Calls, scope: &Scope) -> Result<Box<dyn Constraint>> {
        self.hold_all(content, Some(calls), scope)
    }

    fn hold_all(&self, content: Option<&Form>, calls: Option<&Calls>, scope: &Scope) -> Result<Box<dyn Constraint>> {
        let content = content.map(|form| self.matcher(form)).transpose()?;
        let begun = |(opening, form): &(Opening, Form)| {
            let opening = match opening {
                Opening::Token(id) => Watched::Token(*id),
                Opening::Text(text) => Watched::Text(Arc::new(Watch::new(text, &self.vocabulary))),
            };
            Ok((opening, self.matcher(form)?))
        };
        let calls = calls.unwrap_or_default().iter().map(begun).collect::<Result<Vec<_>>>()?;
        let Some(matcher) = content.clone().or_else(|| calls.first().map(|(_, matcher)| matcher.clone())) else {
            return Err(Error::Constraint("there is nothing that it is held to".into()));
        };
        let mut held = Held {
            matcher,
            content,
            calls,
            calls_before: scope.calls_before,
            written: Vec::new(),
            vocabulary: self.vocabulary.clone(),
            phase: Phase::Behind,
            forced: VecDeque::new(),
        };
        held.phase = match scope {
            Scope { after: Some(mark), .. } => Phase::free(mark),
            Scope { unless: Some((open, mark)), .. } => Phase::Beginning { open: *open, mark: mark.clone() },
            Scope { .. } => held.answer(0),
        };
        Ok(Box::new(held))
    }

    /// What a form allows, token by token.
    fn matcher(&self, form: &Form) -> Result<Matcher> {
        let (grammar, bytes) = match form {
            Form::Schema(schema) => {
                let bytes = schema.to_string().len();
                (TopLevelGrammar::from_json_schema(prepared(schema)), bytes)
            }
            Form::Grammar(lark) => (TopLevelGrammar::from_lark(lark.clone()), lark.len()),
        };
        if bytes > MAX_FORM_BYTES {
            return Err(Error::Constraint(format!("it is {bytes} bytes long, at most {MAX_FORM_BYTES} are taken")));
        }
        let parser = catch_unwind(AssertUnwindSafe(|| self.factory.create_parser(grammar)))
            .map_err(|_| Error::Constraint("its grammar could not be made".into()))?
            .map_err(|error| Error::Constraint(error.to_string()))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(error) => Err(Error::Constraint(error)),
            None => Ok(matcher),
        }
    }
}

/// What the crate asks of a tokenizer.
struct Environment {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl Environment {
    /// The tokens of a text that goes on in the midst of another; none where they are not those bytes.
    fn encode(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut tokens = self.tokenizer.encode(&self.tokenizer.shield(text), false).ok()?;
        let word = |id: u32| self.trie.token(id);
        let mut found: Vec<u8> = tokens.iter().flat_map(|&id| word(id)).copied().collect();
        // A blank that a text begins with to some tokenizers.
        if found.strip_prefix(b" ") == Some(bytes) {
            let first = *tokens.first()?;
            match word(first) {
                b" " => drop(tokens.remove(0)),
                long => tokens[0] = self.trie.token_id_at_bytes(&long[1..])?,
            }
            found.remove(0);
        }
        (found == bytes).then_some(tokens)
    }
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.encode(bytes).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}

/// A schema with what is said of white space; what clients say to the crate itself does not count.
pub fn prepared(schema: &Value) -> Value {
    let mut schema = match schema {
        // Whatever there is.
        Value::Bool(true) => json!({}),
        schema => schema.clone(),
    };
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("x-guidance".into(), json!({ "whitespace_flexible": true, "whitespace_pattern": BLANKS }));
    }
    schema
}

/// An answer that is held to a form.
#[derive(Clone)]
struct Held {
    /// What is being held.
    matcher: Matcher,
    /// What the answer is held to, at its beginning; free if nothing.
    content: Option<Matcher>,
    /// What begins a call, and what it is held to behind that, at its beginning.
    calls: Vec<(Watched, Matcher)>,
    /// See [`Scope::calls_before`].
    calls_before: bool,
    /// The end of the text where texts that begin a call are looked for.
    written: Vec<u8>,
    vocabulary: Arc<Vocabulary>,
    phase: Phase,
    /// Tokens that come next, whatever a model says.
    forced: VecDeque<u32>,
}

/// What begins a call, ready to be looked for.
#[derive(Debug, Clone)]
enum Watched {
    Token(u32),
    Text(Arc<Watch>),
}

/// A text that is looked for at the end of what was written.
#[derive(Debug)]
struct Watch {
    text: Vec<u8>,
    /// Tokens that would end it and go on, by how much of it was written.
    beyond: Vec<Vec<u32>>,
    /// Tokens that have all of it in them, and go on.
    around: Vec<u32>,
}

impl Watch {
    fn new(text: &str, vocabulary: &Vocabulary) -> Self {
        let text = text.as_bytes().to_vec();
        let (mut beyond, mut around) = (vec![Vec::new(); text.len()], Vec::new());
        for id in 0..vocabulary.words.len() as u32 {
            let word = vocabulary.text(id);
            for (at, beyond) in beyond.iter_mut().enumerate() {
                let rest = &text[at..];
                if word.len() > rest.len() && word.starts_with(rest) {
                    beyond.push(id);
                }
            }
            if word.len() > text.len() && word[1..word.len() - 1].windows(text.len()).any(|part| part == text) {
                around.push(id);
            }
        }
        Self { text, beyond, around }
    }

    /// Disallows tokens that would go on beyond its end.
    fn forbid(&self, written: &[u8], allowed: &mut [u32]) {
        self.around.iter().for_each(|&id| set(allowed, id, false));
        for (_, beyond) in self.beyond.iter().enumerate().filter(|(at, _)| written.ends_with(&self.text[..*at])) {
            beyond.iter().for_each(|&id| set(allowed, id, false));
        }
    }
}

/// Where an answer is.
#[derive(Debug, Clone)]
enum Phase {
    /// At its beginning, which may be `open` instead.
    Beginning { open: u32, mark: String },
    /// Free up to a mark, of which the end of what has come may be the beginning.
    Free { mark: Vec<u8>, tail: Vec<u8> },
    /// Behind it, where so many blanks may come: what is held, or a call, begins.
    Answer { blanks: usize },
    /// The answer is held.
    Held,
    /// A call is held.
    Call,
    /// Nothing is held but calls.
    Behind,
}

impl Phase {
    fn free(mark: &str) -> Self {
        Self::Free { mark: mark.as_bytes().to_vec(), tail: Vec::new() }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("phase", &self.phase).finish_non_exhaustive()
    }
}

fn set(allowed: &mut [u32], id: u32, value: bool) {
    if let Some(word) = allowed.get_mut(id as usize / 32) {
        let bit = 1 << (id % 32);
        *word = if value { *word | bit } else { *word & !bit };
    }
}

impl Held {
    /// What the grammar allows.
    fn held(&mut self, allowed: &mut [u32]) -> Result<()> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| Error::Constraint(error.to_string()))?;
        allowed.fill(0);
        allowed.iter_mut().zip(mask.as_slice()).for_each(|(word, mask)| *word = *mask);
        if matches!(self.phase, Phase::Call) {
            // An answer does not end in the midst of a call.
            self.vocabulary.ends.iter().for_each(|&id| set(allowed, id, false));
        }
        if allowed.iter().all(|word| *word == 0) {
            return Err(Error::Constraint("no token may follow".into()));
        }
        Ok(())
    }

    fn consume(&mut self, token: u32) -> Result<bool> {
        self.matcher.consume_token(token).map_err(|error| Error::Constraint(error.to_string()))?;
        if !self.matcher.is_stopped() {
            return Ok(false);
        }
        let whole = !matches!(self.phase, Phase::Call);
        self.phase = Phase::Behind;
        Ok(whole)
    }

    /// Where the answer itself begins.
    fn answer(&self, blanks: usize) -> Phase {
        match &self.content {
            None => Phase::Behind,
            Some(_) if !self.calls.is_empty() || blanks > 0 => Phase::Answer { blanks },
            Some(_) => Phase::Held,
        }
    }

    /// Begins to hold a call, if this token begins one.
    fn begin_call(&mut self, token: u32) -> bool {
        let begun = self.calls.iter().find(|(opening, _)| matches!(opening, Watched::Token(open) if *open == token));
        let Some((_, fresh)) = begun else { return false };
        (self.matcher, self.phase) = (fresh.clone(), Phase::Call);
        true
    }

    /// Allows tokens that begin a call.
    fn allow_call(&self, allowed: &mut [u32]) {
        for (opening, _) in &self.calls {
            if let Watched::Token(open) = opening {
                set(allowed, *open, true);
            }
        }
    }

    /// Texts that begin a call, with what it is held to behind them.
    fn watched(&self) -> impl Iterator<Item = (&Arc<Watch>, &Matcher)> {
        self.calls.iter().filter_map(|(opening, matcher)| match opening {
            Watched::Text(watch) => Some((watch, matcher)),
            Watched::Token(_) => None,
        })
    }

    /// Whether a text may begin a call here.
    fn watches(&self) -> bool {
        match self.phase {
            Phase::Free { .. } => self.calls_before,
            Phase::Behind | Phase::Beginning { .. } => self.content.is_none(),
            Phase::Answer { .. } | Phase::Held | Phase::Call => false,
        }
    }

    /// Disallows tokens that go on beyond what begins a call.
    fn forbid_beyond(&self, allowed: &mut [u32]) {
        if self.watches() {
            self.watched().for_each(|(watch, _)| watch.forbid(&self.written, allowed));
        }
    }

    /// Looks whether a text begins a call that this token ends, where one `may`, and begins to hold it.
    fn look_for_call(&mut self, token: u32, may: bool) {
        let Some(longest) = self.watched().map(|(watch, _)| watch.text.len()).max().filter(|_| may) else {
            self.written.clear();
            return;
        };
        self.written.extend_from_slice(self.vocabulary.text(token));
        let begun =
            self.watched().find(|(watch, _)| self.written.ends_with(&watch.text)).map(|(_, fresh)| fresh.clone());
        match begun {
            Some(fresh) => {
                (self.matcher, self.phase) = (fresh, Phase::Call);
                self.written.clear();
            }
            None => drop(self.written.drain(..self.written.len().saturating_sub(longest))),
        }
    }
}

impl Constraint for Held {
    fn allow(&mut self, allowed: &mut [u32]) -> Result<()> {
        if let Some(&only) = self.forced().first() {
            allowed.fill(0);
            set(allowed, only, true);
            return Ok(());
        }
        match self.phase {
            Phase::Free { .. } => {
                allowed.fill(u32::MAX);
                if self.content.is_some() {
                    self.vocabulary.ends.iter().for_each(|&id| set(allowed, id, false));
                }
                self.forbid_beyond(allowed);
                Ok(())
            }
            Phase::Behind | Phase::Beginning { .. } if self.content.is_none() => {
                allowed.fill(u32::MAX);
                self.forbid_beyond(allowed);
                Ok(())
            }
            // Behind a call: another, or the end.
            Phase::Behind => {
                allowed.fill(0);
                self.vocabulary.ends.iter().chain(&self.vocabulary.blanks).for_each(|&id| set(allowed, id, true));
                self.allow_call(allowed);
                Ok(())
            }
            Phase::Beginning { open, .. } => {
                self.held(allowed)?;
                set(allowed, open, true);
                self.allow_call(allowed);
                Ok(())
            }
            Phase::Answer { blanks } => {
                self.held(allowed)?;
                if blanks > 0 {
                    self.vocabulary.blanks.iter().for_each(|&id| set(allowed, id, true));
                }
                self.allow_call(allowed);
                Ok(())
            }
            Phase::Held | Phase::Call => self.held(allowed),
        }
    }

    fn forced(&mut self) -> &[u32] {
        // Once they are known they stay what they are: after some of them a tokenizer might cut the rest another way.
        if matches!(self.phase, Phase::Held | Phase::Call) && self.forced.is_empty() {
            self.forced = self.matcher.compute_ff_tokens().into();
        }
        self.forced.make_contiguous()
    }

    fn take(&mut self, token: u32) -> Result<bool> {
        match self.forced.pop_front() {
            Some(only) if only != token => return Err(Error::Constraint("another token had to follow".into())),
            Some(_) | None => {}
        }
        let watches = self.watches();
        match &mut self.phase {
            Phase::Beginning { open, mark } if *open == token => self.phase = Phase::free(mark),
            Phase::Free { mark, tail } => {
                tail.extend_from_slice(self.vocabulary.text(token));
                if tail.windows(mark.len()).any(|part| part == mark) {
                    self.phase = self.answer(BLANK_TOKENS);
                    self.written.clear();
                } else {
                    let keep = tail.len().min(mark.len().saturating_sub(1));
                    tail.drain(..tail.len() - keep);
                    self.look_for_call(token, watches);
                }
            }
            Phase::Answer { blanks } if *blanks > 0 && self.vocabulary.blanks.contains(&token) => {
                let left = *blanks - 1;
                self.phase = self.answer(left);
            }
            Phase::Behind | Phase::Beginning { .. } if watches => {
                self.phase = Phase::Behind;
                if !self.begin_call(token) {
                    self.look_for_call(token, true);
                }
            }
            Phase::Behind => {
                self.begin_call(token);
            }
            Phase::Beginning { .. } | Phase::Answer { .. } => {
                if !self.begin_call(token) {
                    self.phase = Phase::Held;
                    return self.consume(token);
                }
            }
            Phase::Held | Phase::Call => return self.consume(token),
        }
        Ok(false)
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}
