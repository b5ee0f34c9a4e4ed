//! LFM2 (dense): gated short convolutions in most layers, attention with norms of each head of q and k in the others.

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::hybrid;
use crate::FrontendError;
use crate::graph::{Activation, Attention, Block, Graph, RopePairing, ValueId};
use crate::source::{Key, Loaded, Role, RopeLayers};

const DEFAULTS: &str = r#"{"vocab_size": 65536, "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 128000, "norm_eps": 1e-5, "rope_theta": 1000000.0,
    "conv_bias": false, "conv_L_cache": 3}"#;

pub(super) const FAMILY: Family = Family {
    gguf: &["lfm2"],
    hf: &[("lfm2", DEFAULTS)],
    roles: &[
        Role::new("output_norm", "output_norm", "embedding_norm"),
        // What older converters call the final norm.
        Role::new("embedding_norm", "token_embd_norm", "embedding_norm"),
        Role::new("attn_norm", "attn_norm", "operator_norm"),
        Role::new("attn_q_norm", "attn_q_norm", "self_attn.q_layernorm"),
        Role::new("attn_k_norm", "attn_k_norm", "self_attn.k_layernorm"),
        Role::new("attn_output", "attn_output", "self_attn.out_proj"),
        Role::new("conv_in", "shortconv.in_proj", "conv.in_proj"),
        Role::new("conv", "shortconv.conv", "conv.conv"),
        Role::new("conv_out", "shortconv.out_proj", "conv.out_proj"),
        Role::new("ffn_norm", "ffn_norm", "ffn_norm"),
        Role::new("ffn_gate", "ffn_gate", "feed_forward.w1"),
        Role::new("ffn_up", "ffn_up", "feed_forward.w3"),
        Role::new("ffn_down", "ffn_down", "feed_forward.w2"),
    ],
    build,
};

/// What a convolution layer has.
struct Conv {
    taps: usize,
    /// Of the convolution and of both its projections.
    bias: bool,
}

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const EPS: Key = Key::new("attention.layer_norm_rms_epsilon", "norm_eps");
    const TAPS: Key = Key::new("shortconv.l_cache", "conv_L_cache");
    const CONV_BIAS: Key = Key::new("", "conv_bias");
    const TIE_EMBEDDING: Key = Key::new("", "tie_embedding");
    let h = &loaded.hparams;
    let attends = hybrid::attending_layers(h, dense::layer_count(loaded)?, "conv", |_| true)?;
    // A config.json gives the width before it is cut to two thirds and rounded.
    let intermediate = loaded.tensors.rows("ffn_gate", Some(0))?;
    let sizes = Sizes::read_all(loaded, intermediate, hybrid::kv_heads(h)?, EPS)?;
    let conv = Conv { taps: h.usize(TAPS)?, bias: dense::has_bias(loaded, CONV_BIAS, "conv_in")? };
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::Heads,
        eps: sizes.eps,
        qkv_bias: false,
        output_bias: false,
    };
    let tied = dense::tied(loaded, h.opt_bool(TIE_EMBEDDING)?.unwrap_or(true))?;
    let mut graph = GraphBuilder::new(&loaded.tensors);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for attends in attends {
        let block = match attends {
            true => layer("attention_layer", &sizes, |b, x| dense::attention(b, x, sizes.hidden, &spec)),
            false => layer("conv_layer", &sizes, |b, x| short_conv(b, x, &conv)),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let norm = if loaded.tensors.has("output_norm", None) { "output_norm" } else { "embedding_norm" };
    let head = graph.stage(dense::head_normed_by(&sizes, norm, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// `x + mixer(norm(x))`, then `x + ffn(norm(x))`.
fn layer(name: &str, sizes: &Sizes, mixer: impl Fn(&mut BlockBuilder, ValueId) -> ValueId) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let mixer_in = b.rms_norm("mixer_in", "attn_norm", x, sizes.eps);
    let mixed = mixer(&mut b, mixer_in);
    let x = b.add("x_mixed", x, mixed);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, sizes.eps);
    let ffn = dense::feed_forward(&mut b, ffn_in, sizes.hidden, sizes.intermediate, Activation::Silu, false);
    let x = b.add("x_ffn", x, ffn);
    b.finish(x)
}

fn short_conv(b: &mut BlockBuilder, input: ValueId, conv: &Conv) -> ValueId {
    let hidden = b.width(input);
    let bcx = b.linear("bcx", "conv_in", input, 3 * hidden, conv.bias);
    let y = b.short_conv("conv", "conv", bcx, conv.taps, conv.bias);
    b.linear("conv_out", "conv_out", y, hidden, conv.bias)
}
