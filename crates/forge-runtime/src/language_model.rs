//! What the command line and the server know of a model: its constants and two calls, prefill and decode.

use std::path::PathBuf;

use super::gpu::{Gpu, KernelSpec};
use super::sampler::{Sampler, Sampling};
use super::{Error, Result};

/// Constants of one generated model.
#[derive(Debug, Clone, Copy)]
pub struct ModelInfo {
    /// Name of the project, and the model's name in HTTP answers.
    pub name: &'static str,
    /// Architecture family, as the checkpoint calls it.
    pub architecture: &'static str,
    /// File name of the checkpoint that the project was generated from.
    pub source: &'static str,
    /// Rows of logits are this long.
    pub vocab_size: usize,
    /// Tokens of context the model was trained for; the most `--context` may ask for.
    pub trained_context: usize,
    /// Tokens of context that the KV cache holds when `--context` is not given.
    pub default_context: usize,
    /// Weights, counted as numbers.
    pub parameters: u64,
    /// Length of `weights.safetensors` in bytes.
    pub weights_bytes: u64,
    /// SHA-256, in lower-case hexadecimal, of the file's first `8 + n` bytes: length word and header.
    pub weights_header_sha256: &'static str,
    /// Bytes of KV cache for each token of context, over all layers.
    pub kv_bytes_per_token: u64,
    /// Bytes of every other buffer: activations, partial sums, logits.
    pub activation_bytes: u64,
    /// Most tokens that one prefill dispatch works on.
    pub prefill_tile: usize,
    /// Every kernel, in the order of the indices that the schedules use.
    pub kernels: &'static [KernelSpec],
}

impl ModelInfo {
    /// Bytes of GPU memory needed with a KV cache of `context` tokens.
    pub fn memory_bytes(&self, context: usize) -> u64 {
        self.weights_bytes + self.activation_bytes + self.kv_bytes_per_token * context as u64
    }
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The weights file.
    pub weights: PathBuf,
    /// Tokens of KV cache; the model's default if not given.
    pub context: Option<usize>,
}

impl LoadOptions {
    /// Tokens of KV cache to allocate.
    ///
    /// # Errors
    /// [`Error::ContextOutOfRange`] for 0 and for more than the model was trained for.
    pub fn context_for(&self, info: &ModelInfo) -> Result<usize> {
        let asked = self.context.unwrap_or(info.default_context);
        if (1..=info.trained_context).contains(&asked) {
            Ok(asked)
        } else {
            Err(Error::ContextOutOfRange { asked, trained: info.trained_context })
        }
    }
}

/// Which rows of a prefill want logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// None: the tokens only fill the KV cache.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// One model with the state of one sequence.
///
/// Positions are filled in order. A call at position `p` makes all state beyond `p` void, and a call at position 0 starts a
/// new sequence; a caller goes back to no other position than 0, because recurrent state and windowed caches cannot.
pub trait LanguageModel: Send {
    /// The model's constants.
    fn info(&self) -> &'static ModelInfo;

    /// Tokens that the KV cache holds.
    fn context(&self) -> usize;

    /// The device it runs on; `None` for a model without kernels.
    fn gpu(&self) -> Option<&Gpu> {
        None
    }

    /// Runs `tokens` at positions `position..position + tokens.len()` and appends the wanted logits rows, `[vocab]` f32 each,
    /// to `logits`. `keep_going` is asked once per tile of at most [`ModelInfo::prefill_tile`] tokens.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once `keep_going` says no, [`Error::PromptTooLong`] past the context, and GPU errors. After an
    /// error the sequence has to be started again.
    fn prefill(
        &mut self,
        tokens: &[u32],
        position: usize,
        rows: LogitRows,
        logits: &mut Vec<f32>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<()>;

    /// Runs one token at `position` and replaces `logits` by its row, `[vocab]` f32.
    ///
    /// # Errors
    /// As [`LanguageModel::prefill`].
    fn decode(&mut self, token: u32, position: usize, logits: &mut Vec<f32>) -> Result<()>;

    /// Decodes `token` at `position`, chooses the next token, decodes that, and so on. `listener` gets every chosen token
    /// and says whether to go on; the context's end stops it too. `observed` are the tokens so far, for the repeat
    /// penalty. Returns the positions that hold the sequence then: the last chosen token is not decoded.
    ///
    /// This one samples on the host after each step; a model on a GPU chooses there and runs a step ahead.
    ///
    /// # Errors
    /// As [`LanguageModel::decode`], and [`Error::NonFiniteLogits`].
    fn generate(
        &mut self,
        token: u32,
        position: usize,
        sampling: &Sampling,
        observed: &[u32],
        listener: &mut dyn FnMut(u32) -> bool,
    ) -> Result<usize> {
        let mut sampler = Sampler::new(sampling);
        observed.iter().for_each(|&token| sampler.observe(token));
        let (mut token, mut position, mut logits) = (token, position, Vec::new());
        loop {
            self.decode(token, position, &mut logits)?;
            position += 1;
            token = sampler.sample(&mut logits).ok_or(Error::NonFiniteLogits { position })?;
            if !listener(token) || position == self.context() {
                return Ok(position);
            }
        }
    }
}

impl<M: LanguageModel + ?Sized> LanguageModel for Box<M> {
    fn info(&self) -> &'static ModelInfo {
        (**self).info()
    }

    fn context(&self) -> usize {
        (**self).context()
    }

    fn gpu(&self) -> Option<&Gpu> {
        (**self).gpu()
    }

    fn prefill(
        &mut self,
        tokens: &[u32],
        position: usize,
        rows: LogitRows,
        logits: &mut Vec<f32>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        (**self).prefill(tokens, position, rows, logits, keep_going)
    }

    fn decode(&mut self, token: u32, position: usize, logits: &mut Vec<f32>) -> Result<()> {
        (**self).decode(token, position, logits)
    }

    fn generate(
        &mut self,
        token: u32,
        position: usize,
        sampling: &Sampling,
        observed: &[u32],
        listener: &mut dyn FnMut(u32) -> bool,
    ) -> Result<usize> {
        (**self).generate(token, position, sampling, observed, listener)
    }
}
