//! The containers that checkpoints come in: GGUF files and safetensors files, memory-mapped.
//!
//! Owns what is true of a container whatever model it holds: names, types, shapes and byte ranges, all checked against
//! the file before anything is returned. Knows no architecture and reads no weight.

mod error;
mod file;
mod gguf;
mod kind;
mod safetensors;
mod shards;

pub use error::CheckpointError;
pub use file::MappedFile;
pub(crate) use file::read_in_folder;
pub use gguf::{GgufFile, GgufTensor, MetaArray, MetaValue};
pub use safetensors::{Dtype, SafetensorsSet, StTensor};
