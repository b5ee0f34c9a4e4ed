//! Hyper-parameters by neutral key: a GGUF's `llama.block_count` and a config.json's `num_hidden_layers` are one [`Key`].

use serde_json::{Map, Value};

use super::{Dialect, integer};
use crate::{FrontendError, Refusal};

/// A hyper-parameter, as each dialect spells it. An empty spelling: the dialect does not have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// After the architecture's prefix: `attention.head_count`.
    pub gguf: &'static str,
    /// In config.json, or in its `text_config`.
    pub hf: &'static str,
}

impl Key {
    pub const fn new(gguf: &'static str, hf: &'static str) -> Self {
        Self { gguf, hf }
    }
}

/// The keys that most architectures share.
pub(crate) mod key {
    use super::Key;

    pub const LAYERS: Key = Key::new("block_count", "num_hidden_layers");
    pub const CONTEXT: Key = Key::new("context_length", "max_position_embeddings");
    pub const HIDDEN: Key = Key::new("embedding_length", "hidden_size");
    pub const INTERMEDIATE: Key = Key::new("feed_forward_length", "intermediate_size");
    pub const HEADS: Key = Key::new("attention.head_count", "num_attention_heads");
    pub const KV_HEADS: Key = Key::new("attention.head_count_kv", "num_key_value_heads");
    pub const HEAD_DIM: Key = Key::new("attention.key_length", "head_dim");
    pub const VALUE_DIM: Key = Key::new("attention.value_length", "");
    pub const EPS: Key = Key::new("attention.layer_norm_rms_epsilon", "rms_norm_eps");
    /// That of norms that subtract a mean.
    pub const LAYER_NORM_EPS: Key = Key::new("attention.layer_norm_epsilon", "layer_norm_eps");
    pub const VOCAB: Key = Key::new("vocab_size", "vocab_size");
    pub const WINDOW: Key = Key::new("attention.sliding_window", "sliding_window");
    pub const ACTIVATION: Key = Key::new("", "hidden_act");
    pub const ATTENTION_BIAS: Key = Key::new("", "attention_bias");
    pub const MLP_BIAS: Key = Key::new("", "mlp_bias");
    pub const TIED: Key = Key::new("", "tie_word_embeddings");
    pub const LAYER_TYPES: Key = Key::new("", "layer_types");
}

/// Whether a GGUF has this key without its architecture's prefix.
pub(super) fn is_global(key: &str) -> bool {
    key.starts_with("xielu.")
}

/// The architecture's own keys of a checkpoint.
#[derive(Debug)]
pub(crate) struct Hparams {
    pub dialect: Dialect,
    /// File the keys are in, for errors.
    pub file: String,
    /// `llama.` for a GGUF, `text_config.` or nothing for a config.json: what errors print before a key.
    pub prefix: String,
    /// Values by key without the prefix.
    pub values: Map<String, Value>,
}

impl Hparams {
    /// Adds the keys of a JSON object that are not there. A null that is there stays.
    ///
    /// # Panics
    /// `defaults` is no JSON object.
    pub fn fill_in(&mut self, defaults: &str) {
        let defaults: Map<String, Value> =
            serde_json::from_str(defaults).expect("a family's defaults are a JSON object");
        let older =
            ["rope_scaling", "rope_theta"].iter().any(|old| self.values.get(*old).is_some_and(|v| !v.is_null()));
        for (key, value) in defaults {
            // The older dialect's keys say what the object does.
            if key == "rope_parameters" && older {
                continue;
            }
            self.values.entry(key).or_insert(value);
        }
    }

    /// The key as this file spells it.
    pub fn spelling(&self, key: Key) -> String {
        let name = match self.dialect {
            Dialect::Gguf => key.gguf,
            Dialect::HuggingFace => key.hf,
        };
        if self.dialect == Dialect::Gguf && is_global(name) {
            return name.to_owned();
        }
        format!("{}{name}", self.prefix)
    }

