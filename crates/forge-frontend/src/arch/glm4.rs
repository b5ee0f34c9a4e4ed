//! GLM-4 (dense, 0414): a norm before and after each branch, gate and up in one tensor, half of each head rotates, in
//! neighbouring pairs.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, Rope, RopePairing};
use crate::source::{Dialect, Key, Loaded, Part, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["glm4"],
    hf: &[(
        "glm4",
        r#"{"rms_norm_eps": 1.5625e-7, "max_position_embeddings": 131072, "num_key_value_heads": 2, "head_dim": 128,
            "partial_rotary_factor": 0.5, "attention_bias": true}"#,
    )],
    roles: &[
        Role::new("post_attn_norm", "post_attention_norm", "post_self_attn_layernorm"),
        Role::new("post_ffn_norm", "post_ffw_norm", "post_mlp_layernorm"),
    ],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    /// Of multimodal models, whose converter reorders q and k to pair halves; for text all sections are alike.
    const SECTIONS: Key = Key::new("rope.dimension_sections", "");
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let rope = loaded.rope(sizes.head_dim, RopePairing::Interleaved, RopeLayers::All)?;
    let halves = h.dialect == Dialect::Gguf && h.get(SECTIONS).is_some();
    let pairing = if halves { RopePairing::Halves } else { RopePairing::Interleaved };
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(Rope { pairing, ..rope }),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?,
        output_bias: false,
    };
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    let half = |role, first_row| Part::run(role, "ffn_gate_up", first_row, 2 * sizes.intermediate);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    graph.parts.extend([half("ffn_gate", 0), half("ffn_up", sizes.intermediate)]);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for _ in 0..sizes.layers {
        dense::add_layer(&mut graph, dense::sandwich_layer("layer", &sizes, &spec, activation))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
