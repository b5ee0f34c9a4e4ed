//! Seed-OSS: Llama's layers with biases on q, k and v.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Key, Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["seed_oss"],
    hf: &[(
        "seed_oss",
        r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 524288, "num_key_value_heads": 8, "head_dim": 128,
            "attention_bias": true, "attention_out_bias": false, "mlp_bias": false}"#,
    )],
    roles: &[Role::new("ffn_norm", "post_attention_norm", "post_attention_layernorm")],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const OUTPUT_BIAS: Key = Key::new("", "attention_out_bias");
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(&loaded.hparams, key::ACTIVATION, Activation::Silu)?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?,
        output_bias: dense::has_bias(loaded, OUTPUT_BIAS, "attn_output")?,
    };
    let mlp_bias = dense::has_bias(loaded, key::MLP_BIAS, "ffn_up")?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for _ in 0..sizes.layers {
        let block = dense::pre_norm_layer("layer", &sizes, &spec, (activation, mlp_bias), 1.0);
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
