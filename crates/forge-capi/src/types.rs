//! Structures of the interface. What C gives is numbers and pointers alone, of which any bits mean something.

use std::ffi::c_char;

use model::runtime::assets::{SamplingOptions, Text};
use model::runtime::generation::{Finish, Request, Summary};

use crate::failure::{Failure, ForgeStatus};
use crate::memory::{lent, terminated};

/// A model that is loaded.
pub struct ForgeModel {
    _private: [u8; 0],
}

/// A text on its way.
pub struct ForgeGeneration {
    _private: [u8; 0],
}

/// What a model is. Its texts live as long as the program.
#[repr(C)]
#[derive(Debug)]
pub struct ForgeInfo {
    /// Its name.
    pub name: *const c_char,
    /// Its architecture, as the checkpoint calls it.
    pub architecture: *const c_char,
    /// The checkpoint that it was generated from.
    pub source: *const c_char,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Tokens of context of each slot.
    pub context: usize,
    /// The most that `context` may be.
    pub trained_context: usize,
    /// Texts that are generated side by side; more wait for their turn.
    pub slots: usize,
    /// Weights, counted as numbers.
    pub parameters: u64,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// Not 0 where it has a chat template.
    pub has_chat_template: i32,
}

/// How a text is generated. `forge_options_default` has the checkpoint's own way.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ForgeOptions {
    /// Most tokens; 0 for as many as the context has room for.
    pub max_tokens: usize,
    /// Divides the logits; 0 always takes the most probable token. NAN, here and for the floats below, is the checkpoint's.
    pub temperature: f32,
    /// Choose among the fewest tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Choose among tokens at least so many times as probable as the most probable one; 0 for all.
    pub min_p: f32,
    /// Makes tokens that occurred less probable; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Taken from the logits of tokens that the text has already.
    pub presence_penalty: f32,
    /// Taken from them for each time that the text has them.
    pub frequency_penalty: f32,
    /// Choose among so many of the most probable tokens; 0 for all, below 0 for the checkpoint's.
    pub top_k: i32,
    /// Not 0 where the text stands by itself, as the answer to a chat does; 0 where it continues the prompt's.
    pub is_answer: i32,
    /// The same seed gives the same text; below 0 for another one each time.
    pub seed: i64,
    /// Texts that end it and are not part of it, each ending with a zero byte.
    pub stop: *const *const c_char,
    /// How many.
    pub stop_count: usize,
}

/// Most texts in `stop`; a number beyond it is taken for garbage.
const MOST_STOPS: usize = 1024;

impl Default for ForgeOptions {
    fn default() -> Self {
        Self {
            max_tokens: 0,
            temperature: f32::NAN,
            top_p: f32::NAN,
            min_p: f32::NAN,
            repeat_penalty: f32::NAN,
            presence_penalty: f32::NAN,
            frequency_penalty: f32::NAN,
            top_k: -1,
            is_answer: 0,
            seed: -1,
            stop: std::ptr::null(),
            stop_count: 0,
        }
    }
}

impl ForgeOptions {
    /// The request that they ask for.
    ///
    /// # Safety
    /// `stop` are `stop_count` texts, each ending with a zero byte, which can be read until the caller's function returns and which nothing writes.
    pub(crate) unsafe fn request(&self, prompt: Vec<u32>, text: &Text) -> Result<Request, Failure> {
        let given = |value: f32| (!value.is_nan()).then_some(value);
        let options = SamplingOptions {
            temperature: given(self.temperature),
            top_k: usize::try_from(self.top_k).ok(),
            top_p: given(self.top_p),
            min_p: given(self.min_p),
            repeat_penalty: given(self.repeat_penalty),
            presence_penalty: given(self.presence_penalty),
            frequency_penalty: given(self.frequency_penalty),
            logit_bias: Vec::new(),
            seed: u64::try_from(self.seed).ok(),
        };
        if self.stop_count > MOST_STOPS {
            let words = format!("{} stop texts, of which there may be {MOST_STOPS}", self.stop_count);
            return Err(Failure::new(ForgeStatus::Argument, words));
        }
        // SAFETY: the caller's word.
        let stops = unsafe { lent(self.stop, self.stop_count, "stop texts") }?;
        // SAFETY: the caller's word.
        let stop = stops.iter().map(|&stop| unsafe { terminated(stop, "stop text") }.map(str::to_owned));
        Ok(Request {
            prompt,
            max_tokens: (self.max_tokens > 0).then_some(self.max_tokens),
            sampling: text.defaults.sampling(&options)?,
            stop: stop.collect::<Result<_, _>>()?,
            continues_prompt: self.is_answer == 0,
            ..Request::default()
        })
    }
}

/// Why a text ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeFinish {
    /// The model ended it, or a stop text.
    Stop = 0,
    /// The limit on tokens, or the end of the context.
    Length = 1,
    /// It was ended by the caller.
    Cancelled = 2,
}

/// What a text came to.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ForgeSummary {
    /// Why it ended.
    pub finish: ForgeFinish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that the model knew from an earlier text.
    pub reused_tokens: usize,
    /// Tokens generated, an end token included.
    pub completion_tokens: usize,
    /// Seconds until it had a slot.
    pub queue_seconds: f64,
    /// Seconds from there to its first token.
    pub prompt_seconds: f64,
    /// Seconds for all tokens after the first.
    pub decode_seconds: f64,
}

impl From<&Summary> for ForgeSummary {
    fn from(summary: &Summary) -> Self {
        let finish = match summary.finish {
            Finish::Stop => ForgeFinish::Stop,
            Finish::Length => ForgeFinish::Length,
            Finish::Cancelled => ForgeFinish::Cancelled,
        };
        Self {
            finish,
            prompt_tokens: summary.prompt_tokens,
            reused_tokens: summary.reused_tokens,
            completion_tokens: summary.completion_tokens,
            queue_seconds: summary.queue_time.as_secs_f64(),
            prompt_seconds: summary.prompt_time.as_secs_f64(),
            decode_seconds: summary.decode_time.as_secs_f64(),
        }
    }
}
