//! The token loop: prefill, sample, decode, until an end token, a stop string, a limit, or the caller says stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assets::Text;
use super::batch::Slot;
use super::sampler::Sampling;
use super::slots::{Place, Slots};
use super::tokenizer::{Detokenizer, Tokenizer};
use super::{Error, LanguageModel, LogitRows, Result};

/// What to generate.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Most tokens to generate, an end token included; up to the context's end if not given.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the generation and are not part of it.
    pub stop: Vec<String>,
    /// Whether the text continues that of the prompt, rather than being a text of its own as a chat's answer is.
    pub continues_prompt: bool,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// An end token or a stop string.
    Stop,
    /// The limit on tokens, or the end of the context.
    Length,
    /// The listener asked for it.
    Cancelled,
}

/// What a generation came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that the model had seen already, as the beginning of a sequence that it holds.
    pub reused_tokens: usize,
    /// Tokens generated, an end token included.
    pub completion_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
    /// Time for the prompt.
    pub prompt_time: Duration,
    /// Time for all tokens after the first.
    pub decode_time: Duration,
}

/// Hears the text as it comes, and can stop it.
pub trait Listener {
    /// Takes the next piece of text. `false` stops the generation.
    fn text(&mut self, text: &str) -> bool;

    /// Text that a special token stands for. Most stand for none.
    fn special(&self, token: u32) -> Option<&str> {
        let _ = token;
        None
    }

    /// Asked at every token and every tile of the prompt. `false` stops the generation.
    fn keep_going(&mut self) -> bool {
        true
    }
}

/// A model, its text side, and the sequences that its slots hold.
pub struct Engine<M> {
    model: M,
    text: Arc<Text>,
    slots: Slots,
    logits: Vec<f32>,
}

impl<M: LanguageModel> Engine<M> {
    /// An engine with no sequence yet.
    pub fn new(model: M, text: Arc<Text>) -> Self {
        let slots = Slots::new(model.info().slots, model.info().rewind);
        Self { model, text, slots, logits: Vec::new() }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The text side.
    pub fn text(&self) -> &Arc<Text> {
        &self.text
    }

    /// Forgets all sequences; needed after a panic inside [`Engine::generate`] only.
    pub fn reset(&mut self) {
        self.slots.clear();
    }

    /// Generates. What a prompt has in common with a sequence that a slot holds, as the next turn of a chat has, is not run
    /// again.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`] and [`Error::TokenOutOfRange`] for prompts that do not fit;
    /// [`Error::NonFiniteLogits`]; and whatever the model reports. Being cancelled is no error but a [`Finish`].
    pub fn generate(&mut self, request: &Request, listener: &mut dyn Listener) -> Result<Summary> {
        check_prompt(&request.prompt, self.model.info().vocab_size, self.model.context())?;
        let Place { slot, reused, copied_from } = self.slots.place(&request.prompt);
        if let Some(from) = copied_from {
            self.model.copy_slot(from, slot, reused)?;
        }
        let mut held = request.prompt[..reused].to_vec();
        // Until the end is reached in good order, nothing is known of the slot's state.
        let summary = self.run(request, listener, slot, &mut held)?;
        self.slots.keep(slot, held);
        Ok(summary)
    }

    fn run(
        &mut self,
        request: &Request,
        listener: &mut dyn Listener,
        slot: Slot,
        held: &mut Vec<u32>,
    ) -> Result<Summary> {
        let text = self.text.clone();
        let mut output = Output::new(&text, request)?;
        let reused_tokens = held.len();
        let mut summary = Summary {
            prompt_tokens: request.prompt.len(),
            reused_tokens,
            completion_tokens: 0,
            finish: Finish::Length,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        };
        let limit = request.max_tokens.unwrap_or(usize::MAX);
        let start = Instant::now();
        // The last token of the prompt is the first that is decoded.
        let last = request.prompt.len() - 1;
        let prompt = &request.prompt[reused_tokens..last];
        self.logits.clear();
        let mut keep_going = || listener.keep_going();
        let none = LogitRows::None;
        let prefill = self.model.prefill(slot, reused_tokens, prompt, none, &mut self.logits, &mut keep_going);
        match prefill {
            Ok(()) if limit > 0 && listener.keep_going() => {}
            Ok(()) if limit == 0 => {
                held.extend_from_slice(prompt);
                return Ok(summary);
            }
            Ok(()) | Err(Error::Cancelled) => {
                held.clear();
                summary.finish = Finish::Cancelled;
                return Ok(summary);
            }
            Err(error) => return Err(error),
        }
        held.extend_from_slice(&request.prompt[reused_tokens..]);
        let mut first = None;
        let mut failure = None;
        let mut hear = |token: u32| {
            first.get_or_insert_with(Instant::now);
            summary.completion_tokens += 1;
            if text.defaults.end_token_ids.contains(&token) {
                summary.finish = Finish::Stop;
                return false;
            }
            match output.push(token, listener) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop(finish)) => {
                    summary.finish = finish;
                    return false;
                }
                Err(error) => {
                    failure = Some(error);
                    return false;
                }
            }
            if summary.completion_tokens >= limit {
                return false;
            }
            if !listener.keep_going() {
                summary.finish = Finish::Cancelled;
                return false;
            }
            held.push(token);
            true
        };
        let (token, sampling) = (request.prompt[last], &request.sampling);
        let positions = self.model.generate(slot, last, token, sampling, &request.prompt, &mut hear)?;
        if let Some(error) = failure {
            return Err(error);
        }
        held.truncate(positions);
        let first = first.unwrap_or(start);
        summary.prompt_time = first - start;
        summary.decode_time = first.elapsed();
        if let Some(finish) = output.finish(summary.finish, listener)? {
            summary.finish = finish;
        }
        Ok(summary)
    }
}

