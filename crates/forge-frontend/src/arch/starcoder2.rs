//! StarCoder 2: LayerNorms, biases everywhere, a feed-forward without a gate.

use super::Family;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::layers::{self, Branches, LayerSpec, RowNorm};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Key, Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["starcoder2"],
    hf: &[(
        "starcoder2",
        r#"{"norm_epsilon": 1e-5, "max_position_embeddings": 4096, "num_key_value_heads": 2, "use_bias": true,
            "tie_word_embeddings": true}"#,
    )],
    roles: &[Role::new("ffn_up", "ffn_up", "mlp.c_fc"), Role::new("ffn_down", "ffn_down", "mlp.c_proj")],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const EPS: Key = Key::new(key::LAYER_NORM_EPS.gguf, "norm_epsilon");
    const USE_BIAS: Key = Key::new("", "use_bias");
    let h = &loaded.hparams;
    let sizes = Sizes::read_normed(loaded, EPS)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::GeluTanh)?;
    // GGUFs have no key for the window, and llama.cpp none.
    let window = h.window()?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(window),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, USE_BIAS)?,
        output_bias: dense::has_bias(loaded, USE_BIAS, "attn_output")?,
    };
    let layer = LayerSpec {
        sizes: &sizes,
        attention: &spec,
        norm: RowNorm::Layer { bias: true },
        branches: Branches::InTurn,
        gated: false,
        activation,
        ffn_bias: dense::has_bias(loaded, USE_BIAS, "ffn_up")?,
    };
    let tied = dense::tied(loaded, true)?;
    layers::graph(loaded, &layer, tied, false)
}
