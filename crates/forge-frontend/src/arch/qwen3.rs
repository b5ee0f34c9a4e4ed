//! Qwen3 (dense), and the text model of Qwen3-VL, to whose rotation a text's positions are one number: RMS norms on each head of
//! q and k.

use super::Family;
use super::dense::{self, QkNorm};
use super::qwen2::build_qwen;
use crate::FrontendError;
use crate::graph::Graph;
use crate::source::{Loaded, key};

const VL_DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 128000, "head_dim": 128, "hidden_size": 4096,
    "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "rope_theta": 500000.0}"#;

pub(super) const FAMILY: Family = Family {
    gguf: &["qwen3", "qwen3vl"],
    hf: &[
        (
            "qwen3",
            r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "max_window_layers": 28, "head_dim": 128}"#,
        ),
        ("qwen3_vl_text", VL_DEFAULTS),
        ("qwen3_vl", VL_DEFAULTS),
    ],
    roles: &[],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let qkv_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?;
    let output_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?;
    build_qwen(loaded, QkNorm::Heads, qkv_bias, output_bias)
}
