//! DeepSeek V2 and V3, Kimi K2, GLM-4.7-Flash: attention over latents, with queries that come from a latent of their own or not; dense
//! first layers, then mixtures with shared experts, by softmax (V2) or by sigmoid with a selection bias.

use serde_json::Value;

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, Sizes};
use super::mixture::{self, Mixture, Router, Shared};
use crate::graph::{Activation, Graph, GroupScore, LatentSizes, Rope, RopePairing, Scores, ValueId};
use crate::source::{Dialect, Hparams, Key, Loaded, Role, RopeLayers, key};
use crate::{FrontendError, Refusal};

const V2: &str = r#"{"vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "attention_bias": false,
    "first_k_dense_replace": 0, "kv_lora_rank": 512, "q_lora_rank": 1536, "n_routed_experts": 64, "n_shared_experts": 2,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "routed_scaling_factor": 1.0,
    "topk_method": "greedy", "norm_topk_prob": false, "moe_intermediate_size": 1407}"#;
const V3: &str = r#"{"vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
    "num_attention_heads": 128, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "attention_bias": false,
    "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536, "n_routed_experts": 256, "n_shared_experts": 1,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "routed_scaling_factor": 2.5, "n_group": 8,
    "topk_group": 4, "num_experts_per_tok": 8, "norm_topk_prob": true, "moe_intermediate_size": 2048,
    "scoring_func": "sigmoid"}"#;
const GLM_LITE: &str = r#"{"vocab_size": 154880, "hidden_size": 2048, "intermediate_size": 10240, "num_hidden_layers": 47,
    "num_attention_heads": 20, "max_position_embeddings": 202752, "rms_norm_eps": 1e-5, "attention_bias": false,
    "first_k_dense_replace": 1, "kv_lora_rank": 512, "q_lora_rank": 768, "n_routed_experts": 64, "n_shared_experts": 1,
    "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "routed_scaling_factor": 1.8, "n_group": 1,
    "topk_group": 1, "num_experts_per_tok": 4, "norm_topk_prob": true, "moe_intermediate_size": 1536,
    "scoring_func": "sigmoid"}"#;

