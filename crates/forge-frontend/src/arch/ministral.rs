//! Ministral 8B (layers with and without windows), and Ministral 3, Devstral 2 and the text models of Mistral Small 3
//! GGUFs: Llama's layers with YaRN, and queries that grow beyond the context that the model was first trained for.

use super::Family;
use super::builder::{BlockBuilder, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::FrontendError;
use crate::graph::{Activation, Attention, Block, Graph, PositionScale, RopePairing};
use crate::source::{Dialect, Key, Loaded, RopeLayers, key};

pub(super) const MINISTRAL: Family = Family {
    gguf: &[],
    hf: &[(
        "ministral",
        r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096}"#,
    )],
    roles: &[],
    build: |loaded| build(loaded, None),
};

pub(super) const MINISTRAL3: Family = Family {
    gguf: &["mistral3"],
    hf: &[(
        "ministral3",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 262144, "num_key_value_heads": 8, "head_dim": 128,
            "rope_parameters": {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0,
                "original_max_position_embeddings": 16384, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
                "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}"#,
    )],
    roles: &[],
    build: |loaded| build(loaded, query_scale(loaded)?),
};

fn build(loaded: &Loaded, query_scale: Option<PositionScale>) -> Result<Graph, FrontendError> {
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    let window = h.window()?;
    let sliding = match window {
        Some(_) => dense::sliding_layers(loaded, sizes.layers, |_| true)?,
        None => vec![false; sizes.layers],
    };
    // The converter reorders q and k as it does Llama's.
    let rope = loaded.rope(sizes.head_dim, RopePairing::Interleaved, RopeLayers::All)?;
    let qkv_bias = dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?;
    let output_bias = dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?;
    let mlp_bias = dense::has_bias(loaded, key::MLP_BIAS, "ffn_up")?;
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
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
        let name = dense::layer_name(&sliding, layer);
        dense::add_layer(&mut graph, scaled_layer(name, &sizes, &spec, (activation, mlp_bias), query_scale))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// A layer with norms before its branches, and a factor on its queries.
fn scaled_layer(
    name: &str,
    sizes: &Sizes,
    spec: &AttentionSpec,
    ffn: (Activation, bool),
    query_scale: Option<PositionScale>,
) -> Block {
    let mut b = BlockBuilder::new(name);
    let x = b.input("x", sizes.hidden);
    let attn_in = b.rms_norm("attn_in", "attn_norm", x, sizes.eps);
    let qkv = dense::qkv(&mut b, attn_in, spec);
    let attn = dense::attend_scaled(&mut b, qkv, sizes.hidden, spec, query_scale);
    let x = b.add("x_attn", x, attn);
    let ffn_in = b.rms_norm("ffn_in", "ffn_norm", x, sizes.eps);
    let out = dense::feed_forward(&mut b, ffn_in, sizes.hidden, sizes.intermediate, ffn.0, ffn.1);
    let x = b.add("x_ffn", x, out);
    b.finish(x)
}

/// The factor on queries, as Llama 4 has it, in `rope_parameters` or a GGUF's `attention.temperature_scale`.
fn query_scale(loaded: &Loaded) -> Result<Option<PositionScale>, FrontendError> {
    const BETA: Key = Key::new("attention.temperature_scale", "");
    const ORIGINAL: Key = Key::new("rope.scaling.original_context_length", "");
    let h = &loaded.hparams;
    let (beta, original) = match h.dialect {
        Dialect::Gguf => match h.opt_f32(BETA)?.filter(|&beta| beta != 0.0) {
            Some(beta) => (Some(beta), h.usize(ORIGINAL)?),
            None => (None, 0),
        },
        Dialect::HuggingFace => {
            let [beta, original] = ["llama_4_scaling_beta", "original_max_position_embeddings"];
            (
                loaded.rope_number(beta)?.filter(|&beta| beta != 0.0),
                loaded.rope_number(original)?.unwrap_or(0.0) as usize,
            )
        }
    };
    Ok(beta.filter(|_| original > 0).map(|beta| PositionScale { beta, original_context: original }))
}
