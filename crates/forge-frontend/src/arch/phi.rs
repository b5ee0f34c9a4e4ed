//! Phi 1, 1.5 and 2: LayerNorms, branches side by side, a feed-forward without a gate, biases everywhere, partial rotation.

use super::Family;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::layers::{self, Branches, LayerSpec, RowNorm};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Key, Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["phi2"],
    hf: &[(
        "phi",
        r#"{"layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "partial_rotary_factor": 0.5,
            "hidden_act": "gelu_new"}"#,
    )],
    roles: &[
        Role::new("output_norm", "output_norm", "final_layernorm"),
        Role::new("attn_output", "attn_output", "self_attn.dense"),
        Role::new("ffn_up", "ffn_up", "mlp.fc1"),
        Role::new("ffn_down", "ffn_down", "mlp.fc2"),
        Role::new("attn_q_norm", "attn_q_norm", "self_attn.q_layernorm"),
    ],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const QK_NORM: Key = Key::new("", "qk_layernorm");
    let sizes = Sizes::read_normed(loaded, key::LAYER_NORM_EPS)?;
    layers::refuse_head_layer_norms(loaded, QK_NORM)?;
    let activation = dense::activation(&loaded.hparams, key::ACTIVATION, Activation::GeluTanh)?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: true,
        output_bias: true,
    };
    let layer = LayerSpec {
        sizes: &sizes,
        attention: &spec,
        norm: RowNorm::Layer { bias: true },
        branches: Branches::SideBySide,
        gated: false,
        activation,
        ffn_bias: true,
    };
    let tied = dense::tied(loaded, false)?;
    layers::graph(loaded, &layer, tied, true)
}
