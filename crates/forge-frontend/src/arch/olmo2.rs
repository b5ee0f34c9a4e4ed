//! OLMo 2 and 3: norms after each branch only, and over the whole width of q and k; OLMo 3 has windows on three of four
//! layers.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Key, Loaded, Role, RopeLayers, key};

pub(super) const FAMILY: Family = Family {
    gguf: &["olmo2"],
    hf: &[("olmo2", r#"{"rms_norm_eps": 1e-5}"#), ("olmo3", r#"{"rms_norm_eps": 1e-5, "sliding_window": 4096}"#)],
    roles: &[
        Role::new("post_attn_norm", "post_attention_norm", "post_attention_layernorm"),
        Role::new("post_ffn_norm", "post_ffw_norm", "post_feedforward_layernorm"),
    ],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const SLIDING_THETA: Key = Key::new("rope.freq_base_swa", "rope_theta");
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let window = h.window()?;
    let sliding = match window {
        Some(_) => dense::sliding_layers(loaded, sizes.layers, |layer| (layer + 1) % 4 != 0)?,
        None => vec![false; sizes.layers],
    };
    let global_rope = loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::Full)?;
    // Windowed layers keep the base and go without its scaling.
    let theta = loaded.rope_theta()?;
    let sliding_layers = RopeLayers::Sliding { theta: SLIDING_THETA, default: theta };
    let sliding_rope = loaded.rope(sizes.head_dim, RopePairing::Halves, sliding_layers)?;
    let bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for layer in 0..sizes.layers {
        let window = window.filter(|_| sliding[layer]);
        let rope = if sliding[layer] { &sliding_rope } else { &global_rope };
        let spec = AttentionSpec {
            heads: sizes.heads,
            state: sizes.state(window),
            rope: Some(rope.clone()),
            attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
            qk_norm: QkNorm::Whole,
            eps: sizes.eps,
            qkv_bias: bias,
            output_bias: bias,
        };
        let name = dense::layer_name(&sliding, layer);
        dense::add_layer(&mut graph, dense::post_norm_layer(name, &sizes, &spec, activation))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
