//! Apertus: norms of each head of q and k, and a feed-forward without a gate whose activation, xIELU, has numbers of its own
//! in every layer.

use forge_formats::decode_row;
use serde_json::Value;

use super::Family;
use super::builder::{ACTIVATION_NUMBERS, GraphBuilder};
use super::dense::{self, AttentionSpec, QkNorm, Sizes};
use super::layers::{self, Branches, LayerSpec, RowNorm};
use crate::graph::{Activation, Attention, Graph, RopePairing};
use crate::source::{Dialect, Key, Loaded, Role, RopeLayers, Stored, key};
use crate::{FrontendError, Refusal};

pub(super) const FAMILY: Family = Family {
    gguf: &["apertus"],
    hf: &[(
        "apertus",
        r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 65536, "hidden_act": "xielu",
            "rope_parameters": {"rope_type": "llama3", "rope_theta": 12000000.0, "factor": 8.0,
                "original_max_position_embeddings": 8192, "low_freq_factor": 1.0, "high_freq_factor": 4.0}}"#,
    )],
    roles: &[
        Role::new("attn_norm", "attn_norm", "attention_layernorm"),
        Role::new("ffn_norm", "ffn_norm", "feedforward_layernorm"),
        Role::bare("alpha_p", "", "mlp.act_fn.alpha_p"),
        Role::bare("alpha_n", "", "mlp.act_fn.alpha_n"),
        Role::bare("beta", "", "mlp.act_fn.beta"),
        Role::bare("eps", "", "mlp.act_fn.eps"),
    ],
    build,
};

fn build(loaded: &Loaded) -> Result<Graph, FrontendError> {
    let sizes = Sizes::read(loaded)?;
    let activation = dense::activation(&loaded.hparams, key::ACTIVATION, Activation::Xielu)?;
    let spec = AttentionSpec {
        heads: sizes.heads,
        state: sizes.state(None),
        rope: Some(loaded.rope(sizes.head_dim, RopePairing::Halves, RopeLayers::All)?),
        attention: Attention { scale: sizes.attention_scale(), window: None, softcap: None },
        qk_norm: QkNorm::Heads,
        eps: sizes.eps,
        qkv_bias: dense::has_qkv_bias(loaded, key::ATTENTION_BIAS)?,
        output_bias: dense::has_bias(loaded, key::ATTENTION_BIAS, "attn_output")?,
    };
    let layer = LayerSpec {
        sizes: &sizes,
        attention: &spec,
        norm: RowNorm::Rms,
        branches: Branches::InTurn,
        gated: false,
        activation,
        ffn_bias: false,
    };
    let tied = dense::tied(loaded, false)?;

    let mut graph = GraphBuilder::new(&loaded.tensors);
    graph.parts = dense::fused_qkv(loaded, &sizes);
    if activation == Activation::Xielu {
        for layer in 0..sizes.layers {
            graph.made.insert((ACTIVATION_NUMBERS, layer), xielu(loaded, layer, sizes.layers)?);
        }
    }
    layers::graph_of(graph, loaded, &layer, tied, false)
}

/// Where the numbers of a layer are from, and `[alpha_p, alpha_n, beta, eps]` as [`Activation::Xielu`] takes them: the
/// checkpoint has the alphas before a softplus, and the second one without beta (transformers' `XIELUActivation`).
fn xielu(loaded: &Loaded, layer: usize, layers: usize) -> Result<(String, Vec<f32>), FrontendError> {
    const KEYS: [(Key, &str); 4] = [
        (Key::new("xielu.alpha_p", ""), "alpha_p"),
        (Key::new("xielu.alpha_n", ""), "alpha_n"),
        (Key::new("xielu.beta", ""), "beta"),
        (Key::new("xielu.eps", ""), "eps"),
    ];
    let mut numbers = [0.0; 4];
    for (number, (key, role)) in numbers.iter_mut().zip(KEYS) {
        *number = match loaded.hparams.dialect {
            Dialect::Gguf => f64::from(of_layer(loaded, key, layer, layers)?),
            Dialect::HuggingFace => f64::from(number_of(loaded, &loaded.tensors.name(role, Some(layer)))?),
        };
    }
    let [alpha_p, alpha_n, beta, eps] = numbers;
    let place = match loaded.hparams.dialect {
        Dialect::Gguf => loaded.hparams.spelling(KEYS[3].0),
        Dialect::HuggingFace => loaded.tensors.name("eps", Some(layer)),
    };
    if eps >= 0.0 {
        return Err(FrontendError::KeyValue {
            refusal: Refusal::XieluEpsilon,
            file: loaded.tensors.file.clone(),
            key: place,
            expected: "a number below 0".to_owned(),
            found: eps.to_string(),
        });
    }
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let numbers = [softplus(alpha_p), beta + softplus(alpha_n), beta, eps];
    Ok((place, numbers.map(|number| number as f32).to_vec()))
}

/// A layer's number in an array with one for each, or the one number for all.
fn of_layer(loaded: &Loaded, key: Key, layer: usize, layers: usize) -> Result<f32, FrontendError> {
    let h = &loaded.hparams;
    let number = match h.get(key) {
        None => return Err(h.missing(Refusal::MissingXielu, key)),
        Some(Value::Array(items)) if items.len() == layers => items[layer].as_f64(),
        Some(value) => value.as_f64(),
    };
    let number = number.map(|number| number as f32).filter(|number| number.is_finite());
    number.ok_or_else(|| h.invalid(Refusal::XieluNumbers, key, format!("an array of {layers} numbers")))
}

/// The number that a tensor of one element holds.
fn number_of(loaded: &Loaded, name: &str) -> Result<f32, FrontendError> {
    let entry = loaded.tensors.find(name)?;
    let one = entry.shape.iter().product::<usize>() == 1;
    let mut number = [f32::NAN];
    if let (true, Stored::Rows(format, range)) = (one, &entry.stored)
        && format.is_float()
        && decode_row(*format, loaded.bytes(range), &mut number).is_ok()
        && number[0].is_finite()
    {
        return Ok(number[0]);
    }
    Err(FrontendError::Tensor {
        refusal: Refusal::XieluTensor,
        file: entry.file.clone(),
        tensor: name.to_owned(),
        expected: "one number",
        found: format!("{} {:?}", entry.stored_name(), entry.shape),
    })
}