    /// The value; `None` when absent or null.
    pub fn get(&self, key: Key) -> Option<&Value> {
        let name = match self.dialect {
            Dialect::Gguf => key.gguf,
            Dialect::HuggingFace => key.hf,
        };
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// The key is there but its value will not do.
    pub fn invalid(&self, refusal: Refusal, key: Key, expected: impl Into<String>) -> FrontendError {
        let found = self.get(key).map_or_else(|| "nothing".to_owned(), brief);
        FrontendError::KeyValue {
            refusal,
            file: self.file.clone(),
            key: self.spelling(key),
            expected: expected.into(),
            found,
        }
    }

    /// The key's value asks for something that is not built.
    pub fn unsupported(&self, refusal: Refusal, key: Key, reason: impl Into<String>) -> FrontendError {
        let found = self.get(key).map_or_else(|| "nothing".to_owned(), brief);
        FrontendError::UnsupportedFeature {
            refusal,
            file: self.file.clone(),
            key: self.spelling(key),
            found,
            reason: reason.into(),
        }
    }

    pub fn missing(&self, refusal: Refusal, key: Key) -> FrontendError {
        FrontendError::MissingKey { refusal, file: self.file.clone(), key: self.spelling(key) }
    }

    /// A size: a positive integer, or none for -1. An array of equal numbers counts as that number.
    pub fn opt_usize(&self, key: Key) -> Result<Option<usize>, FrontendError> {
        let Some(value) = self.get(key).filter(|value| !self.is_none(value)) else { return Ok(None) };
        let value = match value.as_array() {
            Some(items) if items.windows(2).any(|pair| pair[0] != pair[1]) => {
                return Err(self.unsupported(Refusal::UnequalSizes, key, "values that differ from layer to layer"));
            }
            Some(items) => items.first().ok_or_else(|| self.invalid(Refusal::NoSizes, key, "a size"))?,
            None => value,
        };
        self.size(key, value).map(Some)
    }

    /// A number of things, as [`Hparams::opt_usize`] but that there may be none.
    pub fn opt_count(&self, key: Key) -> Result<Option<usize>, FrontendError> {
        match self.get(key).map(integer) {
            Some(Some(0)) => Ok(Some(0)),
            _ => self.opt_usize(key),
        }
    }

    /// A size of each layer, from an array or one number for all; empty when absent.
    pub fn layer_sizes(&self, key: Key, layers: usize) -> Result<Vec<usize>, FrontendError> {
        match self.get(key) {
            Some(Value::Array(items)) if items.len() == layers => {
                items.iter().map(|item| self.size(key, item)).collect()
            }
            Some(Value::Array(_)) => {
                Err(self.invalid(Refusal::LayerSizes, key, format!("an array of {layers}, one per layer")))
            }
            _ => Ok(self.opt_usize(key)?.map_or_else(Vec::new, |size| vec![size; layers])),
        }
    }

    /// The width of windowed layers; some writers say 0 for none.
    pub fn window(&self) -> Result<Option<usize>, FrontendError> {
        match self.get(key::WINDOW) {
            Some(value) if integer(value) == Some(0) => Ok(None),
            _ => self.opt_usize(key::WINDOW),
        }
    }

    pub fn usize(&self, key: Key) -> Result<usize, FrontendError> {
        let absent = || match self.get(key) {
            Some(_) => self.invalid(Refusal::NegativeSize, key, "a positive size"),
            None => self.missing(Refusal::MissingSize, key),
        };
        self.opt_usize(key)?.ok_or_else(absent)
    }

    /// Whether a number means that there is none: -1, which a GGUF may hold as an unsigned one.
    fn is_none(&self, value: &Value) -> bool {
        let all_ones = |number: u64| number == u64::from(u32::MAX) || number == u64::MAX;
        integer(value) == Some(-1) || self.dialect == Dialect::Gguf && value.as_u64().is_some_and(all_ones)
    }

    fn size(&self, key: Key, value: &Value) -> Result<usize, FrontendError> {
        // Beyond 31 bits no size of a model is real, and products of two stay within 64 bits.
        let size = integer(value).filter(|n| (1..=i64::from(i32::MAX)).contains(n));
        size.map(|n| n as usize).ok_or_else(|| self.invalid(Refusal::Size, key, "a positive size"))
    }

    /// A finite number.
    pub fn opt_f32(&self, key: Key) -> Result<Option<f32>, FrontendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| self.invalid(Refusal::Number, key, "a number"))
    }

    pub fn f32(&self, key: Key) -> Result<f32, FrontendError> {
        self.opt_f32(key)?.ok_or_else(|| self.missing(Refusal::MissingNumber, key))
    }

    pub fn opt_bool(&self, key: Key) -> Result<Option<bool>, FrontendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(Refusal::Flag, key, "true or false"))
    }

    pub fn opt_str(&self, key: Key) -> Result<Option<&str>, FrontendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(Refusal::Text, key, "a string"))
    }

    /// Refuses `dividend` when it is no multiple of `divisor`.
    pub fn divides(
        &self,
        refusal: Refusal,
        dividend: (Key, usize),
        divisor: (Key, usize),
    ) -> Result<(), FrontendError> {
        if divisor.1 != 0 && dividend.1.is_multiple_of(divisor.1) {
            return Ok(());
        }
        Err(FrontendError::NotDivisible {
            refusal,
            file: self.file.clone(),
            dividend_key: self.spelling(dividend.0),
            dividend: dividend.1,
            divisor_key: self.spelling(divisor.0),
            divisor: divisor.1,
        })
    }
}

/// A value as an error prints it: on one line and not long.
pub(crate) fn brief(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
