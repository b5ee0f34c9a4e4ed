//! SmolLM3: Llama's layers, of which every fourth has no rotary embedding.

use serde_json::Value;

use super::Family;
use super::builder::GraphBuilder;
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Key, Loaded, RopeLayers, integer, key};
use crate::{FrontendError, Refusal};

pub(super) const FAMILY: Family = Family {
    gguf: &["smollm3"],
    hf: &[(
        "smollm3",
        r#"{"rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 4,
            "no_rope_layer_interval": 4, "tie_word_embeddings": true}"#,
    )],
    roles: &[],
    build,
};

const ROPE_LAYERS: Key = Key::new("", "no_rope_layers");

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    const USE_WINDOW: Key = Key::new("", "use_sliding_window");
    let h = &loaded.hparams;
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(h, key::ACTIVATION, Activation::Silu)?;
    if h.opt_bool(USE_WINDOW)? == Some(true) {
        return Err(h.unsupported(Refusal::SmolWindows, USE_WINDOW, "SmolLM3 layers see the whole context"));
    }
    let rotates = rotating_layers(loaded, sizes.layers)?;
    // The converter reorders q and k as it does Llama's.
    let rope = loaded.rope(sizes.head_dim, RopePairing::Interleaved, RopeLayers::All)?;
    let mut spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: None,
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::None,
        eps: sizes.eps,
        qkv_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_q")?,
        output_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?,
    };
    let mlp_bias = dense::has_bias(loaded, key::MLP_BIAS, "ffn_gate")?;
    let tied = dense::tied(loaded, true)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    let embed = graph.stage(dense::embed(&sizes, 1.0), tied)?;
    for rotates in rotates {
        spec.rope = rotates.then(|| rope.clone());
        let name = if rotates { "rope_layer" } else { "no_rope_layer" };
        dense::add_layer(&mut graph, dense::pre_norm_layer(name, &sizes, &spec, (activation, mlp_bias), 1.0))?;
    }
    let head = graph.stage(dense::head(&sizes, None), tied)?;
    Ok(graph.finish(sizes.config(loaded), embed, head))
}

/// Which layers rotate: `no_rope_layers` has a 1 for those that do. A GGUF's every fourth does not.
fn rotating_layers(loaded: &Loaded, layers: usize) -> Result<Vec<bool>, FrontendError> {
    const INTERVAL: Key = Key::new("", "no_rope_layer_interval");
    let h = &loaded.hparams;
    let flag = |value: &Value| integer(value).or(value.as_bool().map(i64::from)).map(|flag| flag != 0);
    match h.get(ROPE_LAYERS) {
        Some(Value::Array(flags)) if flags.len() == layers => flags
            .iter()
            .map(|value| {
                flag(value).ok_or_else(|| h.invalid(Refusal::RotatingFlag, ROPE_LAYERS, "an array of 0 and 1"))
            })
            .collect(),
        Some(_) => Err(h.invalid(Refusal::RotatingLayers, ROPE_LAYERS, format!("an array of {layers}, one per layer"))),
        None => {
            let interval = h.opt_usize(INTERVAL)?.unwrap_or(4);
            Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect())
        }
    }
}
