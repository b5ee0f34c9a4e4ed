//! Llama 2 and 3, TinyLlama, SmolLM2, Mistral and other models of the same layers.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::mixture::Mixture;
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Loaded, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["llama"],
    hf: &[
        ("llama", r#"{"rms_norm_eps": 1e-6}"#),
        ("mistral", r#"{"rms_norm_eps": 1e-6, "sliding_window": 4096, "num_key_value_heads": 8}"#),
    ],
    roles: &[],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    build_with(loaded, None)
}

/// The same with a mixture in every layer.
pub(super) fn build_with(loaded: &Loaded, mixture: Option<&Mixture>) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let window = h.window()?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(window),
        // Llama GGUFs have the rows of q and k reordered for the original, interleaved rotation.
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Interleaved, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?,
        output_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?,
    };
    let mlp_bias = dense::has_bias(loaded, key::MLP_BIAS, "ffn_gate")?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for _ in 0..sizes.layers {
        let block = match mixture {
            Some(mixture) => dense::pre_norm_layer_with("layer", &sizes, &spec, 1.0, |b, input| mixture.add(b, input)),
            None => dense::pre_norm_layer("layer", &sizes, &spec, (activation, mlp_bias), 1.0),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