pub(super) const FAMILY: Family = Family {
    gguf: &["deepseek2"],
    hf: &[("deepseek_v2", V2), ("deepseek_v3", V3), ("kimi_k2", V3), ("glm4_moe_lite", GLM_LITE)],
    roles: &[
        Role::new("attn_q_a", "attn_q_a", "self_attn.q_a_proj"),
        Role::new("attn_q_a_norm", "attn_q_a_norm", "self_attn.q_a_layernorm"),
        Role::new("attn_q_b", "attn_q_b", "self_attn.q_b_proj"),
        Role::new("attn_kv_a", "attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
        Role::new("attn_kv_a_norm", "attn_kv_a_norm", "self_attn.kv_a_layernorm"),
        Role::new("attn_kv_b", "attn_kv_b", "self_attn.kv_b_proj"),
        Role::new("attn_k_b", "attn_k_b", "self_attn.embed_q"),
        Role::new("attn_v_b", "attn_v_b", "self_attn.unembed_out"),
        Role::new("router", "ffn_gate_inp", "mlp.gate"),
        Role::bare("selection", "exp_probs_b", "mlp.gate.e_score_correction_bias"),
        Role::new("shared_gate", "ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
        Role::new("shared_up", "ffn_up_shexp", "mlp.shared_experts.up_proj"),
        Role::new("shared_down", "ffn_down_shexp", "mlp.shared_experts.down_proj"),
    ],
    build,
};

/// Latent attention's norms have an epsilon of their own.
const LATENT_EPS: f32 = 1e-6;

const QUERY_LATENT: Key = Key::new("attention.q_lora_rank", "q_lora_rank");
const ROTATING: Key = Key::new("rope.dimension_count", "qk_rope_head_dim");
/// Elements of a head, where the latents' own are said apart from them.
const KEY_OF_HEAD: Key = Key::new("attention.key_length_mla", "");
const VALUE_OF_HEAD: Key = Key::new("attention.value_length_mla", "v_head_dim");
const DENSE: Key = Key::new("leading_dense_block_count", "first_k_dense_replace");

/// What attention of a layer is made of.
struct Latents {
    sizes: LatentSizes,
    /// Elements of the queries' latent, where they have one.
    query_latent: Option<usize>,
    /// Keys and values are stored together.
    by_key: bool,
    /// The projections to latents, and the output projection, have biases.
    bias: bool,
    rope: Rope,
    scale: f32,
}

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let heads = h.usize(key::HEADS)?;
    let latents = latents(loaded, heads)?;
    let LatentSizes { nope, rope, .. } = latents.sizes;
    let sizes = Sizes::of_heads(loaded, h.usize(key::INTERMEDIATE)?, [heads, 1, nope + rope], key::EPS)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let mixtures = mixtures(loaded, sizes.layers)?;
    let mixture = mixture(loaded, activation, mixtures.iter().position(|&mixture| mixture))?;
    let tied = dense::tied(loaded, false)?;
    let mut graph = GraphBuilder::new(&loaded.tensors);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for (layer, &routed) in mixtures.iter().enumerate() {
        let name = mixture::layer_name(&mixtures, layer);
        let attend = |b: &mut BlockBuilder, input| attention(b, input, &latents);
        let ffn = |b: &mut BlockBuilder, input| match routed {
            true => mixture.add(b, input),
            false => dense::feed_forward(b, input, sizes.hidden, sizes.intermediate, activation, false),
        };
        dense::add_layer(&mut graph, dense::pre_norm_branches(name, &sizes, 1.0, attend, ffn))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Sizes, rotation and scale.
fn latents(loaded: &Loaded, heads: usize) -> Result<Latents, FrontendError> {
    const LATENT: Key = Key::new("attention.kv_lora_rank", "kv_lora_rank");
    const NOPE: Key = Key::new("", "qk_nope_head_dim");
    const INTERLEAVED: Key = Key::new("", "rope_interleave");
    let h = &loaded.hparams;
    let (latent, rope) = (h.usize(LATENT)?, h.usize(ROTATING)?);
    let (nope, value) = match h.dialect {
        Dialect::HuggingFace => (h.usize(NOPE)?, h.usize(VALUE_OF_HEAD)?),
        Dialect::Gguf => {
            // Older converters say of heads what newer ones say of the cache.
            let (key, value) = match h.get(KEY_OF_HEAD) {
                Some(_) => (KEY_OF_HEAD, VALUE_OF_HEAD),
                None => (key::HEAD_DIM, key::VALUE_DIM),
            };
            let whole = h.usize(key)?;
            if whole <= rope {
                return Err(h.invalid(Refusal::LatentHead, key, format!("more than the {rope} that rotate")));
            }
            (whole - rope, h.usize(value)?)
        }
    };
    let sizes = LatentSizes { heads, latent, rope, nope, value };
    let query_latent = match h.dialect {
        Dialect::Gguf if !loaded.tensors.has("attn_q_a", Some(0)) => None,
        Dialect::Gguf | Dialect::HuggingFace => h.opt_usize(QUERY_LATENT)?,
    };
    let mut rotation = loaded.rope(rope, RopePairing::Interleaved, RopeLayers::All)?;
    if h.opt_bool(INTERLEAVED)?.unwrap_or(true) {
        rotation.pairing = RopePairing::Interleaved;
    }
    if h.dialect == Dialect::Gguf {
        // Both of YaRN's factors are one: they cancel in cos and sin. A GGUF has but one.
        rotation.magnitude = 1.0;
    }
    let factor = f64::from(loaded.yarn_score_factor()?);
    Ok(Latents {
        sizes,
        query_latent,
        by_key: loaded.tensors.has_keys_with_values(),
        bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_kv_a")?,
        rope: rotation,
        scale: (factor * factor / ((nope + rope) as f64).sqrt()) as f32,
    })
}

/// The projections to queries and latents, attention, and the output projection.
fn attention(b: &mut BlockBuilder, input: ValueId, latents: &Latents) -> ValueId {
    let Latents { sizes, query_latent, by_key, bias, ref rope, scale } = *latents;
    let (hidden, queries) = (b.width(input), sizes.queries());
    let first = match query_latent {
        Some(width) => b.linear("q_a", "attn_q_a", input, width, bias),
        None => b.linear("q", "attn_q", input, queries, false),
    };
    let compressed = b.linear("kv_a", "attn_kv_a", input, sizes.position(), bias);
    let q = match query_latent {
        Some(_) => {
            let normed = b.rms_norm("q_a_normed", "attn_q_a_norm", first, LATENT_EPS);
            b.linear("q", "attn_q_b", normed, queries, false)
        }
        None => first,
    };
    let attn = b.latent_attention("attn", [q, compressed], sizes, by_key, LATENT_EPS, (rope, scale));
    b.linear("attn_out", "attn_output", attn, hidden, bias)
}

/// The mixture of the layers that have one, the first of which is `layer`.
fn mixture(loaded: &Loaded, activation: Activation, layer: Option<usize>) -> Result<Mixture, FrontendError> {
    const SHARED: Key = Key::new("expert_shared_count", "n_shared_experts");
    let h = &loaded.hparams;
    let scores = scores(h)?;
    let router = Router {
        experts: Key::new("expert_count", "n_routed_experts"),
        scores,
        normalised: false,
        normalised_by: 1e-20,
        groups: if scores == Scores::Sigmoid { GroupScore::BestTwo } else { GroupScore::Best },
    };
    let mut routing = router.read(h)?;
    // V2 has groups in its configuration also where it does not choose by them.
    if h.opt_str(Key::new("", "topk_method"))? == Some("greedy") {
        routing.groups = None;
    }
    let width = h.usize(mixture::WIDTH)?;
    let shared = h.opt_count(SHARED)?.filter(|&count| count > 0);
    let selection_bias = match h.dialect {
        Dialect::Gguf => loaded.tensors.has("selection_bias", layer),
        Dialect::HuggingFace => routing.scores == Scores::Sigmoid,
    };
    let shared = shared.map(|count| Shared { width: width.saturating_mul(count), gated: false });
    Ok(Mixture { routing, selection_bias, width, activation, shared })
}

/// The router's scores, where a GGUF has no key for them.
fn scores(h: &Hparams) -> Result<Scores, FrontendError> {
    const SCORES: Key = Key::new("", "scoring_func");
    match (h.dialect, h.opt_str(SCORES)?) {
        (Dialect::HuggingFace, Some("sigmoid")) => Ok(Scores::Sigmoid),
        (Dialect::HuggingFace, None | Some("softmax")) => Ok(Scores::Softmax),
        (Dialect::HuggingFace, Some(_)) => {
            Err(h.unsupported(Refusal::ScoringFunction, SCORES, "scores are softmax or sigmoid"))
        }
        // The first files of GLM-4.7-Flash lack the key; blocks count the one that predicts, or do not.
        (Dialect::Gguf, _) => {
            let glm = [47, 48].contains(&h.usize(key::LAYERS)?) && h.opt_usize(key::VOCAB)? == Some(154_880);
            Ok(if glm { Scores::Sigmoid } else { Scores::Softmax })
        }
    }
}

/// Which layers have a mixture.
fn mixtures(loaded: &Loaded, layers: usize) -> Result<Vec<bool>, FrontendError> {
    const KINDS: Key = Key::new("", "mlp_layer_types");
    let h = &loaded.hparams;
    let Some(kinds) = h.get(KINDS) else {
        return mixture::layers(loaded, layers, h.opt_count(DENSE)?.unwrap_or(0), 1, Key::new("", "mlp_only_layers"));
    };
    let kind = |value: &Value| match value.as_str() {
        Some("sparse") => Some(true),
        Some("dense") => Some(false),
        _ => None,
    };
    let list: Option<Vec<bool>> = kinds.as_array().and_then(|kinds| kinds.iter().map(kind).collect());
    list.filter(|list| list.len() == layers).ok_or_else(|| {
        h.invalid(Refusal::MixtureLayers, KINDS, format!("dense or sparse for each of the {layers} layers"))
    })
}
