//! Ministral 8B (layers with and without windows), and Ministral 3, Devstral 2 and the text models of Mistral Small 3
//! GGUFs: Llama's layers with YaRN, and queries that grow beyond the context that the model was first trained for.

use serde_json::Value;

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Dialect, Key, Loaded, RopeLayers, key};
use crate::{FrontendError, Warning};

pub(super) const MINISTRAL: Family = Family {
    gguf: &[],
    hf: &[(
        "ministral",
        r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096}"#,
    )],
    roles: &[],
    build,
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
    build: |loaded| {
        let mut graph = build(loaded)?;
        if let Some(above) = unscaled_context(loaded)?.filter(|&above| above < graph.config.trained_context) {
            let context = std::mem::replace(&mut graph.config.trained_context, above);
            loaded.warn(Warning::ScaledQueries { file: loaded.hparams.file.clone(), above, context });
        }
        Ok(graph)
    },
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
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
        dense::add_layer(&mut graph, dense::pre_norm_layer(name, &sizes, &spec, (activation, mlp_bias), 1.0))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Tokens up to which queries are taken as they are: `1 + beta * ln(1 + floor(position / original))` is their factor.
fn unscaled_context(loaded: &Loaded) -> Result<Option<usize>, FrontendError> {
    const BETA: Key = Key::new("attention.temperature_scale", "");
    const ORIGINAL: Key = Key::new("rope.scaling.original_context_length", "");
    const ROPE: [Key; 2] = [Key::new("", "rope_parameters"), Key::new("", "rope_scaling")];
    let h = &loaded.hparams;
    if h.dialect == Dialect::Gguf {
        let scaled = h.opt_f32(BETA)?.is_some_and(|beta| beta != 0.0);
        return if scaled { h.usize(ORIGINAL).map(Some) } else { Ok(None) };
    }
    let rope = ROPE.into_iter().find_map(|key| h.get(key).and_then(Value::as_object));
    let number = |key: &str| rope.and_then(|rope| rope.get(key)).and_then(Value::as_f64).filter(|&number| number > 0.0);
    // YaRN's own reading has refused what are no numbers.
    Ok(number("llama_4_scaling_beta").and_then(|_| number("original_max_position_embeddings")).map(|n| n as usize))
}
