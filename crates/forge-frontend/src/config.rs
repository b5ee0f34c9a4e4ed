//! The neutral model configuration: what every later stage may know about a model's sizes.

use serde::Serialize;

/// Validated sizes of a model. Every product that must divide, divides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The checkpoint's own word for its architecture, for display only.
    pub architecture: String,
    /// The checkpoint's name for the model, or its file's stem.
    pub name: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer (the largest, where layers differ).
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Elements per head; its own field, never `hidden_size / num_heads`.
    pub head_dim: usize,
    /// Rows of the embedding table and of the head.
    pub vocab_size: usize,
    /// Longest context the model was trained for, in tokens.
    pub trained_context: usize,
}