/// Refuses a prompt that the model cannot run.
///
/// # Errors
/// [`Error::EmptyPrompt`], [`Error::PromptTooLong`] and [`Error::TokenOutOfRange`].
pub fn check_prompt(prompt: &[u32], vocab_size: usize, context: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    if prompt.len() >= context {
        return Err(Error::PromptTooLong { tokens: prompt.len(), context });
    }
    match prompt.iter().find(|id| **id as usize >= vocab_size) {
        Some(&id) => Err(Error::TokenOutOfRange { id, vocab_size }),
        None => Ok(()),
    }
}

enum Flow {
    Continue,
    Stop(Finish),
}

/// From ids to the listener: detokenizing, and holding back what may turn out to be a stop string.
struct Output<'a> {
    tokenizer: &'a Tokenizer,
    detokenizer: Detokenizer<'a>,
    stops: StopMatcher,
}

impl<'a> Output<'a> {
    fn new(text: &'a Text, request: &Request) -> Result<Self> {
        let detokenizer = if request.continues_prompt {
            Detokenizer::after(&text.tokenizer, &request.prompt)?
        } else {
            Detokenizer::new(&text.tokenizer)
        };
        Ok(Self { tokenizer: &text.tokenizer, detokenizer, stops: StopMatcher::new(request.stop.clone()) })
    }

    fn push(&mut self, token: u32, listener: &mut dyn Listener) -> Result<Flow> {
        let piece = match listener.special(token).filter(|_| self.tokenizer.is_special(token)) {
            Some(tag) => {
                // What comes after it is a text of its own.
                let before = std::mem::replace(&mut self.detokenizer, Detokenizer::new(self.tokenizer));
                before.finish()? + tag
            }
            None => self.detokenizer.push(token)?,
        };
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
    fn finish(self, finish: Finish, listener: &mut dyn Listener) -> Result<Option<Finish>> {
        let Self { detokenizer, mut stops, .. } = self;
        if stops.matched || finish == Finish::Cancelled {
            return Ok(None);
        }
        let (mut rest, stopped) = stops.push(&detokenizer.finish()?);
        if !stopped {
            rest.push_str(&stops.held);
        }
        if !rest.is_empty() {
            listener.text(&rest);
        }
        Ok(stopped.then_some(Finish::Stop))
    }
}

/// Finds stop strings in a text that comes in pieces.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    matched: bool,
}

impl StopMatcher {
    /// Looks for `stops`; empty ones are ignored.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new(), matched: false }
    }

    /// Takes the next piece. Gives the text that is certainly not part of a stop string, and whether one was found; the text
    /// then ends before it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.matched = true;
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
