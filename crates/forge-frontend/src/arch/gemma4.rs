//! Gemma 4 (text), dense and mixtures: norms of q, k and v, wider heads on global layers, which may take their values from
//! the keys' projection, last layers that read the caches of earlier ones, an embedding of each token for each layer, and a
//! factor on each layer's result. A mixture stands beside the dense feed-forward: both read the residual stream through norms of
//! their own, and so does the router.

use serde_json::Value;

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, Sizes};
use super::mixture::{self, Router};
use crate::Warning;
use crate::graph::{
    Activation, Attention, Block, Graph, GroupScore, KvSpec, Rope, RopePairing, Routing, Scores, StateId, StateSpec,
    ValueId,
};
use crate::source::{Dialect, Hparams, Key, Loaded, Role, RopeLayers, integer, key};
use crate::{FrontendError, Refusal};

const DEFAULTS: &str = r#"{"vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "sliding_window": 512, "tie_word_embeddings": true,
    "hidden_size_per_layer_input": 256, "global_head_dim": 512, "num_kv_shared_layers": 0,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}}}"#;

const ROLES: &[Role] = &[
    Role::new("post_attn_norm", "post_attention_norm", "post_attention_layernorm"),
    Role::new("ffn_norm", "ffn_norm", "pre_feedforward_layernorm"),
    Role::new("post_ffn_norm", "post_ffw_norm", "post_feedforward_layernorm"),
    Role::new("per_layer_token_embd", "per_layer_token_embd", "embed_tokens_per_layer"),
    Role::new("per_layer_model_proj", "per_layer_model_proj", "per_layer_model_projection"),
    Role::new("per_layer_proj_norm", "per_layer_proj_norm", "per_layer_projection_norm"),
    Role::new("per_layer_gate", "inp_gate", "per_layer_input_gate"),
    Role::new("per_layer_proj", "proj", "per_layer_projection"),
    Role::new("post_per_layer_norm", "post_norm", "post_per_layer_input_norm"),
    Role::bare("layer_scale", "layer_output_scale", "layer_scalar"),
    Role::new("post_dense_norm", "post_ffw_norm_1", "post_feedforward_layernorm_1"),
    Role::new("expert_norm", "pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
    Role::new("post_expert_norm", "post_ffw_norm_2", "post_feedforward_layernorm_2"),
    Role::new("router", "ffn_gate_inp", "router.proj"),
    Role::unsuffixed("router_norm", "ffn_gate_inp.scale", "router.scale"),
    Role::unsuffixed("expert_factors", "ffn_down_exps.scale", "router.per_expert_scale"),
];

pub(super) const DENSE: Family = Family {
    gguf: &["gemma4"],
    hf: &[("gemma4_text", DEFAULTS), ("gemma4", DEFAULTS)],
    roles: ROLES,
    build: |loaded| build(loaded, None),
};

pub(super) const MIXTURE: Family = Family {
    gguf: &["gemma4"],
    hf: &[("gemma4_text", DEFAULTS), ("gemma4", DEFAULTS)],
    roles: ROLES,
    build: |loaded| {
        let h = &loaded.hparams;
        let router = Router {
            experts: Key::new("expert_count", "num_experts"),
            scores: Scores::Softmax,
            normalised: true,
            normalised_by: 0.0,
            groups: GroupScore::BestTwo,
        };
        build(loaded, Some(Experts { routing: router.read(h)?, width: h.usize(mixture::WIDTH)? }))
    },
};

/// A mixture beside a dense feed-forward.
struct Experts {
    routing: Routing,
    /// Width of an expert.
    width: usize,
}

const SHARED_LAYERS: Key = Key::new("attention.shared_kv_layers", "num_kv_shared_layers");
const PER_LAYER_WIDTH: Key = Key::new("embedding_length_per_layer_input", "hidden_size_per_layer_input");
const PER_LAYER_CONFIG: Key = Key::new("", "per_layer_config");
const KEYS_AS_VALUES: Key = Key::new("", "attention_k_eq_v");

/// What differs from layer to layer.
struct LayerSizes {
    sliding: bool,
    head_dim: usize,
    kv_heads: usize,
    intermediate: usize,
    /// Values are the keys before their norm.
    keys_as_values: bool,
    /// The layer whose cache is read; its own number where it appends to one.
    cache_of: usize,
}

/// What all layers have in common.
struct Common {
    sizes: Sizes,
    activation: Activation,
    bias: bool,
    window: usize,
    /// Elements of a layer's own input.
    per_layer: Option<usize>,
    experts: Option<Experts>,
}

fn build(loaded: &Loaded, experts: Option<Experts>) -> Result<Graph, FrontendError> {
    const FINAL_CAP: Key = Key::new("final_logit_softcapping", "final_logit_softcapping");
    let h = &loaded.hparams;
    refuse(h)?;
    let count = dense::layer_count(loaded)?;
    let widths = intermediates(h, count)?;
    let mut kv_heads = h.layer_sizes(key::KV_HEADS, count)?;
    kv_heads.resize(count, h.usize(key::HEADS)?);
    let sizes = Sizes::read_with(loaded, widths.iter().copied().max().unwrap_or(1), kv_heads.first().copied())?;
    let layers = layer_sizes(loaded, &sizes, &widths, &kv_heads)?;
    let common = Common {
        activation: dense::activation(h, Key::new("", "hidden_activation"), Activation::GeluTanh)?,
        bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?,
        window: h.usize(key::WINDOW)?,
        per_layer: size_or_none(h, PER_LAYER_WIDTH)?,
        experts,
        sizes,
    };
    let sizes = &common.sizes;
    let tied = dense::tied(loaded, true)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.multiplied = Some(("router_norm", (sizes.hidden as f32).sqrt().recip()));
    let embed = graph.stage(embed(loaded, &common)?, tied)?;
    let mut states: Vec<StateId> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let rope_layers = match layer.sliding {
            true => RopeLayers::Sliding { theta: Key::new("rope.freq_base_swa", ""), default: 10_000.0 },
            false => RopeLayers::Full,
        };
        let rope = loaded.rope(layer.head_dim, RopePairing::Halves, rope_layers)?;
        let block = layer_block(&common, layer, layer.cache_of == index, &rope);
        let state = match layer.cache_of == index {
            true => graph.state(block.state_slots[0]),
            false => states[layer.cache_of],
        };
        states.push(state);
        graph.layer(block, vec![state])?;
    }
    ignore_shared(loaded, &layers);
    let cap = h.opt_f32(FINAL_CAP)?.filter(|&cap| cap != 0.0);
    let head = graph.stage(dense::head(sizes, cap), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

fn refuse(h: &Hparams) -> Result<(), FrontendError> {
    const BIDIRECTIONAL: Key = Key::new("", "use_bidirectional_attention");
    // "vision" lets image tokens see each other; a text has none.
    match h.opt_str(BIDIRECTIONAL)? {
        None | Some("vision") => Ok(()),
        Some(_) => Err(h.unsupported(Refusal::Gemma4Bidirectional, BIDIRECTIONAL, "attention is causal")),
    }
}

/// A size that may be 0 for none.
fn size_or_none(h: &Hparams, key: Key) -> Result<Option<usize>, FrontendError> {
    match h.get(key) {
        Some(value) if integer(value) == Some(0) => Ok(None),
        _ => h.opt_usize(key),
    }
}

/// Feed-forward widths. A config.json may double those of the layers that read other layers' caches.
fn intermediates(h: &Hparams, count: usize) -> Result<Vec<usize>, FrontendError> {
    const DOUBLE_WIDE: Key = Key::new("", "use_double_wide_mlp");
    let mut widths = h.layer_sizes(key::INTERMEDIATE, count)?;
    if widths.is_empty() {
        return Err(h.missing(Refusal::Gemma4Widths, key::INTERMEDIATE));
    }
    if h.opt_bool(DOUBLE_WIDE)? == Some(true) {
        let first = count.saturating_sub(size_or_none(h, SHARED_LAYERS)?.unwrap_or(0));
        widths[first..].iter_mut().for_each(|width| *width *= 2);
    }
    Ok(widths)
}

fn layer_sizes(
    loaded: &Loaded,
    sizes: &Sizes,
    widths: &[usize],
    kv_heads: &[usize],
) -> Result<Vec<LayerSizes>, FrontendError> {
    const SLIDING_HEAD_DIM: Key = Key::new("attention.key_length_swa", "head_dim");
    const GLOBAL_HEAD_DIM: Key = Key::new("attention.key_length", "global_head_dim");
    const GLOBAL_KV_HEADS: Key = Key::new("", "num_global_key_value_heads");
    let h = &loaded.hparams;
    let sliding = dense::sliding_layers(loaded, sizes.layers, |layer| (layer + 1) % 6 != 0)?;
    let keys_as_values = h.opt_bool(KEYS_AS_VALUES)? == Some(true);
    let shared = size_or_none(h, SHARED_LAYERS)?.unwrap_or(0);
    let first_shared = sizes.layers.saturating_sub(shared);
    (0..sizes.layers)
        .map(|index| {
            let sliding_here = sliding[index];
            let own = match index < first_shared {
                true => Some(index),
                false => (0..first_shared).rev().find(|&earlier| sliding[earlier] == sliding_here),
            };
            let cache_of = own.ok_or_else(|| {
                h.invalid(Refusal::SharedLayers, SHARED_LAYERS, format!("a layer of layer {index}'s kind before those"))
            })?;
            let (mut head_dim, mut kv_heads) = match sliding_here {
                true => (h.usize(SLIDING_HEAD_DIM)?, kv_heads[index]),
                false => {
                    let stated = h.opt_usize(GLOBAL_KV_HEADS)?.filter(|_| keys_as_values);
                    (h.usize(GLOBAL_HEAD_DIM)?, stated.unwrap_or(kv_heads[index]))
                }
            };
            if let Some(overrides) = h.get(PER_LAYER_CONFIG) {
                // Where it is there, it says all that differs from the common keys.
                (head_dim, kv_heads) = (h.usize(SLIDING_HEAD_DIM)?, kv_heads_of(h)?);
                let stated = layer_overrides(h, overrides, index)?.into_iter().filter(|(_, value)| !value.is_null());
                for (name, value) in stated {
                    let size = integer(&value).filter(|n| (1..=i64::from(i32::MAX)).contains(n));
                    let size = size.ok_or_else(|| h.invalid(Refusal::LayerSize, PER_LAYER_CONFIG, "sizes"))? as usize;
                    match name.as_str() {
                        "head_dim" => head_dim = size,
                        "num_key_value_heads" => kv_heads = size,
                        other => {
                            return Err(h.unsupported(
                                Refusal::LayerKey,
                                PER_LAYER_CONFIG,
                                format!("{other} of its own"),
                            ));
                        }
                    }
                }
            }
            h.divides(Refusal::LayerHeadGroups, (key::HEADS, sizes.heads), (key::KV_HEADS, kv_heads))?;
            if !head_dim.is_multiple_of(2) {
                return Err(FrontendError::KeyValue {
                    refusal: Refusal::LayerOddHead,
                    file: h.file.clone(),
                    key: format!("{} of layer {index}", h.spelling(key::HEAD_DIM)),
                    expected: "an even size".to_owned(),
                    found: head_dim.to_string(),
                });
            }
            Ok(LayerSizes {
                sliding: sliding_here,
                head_dim,
                kv_heads,
                intermediate: widths[index],
                keys_as_values: match h.dialect {
                    Dialect::HuggingFace => keys_as_values && !sliding_here,
                    Dialect::Gguf => !loaded.tensors.has("attn_v", Some(index)),
                },
                cache_of,
            })
        })
        .collect()
}

fn kv_heads_of(h: &Hparams) -> Result<usize, FrontendError> {
    Ok(h.opt_usize(key::KV_HEADS)?.unwrap_or(h.usize(key::HEADS)?))
}

/// The keys of one layer in `per_layer_config`.
fn layer_overrides(h: &Hparams, overrides: &Value, layer: usize) -> Result<Vec<(String, Value)>, FrontendError> {
    let object = overrides
        .as_object()
        .ok_or_else(|| h.invalid(Refusal::LayersObject, PER_LAYER_CONFIG, "an object of layers"))?;
    match object.get(&layer.to_string()) {
        None => Ok(Vec::new()),
        Some(Value::Object(keys)) => Ok(keys.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        Some(_) => Err(h.invalid(Refusal::LayerObject, PER_LAYER_CONFIG, "an object for each layer")),
    }
}

/// The embedding of each token, and its part for each layer: what a projection of the embedding and a table of its own
/// say of it.
fn embed(loaded: &Loaded, common: &Common) -> Result<Block, FrontendError> {
    const TABLE_ROWS: Key = Key::new("", "vocab_size_per_layer_input");
    let sizes = &common.sizes;
    let mut b = BlockBuilder::new("embed");
    let x = b.embedding("x", "token_embd", sizes.vocab, sizes.hidden, (sizes.hidden as f32).sqrt());
    if let Some(width) = common.per_layer {
        let rows = loaded.tensors.rows("per_layer_token_embd", None)?;
        if rows < sizes.vocab {
            return Err(loaded.hparams.invalid(
                Refusal::TableRows,
                TABLE_ROWS,
                format!("at least the vocabulary's {}", sizes.vocab),
            ));
        }
        let all = sizes.layers * width;
        let looked_up = b.embedding("per_layer_embedding", "per_layer_token_embd", rows, all, (width as f32).sqrt());
        let projected = b.linear("per_layer_projected", "per_layer_model_proj", x, all, false);
        let projected = b.scale("per_layer_scaled", projected, 1.0 / (sizes.hidden as f32).sqrt());
        let normed = b.head_norm("per_layer_normed", Some("per_layer_proj_norm"), projected, width, sizes.eps);
        let sum = b.add("per_layer_sum", normed, looked_up);
        let inputs = b.scale("layer_inputs", sum, std::f32::consts::FRAC_1_SQRT_2);
        b.layer_inputs(inputs);
    }
    Ok(b.finish(x))
}

fn layer_block(common: &Common, layer: &LayerSizes, appends: bool, rope: &Rope) -> Block {
    let Sizes { hidden, eps, .. } = common.sizes;
    let name = match (appends, layer.sliding) {
        (true, true) => "sliding_layer",
        (true, false) => "global_layer",
        (false, true) => "shared_sliding_layer",
        (false, false) => "shared_global_layer",
    };
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", hidden);
    let own = common.per_layer.map(|width| b.input("layer_input", width));
    let attn_in = b.rms_norm("attn_in", "attn_norm", x, eps);
    let attn = attention(&mut b, attn_in, common, layer, appends, rope);
    let attn = b.rms_norm("attn_normed", "post_attn_norm", attn, eps);
    let x = b.add("x_attn", x, attn);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, eps);
    let inputs = common.experts.as_ref().map(|experts| {
        let router_in = b.rms_norm("router_in", "router_norm", x, eps);
        (experts, router_in, b.rms_norm("experts_in", "expert_norm", x, eps))
    });
    let mut ffn = dense::feed_forward(&mut b, ffn_in, hidden, layer.intermediate, common.activation, false);
    if let Some((experts, router_in, experts_in)) = inputs {
        let dense = b.rms_norm("dense_normed", "post_dense_norm", ffn, eps);
        let logits = b.linear("router_logits", "router", router_in, experts.routing.experts, false);
        let weights = b.route("expert_weights", "selection", logits, experts.routing, false);
        let weights = b.scale_experts("expert_factored", "expert_factors", weights);
        let routed = b.experts("routed", experts_in, weights, experts.width, common.activation, false);
        let routed = b.rms_norm("routed_normed", "post_expert_norm", routed, eps);
        ffn = b.add("both", dense, routed);
    }
    let ffn = b.rms_norm("ffn_normed", "post_ffn_norm", ffn, eps);
    let mut x = b.add("x_ffn", x, ffn);
    if let Some(own) = own {
        let gate = b.linear("per_layer_gate", "per_layer_gate", x, b.width(own), false);
        let gated = b.gated("per_layer_gated", gate, own, common.activation);
        let out = b.linear("per_layer_out", "per_layer_proj", gated, hidden, false);
        let out = b.rms_norm("per_layer_normed", "post_per_layer_norm", out, eps);
        x = b.add("x_per_layer", x, out);
    }
    let x = b.scale_by("x_scaled", "layer_scale", x);
    b.finish(x)
}

fn attention(
    b: &mut BlockBuilder,
    input: ValueId,
    common: &Common,
    layer: &LayerSizes,
    appends: bool,
    rope: &Rope,
) -> ValueId {
    let Sizes { heads, eps, hidden, .. } = common.sizes;
    let (head_dim, kv_width) = (layer.head_dim, layer.kv_heads * layer.head_dim);
    let window = layer.sliding.then_some(common.window);
    let spec = StateSpec::Kv(KvSpec { kv_heads: layer.kv_heads, head_dim, window });
    let q = b.linear("q", "attn_q", input, heads * head_dim, common.bias);
    let keys = appends.then(|| b.linear("k", "attn_k", input, kv_width, common.bias));
    let values = keys.map(|k| match layer.keys_as_values {
        true => k,
        false => b.linear("v", "attn_v", input, kv_width, common.bias),
    });
    let q = b.head_norm("q_normed", Some("attn_q_norm"), q, head_dim, eps);
    let q = b.rope("q_rope", q, head_dim, rope);
    let state = b.state(spec);
    if let (Some(k), Some(v)) = (keys, values) {
        let k = b.head_norm("k_normed", Some("attn_k_norm"), k, head_dim, eps);
        let k = b.rope("k_rope", k, head_dim, rope);
        let v = b.head_norm("v_normed", None, v, head_dim, eps);
        b.kv_append(state, k, v);
    }
    // Queries and keys are normed, so that scores need no factor.
    let attn = b.attention("attn", q, state, heads, Attention { scale: 1.0, window, softcap: None }, &[]);
    b.linear("attn_out", "attn_output", attn, hidden, common.bias)
}

/// Passes over the keys' and values' weights of layers that read other layers' caches, with a warning.
fn ignore_shared(loaded: &Loaded, layers: &[LayerSizes]) {
    let (mut first, mut count) = (None, 0);
    for (index, _) in layers.iter().enumerate().filter(|(index, layer)| layer.cache_of != *index) {
        for role in ["attn_k", "attn_v", "attn_k_norm", "attn_v_norm"] {
            if loaded.tensors.has(role, Some(index)) {
                let name = loaded.tensors.name(role, Some(index));
                loaded.tensors.ignore(|tensor| tensor == name);
                first.get_or_insert(name);
                count += 1;
            }
        }
    }
    if let Some(first) = first {
        loaded.warn(Warning::SharedCache { file: loaded.tensors.file.clone(), first, tensors: count });
    }
}
