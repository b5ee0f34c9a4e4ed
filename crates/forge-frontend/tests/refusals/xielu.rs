//! Refusals of the numbers that Apertus' activation has in every layer.

use forge_frontend::Refusal;
use serde_json::{Value, json};

use crate::Folder;
use crate::build::{Gguf, array};
use crate::walk::{Row, gguf, sizes, table};

/// An Apertus's, as far as the numbers of its activation.
fn apertus() -> Gguf {
    table(sizes("apertus", 32).entry(b"apertus.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes()))
}

/// A fixture of Apertus with one number of the first layer's activation put as zeros of this shape.
fn xielu(refusal: Refusal, number: &str, shape: &Value, words: &'static str) -> Row {
    let folder = Folder::of("apertus");
    folder.edit_weights(|weights| weights.add(&format!("model.layers.0.mlp.act_fn.{number}"), "F32", shape));
    (refusal, vec!["model.safetensors: ", words], folder.error())
}

pub fn rows() -> Vec<Row> {
    vec![
        gguf(Refusal::MissingXielu, &["key xielu.alpha_p is missing"], &apertus()),
        gguf(
            Refusal::XieluNumbers,
            &["xielu.alpha_p: expected an array of 1 numbers, found [0.0,0.0]"],
            &apertus().entry(b"xielu.alpha_p", 9, &[array(6, 2), vec![0; 8]].concat()),
        ),
        xielu(
            Refusal::XieluTensor,
            "alpha_p",
            &json!([2]),
            "tensor model.layers.0.mlp.act_fn.alpha_p: expected one number, found F32 [2]",
        ),
        xielu(
            Refusal::XieluEpsilon,
            "eps",
            &json!([]),
            "model.layers.0.mlp.act_fn.eps: expected a number below 0, found 0",
        ),
    ]
}
