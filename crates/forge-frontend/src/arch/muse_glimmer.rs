//! Muse Glimmer (text): the embedding goes through a norm, queries and keys through norms without weights, attention's result through
//! gates; norms stand before and after each branch. Every fourth layer sees the whole context and does not rotate.

use serde_json::Value;

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::graph::{Activation, Attention, Block, Graph, RopePairing};
use crate::source::{Dialect, Key, Loaded, Role, RopeLayers, key};
use crate::{FrontendError, Refusal};

const DEFAULTS: &str = r#"{"vocab_size": 202048, "hidden_size": 6656, "intermediate_size": 19968, "num_hidden_layers": 52,
    "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "sliding_window": 2048, "final_logit_softcapping": 20.0, "qk_scale_factor": 3.87,
    "output_multiplier": 0.19611613513818404}"#;

pub(super) const FAMILY: Family = Family {
    gguf: &["muse-glimmer"],
    hf: &[("muse_glimmer_text", DEFAULTS), ("muse_glimmer", DEFAULTS)],
    roles: &[
        Role::new("attn_gate", "attn_gate", "self_attn.gate_proj"),
        Role::new("post_attn_norm", "post_attention_norm", "post_attention_layernorm"),
        Role::new("ffn_norm", "ffn_norm", "pre_feedforward_layernorm"),
        Role::new("post_ffn_norm", "post_ffw_norm", "post_feedforward_layernorm"),
    ],
    build,
};

/// Bases of the layers' rotation, 0 for one that does not rotate.
const LAYER_BASES: Key = Key::new("", "layer_rope_theta");
/// Of norms after branches. A GGUF has no key for it.
const POST_EPS: Key = Key::new("", "post_norm_eps");
const PUBLISHED_POST_EPS: f32 = 1e-8;

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const FINAL_CAP: Key = Key::new("final_logit_softcapping", "final_logit_softcapping");
    const LOGITS: Key = Key::new("logit_scale", "output_multiplier");
    const QUERIES: Key = Key::new("", "qk_scale_factor");
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, Key::new("", "hidden_activation"), Activation::Silu)?;
    let post_eps = h.opt_f32(POST_EPS)?.unwrap_or(PUBLISHED_POST_EPS);
    if !(0.0..1.0).contains(&post_eps) {
        return Err(h.invalid(Refusal::PostEpsilon, POST_EPS, "a small positive number"));
    }
    let window = h.window()?;
    // From the last layer back.
    let in_turn = |layer: usize| !(sizes.layers - 1 - layer).is_multiple_of(4);
    let sliding = match window {
        Some(_) => dense::sliding_layers(loaded, sizes.layers, in_turn)?,
        None => vec![false; sizes.layers],
    };
    let rotates = match h.dialect {
        Dialect::Gguf => sliding.clone(),
        Dialect::HuggingFace => rotating_layers(loaded, sizes.layers, in_turn)?,
    };
    // The converter reorders q and k as it does Llama's.
    let rope = loaded.rope(sizes.head_dim, RopePairing::Interleaved, RopeLayers::All)?;
    // A GGUF has the factor on the queries as weights of their norm.
    let (qk_norm, query_scale) = match h.dialect {
        Dialect::Gguf => (QkNorm::Heads, 1.0),
        Dialect::HuggingFace => (QkNorm::BareHeads, h.f32(QUERIES)?),
    };
    let qkv_bias = dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?;
    let output_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    let embed = graph.stage(embed(&sizes), tied)?;
    // A GGUF's converter has already added the 1, and the last norm has none to add.
    graph.norm_offset = if h.dialect == Dialect::Gguf { 0.0 } else { 1.0 };
    for layer in 0..sizes.layers {
        let window = window.filter(|_| sliding[layer]);
        let spec = AttentionSpec {
            heads: sizes.heads,
            state: sizes.state(window),
            rope: rotates[layer].then(|| rope.clone()),
            attention: Attention { scale: sizes.attention_scale() * query_scale, window, softcap: None },
            qk_norm,
            eps: sizes.eps,
            qkv_bias,
            output_bias,
        };
        let attend = |b: &mut BlockBuilder, input| dense::attention_gated_apart(b, input, sizes.hidden, &spec);
        let name = dense::layer_name(&sliding, layer);
        dense::add_layer(&mut graph, dense::sandwich_layer_with(name, &sizes, post_eps, activation, attend))?;
    }
    graph.norm_offset = 0.0;
    let cap = h.opt_f32(FINAL_CAP)?.filter(|&cap| cap != 0.0);
    let head = graph.stage(dense::head(&sizes, cap), tied)?;
    // A factor on the logits is one on the vector that they are projected from.
    graph.scale_vector("output_norm", h.f32(LOGITS)?);
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Row `token` of the table, through a norm without weights.
fn embed(sizes: &Sizes) -> Block {
    let mut b = BlockBuilder::new("embed");
    let row = b.embedding("row", "token_embd", sizes.vocab, sizes.hidden, 1.0);
    let x = b.head_norm("x", None, row, sizes.hidden, sizes.eps);
    b.finish(x)
}

/// Which layers rotate: those that have a base other than 0. All of them have the same one, as in transformers, which rotates by no other.
fn rotating_layers(
    loaded: &Loaded,
    layers: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, FrontendError> {
    let h = &loaded.hparams;
    let theta = f64::from(loaded.rope_theta()?);
    let Some(bases) = h.get(LAYER_BASES) else { return Ok((0..layers).map(default).collect()) };
    let rotates = |base: &Value| match base.as_f64() {
        Some(0.0) => Some(false),
        Some(base) if base == theta => Some(true),
        _ => None,
    };
    let all: Option<Vec<bool>> = bases.as_array().and_then(|bases| bases.iter().map(rotates).collect());
    all.filter(|all| all.len() == layers).ok_or_else(|| {
        h.invalid(
            Refusal::LayerBases,
            LAYER_BASES,
            format!("0 or rope_theta, {theta}, for each of the {layers} layers"),
        )
    })
}
