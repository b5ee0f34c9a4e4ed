//! Reads a checkpoint (GGUF file, Hugging Face folder) into the intermediate representation.
//!
//! Owns the file formats, the validated [`ModelConfig`], one file per architecture family that builds a
//! [`Graph`], and the import of tokenizer and chat template. Knows nothing of Metal and writes no files.

pub mod checkpoint;
pub mod config;
pub mod graph;

pub use config::ModelConfig;
pub use graph::Graph;
