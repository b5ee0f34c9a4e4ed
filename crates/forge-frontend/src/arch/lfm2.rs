//! LFM2, dense and mixtures: gated short convolutions in most layers, attention with norms of each head of q and k in the others.
//! A mixture's first layers have a dense feed-forward.

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::hybrid;
use super::mixture::{self, Mixture, Router};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Graph, GroupScore, RopePairing, Scores, ValueId};
use crate::source::{Key, Loaded, Part, Role, RopeLayers, integer, key};

const DEFAULTS: &str = r#"{"vocab_size": 65536, "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 128000, "norm_eps": 1e-5, "rope_theta": 1000000.0,
    "conv_bias": false, "conv_L_cache": 3}"#;

const ROLES: &[Role] = &[
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
    // The same in MLX folders of mixtures.
    Role::new("mlx_gate", "", "feed_forward.gate_proj"),
    Role::new("mlx_up", "", "feed_forward.up_proj"),
    Role::new("mlx_down", "", "feed_forward.down_proj"),
    Role::new("router", "ffn_gate_inp", "feed_forward.gate"),
    Role::bare("selection", "exp_probs_b", "feed_forward.expert_bias"),
];

pub(super) const DENSE: Family = Family {
    gguf: &["lfm2"],
    hf: &[("lfm2", DEFAULTS)],
    roles: ROLES,
    build: |loaded| {
        // A config.json gives the width before it is cut to two thirds and rounded.
        let intermediate = loaded.tensors.rows("ffn_gate", Some(0))?;
        build(loaded, intermediate, None)
    },
};

pub(super) const MIXTURE: Family = Family {
    gguf: &["lfm2moe"],
    hf: &[(
        "lfm2_moe",
        r#"{"vocab_size": 65536, "hidden_size": 2048, "intermediate_size": 7168, "moe_intermediate_size": 1792,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 128000, "norm_eps": 1e-5, "rope_theta": 1000000.0, "conv_bias": false,
            "conv_L_cache": 3, "num_dense_layers": 2, "num_experts_per_tok": 4, "num_experts": 32,
            "use_expert_bias": true, "routed_scaling_factor": 1.0, "norm_topk_prob": true}"#,
    )],
    roles: ROLES,
    build: build_mixture,
};

/// What a convolution layer has.
struct Conv {
    taps: usize,
    /// Of the convolution and of both its projections.
    bias: bool,
}

fn build_mixture(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const DENSE_LAYERS: Key = Key::new("leading_dense_block_count", "num_dense_layers");
    const BIASED: Key = Key::new("", "use_expert_bias");
    let h = &loaded.hparams;
    let router = Router {
        experts: Key::new("expert_count", "num_experts"),
        scores: Scores::Sigmoid,
        normalised: true,
        normalised_by: 1e-6,
        groups: GroupScore::BestTwo,
    };
    let count = dense::layer_count(loaded)?;
    // 0 is no size.
    let first = match h.get(DENSE_LAYERS).and_then(integer) {
        Some(0) => 0,
        _ => h.opt_usize(DENSE_LAYERS)?.unwrap_or(0),
    };
    let layers = mixture::layers(loaded, count, first, 1, mixture::DENSE_LAYERS)?;
    let first = layers.iter().position(|mixture| *mixture);
    let mixture = Mixture {
        routing: router.read(h)?,
        selection_bias: match h.opt_bool(BIASED)? {
            Some(biased) => biased,
            None => loaded.tensors.has("selection_bias", first),
        },
        width: h.usize(mixture::WIDTH)?,
        activation: Activation::Silu,
        shared: None,
    };
    let intermediate = if layers.contains(&false) { h.usize(key::INTERMEDIATE)? } else { mixture.width };
    build(loaded, intermediate, Some((&mixture, &layers)))
}

/// The graph. `mixture`: the layers that have one; the others' feed-forward is `intermediate` wide.
fn build(loaded: &Loaded, intermediate: usize, mixture: Option<(&Mixture, &[bool])>) -> Result<Graph, FrontendError> {
    const EPS: Key = Key::new("attention.layer_norm_rms_epsilon", "norm_eps");
    const TAPS: Key = Key::new("shortconv.l_cache", "conv_L_cache");
    const CONV_BIAS: Key = Key::new("", "conv_bias");
    const TIE_EMBEDDING: Key = Key::new("", "tie_embedding");
    let h = &loaded.hparams;
    let attends = hybrid::attending_layers(h, dense::layer_count(loaded)?, "conv", |_| true)?;
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
    if loaded.tensors.has("mlx_gate", Some(0)) {
        let alias = |role, of, rows| Part::run(role, of, 0, rows);
        graph.parts = vec![
            alias("ffn_gate", "mlx_gate", intermediate),
            alias("ffn_up", "mlx_up", intermediate),
            alias("ffn_down", "mlx_down", sizes.hidden),
        ];
    }
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for (index, attends) in attends.into_iter().enumerate() {
        let ffn = |b: &mut BlockBuilder, input: ValueId| match mixture {
            Some((mixture, layers)) if layers[index] => mixture.add(b, input),
            _ => dense::feed_forward(b, input, sizes.hidden, sizes.intermediate, Activation::Silu, false),
        };
        let block = match attends {
            true => hybrid::layer("attention_layer", &sizes, |b, x| dense::attention(b, x, sizes.hidden, &spec), ffn),
            false => hybrid::layer("conv_layer", &sizes, |b, x| short_conv(b, x, &conv), ffn),
        };
        dense::add_layer(&mut graph, block)?;
    }
    let norm = if loaded.tensors.has("output_norm", None) { "output_norm" } else { "embedding_norm" };
    let head = graph.stage(dense::head_normed_by(&sizes, norm, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

fn short_conv(b: &mut BlockBuilder, input: ValueId, conv: &Conv) -> ValueId {
    let hidden = b.width(input);
    let bcx = b.linear("bcx", "conv_in", input, 3 * hidden, conv.bias);
    let y = b.short_conv("conv", "conv", bcx, conv.taps, conv.bias);
    b.linear("conv_out", "conv_out", y, hidden, conv.bias)
}
