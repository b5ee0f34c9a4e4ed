//! What a program around the model needs besides weights: tokenizer, chat template, generation defaults.

mod bpe;
mod charsmap;
mod chat_template;
mod defaults;
mod end_tokens;
mod folder;
mod folder_tokenizer;
mod generation;
mod gguf;
// The engine of generated projects, which parses every template here too.
#[path = "../../../forge-runtime/src/jinja/mod.rs"]
mod jinja;
mod markers;
mod pre_tokenizers;
mod processor;
mod sentencepiece;
mod spm;
mod vocabulary;

use std::path::Path;

use crate::FrontendError;
use crate::checkpoint::GgufFile;
use crate::source::text_config;

pub(crate) use chat_template::file_of as template_file;
pub(crate) use gguf::{mistyped_markers, unknown_ids};

pub use generation::{GenerationConfig, SpecialTokens};

/// Tokenizer, chat template and generation defaults of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Assets {
    /// A `tokenizer.json` as the `tokenizers` crate reads it; its post-processor adds what the checkpoint's own
    /// tokenizer adds (BOS, EOS).
    pub tokenizer_json: Vec<u8>,
    /// The default chat template (Jinja), where there is one.
    pub chat_template: Option<String>,
    /// Names of further chat templates, `tool_use` and `rag` among them; they are in
    /// [`GenerationConfig::chat_templates`].
    pub other_templates: Vec<String>,
    /// Sampling defaults and the tokens that end a generation.
    pub generation: GenerationConfig,
}

impl Assets {
    /// The assets in a GGUF's metadata; it need not hold a tensor.
    ///
    /// # Errors
    /// A missing key, an unknown tokenizer or pre-tokenizer by its name, or arrays that do not fit together.
    pub fn from_gguf(gguf: &GgufFile) -> Result<Self, FrontendError> {
        gguf::from_gguf(gguf)
    }

    /// The assets of a Hugging Face folder; it need not hold weights.
    ///
    /// # Errors
    /// No config.json or no tokenizer, or a file that is not what its name says.
    pub fn from_folder(folder: &Path) -> Result<Self, FrontendError> {
        folder::from_folder(folder, &text_config(folder)?.values)
    }

    /// Name of each chat template that generated projects cannot use (`None`: the default one), and why.
    pub fn template_problems(&self) -> Vec<(Option<String>, String)> {
        chat_template::problems(self.chat_template.as_deref(), &self.generation.chat_templates)
    }
}

/// Compact JSON with a final newline.
fn to_json(value: &serde_json::Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}
