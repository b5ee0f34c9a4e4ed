//! The one error type of the runtime; the GPU layer below it has its own, [`GpuError`](super::gpu::GpuError).

use std::path::PathBuf;
use std::sync::Arc;

use super::gpu::GpuError;

/// What can go wrong above the GPU. Every message is one line and names the file, key or limit concerned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The GPU layer failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No weights file in any of the places looked at.
    #[error("no weights file: looked at {}; give one with --weights or FORGE_WEIGHTS", .looked.join(", "))]
    NoWeights {
        /// Paths tried, in order.
        looked: Vec<String>,
    },
    /// A weights file that belongs to another program.
    #[error("{path} is not the file this program was generated for: its {what} is {found}, expected {expected}")]
    WrongWeights {
        /// The file.
        path: PathBuf,
        /// What differs: "length", "header digest" or "content digest".
        what: &'static str,
        /// The value baked into the program.
        expected: String,
        /// The value of the file.
        found: String,
    },
    /// A weights file that is no well-formed safetensors file.
    #[error("{path}: not a valid safetensors file: {reason}")]
    MalformedWeights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the program needs and the file lacks.
    #[error("{path}: no tensor {name:?}")]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// The embedded `tokenizer.json` or a text that it cannot handle.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The embedded `generation.json` does not parse.
    #[error("generation.json: {0}")]
    GenerationConfig(serde_json::Error),
    /// The chat template does not parse, or refused the messages.
    #[error("chat template: {0}")]
    Template(String),
    /// So many renderings went beyond their bounds and hold what they took that there are no more.
    #[error("chat template: {renderings} renderings were given up and hold their memory still; restart the program")]
    RenderingsGivenUp {
        /// How many.
        renderings: usize,
    },
    /// The checkpoint came without a chat template.
    #[error("this model has no chat template; use a plain prompt")]
    NoTemplate,
    /// Chat messages of the wrong form.
    #[error("{place} {reason}")]
    Messages {
        /// Which message and field.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A prompt with no tokens in it.
    #[error("the prompt is empty: at least one token is needed")]
    EmptyPrompt,
    /// A prompt that leaves no room for a single new token.
    #[error("the prompt is {tokens} tokens long, which does not fit the context of {context} tokens")]
    PromptTooLong {
        /// Tokens in the prompt; a lower bound when the text was refused before it was tokenized.
        tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Ids are below this.
        vocab_size: usize,
    },
    /// A batch of rows that no model can run.
    #[error("row {row} of a batch {what}")]
    Batch {
        /// The row's index.
        row: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A context that the model was not trained for.
    #[error("a context of {asked} tokens was asked for; this model has from 1 to {trained}")]
    ContextOutOfRange {
        /// Tokens asked for.
        asked: usize,
        /// The trained length.
        trained: usize,
    },
    /// A sampling parameter out of its range.
    #[error("{name} is {value}, which is not {range}")]
    Sampling {
        /// The parameter.
        name: &'static str,
        /// The value given.
        value: f32,
        /// The values allowed, as words.
        range: &'static str,
    },
    /// The model computed no finite logit.
    #[error("the model computed no finite logit at position {position}")]
    NonFiniteLogits {
        /// The position after which a token was to be chosen.
        position: usize,
    },
    /// A form of answers that cannot be gone on with.
    #[error("the form of the answer cannot be held: {0}")]
    Constraint(String),
    /// An argument of a kernel that its operation takes no input for.
    #[error("{kernel} reads {role}, which is no input of its operation")]
    NoInput {
        /// The kernel.
        kernel: String,
        /// The argument.
        role: &'static str,
    },
    /// Kernels that do not compute what they should.
    #[error("{failed} of {runs} kernel runs failed")]
    Verify {
        /// Runs beyond their bounds, or that the device reported.
        failed: usize,
        /// All runs.
        runs: usize,
    },
    /// Bad input to a command.
    #[error("{0}")]
    Usage(String),
    /// What went wrong with work that several requests had part in.
    #[error("{0}")]
    Together(Arc<Self>),
    /// The thread that ran the model is no more.
    #[error("the model has stopped")]
    Stopped,
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Result of everything above the GPU layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;
