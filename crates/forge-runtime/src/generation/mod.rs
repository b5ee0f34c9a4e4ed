//! From prompts to texts: each is a sequence of tokens that goes on until an end token, a stop string, a limit, or until its
//! listener says stop.
//!
//! [`Engine`] runs as many sequences side by side as the model has slots, in the order that [`policy`] says; [`work`] lets it do so for
//! requests that come from other threads.

mod budget;
mod clients;
mod constraint;
mod engine;
mod output;
pub mod policy;
mod scores;
mod sequence;
pub mod speculation;

use std::time::Duration;

use super::sampler::Sampling;
use super::slots::{Miss, Tier};
use super::{Error, Result};

pub use budget::{Budget, ReasoningMarks};
pub use clients::{Answered, Job, Queue, work};
pub use constraint::Constraint;
pub use engine::{Audience, Engine, Status};
pub use output::StopMatcher;
pub use policy::Id;
pub use scores::{Score, Scored};

/// What to generate.
#[derive(Debug, Clone, Default)]
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
    /// What its tokens are held to.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Positions before which other prompts may part from this one, as behind the instructions of a chat: a model whose sequences can be gone on
    /// with from some positions alone has its state there kept.
    pub boundaries: Vec<usize>,
    /// Set if log-probabilities are wanted, with those of so many of the most probable tokens.
    pub top_logprobs: Option<usize>,
    /// Whether those of the prompt's tokens are wanted too, all of which is run for that.
    pub prompt_logprobs: bool,
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
    /// Where these come from, if there are any.
    pub tier: Option<Tier>,
    /// Tokens generated, an end token included.
    pub completion_tokens: usize,
    /// Tokens that were guessed, and those of them that were right: each saved a step.
    pub guessed_tokens: usize,
    /// See above.
    pub right_tokens: usize,
    /// Tokens that a form forced and that were run with others: each saved a step.
    pub forced_tokens: usize,
    /// Why more of the prompt was not reused, where more is known of its beginning or nothing is.
    pub miss: Option<Miss>,
    /// Why it ended.
    pub finish: Finish,
    /// The stop string that ended it, if one did.
    pub stop: Option<String>,
    /// Time from its coming to its slot.
    pub queue_time: Duration,
    /// Time from there to the first token.
    pub prompt_time: Duration,
    /// Time for all tokens after the first.
    pub decode_time: Duration,
}

/// Hears the text as it comes, and can stop it.
pub trait Listener {
    /// Takes the next piece of text. `false` stops the generation.
    fn text(&mut self, text: &str) -> bool;

    /// Takes the log-probability of a token, before the text of it, if that was asked for. Its text begins `at` bytes into the whole, of
    /// which some may be held back still. End tokens have none.
    fn scored(&mut self, scored: Scored, at: usize) {
        let _ = (scored, at);
    }

    /// Takes the log-probability of the prompt's next token, the first of which has none, if that was asked for.
    fn prompt_scored(&mut self, scored: Scored) {
        let _ = scored;
    }

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
