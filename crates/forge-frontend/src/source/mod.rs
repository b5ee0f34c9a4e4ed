//! The neutral reading layer: what an architecture's builder sees of a checkpoint, whatever its container.

mod gguf;
mod hf;
mod hparams;
mod json;
mod mlx;
mod rope;
mod stacks;
mod tensors;

pub(crate) use gguf::load_gguf;
pub(crate) use hf::{CONFIG, TOKENIZER, duplicate_keys, load_folder, read_file, read_json, text_config};
pub(crate) use hparams::{Hparams, Key, brief, key};
pub(crate) use json::{integer, lenient_json, unsigned, without_mark};
pub(crate) use rope::RopeLayers;
pub(crate) use tensors::{Entry, Part, Role, Stored, Tensors};

use std::cell::RefCell;

use crate::Warning;
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
    /// What its owner should know.
    pub warnings: RefCell<Vec<Warning>>,
}

/// What the tensors of a multimodal model's other parts begin with.
const OTHER_TOWERS: &[&str] = &[
    "vision_tower.",
    "vision_model.",
    "visual.",
    "multi_modal_projector.",
    "audio_tower.",
    "embed_vision.",
    "embed_audio.",
    "mm_projector.",
];

impl Loaded {
    pub fn warn(&self, warning: Warning) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Passes over the image and audio parts of a multimodal checkpoint, with a warning.
    pub fn ignore_other_towers(&self) {
        if self.hparams.dialect == Dialect::Gguf {
            return;
        }
        for tower in OTHER_TOWERS {
            let is_part = |name: &str| name.strip_prefix("model.").unwrap_or(name).starts_with(tower);
            let count = self.tensors.entries.keys().filter(|name| is_part(name)).count();
            if count > 0 {
                self.tensors.ignore(is_part);
                let (file, tower) = (self.tensors.file.clone(), tower.trim_end_matches('.').to_owned());
                self.warn(Warning::OtherTower { file, tower, tensors: count });
            }
        }
    }

    pub fn bytes(&self, range: &FileRange) -> &[u8] {
        &self.files[range.file].bytes()[range.range.start as usize..range.range.end as usize]
    }
}
