//! Reads a checkpoint (GGUF file, Hugging Face folder) into the intermediate representation.
//!
//! Owns the file formats, the validated [`ModelConfig`], one file per architecture family that builds a
//! [`Graph`], and the import of tokenizer and chat template. Knows nothing of Metal and writes no files.

mod arch;
mod assets;
pub mod checkpoint;
pub mod config;
mod error;
pub mod graph;
mod load;
mod refusal;
mod rope;
mod source;
mod strides;
mod survey;
mod warning;

pub use assets::{Assets, GenerationConfig, SpecialTokens};
pub use config::ModelConfig;
pub use error::FrontendError;
pub use graph::Graph;
pub use load::{Checkpoint, load};
pub use refusal::Refusal;
pub use survey::{FormatCount, Survey, survey};
pub use warning::Warning;
