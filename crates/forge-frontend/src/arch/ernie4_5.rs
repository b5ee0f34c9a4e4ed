//! Ernie 4.5 (dense): Llama's layers, whose rotation pairs neighbours in folders too.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, Rope, RopePairing};
use crate::source::{Key, Loaded, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["ernie4_5"],
    hf: &[(
        "ernie4_5",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 2, "head_dim": 128,
            "rope_theta": 500000.0, "use_bias": false, "tie_word_embeddings": true}"#,
    )],
    roles: &[],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const USE_BIAS: Key = Key::new("", "use_bias");
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(&loaded.hparams, key::ACTIVATION, Activation::Silu)?;
    let pairing = RopePairing::Interleaved;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(Rope { pairing, ..loaded.rope(sizes.head_dim, pairing, RopeLayers::All)? }),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, USE_BIAS)?,
        output_bias: dense::has_bias(loaded, USE_BIAS, "attn_output")?,
    };
    let mlp_bias = dense::has_bias(loaded, USE_BIAS, "ffn_up")?;
    let tied = dense::tied(loaded, true)?;

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
