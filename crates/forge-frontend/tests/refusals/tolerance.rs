//! What tools write and people have: accepted as transformers and llama.cpp accept it, and refused by its name where it cannot be
//! meant.

use std::fs;

use forge_frontend::checkpoint::GgufFile;
use forge_frontend::{Assets, Checkpoint, load};
use serde_json::{Value, json};

use crate::Folder;
use crate::build::{Folder as Scratch, Gguf, array, string};

fn loaded(folder: &Folder) -> Checkpoint {
    load(folder.root.path()).expect("a checkpoint")
}

/// A fixture after a text of config.json is replaced.
fn replaced(case: &str, from: &str, to: &str) -> Folder {
    let folder = Folder::of(case);
    let path = folder.path("config.json");
    let text = fs::read_to_string(&path).expect("JSON");
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).expect("written");
    folder
}

#[test]
fn numbers_as_python_writes_them() {
    let plain = loaded(&Folder::of("qwen2"));
    for (from, to) in [
        // Of a key that nothing reads.
        ("\"initializer_range\": 0.02", "\"initializer_range\": NaN"),
        ("\"initializer_range\": 0.02", "\"time_step_limit\": [0.0, Infinity, -Infinity]"),
        ("\"initializer_range\": 0.02", "\"model_max_length\": 1000000000000000019884624838656"),
        ("\"initializer_range\": 0.02", "\"x\": 1e999"),
        ("\"hidden_size\": 32", "\"hidden_size\": 32.0"),
        ("\"hidden_size\": 32", "\"hidden_size\": 3.2e1"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.0"),
        ("\"vocab_size\": 88", "\"vocab_size\": 88.0"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": [2.0, 2.0]"),
        ("\"rope_theta\": 10000.0", "\"rope_theta\": 1e4"),
        ("\"rope_theta\": 10000.0", "\"rope_theta\": 10000"),
        ("\"sliding_window\": null", "\"sliding_window\": -1"),
        ("\"sliding_window\": null", "\"sliding_window\": 0.0"),
        ("\"sliding_window\": null", "\"head_dim\": null"),
        ("\"sliding_window\": null", "\"head_dim\": -1"),
        ("\"sliding_window\": null", "\"quantization_config\": null, \"quantization\": null"),
        ("\"sliding_window\": null", "\"num_experts\": 0, \"num_local_experts\": null"),
        ("{", "\u{feff}{"),
    ] {
        let folder = replaced("qwen2", from, to);
        let found = loaded(&folder);
        let config = |checkpoint: &Checkpoint| {
            let mut config = checkpoint.graph.config.clone();
            config.name.clear();
            config
        };
        assert_eq!(config(&found), config(&plain), "{to}");
        assert!((&found.graph.weights, &found.graph.blocks) == (&plain.graph.weights, &plain.graph.blocks), "{to}");
        assert_eq!(found.warnings, [], "{to}");
    }
}

#[test]
fn numbers_that_cannot_be_meant() {
    for (from, to, line) in [
        (
            "\"rms_norm_eps\": 1e-06",
            "\"rms_norm_eps\": NaN",
            "config.json: rms_norm_eps: expected a number, found \"NaN\"",
        ),
        (
            "\"rope_theta\": 10000.0",
            "\"rope_theta\": Infinity",
            "config.json: rope_parameters.rope_theta: expected a number, found \"Infinity\"",
        ),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": -Infinity",
            "config.json: hidden_size: expected a positive size, found \"-Infinity\"",
        ),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": 1e30",
            "config.json: hidden_size: expected a positive size, found 1e+30",
        ),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": 18446744073709551616",
            "config.json: hidden_size: expected a positive size, found 1.8446744073709552e+19",
        ),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": 32.5",
            "config.json: hidden_size: expected a positive size, found 32.5",
        ),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": null", "config.json: key num_hidden_layers is missing"),
        (
            "\"rms_norm_eps\": 1e-06",
            "\"rms_norm_eps\": 1e999",
            "config.json: rms_norm_eps: expected a number, found \"Infinity\"",
        ),
    ] {
        assert_eq!(replaced("qwen2", from, to).refusal(), line);
    }
}

