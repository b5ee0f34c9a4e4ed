//! Qwen 3.5 to 3.8, dense and mixtures, and Qwen3-Next: the gated delta rule in most layers, gated attention with partial rotation
//! in the others.

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::hybrid;
use super::mixture::{self, Mixture, Router, Shared};
use crate::graph::{Activation, Attention, GatedDelta, Graph, GroupScore, RopePairing, Scores, ValueId};
use crate::source::{Dialect, Hparams, Key, Loaded, Part, Role, RopeLayers, key};
use crate::{FrontendError, Refusal};

const ROLES: &[Role] = &[
    Role::new("ffn_norm", "post_attention_norm", "post_attention_layernorm"),
    Role::new("delta_qkv", "attn_qkv", "linear_attn.in_proj_qkv"),
    Role::new("delta_z", "attn_gate", "linear_attn.in_proj_z"),
    Role::new("delta_b", "ssm_beta", "linear_attn.in_proj_b"),
    Role::new("delta_a", "ssm_alpha", "linear_attn.in_proj_a"),
    // Those of Qwen3-Next, of which older GGUFs have the first.
    Role::new("delta_qkvz", "ssm_in", "linear_attn.in_proj_qkvz"),
    Role::new("delta_ba", "ssm_ba", "linear_attn.in_proj_ba"),
    Role::new("delta_conv", "ssm_conv1d", "linear_attn.conv1d"),
    Role::unsuffixed("delta_decay", "ssm_a", "linear_attn.A_log"),
    Role::bare("delta_dt", "ssm_dt", "linear_attn.dt_bias"),
    Role::new("delta_norm", "ssm_norm", "linear_attn.norm"),
    Role::new("delta_out", "ssm_out", "linear_attn.out_proj"),
    Role::new("router", "ffn_gate_inp", "mlp.gate"),
    Role::new("shared_router", "ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    Role::new("shared_gate", "ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    Role::new("shared_up", "ffn_up_shexp", "mlp.shared_expert.up_proj"),
    Role::new("shared_down", "ffn_down_shexp", "mlp.shared_expert.down_proj"),
];

const DEFAULTS: &str = r#"{"vocab_size": 248320, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "head_dim": 256, "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32}"#;

pub(super) const DENSE: Family = Family {
    gguf: &["qwen35"],
    hf: &[("qwen3_5_text", DEFAULTS), ("qwen3_5", DEFAULTS)],
    roles: ROLES,
    build: |loaded| {
        let width = loaded.hparams.usize(key::INTERMEDIATE)?;
        // The converter to GGUF puts value heads in turn.
        build(loaded, width, None, loaded.hparams.dialect == Dialect::Gguf)
    },
};

const MIXTURE_DEFAULTS: &str = r#"{"vocab_size": 248320, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16,
    "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "head_dim": 256,
    "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "num_experts_per_tok": 8, "num_experts": 256}"#;

pub(super) const MIXTURE: Family = Family {
    gguf: &["qwen35moe"],
    hf: &[("qwen3_5_moe_text", MIXTURE_DEFAULTS), ("qwen3_5_moe", MIXTURE_DEFAULTS)],
    roles: ROLES,
    build: |loaded| build_mixture(loaded, loaded.hparams.dialect == Dialect::Gguf),
};

pub(super) const NEXT: Family = Family {
    gguf: &["qwen3next"],
    hf: &[(
        "qwen3_next",
        r#"{"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 48,
            "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
            "head_dim": 256, "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
            "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
            "decoder_sparse_step": 1, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
            "num_experts_per_tok": 10, "num_experts": 512, "norm_topk_prob": true}"#,
    )],
    roles: ROLES,
    // Its converter leaves the heads in order.
    build: |loaded| build_mixture(loaded, false),
};

const KEY_HEADS: Key = Key::new("ssm.group_count", "linear_num_key_heads");
const VALUE_HEADS: Key = Key::new("ssm.time_step_rank", "linear_num_value_heads");
const KEY_DIM: Key = Key::new("ssm.state_size", "linear_key_head_dim");
const VALUE_DIM: Key = Key::new("", "linear_value_head_dim");
/// Values of all heads.
const VALUES: Key = Key::new("ssm.inner_size", "");
const TAPS: Key = Key::new("ssm.conv_kernel", "linear_conv_kernel_dim");
/// Widest head of keys or values: a lane holds 8 elements of a row of the state.
const WIDEST_HEAD: usize = 256;
/// Most taps: a thread holds so many rows of its channel.
const MOST_TAPS: usize = 8;

