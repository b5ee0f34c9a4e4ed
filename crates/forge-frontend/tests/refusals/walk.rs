//! Every refusal of a checkpoint's content, one by one: made to happen, and held to a line that names the file and the key or
//! tensor. One file, long as it is, because it is one list: a row for each.

use std::fs;

use forge_frontend::checkpoint::GgufFile;
use forge_frontend::{Assets, FrontendError, Refusal, load};
use serde_json::{Value, json};

use crate::build::{Folder as Scratch, Gguf, array, string};
use crate::{Folder, Weights};
use crate::{toolchains, xielu};

/// A refusal, what its line names, and the error that a checkpoint made for it gives.
pub type Row = (Refusal, Vec<&'static str>, FrontendError);

/// A fixture with one key of config.json changed; null removes it.
fn config(refusal: Refusal, case: &str, key: &'static str, value: Value, words: &'static str) -> Row {
    let folder = Folder::of(case);
    folder.edit_json("config.json", |config| match value {
        Value::Null => drop(config.shift_remove(key)),
        value => drop(config.insert(key.to_owned(), value)),
    });
    // Of an object a line names the key inside.
    let key = if ["rope_parameters", "per_layer_config"].contains(&key) { "" } else { key };
    (refusal, vec!["config.json: ", key, words], folder.error())
}

/// A fixture of a text model within another, with one key of its configuration changed.
fn text(refusal: Refusal, case: &str, key: &'static str, value: Value, words: &'static str) -> Row {
    let folder = Folder::of(case);
    folder.edit_json("config.json", |config| config["text_config"][key] = value);
    (refusal, vec!["config.json: text_config.", key, words], folder.error())
}

/// A fixture with other weights.
fn weights(refusal: Refusal, words: &[&'static str], edit: impl FnOnce(&mut Weights)) -> Row {
    let folder = Folder::of("qwen2");
    folder.edit_weights(edit);
    (refusal, [&["model.safetensors: "], words].concat(), folder.error())
}

/// A mixture with other weights.
fn experts(refusal: Refusal, words: &[&'static str], edit: impl FnOnce(&mut Weights)) -> Row {
    let folder = Folder::of("qwen3-moe");
    folder.edit_weights(edit);
    (refusal, [&["model.safetensors: "], words].concat(), folder.error())
}

/// A fixture as an MLX folder with one more module `a`.
fn module(refusal: Refusal, words: &[&'static str], quantization: Value, tensors: &[(&str, &str, Value)]) -> Row {
    let folder = Folder::of("qwen2");
    folder.edit_json("config.json", |config| drop(config.insert("quantization".to_owned(), quantization)));
    folder.edit_weights(|weights| {
        for (name, dtype, shape) in tensors {
            weights.add(name, dtype, shape);
        }
    });
    (refusal, words.to_vec(), folder.error())
}

/// A fixture with one file of other bytes, or without it.
fn file(refusal: Refusal, words: &[&'static str], name: &'static str, bytes: Option<&[u8]>) -> Row {
    let folder = Folder::of("qwen2");
    match bytes {
        Some(bytes) => fs::write(folder.path(name), bytes).expect("written"),
        None => fs::remove_file(folder.path(name)).expect("removed"),
    }
    (refusal, words.to_vec(), folder.error())
}

/// A GGUF with the sizes that every architecture has.
pub fn sizes(architecture: &str, hidden: u32) -> Gguf {
    let size = |gguf: Gguf, key: &str, value: u32| {
        gguf.entry(format!("{architecture}.{key}").as_bytes(), 4, &value.to_le_bytes())
    };
    let sizes = [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", hidden),
        ("feed_forward_length", 32),
        ("attention.head_count", 4),
    ];
    let gguf = Gguf::new().entry(b"general.architecture", 8, &string(architecture.as_bytes()));
    sizes.into_iter().fold(gguf, |gguf, (key, value)| size(gguf, key, value))
}

/// A Llama's GGUF as far as its first weight.
fn llama(hidden: u32) -> Gguf {
    sizes("llama", hidden)
}

/// A Qwen 3.5's GGUF whose values do not divide among their heads.
fn qwen35() -> Gguf {
    let sizes = [
        ("qwen35.block_count", 1),
        ("qwen35.context_length", 64),
        ("qwen35.embedding_length", 32),
        ("qwen35.feed_forward_length", 32),
        ("qwen35.attention.head_count", 4),
        ("qwen35.ssm.group_count", 2),
        ("qwen35.ssm.time_step_rank", 4),
        ("qwen35.ssm.inner_size", 30),
    ];
    let gguf = Gguf::new().entry(b"general.architecture", 8, &string(b"qwen35"));
    let gguf = gguf.entry(b"qwen35.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes());
    sizes.into_iter().fold(gguf, |gguf, (key, value): (&str, u32)| gguf.entry(key.as_bytes(), 4, &value.to_le_bytes()))
}

fn epsilon(gguf: Gguf) -> Gguf {
    gguf.entry(b"llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes())
}

pub fn table(gguf: Gguf) -> Gguf {
    gguf.tensor("token_embd.weight", &[32, 8], 0, &[0; 32 * 8 * 4])
}

pub fn gguf(refusal: Refusal, words: &[&'static str], gguf: &Gguf) -> Row {
    let folder = Scratch::new();
    let path = folder.write("m.gguf", &gguf.bytes());
    let error = load(&path).expect_err("a refusal");
    (refusal, [&["m.gguf: "], words].concat(), error)
}

/// The tokenizer alone of a GGUF with these keys.
fn tokenizer(refusal: Refusal, words: &[&'static str], gguf: &Gguf) -> Row {
    let folder = Scratch::new();
    let path = folder.write("t.gguf", &gguf.bytes());
    let error = Assets::from_gguf(&GgufFile::open(&path).expect("a GGUF")).expect_err("a refusal");
    (refusal, [&["t.gguf: ", "tokenizer.ggml."], words].concat(), error)
}

fn strings(items: &[&[u8]]) -> Vec<u8> {
    let mut out = array(8, items.len() as u64);
    items.iter().for_each(|item| out.extend(string(item)));
    out
}

fn vocabulary() -> Gguf {
    Gguf::new().entry(b"tokenizer.ggml.tokens", 9, &strings(&[b"a", b"b", b"ab"]))
}

fn model(name: &str) -> Gguf {
    vocabulary().entry(b"tokenizer.ggml.model", 8, &string(name.as_bytes()))
}

fn configurations() -> Vec<Row> {
    let per_layer = |keys: Value| json!({ "1": keys });
    vec![
        {
            let folder = Folder::of("qwen2");
            (
                Refusal::SingleFile,
                vec![
                    "model.safetensors: expected a GGUF file, or a folder",
                    "found a safetensors file (give its folder)",
                ],
                load(&folder.path("model.safetensors")).expect_err("a refusal"),
            )
        },
        file(Refusal::NoConfig, &["expected a GGUF file, or a folder with config.json"], "config.json", None),
        file(Refusal::NotAnObject, &["config.json: ", "the whole file", "found [1]"], "config.json", Some(b"[1]")),
        config(Refusal::NoModelType, "qwen2", "model_type", Value::Null, "is missing"),
        config(Refusal::SwigluNumber, "gpt-oss", "swiglu_limit", json!(0.0001), "a positive number of thousandths"),
        config(Refusal::NotBuilt, "qwen2", "model_type", json!("gemma3n"), "its alternating updates (AltUp)"),
        config(
            Refusal::HeadLayerNorms,
            "stablelm",
            "qk_layernorm",
            json!(true),
            "= true is not supported: norms of each head",
        ),
        config(
            Refusal::Experts,
            "qwen2",
            "num_local_experts",
            json!(8),
            "= 8 is not supported: this architecture's mixture",
        ),
        config(Refusal::QuantizationMethod, "qwen2", "quantization_config", json!({"quant_method": "hqq"}), "\"hqq\""),
        config(Refusal::UnequalSizes, "qwen2", "num_key_value_heads", json!([2, 1]), "= [2,1] is not supported"),
        config(Refusal::NoSizes, "qwen2", "num_key_value_heads", json!([]), "expected a size, found []"),
        config(Refusal::LayerSizes, "gemma4", "intermediate_size", json!([40]), "expected an array of 6"),
        config(Refusal::NegativeSize, "qwen2", "hidden_size", json!(-1), "expected a positive size, found -1"),
        config(Refusal::MissingSize, "qwen2", "num_hidden_layers", Value::Null, "is missing"),
        config(Refusal::Size, "qwen2", "hidden_size", json!(0.5), "expected a positive size, found 0.5"),
        config(Refusal::Number, "qwen2", "rms_norm_eps", json!("small"), "expected a number, found \"small\""),
        config(Refusal::Flag, "qwen2", "tie_word_embeddings", json!("yes"), "expected true or false, found \"yes\""),
        config(Refusal::Text, "qwen2", "hidden_act", json!(3), "expected a string, found 3"),
        config(
            Refusal::HeadGroups,
            "qwen2",
            "num_key_value_heads",
            json!(3),
            "num_attention_heads = 4 is not a multiple",
        ),
        config(Refusal::HeadWidth, "qwen2", "num_attention_heads", json!(6), "hidden_size = 32 is not a multiple"),
        config(Refusal::OddHead, "qwen2", "head_dim", json!(7), "expected an even size, found 7"),
        config(
            Refusal::VocabRows,
            "qwen2",
            "vocab_size",
            json!(90),
            "expected 88, the rows of model.embed_tokens.weight",
        ),
        config(Refusal::Epsilon, "qwen2", "rms_norm_eps", json!(-1), "expected a small positive number, found -1"),
        config(
            Refusal::LayerCount,
            "qwen2",
            "num_hidden_layers",
            json!(1_000_000),
            "expected at most as many as the 26 tensors",
        ),
        config(Refusal::Activation, "qwen2", "hidden_act", json!("gelu"), "= \"gelu\" is not supported"),
        config(Refusal::LayerKinds, "olmo3", "layer_types", json!(["full_attention"]), "expected an array of 4"),
        config(
            Refusal::LayerKind,
            "olmo3",
            "layer_types",
            json!(["full_attention", "chunked", "a", "b"]),
            "is not supported",
        ),
        config(
            Refusal::LayerMixers,
            "lfm2",
            "layer_types",
            json!(["conv"]),
            "expected full_attention or conv for each of the 3 layers",
        ),
        config(
            Refusal::DeltaGroups,
            "qwen35",
            "linear_num_value_heads",
            json!(3),
            "= 3 is not a multiple of linear_num",
        ),
        config(
            Refusal::DeltaWidth,
            "qwen35",
            "linear_key_head_dim",
            json!(512),
            "= 512 is not supported: multiples of 4, 4 to 256 are built, not 512",
        ),
        config(Refusal::Bidirectional, "gemma2", "use_bidirectional_attention", json!(true), "= true is not supported"),
        config(
            Refusal::QueryScale,
            "gemma2",
            "query_pre_attn_scalar",
            json!(-1),
            "expected a positive number, found -1",
        ),
        text(
            Refusal::LayerBases,
            "muse-glimmer",
            "layer_rope_theta",
            json!([10000.0, 10000.0, 500.0, 0]),
            "expected 0 or rope_theta, 10000, for each of the 4 layers, found [10000.0,10000.0,500.0,0]",
        ),
        text(
            Refusal::PostEpsilon,
            "muse-glimmer",
            "post_norm_eps",
            json!(1.5),
            "expected a small positive number, found 1.5",
        ),
        config(Refusal::SmolWindows, "smollm3", "use_sliding_window", json!(true), "= true is not supported"),
        config(Refusal::RotatingLayers, "smollm3", "no_rope_layers", json!([1]), "expected an array of 4"),
        config(
            Refusal::RotatingFlag,
            "smollm3",
            "no_rope_layers",
            json!([1, 1, 1, "x"]),
            "expected an array of 0 and 1",
        ),
        config(Refusal::Gemma4Bidirectional, "gemma4", "use_bidirectional_attention", json!("all"), "= \"all\" is not"),
        config(Refusal::Gemma4Widths, "gemma4", "intermediate_size", json!(-1), "is missing"),
        config(Refusal::SharedLayers, "gemma4", "num_kv_shared_layers", json!(6), "expected a layer of layer 0's kind"),
        config(
            Refusal::LayerSize,
            "gemma4",
            "per_layer_config",
            per_layer(json!({"head_dim": 0})),
            "per_layer_config: expected sizes",
        ),
        config(
            Refusal::LayerKey,
            "gemma4",
            "per_layer_config",
            per_layer(json!({"intermediate_size": 8})),
            "per_layer_config = ",
        ),
        config(
            Refusal::LayerHeadGroups,
            "gemma4",
            "per_layer_config",
            per_layer(json!({"num_key_value_heads": 3})),
            "= 3",
        ),
        config(
            Refusal::LayerOddHead,
            "gemma4",
            "per_layer_config",
            per_layer(json!({"head_dim": 7})),
            "head_dim of layer 1: expected an even size, found 7",
        ),
        config(
            Refusal::LayersObject,
            "gemma4",
            "per_layer_config",
            json!(5),
            "per_layer_config: expected an object of layers, found 5",
        ),
        config(
            Refusal::LayerObject,
            "gemma4",
            "per_layer_config",
            per_layer(json!(5)),
            "per_layer_config: expected an object for each layer",
        ),
        config(
            Refusal::RopeBase,
            "qwen2",
            "rope_parameters",
            json!({"rope_theta": -1}),
            "rope_theta: expected a positive",
        ),
        config(Refusal::RotaryWidth, "qwen2", "partial_rotary_factor", json!(2.0), "at most the head's 8, found 16"),
        config(
            Refusal::RopeType,
            "qwen2",
            "rope_parameters",
            json!({"rope_type": "dynamic"}),
            ".rope_type = \"dynamic\"",
        ),
        config(
            Refusal::RopeObject,
            "qwen2",
            "rope_parameters",
            json!(5),
            "rope_parameters: expected an object, found 5",
        ),
        config(
            Refusal::RopeNumber,
            "qwen2",
            "rope_parameters",
            json!({"rope_theta": "x"}),
            ".rope_theta: expected a number",
        ),
        config(
            Refusal::MissingRopeNumber,
            "qwen2",
            "rope_parameters",
            json!({"rope_type": "linear"}),
            ".factor: expected",
        ),
        config(
            Refusal::RopeFlag,
            "qwen2",
            "rope_parameters",
            json!({"rope_type": "yarn", "factor": 2, "truncate": 1}),
            ".truncate: expected true or false, found 1",
        ),
        config(Refusal::RopeText, "qwen2", "rope_parameters", json!({"rope_type": 5}), ".rope_type: expected a string"),
        config(
            Refusal::RopeFactors,
            "phi3-longrope",
            "rope_parameters",
            json!({"rope_type": "longrope", "partial_rotary_factor": 0.75, "short_factor": [1], "long_factor": [1]}),
            "_factor: expected an array of 3 numbers, found [1]",
        ),
        config(
            Refusal::RopeFactor,
            "phi3-longrope",
            "rope_parameters",
            json!({"rope_type": "longrope", "partial_rotary_factor": 0.75, "short_factor": [1, 1, "x"]}),
            ".short_factor: expected an array of 3 numbers",
        ),
    ]
}

/// What mixtures may ask for in vain.
fn mixtures() -> Vec<Row> {
    let changed = |refusal, case: &str, keys: &[(&str, Value)], words: &[&'static str]| {
        let folder = Folder::of(case);
        folder.edit_json("config.json", |config| {
            config.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        });
        (refusal, words.to_vec(), folder.error())
    };
    let expert = "model.layers.0.mlp.experts.3.up_proj.weight";
    let sizes = |gguf: Gguf, sizes: &[(&str, u32)]| {
        sizes.iter().fold(gguf, |gguf, (key, value)| gguf.entry(key.as_bytes(), 4, &value.to_le_bytes()))
    };
    let mixtral =
        sizes(llama(32), &[("llama.expert_count", 4), ("llama.expert_used_count", 2), ("llama.expert_gating_func", 9)]);
    let glm = sizes(
        Gguf::new().entry(b"general.architecture", 8, &string(b"glm4moe")),
        &[
            ("glm4moe.block_count", 1),
            ("glm4moe.context_length", 64),
            ("glm4moe.embedding_length", 32),
            ("glm4moe.feed_forward_length", 32),
            ("glm4moe.attention.head_count", 4),
            ("glm4moe.expert_count", 4),
            ("glm4moe.nextn_predict_layers", 1),
        ],
    );
    let glm = table(glm.entry(b"glm4moe.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes()));
    let kv_b = "model.layers.0.self_attn.kv_b_proj.weight";
    let deepseek = sizes(
        self::sizes("deepseek2", 32),
        &[
            ("deepseek2.expert_count", 4),
            ("deepseek2.attention.kv_lora_rank", 16),
            ("deepseek2.rope.dimension_count", 8),
            ("deepseek2.attention.key_length", 8),
        ],
    );
    vec![
        config(Refusal::ExpertCount, "qwen3-moe", "num_experts_per_tok", json!(7), "expected at most the 6 experts"),
        config(
            Refusal::ExpertLimit,
            "qwen3-moe",
            "num_experts",
            json!(1028),
            "= 1028 is not supported: up to 1024 are",
        ),
        changed(
            Refusal::ExpertLimit,
            "qwen3-moe",
            &[("num_experts", json!(64)), ("num_experts_per_tok", json!(33))],
            &["config.json: num_experts_per_tok = 33 is not supported: up to 32 are built"],
        ),
        changed(
            Refusal::ExpertLimit,
            "glm4-moe",
            &[("n_routed_experts", json!(64)), ("n_group", json!(32)), ("topk_group", json!(32))],
            &["config.json: n_group = 32 is not supported: up to 31 are built"],
        ),
        config(Refusal::DenseLayers, "qwen3-moe", "mlp_only_layers", json!("1"), "expected a list of layers"),
        config(Refusal::ClippedQkv, "olmoe", "clip_qkv", json!(8.0), "= 8.0 is not supported: queries, keys"),
        config(Refusal::GroupCount, "glm4-moe", "topk_group", json!(5), "expected at most the 4 groups, found 5"),
        changed(
            Refusal::ExpertGroups,
            "glm4-moe",
            &[("n_group", json!(3))],
            &["config.json: n_routed_experts = 8 is not a multiple of n_group = 3"],
        ),
        changed(
            Refusal::GroupExperts,
            "glm4-moe",
            &[("n_group", json!(8)), ("topk_group", json!(1))],
            &["config.json: topk_group: expected groups of at least 2 experts, found 1"],
        ),
        changed(
            Refusal::ExpertRows,
            "qwen3-moe",
            &[("moe_intermediate_size", json!(i32::MAX))],
            &["tensor model.layers.0.mlp.experts.0.gate_proj.weight: expected experts of fewer rows in all"],
        ),
        experts(Refusal::ExpertShape, &["tensor", expert, "expected shape [24, 32], found [32, 24]"], |weights| {
            weights.header.get_mut(expert).expect("it")["shape"] = json!([32, 24]);
        }),
        experts(
            Refusal::ExpertFormats,
            &["tensor", expert, "expected the type of the other experts, found F16"],
            |weights| {
                weights.header.get_mut(expert).expect("it")["dtype"] = json!("F16");
            },
        ),
        gguf(Refusal::GatingFunction, &["llama.expert_gating_func = 9 is not supported: scores are softmax"], &mixtral),
        {
            let folder = Folder::of("deepseek-v2");
            folder.edit_weights(|weights| weights.header.get_mut(kv_b).expect("it")["shape"] = json!([16, 128]));
            (
                Refusal::HeadMatrixShape,
                vec!["tensor", kv_b, "expected shape [128, 16], found [16, 128]"],
                folder.error(),
            )
        },
        gguf(
            Refusal::LatentHead,
            &["deepseek2.attention.key_length: expected more than the 8 that rotate, found 8"],
            &deepseek,
        ),
        config(
            Refusal::ScoringFunction,
            "deepseek-v3",
            "scoring_func",
            json!("softplus"),
            "is not supported: scores are softmax or sigmoid",
        ),
        config(
            Refusal::MixtureLayers,
            "glm4-moe-lite",
            "mlp_layer_types",
            json!(["dense"]),
            "expected dense or sparse for each of the 2 layers",
        ),
        gguf(
            Refusal::PredictionLayers,
            &["llama.nextn_predict_layers: expected fewer than the 1 blocks, found 1"],
            &sizes(llama(32), &[("llama.nextn_predict_layers", 1)]),
        ),
        gguf(Refusal::PredictionLayers, &["glm4moe.nextn_predict_layers: expected fewer than the 1 blocks"], &glm),
    ]
}

fn tensors() -> Vec<Row> {
    let four = json!({"bits": 4, "group_size": 32});
    let mxfp4 = json!({"bits": 4, "group_size": 32, "mode": "mxfp4"});
    let codes = ("a.weight", "U32", json!([2, 4]));
    let scales = ("a.scales", "F16", json!([2, 1]));
    let gemma4 = {
        let folder = Folder::of("gemma4");
        folder.edit_weights(|weights| {
            let name = "model.embed_tokens_per_layer.weight";
            weights.add(name, "F32", &json!([1, 48]));
        });
        (Refusal::TableRows, vec!["config.json: vocab_size_per_layer_input: expected at least"], folder.error())
    };
    vec![
        gemma4,
        module(
            Refusal::QuantizationNumber,
            &["config.json: quantization.bits: expected a size, found \"four\""],
            json!({"bits": "four", "group_size": 32}),
            &[codes.clone(), scales.clone()],
        ),
        module(
            Refusal::QuantizationMode,
            &["config.json: quantization.mode = \"mxfp2\" is not supported"],
            json!({"bits": 2, "group_size": 32, "mode": "mxfp2"}),
            &[codes.clone(), scales.clone()],
        ),
        module(
            Refusal::ModeWidth,
            &["config.json: quantization.a.bits = 8 is not supported: mxfp4 has 4 bits in groups of 32"],
            json!({"bits": 4, "group_size": 32, "a": {"bits": 8, "mode": "mxfp4"}}),
            &[codes.clone(), scales.clone()],
        ),
        {
            let folder = Folder::of("gpt-oss");
            folder.edit_weights(|weights| {
                weights.header.remove("model.layers.1.mlp.experts.down_proj_scales");
            });
            let words = vec!["model.safetensors: tensor model.layers.1.mlp.experts.down_proj_scales is missing"];
            (Refusal::ApartScales, words, folder.error())
        },
        module(
            Refusal::ApartShape,
            &["model.safetensors: tensor a.scales: expected shape [2, 1], found [2, 2]"],
            mxfp4.clone(),
            &[codes.clone(), ("a.scales", "U8", json!([2, 2]))],
        ),
        module(
            Refusal::ApartType,
            &["model.safetensors: tensor a.scales: expected U8, found F16"],
            mxfp4,
            &[codes.clone(), scales.clone()],
        ),
        module(
            Refusal::QuantizationWidth,
            &["config.json: quantization.bits = 7 is not supported"],
            json!({"bits": 7, "group_size": 32}),
            &[codes.clone(), scales.clone()],
        ),
        module(
            Refusal::AffineWidth,
            &["model.safetensors: tensor a.weight: ", "[0, 2305843009213693952]"],
            four.clone(),
            &[("a.weight", "U32", json!([0, 2_305_843_009_213_693_952_u64])), ("a.scales", "F16", json!([0, 1]))],
        ),
        module(
            Refusal::AffinePart,
            &["model.safetensors: tensor a.biases is missing"],
            four.clone(),
            &[codes.clone(), scales.clone()],
        ),
        module(
            Refusal::AffineShape,
            &["model.safetensors: tensor a.scales: expected shape [2, 1], found [2, 2]"],
            four.clone(),
            &[codes.clone(), ("a.scales", "F16", json!([2, 2]))],
        ),
        module(
            Refusal::AffineType,
            &["model.safetensors: tensor a.scales: expected F32, F16 or BF16, found I32"],
            four.clone(),
            &[codes.clone(), ("a.scales", "I32", json!([2, 1]))],
        ),
        module(
            Refusal::AffineBiasType,
            &["model.safetensors: tensor a.biases: expected the type of the scales, found BF16"],
            four.clone(),
            &[codes, scales, ("a.biases", "BF16", json!([2, 1]))],
        ),
        module(
            Refusal::RowBlocks,
            &["model.safetensors: tensor model.embed_tokens.weight: ", "32", "64"],
            json!({"bits": 4, "group_size": 64}),
            &[
                ("model.embed_tokens.weight", "U32", json!([88, 4])),
                ("model.embed_tokens.scales", "F16", json!([88, 0])),
                ("model.embed_tokens.biases", "F16", json!([88, 0])),
            ],
        ),
        weights(
            Refusal::ExpertWeights,
            &[
                "tensor model.layers.0.mlp.switch_mlp.up_proj.weight",
                " = U32 is not supported: this architecture's mixture of experts is not built",
            ],
            |weights| weights.add("model.layers.0.mlp.switch_mlp.up_proj.weight", "U32", &json!([4, 8, 4])),
        ),
        weights(Refusal::MissingTensor, &["tensor model.norm.weight is missing"], |weights| {
            weights.header.remove("model.norm.weight");
        }),
        weights(Refusal::TableShape, &["tensor model.embed_tokens.weight: expected a matrix with rows"], |weights| {
            weights.header.get_mut("model.embed_tokens.weight").expect("it")["shape"] = json!([88 * 32]);
        }),
        weights(Refusal::WeightShape, &["tensor model.norm.weight: expected shape [32], found [2, 16]"], |weights| {
            weights.header.get_mut("model.norm.weight").expect("it")["shape"] = json!([2, 16]);
        }),
        weights(Refusal::ElementType, &["tensor model.norm.weight: expected F32, F16 or BF16, found I16"], |weights| {
            weights.header.get_mut("model.norm.weight").expect("it")["dtype"] = json!("I16");
        }),
        gguf(
            Refusal::DeltaValues,
            &["qwen35.ssm.inner_size = 30 is not a multiple of qwen35.ssm.time_step_rank = 4"],
            &table(qwen35()),
        ),
        gguf(Refusal::NoArchitecture, &["key general.architecture is missing"], &Gguf::new()),
        gguf(Refusal::MissingNumber, &["key llama.attention.layer_norm_rms_epsilon is missing"], &table(llama(32))),
        gguf(
            Refusal::ValueWidth,
            &["llama.attention.value_length = 4 is not supported"],
            &table(epsilon(llama(32)).entry(b"llama.attention.value_length", 4, &4u32.to_le_bytes())),
        ),
        gguf(
            Refusal::ScalingType,
            &["llama.rope.scaling.type = \"dynamic\" is not supported"],
            &table(epsilon(llama(32)).entry(b"llama.rope.scaling.type", 8, &string(b"dynamic"))),
        ),
        gguf(
            Refusal::DivisorShape,
            &["tensor rope_freqs.weight: expected shape [4], found [3]"],
            &table(epsilon(llama(32))).tensor("rope_freqs.weight", &[3], 0, &[0; 12]),
        ),
        gguf(
            Refusal::DivisorType,
            &["tensor rope_freqs.weight: expected F32, found F16"],
            &table(epsilon(llama(32))).tensor("rope_freqs.weight", &[4], 1, &[0; 8]),
        ),
        gguf(
            Refusal::GgmlType,
            &["tensor token_embd.weight: Q8_K (GGML type 15) is not supported"],
            &epsilon(llama(256)).tensor("token_embd.weight", &[256, 8], 15, &[0; 292 * 8]),
        ),
    ]
}

fn assets() -> Vec<Row> {
    let pieces = (1..1500).map(|length| "a".repeat(length)).collect::<Vec<_>>();
    let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    let list = |key: &str, value: &[u8]| model("llama").entry(format!("tokenizer.ggml.{key}").as_bytes(), 9, value);
    let without_json = |bytes: &[u8], refusal: Refusal, words: &'static str| {
        let folder = Folder::of("qwen2");
        fs::remove_file(folder.path("tokenizer.json")).expect("removed");
        fs::write(folder.path("tokenizer.model"), bytes).expect("written");
        (refusal, vec!["tokenizer.model: ", words], folder.error())
    };
    // ModelProto: pieces (field 1) with their text (field 1), trainer_spec (field 2) with its model_type (field 3).
    let kind = |kind: u8| vec![0x12, 2, 0x18, kind];
    let mut many = kind(2);
    for piece in &pieces {
        let length = |length: usize| [0x80 | (length & 0x7f) as u8, (length >> 7) as u8];
        many.push(0x0a);
        many.extend(length(piece.len() + 3));
        many.push(0x0a);
        many.extend(length(piece.len()));
        many.extend(*piece);
    }
    vec![
        file(
            Refusal::SamplingNumber,
            &["generation_config.json: temperature: expected a number, found \"hot\""],
            "generation_config.json",
            Some(br#"{"temperature": "hot"}"#),
        ),
        file(
            Refusal::SamplingCount,
            &["generation_config.json: top_k: expected an integer, found 0.5"],
            "generation_config.json",
            Some(br#"{"top_k": 0.5}"#),
        ),
        file(
            Refusal::SamplingFlag,
            &["generation_config.json: do_sample: expected true or false, found \"yes\""],
            "generation_config.json",
            Some(br#"{"do_sample": "yes"}"#),
        ),
        config(
            Refusal::SpecialTokenId,
            "qwen2",
            "eos_token_id",
            json!([2, "</s>"]),
            "expected a token's id, or a list",
        ),
        file(Refusal::TemplateText, &["chat_template.jinja: ", "expected UTF-8"], "chat_template.jinja", Some(b"\xff")),
        file(
            Refusal::NoVocabulary,
            &["tokenizer.json: key model.vocab is missing"],
            "tokenizer.json",
            Some(br#"{"model": {"type": "BPE"}}"#),
        ),
        file(
            Refusal::NoTokenizer,
            &["expected tokenizer.json or tokenizer.model, found neither"],
            "tokenizer.json",
            None,
        ),
        {
            let folder = Folder::of("qwen2");
            folder.edit_json("config.json", |config| drop(config.insert("bos_token_id".to_owned(), json!(99))));
            folder.edit_json("tokenizer_config.json", |config| {
                config.insert("bos_token".to_owned(), json!("<first>"));
                config.insert("add_bos_token".to_owned(), json!(true));
                // A class of which the keys count.
                config.insert("tokenizer_class".to_owned(), json!("LlamaTokenizer"));
                config
                    .insert("added_tokens_decoder".to_owned(), json!({"99": {"content": "<first>", "special": true}}));
            });
            (
                Refusal::FirstToken,
                vec!["config.json: bos_token_id: expected an id below 88 for the token that begins a text, found 99"],
                folder.error(),
            )
        },
        tokenizer(Refusal::NoTokenizerName, &["model is missing"], &vocabulary()),
        tokenizer(Refusal::TokenizerName, &["model: the tokenizer \"rwkv\" is not supported"], &model("rwkv")),
        tokenizer(Refusal::NoPreTokenizer, &["pre is missing"], &model("gpt2")),
        tokenizer(
            Refusal::PreTokenizer,
            &["pre: the pre-tokenizer \"odd\" is not supported"],
            &model("gpt2").entry(b"tokenizer.ggml.pre", 8, &string(b"odd")),
        ),
        tokenizer(
            Refusal::Pieces,
            &["tokens: expected merges of at most"],
            &Gguf::new().entry(b"tokenizer.ggml.model", 8, &string(b"llama")).entry(
                b"tokenizer.ggml.tokens",
                9,
                &strings(&pieces),
            ),
        ),
        tokenizer(
            Refusal::TokenizerValue,
            &["add_bos_token: expected a bool, found u32"],
            &model("llama").entry(b"tokenizer.ggml.add_bos_token", 4, &1u32.to_le_bytes()),
        ),
        tokenizer(
            Refusal::SpecialToken,
            &["bos_token_id: expected an id below 3, found 3"],
            &model("llama").entry(b"tokenizer.ggml.bos_token_id", 5, &3i32.to_le_bytes()),
        ),
        tokenizer(Refusal::NoStrings, &["tokens is missing"], &Gguf::new()),
        tokenizer(
            Refusal::Strings,
            &["tokens: expected an array of strings, found u32"],
            &Gguf::new().entry(b"tokenizer.ggml.tokens", 4, &1u32.to_le_bytes()),
        ),
        tokenizer(
            Refusal::StringText,
            &["tokens: item 0 is not UTF-8: \"\\xff\""],
            &Gguf::new().entry(b"tokenizer.ggml.tokens", 9, &strings(&[b"\xff"])),
        ),
        tokenizer(Refusal::Numbers, &["scores: expected an array of numbers"], &list("scores", &strings(&[b"a"]))),
        tokenizer(
            Refusal::NumberCount,
            &["scores: expected 3 items, as many as tokens, found 1"],
            &list("scores", &[array(6, 1), 1f32.to_le_bytes().to_vec()].concat()),
        ),
        tokenizer(
            Refusal::Merge,
            &["merges: item 0: expected two pieces, found \"ab\""],
            &model("gpt2").entry(b"tokenizer.ggml.pre", 8, &string(b"llama-bpe")).entry(
                b"tokenizer.ggml.merges",
                9,
                &strings(&[b"ab"]),
            ),
        ),
        without_json(&[0x0a, 0xff, 0x01], Refusal::SentencePiece, "expected a SentencePiece model, found damaged"),
        without_json(&kind(1), Refusal::SentencePieceKind, "trainer_spec.model_type: only BPE models are converted"),
        without_json(&[0x1a, 5, 0x12, 3, 1, 2, 3], Refusal::SentencePieceMap, "precompiled_charsmap: expected a trie"),
        without_json(&many, Refusal::SentencePiecePieces, "pieces: expected merges of at most"),
    ]
}

#[test]
fn every_refusal() {
    let rows: Vec<Row> = [configurations(), mixtures(), tensors(), xielu::rows(), toolchains::rows(), assets()]
        .into_iter()
        .flatten()
        .collect();
    for (refusal, words, error) in &rows {
        let line = error.to_string();
        assert_eq!(error.refusal(), Some(*refusal), "{line}");
        assert!(!line.contains('\n'), "{refusal:?}: {line}");
        for word in words {
            assert!(line.contains(word), "{refusal:?}: {word:?} is not in {line}");
        }
    }
    let missing: Vec<_> = Refusal::ALL.iter().filter(|known| !rows.iter().any(|(row, ..)| row == *known)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[test]
fn what_a_variant_tells_alone() {
    let error = load(std::path::Path::new("/nonexistent/m.gguf")).expect_err("a refusal");
    assert!(matches!(&error, FrontendError::Io { path, .. } if path.ends_with("m.gguf")), "{error}");
    let (.., error) = file(Refusal::NoConfig, &[], "config.json", Some(b"{"));
    assert!(matches!(&error, FrontendError::Json { file, .. } if file == "config.json"), "{error}");
    let (.., error) = config(Refusal::NoConfig, "qwen2", "model_type", json!("mamba"), "");
    assert!(matches!(&error, FrontendError::UnknownArchitecture { found, .. } if found == "mamba"), "{error}");
    let (.., error) = weights(Refusal::NoConfig, &[], |weights| weights.add("extra", "F32", &json!([4])));
    assert!(matches!(&error, FrontendError::UnreadTensor { tensor, .. } if tensor == "extra"), "{error}");
    let (.., error) = file(Refusal::NoConfig, &[], "model.safetensors", Some(b""));
    assert!(matches!(&error, FrontendError::Container(_)) && error.refusal().is_none(), "{error}");
}
