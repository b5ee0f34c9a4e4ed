//! What the folders of some architectures may leave out, hold besides, or ask for in vain.

use forge_frontend::graph::Weight;
use forge_frontend::{Checkpoint, Warning, load};
use serde_json::{Value, json};

use crate::{Folder, Weights};

fn loaded(folder: &Folder) -> Checkpoint {
    load(folder.root.path()).expect("a checkpoint")
}

/// Keys that have the value which transformers' configuration class takes where a config.json leaves them out.
#[test]
fn keys_that_are_left_out_have_the_values_of_transformers() {
    let cases: [(&str, &[&str]); 11] = [
        ("starcoder2", &["norm_epsilon", "use_bias", "tie_word_embeddings", "num_key_value_heads", "hidden_act"]),
        ("cohere", &["layer_norm_eps", "tie_word_embeddings", "use_qk_norm", "rope_parameters", "hidden_act"]),
        ("cohere2", &["layer_norm_eps", "tie_word_embeddings", "layer_types", "attention_bias"]),
        ("phi", &["layer_norm_eps", "tie_word_embeddings", "hidden_act", "qk_layernorm"]),
        ("stablelm", &["layer_norm_eps", "tie_word_embeddings", "hidden_act", "use_parallel_residual"]),
        ("seed-oss", &["rms_norm_eps", "attention_bias", "mlp_bias", "tie_word_embeddings"]),
        ("glm4", &["rms_norm_eps", "attention_bias", "num_key_value_heads", "rope_parameters", "tie_word_embeddings"]),
        ("ernie4-5", &["rms_norm_eps", "num_key_value_heads", "rope_parameters", "tie_word_embeddings"]),
        ("exaone4", &["rms_norm_eps", "layer_types", "tie_word_embeddings"]),
        ("arcee", &["rms_norm_eps", "hidden_act", "attention_bias", "tie_word_embeddings"]),
        ("ministral", &["rms_norm_eps", "tie_word_embeddings", "rope_parameters"]),
    ];
    for (case, keys) in cases {
        let plain = loaded(&Folder::of(case)).graph;
        for key in keys {
            let folder = Folder::of(case);
            folder.edit_json("config.json", |config| {
                assert!(config.shift_remove(*key).is_some(), "{case} has no {key}");
            });
            let found = loaded(&folder).graph;
            assert!(
                (&found.blocks, &found.head, &found.layers) == (&plain.blocks, &plain.head, &plain.layers),
                "{key}"
            );
            assert!(found.weights == plain.weights, "{case} without {key}");
        }
    }
}

/// Ministral 3's class has a whole object for RoPE, which the keys of the older dialect stand in for.
#[test]
fn rope_that_is_left_out() {
    let context = |older: Option<(&str, Value)>| {
        let folder = Folder::of("ministral3");
        folder.edit_json("config.json", |config| {
            config.shift_remove("rope_parameters").expect("an object");
            config.insert("max_position_embeddings".to_owned(), json!(32768));
            config.extend(older.map(|(key, value)| (key.to_owned(), value)));
        });
        let found = loaded(&folder);
        (found.graph.config.trained_context, found.warnings)
    };
    let scaled = Warning::ScaledQueries { file: "config.json".to_owned(), above: 16384, context: 32768 };
    assert_eq!(context(None), (16384, vec![scaled]));
    assert_eq!(context(Some(("rope_theta", json!(10000.0)))), (32768, Vec::new()));
}

