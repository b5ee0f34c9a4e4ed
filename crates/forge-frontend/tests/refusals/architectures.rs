//! What the folders of some architectures may leave out, hold besides, or ask for in vain.

use std::path::Path;

use forge_frontend::graph::{Op, PositionScale, Source, Weight};
use forge_frontend::{Checkpoint, load};
use serde_json::{Value, json};

use crate::build::{Folder as Scratch, Gguf, array, string};
use crate::{Folder, Weights};

fn loaded(folder: &Folder) -> Checkpoint {
    load(folder.root.path()).expect("a checkpoint")
}

/// Keys that have the value which transformers' configuration class takes where a config.json leaves them out.
#[test]
fn keys_that_are_left_out_have_the_values_of_transformers() {
    let cases: [(&str, &[&str]); 13] = [
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
        ("apertus", &["rms_norm_eps", "hidden_act", "attention_bias", "tie_word_embeddings"]),
        ("hunyuan-dense", &["rms_norm_eps", "attention_bias", "hidden_act"]),
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
    let scales = |older: Option<(&str, Value)>| {
        let folder = Folder::of("ministral3");
        folder.edit_json("config.json", |config| {
            config.shift_remove("rope_parameters").expect("an object");
            config.extend(older.map(|(key, value)| (key.to_owned(), value)));
        });
        let found = loaded(&folder);
        assert_eq!(found.graph.config.trained_context, 128);
        assert_eq!(found.warnings, []);
        query_scales(&found)
    };
    assert_eq!(scales(None), [PositionScale { beta: 0.1, original_context: 16384 }]);
    assert_eq!(scales(Some(("rope_theta", json!(10000.0)))), []);
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "llama_4_scaling_beta": 0.2});
    assert_eq!(scales(Some(("rope_scaling", yarn))), [PositionScale { beta: 0.2, original_context: 32 }]);
}

/// Factors on the queries of a checkpoint's layers, each kind of layer once.
fn query_scales(checkpoint: &Checkpoint) -> Vec<PositionScale> {
    let nodes = checkpoint.graph.blocks.iter().flat_map(|block| &block.nodes);
    let scales = nodes.filter_map(|node| match node.op {
        Op::PositionScale { scale } => Some(scale),
        _ => None,
    });
    scales.collect()
}

/// A factor that does not grow is none, in either dialect.
#[test]
fn queries_without_a_factor() {
    let folder = Folder::of("ministral3");
    folder.edit_json("config.json", |config| config["rope_parameters"]["llama_4_scaling_beta"] = json!(0));
    assert_eq!(query_scales(&loaded(&folder)), []);
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/ministral3/model.BF16.gguf");
    assert_eq!(query_scales(&load(&gguf).expect("a GGUF")), [PositionScale { beta: 0.1, original_context: 32 }]);
}

/// Numbers of an activation that MLX stores without an axis, and their values: the alphas through a softplus.
#[test]
fn numbers_of_an_activation() {
    let values = |checkpoint: &Checkpoint| -> Vec<Vec<f32>> {
        let made = checkpoint.graph.weights.iter().filter_map(|weight| match &weight.source {
            Source::Values(values) => Some(values.clone()),
            _ => None,
        });
        made.collect()
    };
    let folder = Folder::of("apertus");
    let plain = values(&loaded(&folder));
    folder.edit_weights(|weights| {
        for (name, entry) in &mut weights.header {
            if name.contains("act_fn") {
                entry["shape"] = json!([]);
            }
        }
    });
    assert_eq!(values(&loaded(&folder)), plain);
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/apertus/model.BF16.gguf");
    assert_eq!(values(&load(&gguf).expect("a GGUF")), plain);
    // alpha_p of 0 is ln 2, alpha_n that and beta.
    folder.edit_weights(|weights| {
        for name in ["alpha_p", "alpha_n"] {
            weights.add(&format!("model.layers.1.mlp.act_fn.{name}"), "F32", &json!([1]));
        }
    });
    let changed = values(&loaded(&folder));
    let [beta, eps] = [plain[1][2], plain[1][3]];
    let ln_2 = std::f32::consts::LN_2;
    assert_eq!(changed[0], plain[0]);
    assert_eq!(changed[1], [ln_2, (f64::from(beta) + 2f64.ln()) as f32, beta, eps]);
}

