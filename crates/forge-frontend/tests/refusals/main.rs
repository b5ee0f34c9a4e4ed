//! Checkpoints that are damaged or ask for what is not built: each is refused in one line that names the file, key or
//! tensor.

mod architectures;
#[path = "../checkpoint/build.rs"]
#[expect(dead_code, reason = "shared with the tests of the containers")]
mod build;
mod folder;
mod mixtures;
mod tolerance;
mod toolchains;
mod walk;
mod xielu;

use std::fs;
use std::path::Path;

use folder::{Folder, Weights};
use forge_frontend::{load, survey};
use serde_json::{Value, json};

/// The refusal after one key of config.json is set, or removed with null.
fn with_key(case: &str, key: &str, value: Value) -> String {
    let folder = Folder::of(case);
    folder.edit_json("config.json", |config| {
        match value {
            Value::Null => config.remove(key),
            value => config.insert(key.to_owned(), value),
        };
    });
    folder.refusal()
}

#[test]
fn configuration_is_checked() {
    let cases = [
        ("model_type", json!("mamba"), "config.json: architecture \"mamba\" is not supported; supported: "),
        (
            "model_type",
            json!("gemma3n"),
            "config.json: model_type = \"gemma3n\" is not supported: its alternating updates (AltUp)",
        ),
        ("model_type", Value::Null, "config.json: key model_type is missing"),
        ("num_hidden_layers", Value::Null, "config.json: key num_hidden_layers is missing"),
        ("num_hidden_layers", json!("two"), "config.json: num_hidden_layers: expected a positive size, found \"two\""),
        ("num_hidden_layers", json!(3), "model.safetensors: tensor model.layers.2.input_layernorm.weight is missing"),
        (
            "num_key_value_heads",
            json!(3),
            "config.json: num_attention_heads = 4 is not a multiple of num_key_value_heads = 3",
        ),
        ("num_attention_heads", json!(6), "config.json: hidden_size = 32 is not a multiple of num_attention_heads = 6"),
        ("num_attention_heads", json!(0), "config.json: num_attention_heads: expected a positive size, found 0"),
        ("num_attention_heads", json!(32), "config.json: head_dim: expected an even size, found 1"),
        (
            "vocab_size",
            json!(90),
            "config.json: vocab_size: expected 88, the rows of model.embed_tokens.weight, found 90",
        ),
        (
            "intermediate_size",
            json!(48),
            "tensor model.layers.0.mlp.gate_proj.weight: expected shape [48, 32], found [40, 32]",
        ),
        ("hidden_act", json!("gelu"), "config.json: hidden_act = \"gelu\" is not supported: "),
        ("rms_norm_eps", json!(-1), "config.json: rms_norm_eps: expected a small positive number, found -1"),
        (
            "rope_parameters",
            json!({"rope_type": "dynamic", "factor": 2.0}),
            "rope_parameters.rope_type = \"dynamic\" is not supported",
        ),
        ("rope_parameters", json!({"rope_type": "linear"}), "rope_parameters.factor: expected a number, found nothing"),
        (
            "quantization_config",
            json!({"quant_method": "bitsandbytes"}),
            "quantization_config.quant_method = \"bitsandbytes\" is not supported",
        ),
    ];
    for (key, value, expected) in cases {
        let message = with_key("qwen2", key, value.clone());
        assert!(message.contains(expected), "{key} = {value}: {message}");
    }
}

