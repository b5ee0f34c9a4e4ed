//! What a generated program embeds beside its kernels, and the text side of the model made from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::chat_templates::{ChatTemplates, Ending};
use super::sampler::{LEAST_TOP_P, Sampling};
use super::tokenizer::Tokenizer;
use super::weights::Embedded;
use super::{Error, Result};

/// Files embedded in the program.
#[derive(Debug, Clone, Copy)]
pub struct Assets {
    /// `tokenizer.json`.
    pub tokenizer: &'static [u8],
    /// `chat_template.jinja`, if the checkpoint has a default one.
    pub chat_template: Option<&'static str>,
    /// `generation.json`.
    pub generation: &'static str,
    /// Folder of the project at build time (`CARGO_MANIFEST_DIR`): the last place where the weights are looked for.
    pub project: &'static str,
    /// The weights, if they are part of the program.
    pub weights: Option<Embedded>,
}

/// `generation.json`: what the checkpoint says about generating with it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GenerationDefaults {
    /// Token that begins a sequence, as text.
    pub bos_token: Option<String>,
    /// Token that ends a sequence, as text.
    pub eos_token: Option<String>,
    /// Id of the token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Whether the tokenizer puts that token before a text; for information, the tokenizer does so by itself.
    pub add_bos: bool,
    /// Ids that end a generation.
    pub end_token_ids: Vec<u32>,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Tokens kept by top-k.
    pub top_k: Option<usize>,
    /// Probability kept by top-p.
    pub top_p: Option<f32>,
    /// Relative probability kept by min-p.
    pub min_p: Option<f32>,
    /// Repeat penalty.
    pub repeat_penalty: Option<f32>,
    /// Whether to sample at all.
    pub do_sample: Option<bool>,
    /// Further special tokens, as text, by the names templates use: `unk_token`, `pad_token`.
    pub special: Map<String, Value>,
    /// Further chat templates by name: `tool_use`, `rag`.
    pub chat_templates: BTreeMap<String, String>,
}

/// Sampling parameters that a user gave; the checkpoint's defaults stand in for the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingOptions {
    /// See [`Sampling::temperature`].
    pub temperature: Option<f32>,
    /// See [`Sampling::top_k`].
    pub top_k: Option<usize>,
    /// See [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`Sampling::min_p`].
    pub min_p: Option<f32>,
    /// See [`Sampling::repeat_penalty`].
    pub repeat_penalty: Option<f32>,
    /// See [`Sampling::presence_penalty`].
    pub presence_penalty: Option<f32>,
    /// See [`Sampling::frequency_penalty`].
    pub frequency_penalty: Option<f32>,
    /// See [`Sampling::logit_bias`].
    pub logit_bias: Vec<(u32, f32)>,
    /// See [`Sampling::seed`]; a fresh one if not given.
    pub seed: Option<u64>,
}

impl GenerationDefaults {
    /// The parameters to sample with. Without any word on sampling, from user or checkpoint, decoding is greedy.
    ///
    /// # Errors
    /// [`Error::Sampling`] for values out of range.
    pub fn sampling(&self, options: &SamplingOptions) -> Result<Sampling> {
        let default_temperature = match (self.do_sample, self.temperature) {
            (Some(false), _) => 0.0,
            (_, Some(temperature)) => temperature,
            (Some(true), None) => 1.0,
            (None, None) => 0.0,
        };
        let none = Sampling::default();
        let sampling = Sampling {
            temperature: options.temperature.unwrap_or(default_temperature),
            top_k: options.top_k.or(self.top_k).unwrap_or(none.top_k),
            // OpenAI's API, and others after it, have 0 for the most probable token alone.
            top_p: match options.top_p.or(self.top_p).unwrap_or(none.top_p) {
                0.0 => LEAST_TOP_P,
                top_p => top_p,
            },
            min_p: options.min_p.or(self.min_p).unwrap_or(none.min_p),
            repeat_penalty: options.repeat_penalty.or(self.repeat_penalty).unwrap_or(none.repeat_penalty),
            presence_penalty: options.presence_penalty.unwrap_or(none.presence_penalty),
            frequency_penalty: options.frequency_penalty.unwrap_or(none.frequency_penalty),
            logit_bias: options.logit_bias.clone(),
            seed: options.seed.unwrap_or_else(random_seed),
        };
        sampling.check()?;
        Ok(sampling)
    }
}

/// Tokenizer, chat template and generation defaults: all that turns a user's words into ids and back.
pub struct Text {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The checkpoint's chat templates.
    pub templates: ChatTemplates,
    /// What the checkpoint says about generating.
    pub defaults: GenerationDefaults,
}

impl Text {
    /// Reads the embedded files.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] and [`Error::GenerationConfig`]. A template that does not parse is an error when a chat needs it.
    pub fn load(assets: &Assets) -> Result<Self> {
        let tokenizer = Tokenizer::from_bytes(assets.tokenizer)?;
        let defaults: GenerationDefaults = serde_json::from_str(assets.generation).map_err(Error::GenerationConfig)?;
        let mut tokens = defaults.special.clone();
        for (name, token) in [("bos_token", &defaults.bos_token), ("eos_token", &defaults.eos_token)] {
            if let Some(token) = token {
                tokens.insert(name.into(), Value::String(token.clone()));
            }
        }
        let default = assets.chat_template.map(|source| ("default", source));
        let named = defaults.chat_templates.iter().map(|(name, source)| (name.as_str(), source.as_str()));
        let templates = ChatTemplates::new(named.chain(default), &tokens);
        Ok(Self { tokenizer: Arc::new(tokenizer), templates, defaults })
    }

    /// The prompt text for a chat. The template writes special tokens itself, so its text is tokenized without adding any.
    ///
    /// # Errors
    /// [`Error::NoTemplate`](super::Error::NoTemplate), [`Error::Messages`](super::Error::Messages) and
    /// [`Error::Template`](super::Error::Template).
    pub fn render_chat(&self, messages: &Value, ending: Ending, variables: &Map<String, Value>) -> Result<String> {
        self.templates.render(messages, ending, variables)
    }

    /// The prompt text for a chat that is a list of messages, or an object with `messages` and other variables of the chat template: `tools`,
    /// `documents`, what [`Ending::of`] knows.
    ///
    /// # Errors
    /// Those of [`Text::render_chat`] and [`Ending::of`].
    pub fn prompt_of(&self, chat: &Value) -> Result<String> {
        let (messages, variables) = match chat.clone() {
            Value::Object(mut fields) => (fields.remove("messages").unwrap_or_default(), fields),
            messages => (messages, Map::new()),
        };
        self.render_chat(&messages, Ending::of(&variables, &messages, false)?, &variables)
    }
}

/// A seed that differs from run to run.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // 53 bits, so that it survives a trip through JSON numbers.
    RandomState::new().hash_one(std::time::SystemTime::now()) >> 11
}