/// Hunyuan's keys as its checkpoints have them: scaling in the older dialect, one expert for none, a head beside a tied table.
#[test]
fn hunyuan_as_it_is_published() {
    let plain = loaded(&Folder::of("hunyuan-dense")).graph;
    let folder = Folder::of("hunyuan-dense");
    folder.edit_json("config.json", |config| {
        config.shift_remove("rope_parameters").expect("an object");
        config.insert("rope_theta".to_owned(), json!(10000.0));
        let scaling = json!({"type": "dynamic", "alpha": 50.0, "factor": 1.0, "beta_fast": 32, "mscale_all_dim": 0.0});
        config.insert("rope_scaling".to_owned(), scaling);
        config.insert("num_experts".to_owned(), json!(1));
        config.insert("use_qk_norm".to_owned(), json!(true));
        config.insert("use_cla".to_owned(), json!(false));
    });
    folder.edit_weights(|weights| weights.add("lm_head.weight", "BF16", &json!([88, 32])));
    let found = loaded(&folder).graph;
    assert_eq!((&found.blocks, &found.head, found.weights.len()), (&plain.blocks, &plain.head, plain.weights.len()));
    // Without an alpha it is the scaling that depends on the text's length.
    folder.edit_json("config.json", |config| config["rope_scaling"] = json!({"type": "dynamic", "factor": 2.0}));
    let line = folder.refusal();
    assert!(line.contains("rope_scaling.rope_type = \"dynamic\" is not supported"), "{line}");
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
            Source::Rows(range) => checkpoint.bytes(range).to_vec(),
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
    assert_eq!(found.graph.config.trained_context, 128);
    assert_eq!(found.graph.config.architecture, "ministral3");
}

/// EXAONE 4's older configurations have letters in place of a period.
#[test]
fn a_pattern_of_letters() {
    let plain = loaded(&Folder::of("exaone4")).graph;
    let blocks = |pattern: &str| {
        let folder = Folder::of("exaone4");
        folder.edit_json("config.json", |config| {
            config.shift_remove("layer_types").expect("kinds of layers");
            config.insert("sliding_window_pattern".to_owned(), json!(pattern));
        });
        loaded(&folder).graph.layers.iter().map(|layer| layer.block).collect::<Vec<_>>()
    };
    assert_eq!(blocks("LLLG"), plain.layers.iter().map(|layer| layer.block).collect::<Vec<_>>());
    assert_eq!(blocks("LG"), [0, 1, 0, 1]);
}

/// Blocks that guess further tokens count among a GGUF's blocks, and are no layers.
#[test]
fn blocks_that_guess_further_tokens() {
    let size =
        |gguf: Gguf, (key, value): (&str, u32)| gguf.entry(format!("llama.{key}").as_bytes(), 4, &value.to_le_bytes());
    let sizes = [
        ("block_count", 2),
        ("nextn_predict_layers", 1),
        ("context_length", 64),
        ("embedding_length", 8),
        ("feed_forward_length", 8),
        ("attention.head_count", 2),
    ];
    let mut tokens = array(8, 4);
    ["<unk>", "<s>", "</s>", "a"].iter().for_each(|token| tokens.extend(string(token.as_bytes())));
    let gguf = Gguf::new()
        .entry(b"general.architecture", 8, &string(b"llama"))
        .entry(b"llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes())
        .entry(b"tokenizer.ggml.model", 8, &string(b"llama"))
        .entry(b"tokenizer.ggml.tokens", 9, &tokens)
        .tensor("token_embd.weight", &[8, 4], 0, &[0; 128])
        .tensor("output_norm.weight", &[8], 0, &[0; 32]);
    let matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let blocks = |gguf: Gguf, block: usize| {
        let name = |part: &str| format!("blk.{block}.{part}.weight");
        let gguf =
            ["attn_norm", "ffn_norm"].iter().fold(gguf, |gguf, norm| gguf.tensor(&name(norm), &[8], 0, &[0; 32]));
        matrices.iter().fold(gguf, |gguf, matrix| gguf.tensor(&name(matrix), &[8, 8], 0, &[0; 256]))
    };
    let gguf = [0, 1].into_iter().fold(sizes.into_iter().fold(gguf, size), blocks);
    let gguf = gguf.tensor("blk.1.nextn.eh_proj.weight", &[16, 8], 0, &[0; 512]);
    let folder = Scratch::new();
    let checkpoint = load(&folder.write("m.gguf", &gguf.bytes())).expect("a checkpoint");
    assert_eq!((checkpoint.graph.layers.len(), checkpoint.graph.config.num_layers), (1, 1));
}

/// The text model within EXAONE 4.5.
#[test]
fn the_text_model_of_exaone_4_5() {
    let plain = loaded(&Folder::of("exaone4")).graph;
    let folder = Folder::of("exaone4");
    folder.edit_json("config.json", |config| drop(config.insert("model_type".to_owned(), json!("exaone4_5_text"))));
    folder.edit_weights(|weights| weights.add("mtp.fc.weight", "BF16", &json!([32, 64])));
    let found = loaded(&folder).graph;
    assert_eq!((&found.blocks, &found.layers), (&plain.blocks, &plain.layers));
}
