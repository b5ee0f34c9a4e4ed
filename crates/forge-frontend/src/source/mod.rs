//! The neutral reading layer: what an architecture's builder sees of a checkpoint, whatever its container.

mod gguf;
mod hf;
mod hparams;
mod rope;
mod tensors;

pub(crate) use gguf::load_gguf;
pub(crate) use hf::{load_folder, read_file, read_json};
pub(crate) use hparams::{Hparams, Key, brief, key};
pub(crate) use rope::RopeLayers;
pub(crate) use tensors::{Entry, Part, Role, Stored, Tensors};

use crate::checkpoint::MappedFile;
use crate::graph::FileRange;

/// Whose names a checkpoint uses. MLX folders use Hugging Face's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Gguf,
    HuggingFace,
}

/// A checkpoint before a builder has seen it.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// `general.architecture` or `model_type`.
    pub architecture: String,
    /// The model's own name, else that of its file or folder.
    pub name: String,
    pub hparams: Hparams,
    pub tensors: Tensors,
    pub files: Vec<MappedFile>,
}

impl Loaded {
    pub fn bytes(&self, range: &FileRange) -> &[u8] {
        &self.files[range.file].bytes()[range.range.start as usize..range.range.end as usize]
    }
}
