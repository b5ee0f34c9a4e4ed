//! What can be wrong with a checkpoint. Every message is one line and names the file, key or tensor.

use std::path::PathBuf;

use forge_formats::FormatError;

use crate::Refusal;
use crate::checkpoint::CheckpointError;

/// A checkpoint that cannot be turned into a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontendError {
    /// The container (GGUF or safetensors) is damaged or unreadable.
    #[error(transparent)]
    Container(#[from] CheckpointError),
    /// A file of the checkpoint could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path is neither a GGUF file nor a model folder.
    #[error("{}: expected {expected}, found {found}", path.display())]
    NotACheckpoint {
        /// Which refusal this is.
        refusal: Refusal,
        /// The path as given.
        path: PathBuf,
        /// What would have been accepted.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A JSON file does not parse.
    #[error("{file}: not valid JSON: {source}")]
    Json {
        /// The file's name.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// No builder for the architecture.
    #[error("{file}: architecture {found:?} is not supported; supported: {supported}")]
    UnknownArchitecture {
        /// The file that names it.
        file: String,
        /// Its name.
        found: String,
        /// The names that are, separated by commas.
        supported: String,
    },
    /// The architecture is known, but the checkpoint uses a part of it that is not.
    #[error("{file}: {key} = {found} is not supported: {reason}")]
    UnsupportedFeature {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The key that asks for it.
        key: String,
        /// Its value.
        found: String,
        /// What is missing, or what would be accepted.
        reason: String,
    },
    /// A key that the architecture needs is absent.
    #[error("{file}: key {key} is missing")]
    MissingKey {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The key, as this file spells it.
        key: String,
    },
    /// A key's value is of the wrong type or out of range.
    #[error("{file}: {key}: expected {expected}, found {found}")]
    KeyValue {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What is accepted.
        expected: String,
        /// The value.
        found: String,
    },
    /// Two sizes of which one must divide the other do not.
    #[error("{file}: {dividend_key} = {dividend} is not a multiple of {divisor_key} = {divisor}")]
    NotDivisible {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// Key of the larger number.
        dividend_key: String,
        /// The larger number.
        dividend: usize,
        /// Key of the smaller number.
        divisor_key: String,
        /// The smaller number.
        divisor: usize,
    },
    /// A tensor that the architecture needs is absent.
    #[error("{file}: tensor {tensor} is missing")]
    MissingTensor {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file, or the folder's index.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is not of the shape that the configuration implies.
    #[error("{file}: tensor {tensor}: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// `[rows, cols]` or `[len]`.
        expected: Vec<usize>,
        /// The file's shape, outermost first.
        found: Vec<usize>,
    },
    /// A tensor's bytes are not as many as its shape and format need.
    #[error("{file}: tensor {tensor}: expected {expected} bytes, found {found}")]
    TensorBytes {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What shape and format need.
        expected: u64,
        /// What the file gives.
        found: u64,
    },
    /// A tensor is stored in a format that is not read.
    #[error("{file}: tensor {tensor}: {source}")]
    TensorFormat {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The format, by name.
        source: FormatError,
    },
    /// A tensor's element type is not read here.
    #[error("{file}: tensor {tensor}: expected {expected}, found {found}")]
    TensorType {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is accepted.
        expected: &'static str,
        /// The stored type.
        found: String,
    },
    /// A tensor that is not what it has to be.
    #[error("{file}: tensor {tensor}: expected {expected}, found {found}")]
    Tensor {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A tensor that no part of the graph reads: leaving it out would change the result.
    #[error(
        "{file}: tensor {tensor} is not part of the {architecture} architecture as supported, and leaving it out would change the result"
    )]
    UnreadTensor {
        /// The file.
        file: String,
        /// The first such tensor.
        tensor: String,
        /// The architecture.
        architecture: String,
    },
    /// The tokenizer cannot be imported.
    #[error("{file}: {key}: {reason}")]
    Tokenizer {
        /// Which refusal this is.
        refusal: Refusal,
        /// The file.
        file: String,
        /// The key or part.
        key: String,
        /// What was expected and found.
        reason: String,
    },
}

impl FrontendError {
    /// Which refusal this is; `None` for those that a variant tells.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::NotACheckpoint { refusal, .. }
            | Self::UnsupportedFeature { refusal, .. }
            | Self::MissingKey { refusal, .. }
            | Self::KeyValue { refusal, .. }
            | Self::NotDivisible { refusal, .. }
            | Self::MissingTensor { refusal, .. }
            | Self::TensorShape { refusal, .. }
            | Self::TensorFormat { refusal, .. }
            | Self::TensorType { refusal, .. }
            | Self::Tensor { refusal, .. }
            | Self::Tokenizer { refusal, .. } => Some(*refusal),
            Self::Container(_)
            | Self::Io { .. }
            | Self::Json { .. }
            | Self::UnknownArchitecture { .. }
            | Self::TensorBytes { .. }
            | Self::UnreadTensor { .. } => None,
        }
    }
}
