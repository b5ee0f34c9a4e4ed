//! Qwen3 (dense): RMS norms on each head of q and k.

use super::Family;
use super::dense::{self, QkNorm};
use super::qwen2::build_qwen;
use crate::FrontendError;
use crate::graph::Graph;
use crate::source::{Loaded, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["qwen3"],
    hf: &[(
        "qwen3",
        r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "max_window_layers": 28, "head_dim": 128}"#,
    )],
    roles: &[],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let qkv_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?;
    let output_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?;
    build_qwen(loaded, QkNorm::Heads, qkv_bias, output_bias)
}