/// Reads a mixture's keys, then all else.
fn build_mixture(loaded: &Loaded, tiled_heads: bool) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let width = h.usize(mixture::WIDTH)?;
    let router = Router {
        experts: Key::new("expert_count", "num_experts"),
        scores: Scores::Softmax,
        normalised: true,
        normalised_by: 0.0,
        groups: GroupScore::BestTwo,
    };
    let shared_width = h.usize(mixture::SHARED_WIDTH)?;
    let mixture = Mixture {
        routing: router.read(h)?,
        selection_bias: false,
        width,
        activation: dense::activation(h, key::ACTIVATION, Activation::Silu)?,
        shared: Some(Shared { width: shared_width, gated: true }),
    };
    let step = h.opt_usize(mixture::SPARSE_STEP)?.unwrap_or(1);
    let layers = mixture::layers(loaded, dense::layer_count(loaded)?, 0, step, mixture::DENSE_LAYERS)?;
    // Only a dense layer has another width than the experts'.
    let dense_width = if layers.contains(&false) { h.usize(key::INTERMEDIATE)? } else { width };
    build(loaded, dense_width, Some((&mixture, &layers)), tiled_heads)
}

/// The graph. `mixture`: the layers that have one; the others' feed-forward is `intermediate` wide.
fn build(
    loaded: &Loaded,
    intermediate: usize,
    mixture: Option<(&Mixture, &[bool])>,
    tiled_heads: bool,
) -> Result<Graph, FrontendError> {
    const INTERVAL: Key = Key::new("full_attention_interval", "full_attention_interval");
    let h = &loaded.hparams;
    let interval = h.opt_usize(INTERVAL)?.unwrap_or(4);
    let blocks = h.usize(key::LAYERS)?;
    let attends =
        hybrid::attending_layers(h, blocks, "linear_attention", |layer| (layer + 1).is_multiple_of(interval))?;
    let sizes = Sizes::read_all(loaded, intermediate, hybrid::kv_heads(h)?, key::EPS)?;
    let delta = delta(h, sizes.eps, tiled_heads)?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::Heads,
        eps: sizes.eps,
        qkv_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?,
        output_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?,
    };
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let tied = dense::tied(loaded, false)?;
    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.norm_offset = norm_offset(loaded);
    graph.logarithm = (h.dialect == Dialect::HuggingFace).then_some("delta_decay");
    if let Some(first) = attends[..sizes.layers].iter().position(|attends| !attends) {
        graph.parts = fused(loaded, first, &delta);
    }
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for (index, &attends) in attends[..sizes.layers].iter().enumerate() {
        let ffn = |b: &mut BlockBuilder, input: ValueId| match mixture {
            Some((mixture, layers)) if layers[index] => mixture.add(b, input),
            _ => dense::feed_forward(b, input, sizes.hidden, sizes.intermediate, activation, false),
        };
        let block = match attends {
            true => {
                let attention = |b: &mut BlockBuilder, x| dense::gated_attention(b, x, sizes.hidden, &spec);
                hybrid::layer("attention_layer", &sizes, attention, ffn)
            }
            false => hybrid::layer("delta_layer", &sizes, |b, x| delta_rule(b, x, &delta), ffn),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Where q, k and v, z, b and a are where a checkpoint has them in two matrices (Qwen3-Next): the rows of a key head follow one
/// another, those of its value heads among them. `layer` is one with a delta rule.
fn fused(loaded: &Loaded, layer: usize, delta: &GatedDelta) -> Vec<Part> {
    let GatedDelta { key_heads, value_heads, key_dim, value_dim, .. } = *delta;
    let shared_by = value_heads / key_heads;
    let values = shared_by * value_dim;
    let mut parts = Vec::new();
    if loaded.tensors.has("delta_qkvz", Some(layer)) {
        let of_head = 2 * (key_dim + values);
        // Runs are equally long, so that each is the longest that divides a head's rows of all three.
        let length = greatest_common_divisor(key_dim, values);
        let runs = |first: usize, rows: usize| {
            let heads = (0..key_heads).map(move |head| head * of_head + first);
            heads.flat_map(move |start| (start..start + rows).step_by(length)).collect::<Vec<_>>()
        };
        let qkv = [(0, key_dim), (key_dim, key_dim), (2 * key_dim, values)];
        let qkv = qkv.into_iter().flat_map(|(first, rows)| runs(first, rows)).collect();
        let z = runs(2 * key_dim + values, values);
        for (role, runs) in [("delta_qkv", qkv), ("delta_z", z)] {
            parts.push(Part { role, of: "delta_qkvz", runs, total_rows: key_heads * of_head });
        }
    }
    if loaded.tensors.has("delta_ba", Some(layer)) {
        for (role, first) in [("delta_b", 0), ("delta_a", shared_by)] {
            let runs = (0..key_heads).map(|head| 2 * shared_by * head + first).collect();
            parts.push(Part { role, of: "delta_ba", runs, total_rows: 2 * value_heads });
        }
    }
    parts
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The sizes of the delta rule.
fn delta(h: &Hparams, eps: f32, tiled_heads: bool) -> Result<GatedDelta, FrontendError> {
    let (key_heads, value_heads) = (h.usize(KEY_HEADS)?, h.usize(VALUE_HEADS)?);
    h.divides(Refusal::DeltaGroups, (VALUE_HEADS, value_heads), (KEY_HEADS, key_heads))?;
    let value_dim = match h.dialect {
        Dialect::HuggingFace => h.usize(VALUE_DIM)?,
        Dialect::Gguf => {
            let values = h.usize(VALUES)?;
            h.divides(Refusal::DeltaValues, (VALUES, values), (VALUE_HEADS, value_heads))?;
            values / value_heads
        }
    };
    let (key_dim, taps) = (h.usize(KEY_DIM)?, h.usize(TAPS)?);
    let value_key = if h.dialect == Dialect::Gguf { VALUES } else { VALUE_DIM };
    // Kernels take four elements of a head at a time.
    for (key, size, [least, most], each) in [
        (KEY_DIM, key_dim, [4, WIDEST_HEAD], 4),
        (value_key, value_dim, [4, WIDEST_HEAD], 4),
        (TAPS, taps, [2, MOST_TAPS], 1),
    ] {
        if !(least..=most).contains(&size) || !size.is_multiple_of(each) {
            let built = if each == 1 { String::new() } else { format!("multiples of {each}, ") };
            let built = format!("{built}{least} to {most} are built, not {size}");
            return Err(h.unsupported(Refusal::DeltaWidth, key, built));
        }
    }
    Ok(GatedDelta { key_heads, value_heads, key_dim, value_dim, taps, tiled_heads, eps })
}

/// Checkpoints as they were trained hold `w` of norms of `1 + w`; converters to MLX, which turn the convolution's axes too,
/// and to GGUF add the 1.
fn norm_offset(loaded: &Loaded) -> f32 {
    let conv = (0..).map_while(|layer| {
        let name = loaded.tensors.name("attn_norm", Some(layer));
        loaded.tensors.entries.get(&name).map(|_| loaded.tensors.name("delta_conv", Some(layer)))
    });
    let conv = conv.filter_map(|name| loaded.tensors.entries.get(&name)).next();
    let turned = conv.is_some_and(|entry| entry.shape.last() == Some(&1));
    if loaded.hparams.dialect == Dialect::HuggingFace && !turned { 1.0 } else { 0.0 }
}

/// The four projections, the delta rule and the output projection.
fn delta_rule(b: &mut BlockBuilder, input: ValueId, delta: &GatedDelta) -> ValueId {
    let hidden = b.width(input);
    let qkv = b.linear("qkv", "delta_qkv", input, delta.channels(), false);
    let z = b.linear("z", "delta_z", input, delta.value_heads * delta.value_dim, false);
    let write = b.linear("b", "delta_b", input, delta.value_heads, false);
    let time = b.linear("a", "delta_a", input, delta.value_heads, false);
    let y = b.gated_delta("delta", [qkv, z, write, time], *delta);
    b.linear("delta_out", "delta_out", y, hidden, false)
}
