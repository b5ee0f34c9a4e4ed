//! Qwen 3.5 (dense): the gated delta rule in most layers, gated attention with partial rotation in the others.

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::hybrid;
use crate::graph::{Activation, Attention, Block, GatedDelta, Graph, RopePairing, ValueId};
use crate::source::{Dialect, Hparams, Key, Loaded, Role, RopeLayers, key};
use crate::{FrontendError, Refusal};

const DEFAULTS: &str = r#"{"vocab_size": 248320, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "head_dim": 256, "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32}"#;

pub(super) const FAMILY: Family = Family {
    gguf: &["qwen35"],
    hf: &[("qwen3_5_text", DEFAULTS), ("qwen3_5", DEFAULTS)],
    roles: &[
        Role::new("ffn_norm", "post_attention_norm", "post_attention_layernorm"),
        Role::new("delta_qkv", "attn_qkv", "linear_attn.in_proj_qkv"),
        Role::new("delta_z", "attn_gate", "linear_attn.in_proj_z"),
        Role::new("delta_b", "ssm_beta", "linear_attn.in_proj_b"),
        Role::new("delta_a", "ssm_alpha", "linear_attn.in_proj_a"),
        Role::new("delta_conv", "ssm_conv1d", "linear_attn.conv1d"),
        Role::unsuffixed("delta_decay", "ssm_a", "linear_attn.A_log"),
        Role::bare("delta_dt", "ssm_dt", "linear_attn.dt_bias"),
        Role::new("delta_norm", "ssm_norm", "linear_attn.norm"),
        Role::new("delta_out", "ssm_out", "linear_attn.out_proj"),
    ],
    build,
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

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const INTERVAL: Key = Key::new("full_attention_interval", "full_attention_interval");
    let h = &loaded.hparams;
    let interval = h.opt_usize(INTERVAL)?.unwrap_or(4);
    let blocks = h.usize(key::LAYERS)?;
    let attends =
        hybrid::attending_layers(h, blocks, "linear_attention", |layer| (layer + 1).is_multiple_of(interval))?;
    let sizes = Sizes::read_all(loaded, h.usize(key::INTERMEDIATE)?, hybrid::kv_heads(h)?, key::EPS)?;
    let delta = delta(h, sizes.eps)?;
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
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for &attends in &attends[..sizes.layers] {
        let block = match attends {
            true => {
                layer("attention_layer", &sizes, activation, |b, x| dense::gated_attention(b, x, sizes.hidden, &spec))
            }
            false => layer("delta_layer", &sizes, activation, |b, x| delta_rule(b, x, &delta)),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// The sizes of the delta rule.
fn delta(h: &Hparams, eps: f32) -> Result<GatedDelta, FrontendError> {
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
    for (key, size, most) in
        [(KEY_DIM, key_dim, WIDEST_HEAD), (value_key, value_dim, WIDEST_HEAD), (TAPS, taps, MOST_TAPS)]
    {
        if !(2..=most).contains(&size) {
            return Err(h.unsupported(Refusal::DeltaWidth, key, format!("2 to {most} are built, not {size}")));
        }
    }
    // The converter to GGUF puts value heads in turn.
    let tiled_heads = h.dialect == Dialect::Gguf;
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

/// `x + mixer(norm(x))`, then `x + ffn(norm(x))`.
fn layer(
    name: &str,
    sizes: &Sizes,
    activation: Activation,
    mixer: impl Fn(&mut BlockBuilder, ValueId) -> ValueId,
) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let mixer_in = b.rms_norm("mixer_in", "attn_norm", x, sizes.eps);
    let mixed = mixer(&mut b, mixer_in);
    let x = b.add("x_mixed", x, mixed);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, sizes.eps);
    let ffn = dense::feed_forward(&mut b, ffn_in, sizes.hidden, sizes.intermediate, activation, false);
    let x = b.add("x_ffn", x, ffn);
    b.finish(x)
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