#[test]
fn byte_order_marks() {
    let plain = loaded(&Folder::of("qwen2"));
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let folder = Folder::of("qwen2");
        let bytes = fs::read(folder.path(name)).expect("JSON");
        fs::write(folder.path(name), [b"\xef\xbb\xbf", &*bytes].concat()).expect("written");
        assert_eq!(loaded(&folder).assets, plain.assets, "{name}");
    }
}

#[test]
fn defaults_that_stand_for_none() {
    let folder = Folder::of("qwen2");
    let text = r#"{"temperature": null, "top_k": -1, "top_p": 1, "min_p": 0.25, "do_sample": null, "bos_token_id": null,
        "eos_token_id": [2, null]}"#;
    fs::write(folder.path("generation_config.json"), text).expect("written");
    let found = loaded(&folder).assets.generation;
    assert_eq!((found.temperature, found.top_k, found.do_sample), (None, None, None));
    assert_eq!((found.top_p, found.min_p), (Some(1.0), Some(0.25)));
}

#[test]
fn ids_of_special_tokens() {
    let ids = |value: Value| {
        let folder = Folder::of("qwen2");
        fs::remove_file(folder.path("tokenizer_config.json")).expect("removed");
        folder.edit_json("config.json", |config| {
            config.insert("eos_token_id".to_owned(), value);
            config.insert("bos_token_id".to_owned(), json!(-1));
        });
        let found = loaded(&folder);
        let generation = found.assets.generation;
        assert_eq!(generation.bos_token_id, None);
        (generation.end_token_ids, found.warnings.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(ids(json!(2)), (vec![2], none.clone()));
    assert_eq!(ids(json!(2.0)), (vec![2], none.clone()));
    assert_eq!(ids(json!(-1)), (vec![], none.clone()));
    assert_eq!(ids(Value::Null), (vec![], none.clone()));
    assert_eq!(ids(json!([3, -1, 2.0])), (vec![2, 3], none));
    let line = "config.json: eos_token_id: expected an id of the vocabulary, found 88: not used";
    assert_eq!(ids(json!([2, 88])), (vec![2], vec![line.to_owned()]));
}

/// A SentencePiece vocabulary of a GGUF with one more key.
fn vocabulary(key: &str, kind: u32, value: &[u8]) -> Assets {
    let mut tokens = array(8, 4);
    ["<unk>", "<s>", "</s>", "a"].iter().for_each(|token| tokens.extend(string(token.as_bytes())));
    let gguf = Gguf::new()
        .entry(b"tokenizer.ggml.model", 8, &string(b"llama"))
        .entry(b"tokenizer.ggml.tokens", 9, &tokens)
        .entry(key.as_bytes(), kind, value);
    let folder = Scratch::new();
    let path = folder.write("v.gguf", &gguf.bytes());
    Assets::from_gguf(&GgufFile::open(&path).expect("a GGUF")).expect("a tokenizer")
}

/// In answers in channels `<|end|>` ends a message, and others follow.
#[test]
fn messages_in_channels_do_not_end_an_answer() {
    let ends = |texts: &[&str]| {
        let mut tokens = array(8, texts.len() as u64);
        texts.iter().for_each(|token| tokens.extend(string(token.as_bytes())));
        let mut kinds = array(5, texts.len() as u64);
        (0..texts.len()).for_each(|id| kinds.extend(if id < 3 { 1_i32 } else { 3 }.to_le_bytes()));
        let gguf = Gguf::new()
            .entry(b"tokenizer.ggml.model", 8, &string(b"llama"))
            .entry(b"tokenizer.ggml.tokens", 9, &tokens)
            .entry(b"tokenizer.ggml.token_type", 9, &kinds)
            .entry(b"tokenizer.ggml.eos_token_id", 4, &2u32.to_le_bytes());
        let folder = Scratch::new();
        let path = folder.write("v.gguf", &gguf.bytes());
        Assets::from_gguf(&GgufFile::open(&path).expect("a GGUF")).expect("a tokenizer").generation.end_token_ids
    };
    assert_eq!(ends(&["<unk>", "<s>", "</s>", "<|end|>", "<|call|>"]), [2, 3]);
    assert_eq!(ends(&["<unk>", "<s>", "</s>", "<|end|>", "<|call|>", "<|return|>", "<|channel|>"]), [2, 4, 5]);
}

#[test]
fn integers_of_a_gguf_of_every_type() {
    const BOS: &str = "tokenizer.ggml.bos_token_id";
    let two: [(u32, Vec<u8>); 8] = [
        (0, vec![2]),
        (1, vec![2]),
        (2, 2u16.to_le_bytes().to_vec()),
        (3, 2i16.to_le_bytes().to_vec()),
        (4, 2u32.to_le_bytes().to_vec()),
        (5, 2i32.to_le_bytes().to_vec()),
        (10, 2u64.to_le_bytes().to_vec()),
        (11, 2i64.to_le_bytes().to_vec()),
    ];
    for (kind, value) in &two {
        assert_eq!(vocabulary(BOS, *kind, value).generation.bos_token_id, Some(2), "type {kind}");
        assert_eq!(vocabulary("general.sampling.top_k", *kind, value).generation.top_k, Some(2), "type {kind}");
        assert_eq!(vocabulary("general.sampling.temp", *kind, value).generation.temperature, Some(2.0), "type {kind}");
        // Types of the tokens, of which the second is a control token.
        let kinds: Vec<u8> = [0u8, 1, 0, 0].iter().flat_map(|&extra| plus(value, extra)).collect();
        let assets = vocabulary("tokenizer.ggml.token_type", 9, &[array(*kind, 4), kinds].concat());
        let json: Value = serde_json::from_slice(&assets.tokenizer_json).expect("JSON");
        let special = json["added_tokens"].as_array().expect("tokens").iter().any(|token| token["content"] == "<s>");
        assert!(special, "type {kind}: {}", json["added_tokens"]);
    }
    let none: [(u32, Vec<u8>); 6] = [
        (1, vec![0xff]),
        (3, vec![0xff; 2]),
        (5, vec![0xff; 4]),
        (11, vec![0xff; 8]),
        (4, vec![0xff; 4]),
        (10, vec![0xff; 8]),
    ];
    for (kind, value) in none {
        assert_eq!(vocabulary(BOS, kind, &value).generation.bos_token_id, None, "type {kind}");
    }
    assert_eq!(vocabulary("general.sampling.temp", 12, &0.5f64.to_le_bytes()).generation.temperature, Some(0.5));
    // llama.cpp passes over an id of padding that the vocabulary lacks.
    assert_eq!(
        vocabulary("tokenizer.ggml.padding_token_id", 4, &4u32.to_le_bytes()).generation.special.pad_token,
        None
    );
}

/// A little-endian integer with something added to its lowest byte.
fn plus(value: &[u8], extra: u8) -> Vec<u8> {
    let mut value = value.to_vec();
    value[0] += extra;
    value
}

/// A number's bytes in some type.
type Bytes = fn(u64) -> Vec<u8>;

#[test]
fn hyperparameters_of_a_gguf_of_every_type() {
    let sizes: [(&str, u64); 5] = [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 4),
    ];
    let gguf = |kind: u32, bytes: Bytes, window: Vec<u8>| {
        let gguf = Gguf::new()
            .entry(b"general.architecture", 8, &string(b"llama"))
            .entry(b"llama.attention.layer_norm_rms_epsilon", 12, &1e-5f64.to_le_bytes())
            .entry(b"llama.attention.sliding_window", kind, &window);
        sizes
            .into_iter()
            .fold(gguf, |gguf, (key, value)| gguf.entry(format!("llama.{key}").as_bytes(), kind, &bytes(value)))
            .tensor("token_embd.weight", &[32, 8], 0, &[0; 32 * 8 * 4])
    };
    let every: [(u32, Bytes); 10] = [
        (0, |n| vec![n as u8]),
        (1, |n| vec![n as u8]),
        (2, |n| (n as u16).to_le_bytes().to_vec()),
        (3, |n| (n as i16).to_le_bytes().to_vec()),
        (4, |n| (n as u32).to_le_bytes().to_vec()),
        (5, |n| (n as i32).to_le_bytes().to_vec()),
        (10, |n| n.to_le_bytes().to_vec()),
        (11, |n| (n as i64).to_le_bytes().to_vec()),
        (6, |n| (n as f32).to_le_bytes().to_vec()),
        (12, |n| (n as f64).to_le_bytes().to_vec()),
    ];
    for (kind, bytes) in every {
        // The sizes are taken, and the next thing is missed.
        let folder = Scratch::new();
        let window = if [0, 2].contains(&kind) { bytes(0) } else { minus_one(kind) };
        let path = folder.write("m.gguf", &gguf(kind, bytes, window).bytes());
        let error = load(&path).expect_err("no layers").to_string();
        assert_eq!(error, "m.gguf: tensor blk.0.attn_norm.weight is missing", "type {kind}");
    }
    let folder = Scratch::new();
    let nan = gguf(4, every[4].1, vec![0; 4]).entry(b"llama.rope.freq_base", 6, &f32::NAN.to_le_bytes());
    let error = load(&folder.write("m.gguf", &nan.bytes())).expect_err("no number").to_string();
    assert_eq!(error, "m.gguf: llama.rope.freq_base: expected a number, found \"NaN\"");
}

/// -1 in a type, or all ones.
fn minus_one(kind: u32) -> Vec<u8> {
    match kind {
        6 => (-1f32).to_le_bytes().to_vec(),
        12 => (-1f64).to_le_bytes().to_vec(),
        1 => vec![0xff],
        3 => vec![0xff; 2],
        4 | 5 => vec![0xff; 4],
        _ => vec![0xff; 8],
    }
}

#[test]
fn mixtures_are_refused_as_such() {
    const NOT_BUILT: &str = "is not supported: this architecture's mixture of experts is not built";
    // Stacked experts, as an MLX folder has them.
    for model_type in ["odd_moe", "qwen2"] {
        let folder = Folder::of("qwen2");
        folder.edit_json("config.json", |config| {
            config.insert("model_type".to_owned(), json!(model_type));
            config.insert("num_experts".to_owned(), json!(4));
            config.insert("quantization".to_owned(), json!({"bits": 4, "group_size": 32}));
        });
        folder.edit_weights(|weights| {
            weights.add("model.layers.0.mlp.switch_mlp.up_proj.weight", "U32", &json!([4, 8, 4]));
            weights.add("model.layers.0.mlp.switch_mlp.up_proj.scales", "F16", &json!([4, 8, 1]));
            weights.add("model.layers.0.mlp.switch_mlp.up_proj.biases", "F16", &json!([4, 8, 1]));
        });
        assert_eq!(folder.refusal(), format!("config.json: num_experts = 4 {NOT_BUILT}"));
    }
    let folder = Scratch::new();
    let mixture = Gguf::new().entry(b"general.architecture", 8, &string(b"qwen2")).entry(
        b"qwen2.expert_count",
        4,
        &8u32.to_le_bytes(),
    );
    let error = load(&folder.write("m.gguf", &mixture.bytes())).expect_err("a mixture").to_string();
    assert_eq!(error, format!("m.gguf: qwen2.expert_count = 8 {NOT_BUILT}"));
}
