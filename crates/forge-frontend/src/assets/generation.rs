//! Sampling defaults and end tokens, as `generation.json` holds them.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a generated project's `generation.json` says. Absent values are null.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GenerationConfig {
    /// Text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// Text of the token that ends a sequence.
    pub eos_token: Option<String>,
    /// Id of the token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Whether the tokenizer puts it before every text.
    pub add_bos: bool,
    /// Every token that ends a generation, sorted.
    pub end_token_ids: Vec<u32>,
    /// Softmax temperature.
    pub temperature: Option<f32>,
    /// Number of most likely tokens to sample from.
    pub top_k: Option<u32>,
    /// Probability mass to sample from.
    pub top_p: Option<f32>,
    /// Least probability, relative to the likeliest token's.
    pub min_p: Option<f32>,
    /// Penalty on tokens that occurred before.
    pub repeat_penalty: Option<f32>,
    /// Whether to sample at all.
    pub do_sample: Option<bool>,
    /// Other tokens that chat templates may name.
    pub special: SpecialTokens,
    /// Chat templates besides the default one, by name: `tool_use`, `rag`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub chat_templates: BTreeMap<String, String>,
}

/// Texts of further special tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SpecialTokens {
    /// Stands for what the vocabulary lacks.
    pub unk_token: Option<String>,
    /// Fills up batches.
    pub pad_token: Option<String>,
}
