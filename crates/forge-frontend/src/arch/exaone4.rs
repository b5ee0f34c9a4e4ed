//! EXAONE 4 and the text model of EXAONE 4.5: norms after each branch only, and of each head of q and k; where some layers
//! have windows, they alone rotate.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Loaded, Role, RopeLayers, key};

const DEFAULTS: &str = r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "sliding_window": 4096,
    "sliding_window_pattern": 4}"#;

pub(super) const FAMILY: Family = Family {
    gguf: &["exaone4"],
    hf: &[("exaone4", DEFAULTS), ("exaone4_5_text", DEFAULTS)],
    roles: &[
        Role::new("post_attn_norm", "post_attention_norm", "post_attention_layernorm"),
        Role::new("post_ffn_norm", "post_ffw_norm", "post_feedforward_layernorm"),
    ],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let window = h.window()?;
    let sliding = match window {
        Some(_) => dense::sliding_layers(loaded, sizes.layers, |layer| (layer + 1) % 4 != 0)?,
        None => vec![false; sizes.layers],
    };
    let rope = loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for layer in 0..sizes.layers {
        let rotates = window.is_none() || sliding[layer];
        let window = window.filter(|_| sliding[layer]);
        let spec = AttentionSpec {
            heads: sizes.heads,
            state: sizes.state(window),
            rope: rotates.then(|| rope.clone()),
            attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
            qk_norm: QkNorm::Heads,
            eps: sizes.eps,
            qkv_bias: false,
            output_bias: false,
        };
        let name = dense::layer_name(&sliding, layer);
        dense::add_layer(&mut graph, dense::post_norm_layer(name, &sizes, &spec, activation))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}
