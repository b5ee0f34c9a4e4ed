//! Mixtures of Qwen: Qwen3's (Qwen3-30B-A3B, Qwen3-Coder) and Qwen2's, which have a shared expert behind a gate.

use super::Family;
use super::dense::{self, QkNorm, Sizes};
use super::mixture::{self, Mixture, Router, Shared};
use super::qwen2;
use crate::FrontendError;
use crate::graph::{Activation, Graph, GroupScore, Scores};
use crate::source::{Key, Loaded, Place, Role, Stack, key};

pub(super) const QWEN2: Family = Family {
    gguf: &["qwen2moe"],
    hf: &[(
        "qwen2_moe",
        r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "max_window_layers": 28, "num_key_value_heads": 16,
            "intermediate_size": 5632, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
            "num_experts": 60, "num_experts_per_tok": 4, "decoder_sparse_step": 1, "norm_topk_prob": false,
            "qkv_bias": true}"#,
    )],
    roles: &[
        Role::new("router", "ffn_gate_inp", "mlp.gate"),
        Role::new("shared_router", "ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
        Role::new("shared_gate", "ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
        Role::new("shared_up", "ffn_up_shexp", "mlp.shared_expert.up_proj"),
        Role::new("shared_down", "ffn_down_shexp", "mlp.shared_expert.down_proj"),
    ],
    build: |loaded| {
        // Converters leave the width out where it is the dense one.
        let width = match loaded.hparams.opt_usize(mixture::SHARED_WIDTH)? {
            Some(width) => width,
            None => loaded.hparams.usize(key::INTERMEDIATE)?,
        };
        let biases = [dense::has_bias(loaded, Key::new("", "qkv_bias"), "attn_q")?, false];
        build(loaded, false, Some(Shared { width, gated: true }), QkNorm::None, biases, &[])
    },
};

pub(super) const QWEN3: Family = Family {
    gguf: &["qwen3moe"],
    hf: &[(
        "qwen3_moe",
        r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 4,
            "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
            "decoder_sparse_step": 1, "norm_topk_prob": false}"#,
    )],
    roles: &[Role::new("router", "ffn_gate_inp", "mlp.gate")],
    build: |loaded| {
        let bias = |role| dense::has_bias(loaded, key::ATTENTION_BIAS, role);
        build(loaded, true, None, QkNorm::Heads, [bias("attn_q")?, bias("attn_output")?], &[])
    },
};

/// The text model of Qwen3-VL's mixtures: Qwen3's, whose experts lie turned in folders as they were published.
pub(super) const QWEN3_VL: Family = Family {
    gguf: &["qwen3vlmoe"],
    hf: &[("qwen3_vl_moe_text", VL_DEFAULTS), ("qwen3_vl_moe", VL_DEFAULTS)],
    roles: QWEN3.roles,
    build: |loaded| {
        let bias = |role| dense::has_bias(loaded, key::ATTENTION_BIAS, role);
        build(loaded, true, None, QkNorm::Heads, [bias("attn_q")?, bias("attn_output")?], TURNED)
    },
};

const VL_DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 128000, "hidden_size": 2048,
    "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
    "moe_intermediate_size": 1408, "num_experts": 60, "num_experts_per_tok": 4, "decoder_sparse_step": 1,
    "norm_topk_prob": true, "rope_theta": 500000.0}"#;

const TURNED: &[Stack] = &[
    ("expert_gate", &[Place::Turned { name: "mlp.experts.gate_up_proj", part: 0, of: 2 }]),
    ("expert_up", &[Place::Turned { name: "mlp.experts.gate_up_proj", part: 1, of: 2 }]),
    ("expert_down", &[Place::Turned { name: "mlp.experts.down_proj", part: 0, of: 1 }]),
];

/// `normalised` is what a GGUF, which has no key for it, means.
fn build(
    loaded: &Loaded,
    normalised: bool,
    shared: Option<Shared>,
    qk_norm: QkNorm,
    biases: [bool; 2],
    stacks: &'static [Stack],
) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let width = h.usize(mixture::WIDTH)?;
    let router = Router {
        experts: Key::new("expert_count", "num_experts"),
        scores: Scores::Softmax,
        normalised,
        normalised_by: 0.0,
        groups: GroupScore::BestTwo,
    };
    let mixture = Mixture {
        routing: router.read(h)?,
        selection_bias: false,
        width,
        activation: dense::activation(h, key::ACTIVATION, Activation::Silu)?,
        shared,
    };
    let mut sizes = Sizes::read_with(loaded, h.opt_usize(key::INTERMEDIATE)?.unwrap_or(width), None)?;
    let step = h.opt_usize(mixture::SPARSE_STEP)?.unwrap_or(1);
    let layers = mixture::layers(loaded, sizes.layers, 0, step, mixture::DENSE_LAYERS)?;
    if !layers.contains(&false) {
        sizes.intermediate = width;
    }
    qwen2::build_with(loaded, &sizes, Some((&mixture, &layers)), qk_norm, biases, stacks)
}