#[test]
fn features_that_are_not_built_are_named() {
    let message = with_key("gemma2", "use_bidirectional_attention", json!(true));
    assert!(message.starts_with("config.json: use_bidirectional_attention = true is not supported"), "{message}");
    let message = with_key("olmo3", "layer_types", json!(["full_attention", "chunked_attention", "a", "b"]));
    assert!(message.contains("layer_types = "), "{message}");
    let message = with_key("olmo3", "layer_types", json!(["full_attention"]));
    assert!(message.contains("layer_types: expected an array of 4, one per layer"), "{message}");
    let message = with_key("smollm3", "use_sliding_window", json!(true));
    assert!(message.contains("use_sliding_window = true"), "{message}");
    let message = with_key("gemma2", "enable_moe_block", json!(true));
    let expected = "enable_moe_block = true is not supported: this architecture's mixture of experts is not built";
    assert!(message.contains(expected), "{message}");
    for (key, value, expected) in [
        ("use_bidirectional_attention", json!("all"), "use_bidirectional_attention = \"all\" is not supported"),
        ("num_kv_shared_layers", json!(6), "num_kv_shared_layers: expected a layer of layer 0's kind before those"),
        ("per_layer_config", json!({"1": {"intermediate_size": 8}}), "intermediate_size of its own"),
        ("per_layer_config", json!({"1": {"head_dim": 0}}), "per_layer_config: expected sizes"),
    ] {
        let message = with_key("gemma4", key, value);
        assert!(message.contains(expected), "{key}: {message}");
    }
}

#[test]
fn tensors_are_checked() {
    let missing = Folder::of("qwen2");
    missing.edit_weights(|weights| {
        weights.header.remove("model.layers.1.self_attn.k_proj.bias");
    });
    let expected = "model.safetensors: tensor model.layers.1.self_attn.k_proj.bias is missing";
    assert_eq!(missing.refusal(), expected);

    let extra = Folder::of("llama-yarn");
    extra.edit_weights(|weights| {
        let mut entry = weights.header["model.layers.0.input_layernorm.weight"].clone();
        let (start, len) = (weights.data.len(), 64);
        weights.data.extend([0; 64]);
        entry["data_offsets"] = json!([start, start + len]);
        weights.header.insert("model.layers.0.self_attn.q_proj.bias".to_owned(), entry);
    });
    let message = extra.refusal();
    assert!(
        message.contains("model.layers.0.self_attn.q_proj.bias is not part of the llama architecture"),
        "{message}"
    );

    let eight_bit = Folder::of("qwen2");
    let names = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"];
    eight_bit.edit_weights(|weights| {
        for name in names {
            let entry = weights.header.get_mut(name).expect("the tensor");
            let start = entry["data_offsets"][0].as_u64().expect("an offset");
            entry["dtype"] = json!("F8_E4M3");
            entry["data_offsets"] = json!([start, start + 40 * 32]);
        }
    });
    let expected = format!("model.safetensors: tensor {}: expected F32, F16 or BF16, found F8_E4M3", names[0]);
    assert_eq!(eight_bit.refusal(), expected);
    let survey = survey(eight_bit.root.path()).expect("a survey");
    assert_eq!(survey.architecture, "qwen2");
    assert!(survey.formats.iter().any(|count| count.format == "F8_E4M3" && !count.supported && count.tensors == 2));
    assert_eq!(survey.problems, [format!("F8_E4M3 is not supported: 2 tensors, {} the first", names[0])]);
}

#[test]
fn assets_are_checked() {
    let without = Folder::of("qwen2");
    fs::remove_file(without.path("tokenizer.json")).expect("removed");
    assert!(without.refusal().ends_with("expected tokenizer.json or tokenizer.model, found neither"));

    let broken = Folder::of("qwen2");
    fs::write(broken.path("tokenizer.json"), "{\"model\":").expect("written");
    assert!(broken.refusal().starts_with("tokenizer.json: not valid JSON: "));

    let damaged = Folder::of("qwen2");
    fs::remove_file(damaged.path("tokenizer.json")).expect("removed");
    fs::write(damaged.path("tokenizer.model"), [0x0a, 0xff, 0x01]).expect("written");
    assert!(damaged.refusal().contains("tokenizer.model: ModelProto: expected a SentencePiece model"));
}

#[test]
fn paths_are_checked() {
    let message = load(Path::new("/nonexistent/model.gguf")).expect_err("a refusal").to_string();
    assert!(message.starts_with("/nonexistent/model.gguf: "), "{message}");
    let empty = tempfile::tempdir().expect("a folder");
    let message = load(empty.path()).expect_err("a refusal").to_string();
    assert!(message.contains("found a folder without config.json"), "{message}");
}