/// The rows of tensors, one after another, in one tensor's place.
fn join(weights: &mut Weights, parts: &[String], whole: String) {
    let (mut data, mut rows, mut tail) = (Vec::new(), 0, Vec::new());
    for part in parts {
        let entry = weights.header.remove(part).expect("a part");
        let offsets = entry["data_offsets"].as_array().expect("offsets").clone();
        let [start, end] = [0, 1].map(|at| offsets[at].as_u64().expect("an offset") as usize);
        data.extend_from_slice(&weights.data[start..end]);
        let shape = entry["shape"].as_array().expect("a shape");
        rows += shape[0].as_u64().expect("rows");
        tail = shape[1..].to_vec();
    }
    let shape = [&[json!(rows)][..], &tail].concat();
    let start = weights.data.len();
    weights.data.extend(data);
    let end = weights.data.len();
    weights.header.insert(whole, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
}

/// q, k and v in one tensor, and their biases in another, are the same weights.
#[test]
fn fused_projections_are_their_parts() {
    for case in ["starcoder2", "phi", "stablelm", "cohere", "seed-oss", "glm4"] {
        let plain = loaded(&Folder::of(case));
        let folder = Folder::of(case);
        folder.edit_weights(|weights| {
            for layer in 0..plain.graph.layers.len() {
                for kind in ["weight", "bias"] {
                    let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}_proj.{kind}");
                    join(weights, &["q", "k", "v"].map(name), name("qkv"));
                }
            }
        });
        let fused = loaded(&folder);
        assert_eq!(fused.graph.blocks, plain.graph.blocks, "{case}");
        let bytes = |checkpoint: &Checkpoint, weight: &Weight| match &weight.source {
            forge_frontend::graph::Source::Rows(range) => checkpoint.bytes(range).to_vec(),
            other => panic!("{other:?}"),
        };
        for (found, expected) in fused.graph.weights.iter().zip(&plain.graph.weights) {
            assert_eq!((&found.role, found.layer), (&expected.role, expected.layer), "{case}");
            assert!(bytes(&fused, found) == bytes(&plain, expected), "{case} {}", found.role);
            assert_eq!(found.max_abs, expected.max_abs, "{case} {}", found.role);
        }
    }
}

/// Biases of norms are passed over where they are zeros: the layers have none.
#[test]
fn biases_of_zeros() {
    let name = "model.layers.0.input_layernorm.bias";
    let folder = Folder::of("cohere2");
    folder.edit_weights(|weights| weights.add(name, "BF16", &json!([32])));
    let [with, without] = [&folder, &Folder::of("cohere2")].map(|folder| loaded(folder).graph);
    assert_eq!((&with.blocks, with.weights.len()), (&without.blocks, without.weights.len()));
    folder.edit_weights(|weights| *weights.data.last_mut().expect("bytes") = 0x3f);
    let line = folder.refusal();
    assert!(line.contains(name), "{line}");
}

/// Norms of heads that subtract a mean, where the tensors alone tell.
#[test]
fn layer_norms_of_heads_are_refused_by_their_tensors() {
    for (case, norm) in [
        ("stablelm", "model.layers.0.self_attn.q_layernorm.norms.0.weight"),
        ("phi", "model.layers.0.self_attn.q_layernorm.weight"),
        ("cohere", "model.layers.0.self_attn.q_norm.weight"),
    ] {
        let folder = Folder::of(case);
        folder.edit_weights(|weights| weights.add(norm, "BF16", &json!([8])));
        let line = folder.refusal();
        assert!(
            line.starts_with(&format!("model.safetensors: tensor {norm} = BF16 is not supported: norms of")),
            "{line}"
        );
    }
}

/// What folders give for the context that positions were first trained for, and for the one that the model is for.
#[test]
fn the_longer_context_of_command_r() {
    let folder = Folder::of("cohere");
    folder.edit_json("config.json", |config| drop(config.insert("model_max_length".to_owned(), json!(4096))));
    assert_eq!(loaded(&folder).graph.config.trained_context, 4096);
}

/// Ministral 3 as it is published: the text model within a multimodal one.
#[test]
fn the_text_model_of_mistral_3() {
    let plain = loaded(&Folder::of("ministral3")).graph;
    let folder = Folder::of("ministral3");
    folder.edit_json("config.json", |config| {
        let text = Value::Object(std::mem::take(config));
        config.insert("model_type".to_owned(), json!("mistral3"));
        config.insert("text_config".to_owned(), text);
    });
    folder.edit_weights(|weights| {
        weights.header = std::mem::take(&mut weights.header)
            .into_iter()
            .map(|(name, entry)| (if name == "__metadata__" { name } else { format!("language_model.{name}") }, entry))
            .collect();
        weights.add("vision_tower.patch_conv.weight", "BF16", &json!([2, 2]));
    });
    let found = loaded(&folder);
    assert_eq!((&found.graph.blocks, &found.graph.head.block), (&plain.blocks, &plain.head.block));
    assert_eq!(found.graph.config.trained_context, 32);
    assert_eq!(found.graph.config.architecture, "ministral3");
}
