//! gpt-oss: windows on every other layer, a score without a value for each head, mixtures whose router and experts have biases
//! and whose SwiGLU is clamped. In folders of transformers gate and up rows take turns.

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::mixture::{Mixture, Router};
use crate::graph::{Activation, Attention, Block, Graph, GroupScore, RopePairing, Scores};
use crate::source::{Hparams, Key, Loaded, Place, Role, RopeLayers, Stack, key};
use crate::{FrontendError, Refusal};

pub(super) const FAMILY: Family = Family {
    gguf: &["gpt-oss"],
    hf: &[(
        "gpt_oss",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8, "head_dim": 64,
            "intermediate_size": 2880, "num_local_experts": 128, "num_experts_per_tok": 4, "sliding_window": 128,
            "attention_bias": true, "rope_parameters": {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0,
                "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false, "original_max_position_embeddings": 4096}}"#,
    )],
    roles: &[
        Role::new("ffn_norm", "post_attention_norm", "post_attention_layernorm"),
        Role::new("router", "ffn_gate_inp", "mlp.router"),
        Role::bare("attn_sinks", "attn_sinks", "self_attn.sinks"),
    ],
    build,
};

/// A score of each head that has no value.
const SINKS: [(forge_spec::Role, &str); 1] = [(forge_spec::Role::Sinks, "attn_sinks")];

/// Folders have no suffix of their own for experts. MLX has taken gate and up apart.
const STACKS: &[Stack] = &[
    ("expert_gate", &[turns("mlp.experts.gate_up_proj", 0, 2), Place::Whole("mlp.experts.gate_proj.weight")]),
    ("expert_up", &[turns("mlp.experts.gate_up_proj", 1, 2), Place::Whole("mlp.experts.up_proj.weight")]),
    ("expert_down", &[turns("mlp.experts.down_proj", 0, 1), Place::Whole("mlp.experts.down_proj.weight")]),
    ("expert_gate_bias", &[turns("mlp.experts.gate_up_proj_bias", 0, 2), Place::Whole("mlp.experts.gate_proj.bias")]),
    ("expert_up_bias", &[turns("mlp.experts.gate_up_proj_bias", 1, 2), Place::Whole("mlp.experts.up_proj.bias")]),
    ("expert_down_bias", &[turns("mlp.experts.down_proj_bias", 0, 1), Place::Whole("mlp.experts.down_proj.bias")]),
];

const fn turns(name: &'static str, first: usize, of: usize) -> Place {
    Place::Turns { name, first, of }
}

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const WIDTH: Key = Key::new("expert_feed_forward_length", "intermediate_size");
    let h = &loaded.hparams;
    let width = h.usize(WIDTH)?;
    let router = Router {
        experts: Key::new("expert_count", "num_local_experts"),
        scores: Scores::SoftmaxOfChosen,
        normalised: true,
        normalised_by: 0.0,
        groups: GroupScore::BestTwo,
    };
    let mixture =
        Mixture { routing: router.read(h)?, selection_bias: false, width, activation: swiglu(h)?, shared: None };
    let sizes = Sizes::read_with(loaded, width, None)?;
    let window = h.window()?;
    let sliding = match window {
        Some(_) => dense::sliding_layers(loaded, sizes.layers, |layer| layer.is_multiple_of(2))?,
        None => vec![false; sizes.layers],
    };
    let rope = loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::Unrounded)?;
    let qkv_bias = dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?;
    let output_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    graph.stacks = STACKS;
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for layer in 0..sizes.layers {
        let window = window.filter(|_| sliding[layer]);
        let spec = AttentionSpec {
            heads: sizes.heads,
            state: sizes.state(window),
            rope: Some(rope.clone()),
            attention: Attention { scale: sizes.attention_scale(), window, softcap: None },
            qk_norm: QkNorm::None,
            eps: sizes.eps,
            qkv_bias,
            output_bias,
        };
        dense::add_layer(&mut graph, block(dense::layer_name(&sliding, layer), &sizes, &spec, &mixture))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

fn block(name: &str, sizes: &Sizes, spec: &AttentionSpec, mixture: &Mixture) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let attn_in = b.rms_norm("attn_in", "attn_norm", x, sizes.eps);
    let attn = dense::attention_with(&mut b, attn_in, sizes.hidden, spec, &SINKS);
    let x = b.add("x_attn", x, attn);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, sizes.eps);
    let ffn = mixture.add_with(&mut b, ffn_in, true);
    let x = b.add("x_ffn", x, ffn);
    b.finish(x)
}

/// The activation, whose numbers a GGUF does not have.
fn swiglu(h: &Hparams) -> Result<Activation, FrontendError> {
    let number = |key: Key, default: usize| {
        let Some(number) = h.opt_f32(key)? else { return Ok(default) };
        let thousandths = (number * 1000.0).round();
        if !(1.0..1e6).contains(&thousandths) || thousandths / 1000.0 != number {
            return Err(h.unsupported(Refusal::SwigluNumber, key, "it is a positive number of thousandths"));
        }
        Ok(thousandths as usize)
    };
    Ok(Activation::ClampedSwiglu {
        alpha: number(Key::new("", "swiglu_alpha"), 1702)?,
        limit: number(Key::new("", "swiglu_limit"), 7000)?,
    })
}
