//! GLM-4.5, 4.6 and 4.7: dense first layers, then mixtures by sigmoid with a selection bias and a shared expert; biases on q, k
//! and v, half of each head rotates. Blocks that predict further tokens are passed over.

use super::Family;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::mixture::{self, Mixture, Router, Shared};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, GroupScore, RopePairing, Scores};
use crate::source::{Dialect, Key, Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["glm4moe"],
    hf: &[(
        "glm4_moe",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8, "intermediate_size": 10944,
            "moe_intermediate_size": 1408, "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8,
            "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
            "norm_topk_prob": true, "use_qk_norm": false, "attention_bias": false, "partial_rotary_factor": 0.5}"#,
    )],
    roles: &[
        Role::new("ffn_norm", "post_attention_norm", "post_attention_layernorm"),
        Role::new("router", "ffn_gate_inp", "mlp.gate"),
        Role::bare("selection", "exp_probs_b", "mlp.gate.e_score_correction_bias"),
        Role::new("shared_gate", "ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
        Role::new("shared_up", "ffn_up_shexp", "mlp.shared_experts.up_proj"),
        Role::new("shared_down", "ffn_down_shexp", "mlp.shared_experts.down_proj"),
    ],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const SHARED: Key = Key::new("expert_shared_count", "n_shared_experts");
    const DENSE: Key = Key::new("leading_dense_block_count", "first_k_dense_replace");
    const QK_NORM: Key = Key::new("", "use_qk_norm");
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let width = h.usize(mixture::WIDTH)?;
    let router = Router {
        experts: Key::new("expert_count", "n_routed_experts"),
        scores: Scores::Sigmoid,
        normalised: true,
        normalised_by: 1e-20,
        groups: GroupScore::BestTwo,
    };
    let shared = h.opt_usize(SHARED)?.unwrap_or(1);
    let mixture = Mixture {
        routing: router.read(h)?,
        selection_bias: true,
        width,
        activation: dense::activation(h, key::ACTIVATION, Activation::Silu)?,
        shared: Some(Shared { width: width.saturating_mul(shared), gated: false }),
    };
    let qk_norm = match h.dialect {
        Dialect::Gguf => loaded.tensors.has("attn_q_norm", Some(0)),
        Dialect::HuggingFace => h.opt_bool(QK_NORM)? == Some(true),
    };
    let attention = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: if qk_norm { QkNorm::Heads } else { QkNorm::None },
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?,
        output_bias: false,
    };
    let dense_layers = h.opt_count(DENSE)?.unwrap_or(0);
    let mixtures = mixture::layers(loaded, sizes.layers, dense_layers, 1, Key::new("", "mlp_only_layers"))?;
    mixture::graph(loaded, &sizes, &attention, (&mixture, &mixtures), dense::tied(loaded, false)?)
}
