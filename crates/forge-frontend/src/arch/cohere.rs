//! Command-R (Cohere) and Command-R7B (Cohere 2): LayerNorms without biases, branches side by side, a factor on the
//! logits; Cohere 2 rotates in windowed layers alone.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::layers::{self, Branches, LayerSpec, RowNorm};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, Rope, RopePairing};
use crate::source::{Key, Loaded, RopeLayers, Stored, key};

pub(super) const COHERE: Family = Family {
    gguf: &["command-r"],
    hf: &[(
        "cohere",
        r#"{"layer_norm_eps": 1e-5, "max_position_embeddings": 8192, "logit_scale": 0.0625, "rope_theta": 500000.0,
            "tie_word_embeddings": true}"#,
    )],
    roles: &[],
    build: |loaded| build(loaded, false),
};

pub(super) const COHERE2: Family = Family {
    gguf: &["cohere2"],
    hf: &[(
        "cohere2",
        r#"{"layer_norm_eps": 1e-5, "max_position_embeddings": 8192, "logit_scale": 0.0625, "sliding_window": 4096,
            "tie_word_embeddings": true}"#,
    )],
    roles: &[],
    build: |loaded| build(loaded, true),
};

fn build(loaded: &Loaded, windows: bool) -> Result<Graph, FrontendError> {
    const QK_NORM: Key = Key::new("", "use_qk_norm");
    const LOGITS: Key = Key::new("logit_scale", "logit_scale");
    // Early folders give the context that positions were first trained for, and here the one that the model is for.
    const LONG_CONTEXT: Key = Key::new("", "model_max_length");
    let h = &loaded.hparams;
    let mut sizes = Sizes::read_normed(loaded, key::LAYER_NORM_EPS)?;
    sizes.context = h.opt_usize(LONG_CONTEXT)?.unwrap_or(sizes.context);
    layers::refuse_head_layer_norms(loaded, QK_NORM)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let window = if windows { h.window()? } else { None };
    let sliding = match window {
        Some(_) => dense::sliding_layers(loaded, sizes.layers, |layer| (layer + 1) % 4 != 0)?,
        None => vec![false; sizes.layers],
    };
    // Folders pair neighbours too.
    let pairing = RopePairing::Interleaved;
    let rope = Rope { pairing, ..loaded.rope(sizes.head_dim, pairing, RopeLayers::All)? };
    let qkv_bias = dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?;
    let output_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?;
    let norm = RowNorm::Layer { bias: false };
    let tied = dense::tied(loaded, true)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for index in 0..sizes.layers {
        let window = window.filter(|_| sliding[index]);
        let spec = AttentionSpec {
            heads: sizes.heads,
            state: sizes.state(window),
            rope: (!windows || window.is_some()).then(|| rope.clone()),
            attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
            qk_norm: QkNorm::None,
            eps: sizes.eps,
            qkv_bias,
            output_bias,
        };
        let layer = LayerSpec {
            sizes: &sizes,
            attention: &spec,
            norm,
            branches: Branches::SideBySide,
            gated: true,
            activation,
            ffn_bias: false,
        };
        let name = dense::layer_name(&sliding, index);
        dense::add_layer(&mut graph, layers::layer(name, &layer))?;
    }
    let head = graph.stage(layers::head(&sizes, norm, false), tied)?;
    // A factor on the logits is one on the vector that they are projected from. A GGUF leaves out a factor of 1.
    graph.scale_vector("output_norm", h.opt_f32(LOGITS)?.filter(|&factor| factor != 0.0).unwrap_or(1.0));
    ignore_zero_biases(loaded);
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Passes over biases of zeros, which published folders hold and transformers does not read.
fn ignore_zero_biases(loaded: &Loaded) {
    let is_zero = |name: &str| match &loaded.tensors.entries[name].stored {
        Stored::Rows(_, range) => loaded.bytes(range).iter().all(|&byte| byte == 0),
        _ => false,
    };
    loaded.tensors.ignore(|name| name.ends_with(".bias") && is_zero(name));
}
