//! The neutral reading layer: what an architecture's builder sees of a checkpoint, whatever its container.

mod apart;
mod factors;
mod gguf;
mod hf;
mod hparams;
mod json;
mod latents;
mod mlx;
mod rope;
mod stacks;
mod tensors;
mod toolchains;

pub(crate) use gguf::load_gguf;
pub(crate) use hf::{CONFIG, TOKENIZER, duplicate_keys, load_folder, read_file, read_json, text_config};
pub(crate) use hparams::{Hparams, Key, brief, key};
pub(crate) use json::{integer, lenient_json, unsigned, without_mark};
pub(crate) use rope::RopeLayers;
pub(crate) use stacks::{Place, Stack};
pub(crate) use tensors::{Entry, Part, Role, Shape, Stored, Tensors};

use std::cell::RefCell;

use crate::checkpoint::MappedFile;
use crate::graph::FileRange;
use crate::{FrontendError, Refusal, Warning};

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

/// How many blocks predict tokens beyond the next one.
const PREDICTORS: Key = Key::new("nextn_predict_layers", "num_nextn_predict_layers");

/// What the tensors of a multimodal model's other parts begin with.
const OTHER_TOWERS: &[&str] = &[
    "vision_tower.",
    "vision_model.",
    "visual.",
    "vision_adapter.",
    "vision_projection.",
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

    /// Blocks that predict tokens beyond the next one.
    fn predictors(&self) -> Result<usize, FrontendError> {
        Ok(self.hparams.opt_count(PREDICTORS)?.unwrap_or(0))
    }

    /// Those at the end of a GGUF, which its number of blocks counts; a folder has them beyond its layers.
    pub fn trailing_blocks(&self) -> Result<usize, FrontendError> {
        if self.hparams.dialect == Dialect::HuggingFace {
            return Ok(0);
        }
        let (predictors, blocks) = (self.predictors()?, self.hparams.usize(key::LAYERS)?);
        if predictors >= blocks {
            let expected = format!("fewer than the {blocks} blocks");
            return Err(self.hparams.invalid(Refusal::PredictionLayers, PREDICTORS, expected));
        }
        Ok(predictors)
    }

    /// Passes over what predicts tokens beyond the next one (multi-token prediction), with a warning: blocks after the
    /// `layers`, and modules of their own name.
    pub fn ignore_predictors(&self, layers: usize) -> Result<(), FrontendError> {
        let beyond = layers..layers + self.predictors()?;
        let body = match self.hparams.dialect {
            Dialect::HuggingFace => format!("{}layers.", self.tensors.prefix),
            Dialect::Gguf => "blk.".to_owned(),
        };
        let is_part = |name: &str| {
            let block = name.strip_prefix(&body).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            let named =
                self.hparams.dialect == Dialect::HuggingFace && name.split('.').take(3).any(|part| part == "mtp");
            named || block.is_some_and(|block| beyond.contains(&block))
        };
        let mut parts = self.tensors.entries.keys().filter(|name| is_part(name));
        if let Some(first) = parts.next() {
            let (file, first, tensors) = (self.tensors.file.clone(), first.clone(), 1 + parts.count());
            self.tensors.ignore(is_part);
            self.warn(Warning::Predictor { file, first, tensors });
        }
        Ok(())
    }

    pub fn bytes(&self, range: &FileRange) -> &[u8] {
        &self.files[range.file].bytes()[range.range.start as usize..range.range.end as usize]
    }
}
