//! Gemma, Gemma 2 and Gemma 3 (the text model): scaled embeddings, `1 + w` norms, GELU; from Gemma 2 on norms after
//! each branch and alternating windows, soft-caps in Gemma 2, norms of q and k and two rope bases in Gemma 3.

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Dialect, Key, Loaded, Role, RopeLayers, key};
use crate::{FrontendError, Refusal};

const ROLES: &[Role] = &[
    Role::new("post_attn_norm", "post_attention_norm", "post_attention_layernorm"),
    Role::new("ffn_norm", "ffn_norm", "pre_feedforward_layernorm"),
    Role::new("post_ffn_norm", "post_ffw_norm", "post_feedforward_layernorm"),
];

pub(super) const GEMMA: Family = Family {
    gguf: &["gemma"],
    hf: &[("gemma", r#"{"head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": true}"#)],
    roles: &[],
    build: |loaded| build(loaded, Version::One),
};

pub(super) const GEMMA2: Family = Family {
    gguf: &["gemma2"],
    hf: &[(
        "gemma2",
        r#"{"num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
            "query_pre_attn_scalar": 256, "sliding_window": 4096, "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0, "tie_word_embeddings": true}"#,
    )],
    roles: ROLES,
    build: |loaded| build(loaded, Version::Two),
};

/// Published Gemma 3 folders leave sizes out of `text_config`, so the defaults have them all.
const GEMMA3_DEFAULTS: &str = r#"{"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "rope_theta": 1000000.0, "tie_word_embeddings": true}"#;

pub(super) const GEMMA3: Family = Family {
    gguf: &["gemma3"],
    hf: &[("gemma3_text", GEMMA3_DEFAULTS), ("gemma3", GEMMA3_DEFAULTS)],
    roles: ROLES,
    build: |loaded| build(loaded, Version::Three),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
    Three,
}

const QUERY_SCALAR: Key = Key::new("", "query_pre_attn_scalar");
const ATTENTION_CAP: Key = Key::new("attn_logit_softcapping", "attn_logit_softcapping");
const FINAL_CAP: Key = Key::new("final_logit_softcapping", "final_logit_softcapping");
const SLIDING_THETA: Key = Key::new("rope.freq_base_swa", "rope_local_base_freq");
const BIDIRECTIONAL: Key = Key::new("", "use_bidirectional_attention");
const ACTIVATION: Key = Key::new("", "hidden_activation");

fn build(loaded: &Loaded, version: Version) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    if h.opt_bool(BIDIRECTIONAL)? == Some(true) {
        return Err(h.unsupported(Refusal::Bidirectional, BIDIRECTIONAL, "attention is causal"));
    }
    // The first Gemma's `hidden_act` says gelu and means the tanh approximation.
    let activation = match version {
        Version::One => Activation::GeluTanh,
        _ => dense::activation(h, ACTIVATION, Activation::GeluTanh)?,
    };
    let scale = attention_scale(loaded, version, &sizes)?;
    let softcap = cap(loaded, ATTENTION_CAP)?;
    let window = if version == Version::One { None } else { h.window()? };
    let sliding = match (version, window) {
        (_, None) => vec![false; sizes.layers],
        (Version::Three, _) => dense::sliding_layers(loaded, sizes.layers, |layer| (layer + 1) % 6 != 0)?,
        (_, _) => dense::sliding_layers(loaded, sizes.layers, |layer| layer % 2 == 0)?,
    };
    let qkv_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?;
    let output_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?;
    let global_layers = if version == Version::Three { RopeLayers::Full } else { RopeLayers::All };
    let global_rope = loaded.rope(sizes.head_dim, RopePairing::Halves, global_layers)?;
    let sliding_rope = match version {
        Version::Three => {
            let layers = RopeLayers::Sliding { theta: SLIDING_THETA, default: 10_000.0 };
            loaded.rope(sizes.head_dim, RopePairing::Halves, layers)?
        }
        _ => global_rope.clone(),
    };
    let tied = dense::tied(loaded, true)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    // A GGUF's converter has already added the 1.
    graph.norm_offset = if h.dialect == Dialect::Gguf { 0.0 } else { 1.0 };
    let embed = graph.stage(dense::embed(&sizes, (sizes.hidden as f32).sqrt()), tied)?;
    for layer in 0..sizes.layers {
        let window = window.filter(|_| sliding[layer]);
        let rope = if sliding[layer] { &sliding_rope } else { &global_rope };
        let spec = AttentionSpec {
            heads: sizes.heads,
            state: sizes.state(window),
            rope: Some(rope.clone()),
            attention: Attention { scale, window, softcap },
            qk_norm: if version == Version::Three { QkNorm::Heads } else { QkNorm::None },
            eps: sizes.eps,
            qkv_bias,
            output_bias,
        };
        let name = dense::layer_name(&sliding, layer);
        let block = match version {
            Version::One => dense::pre_norm_layer(name, &sizes, &spec, (activation, false), 1.0),
            _ => dense::sandwich_layer(name, &sizes, &spec, activation),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(&sizes, cap(loaded, FINAL_CAP)?), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// A soft-cap; zero means none.
fn cap(loaded: &Loaded, key: Key) -> Result<Option<f32>, FrontendError> {
    Ok(loaded.hparams.opt_f32(key)?.filter(|&cap| cap != 0.0))
}

/// `1 / sqrt(query_pre_attn_scalar)`. GGUFs have no key for it: it is the head's width in all but the two 27B models,
/// which are known by their number of layers (as in llama.cpp).
fn attention_scale(loaded: &Loaded, version: Version, sizes: &Sizes) -> Result<f32, FrontendError> {
    let scalar = match (loaded.hparams.opt_f32(QUERY_SCALAR)?, version, sizes.layers) {
        (Some(scalar), Version::Two | Version::Three, _) => scalar,
        (None, Version::Two, 46) | (None, Version::Three, 62) => (sizes.hidden / sizes.heads) as f32,
        _ => sizes.head_dim as f32,
    };
    if scalar <= 0.0 {
        return Err(loaded.hparams.invalid(Refusal::QueryScale, QUERY_SCALAR, "a positive number"));
    }
    Ok((1.0 / f64::from(scalar).sqrt()) as f32)
}
