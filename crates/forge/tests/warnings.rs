//! Warnings: `gen` shows each, `inspect` lists the same, and neither changes its exit code for one.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{Scratch, assert_error, forge, generate, gguf, hf, stderr};
use forge_frontend::Warning;
use serde_json::{Map, Value, json};

/// A copy of a folder of the frontend's tests, or of the usual one.
fn copy(scratch: &Scratch, case: &str) -> PathBuf {
    let source = match case {
        "llama" => hf(),
        case => {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../forge-frontend/tests/fixtures/tiny").join(case).join("hf")
        }
    };
    let to = scratch.join("checkpoint");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

fn edit(folder: &Path, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = folder.join(name);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(json.as_object_mut().unwrap());
    fs::write(path, json.to_string()).unwrap();
}

/// Adds a tensor of one BF16 to model.safetensors.
fn add_tensor(folder: &Path, name: &str) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    header[name] = json!({ "dtype": "BF16", "shape": [1], "data_offsets": [data.len(), data.len() + 2] });
    let header = header.to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data, &[0, 0]].concat()).unwrap();
}

/// The warnings that `gen` writes to stderr.
fn shown(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stderr(output).lines().map(|line| line.strip_prefix("warning: ").expect("a warning").to_owned()).collect()
}

/// The warnings that `inspect` lists.
fn listed(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let section = text.lines().skip_while(|line| *line != "Warnings").skip(1).take_while(|line| !line.is_empty());
    section.map(|line| line.trim_start().strip_prefix("-  ").expect("an item").to_owned()).collect()
}

fn inspect(checkpoint: &Path) -> Output {
    forge().arg("inspect").arg(checkpoint).output().unwrap()
}

/// What both commands say of a checkpoint.
#[track_caller]
fn assert_warned(checkpoint: &Path, expected: &[Warning]) {
    let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    let target = Scratch::new();
    assert_eq!(shown(&generate(checkpoint, &target.join("project"), &["--quiet"])), expected);
    let output = inspect(checkpoint);
    assert_eq!((output.status.code(), &*stderr(&output)), (Some(0), ""));
    assert_eq!(listed(&output), expected);
}

#[test]
fn every_warning() {
    type Change = fn(&Path);
    let name = "model.safetensors".to_owned();
    let rows: [(&str, Change, Warning); 9] = [
        (
            "llama",
            |folder| ["vision_tower.a", "vision_tower.b"].iter().for_each(|name| add_tensor(folder, name)),
            Warning::OtherTower { file: name.clone(), tower: "vision_tower".to_owned(), tensors: 2 },
        ),
        (
            "gemma4",
            |folder| add_tensor(folder, "model.layers.4.self_attn.k_norm.weight"),
            Warning::SharedCache {
                file: name.clone(),
                first: "model.layers.4.self_attn.k_norm.weight".to_owned(),
                tensors: 1,
            },
        ),
        (
            "glm4-moe",
            |folder| {
                edit(folder, "config.json", |config| _ = config.insert("num_nextn_predict_layers".into(), json!(1)));
                add_tensor(folder, "model.layers.2.eh_proj.weight");
            },
            Warning::Predictor { file: name.clone(), first: "model.layers.2.eh_proj.weight".to_owned(), tensors: 1 },
        ),
        (
            "qwen35",
            |folder| add_tensor(folder, "mtp.fc.weight"),
            Warning::Predictor { file: name.clone(), first: "mtp.fc.weight".to_owned(), tensors: 1 },
        ),
        ("phi3-longrope", |_| {}, Warning::LongFactors { file: "config.json".to_owned(), above: 64, context: 128 }),
        (
            "llama",
            |folder| {
                let _ = fs::remove_file(folder.join("chat_template.jinja"));
                let template = |name: &str, text: &str| json!({ "name": name, "template": text });
                let templates = json!([template("default", "{{ messages }}"), template("tool_use", "{% trans %}")]);
                edit(folder, "tokenizer_config.json", |config| _ = config.insert("chat_template".into(), templates));
            },
            Warning::Template {
                file: "tokenizer_config.json".to_owned(),
                name: Some("tool_use".to_owned()),
                reason: "syntax error: unknown statement trans (line 1)".to_owned(),
            },
        ),
        (
            "llama",
            |folder| {
                let index = json!({ "weight_map": { "model.norm.weight": "model-00001-of-00002.safetensors" } });
                fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
            },
            Warning::OtherWeights { used: name, unused: "model.safetensors.index.json".to_owned() },
        ),
        (
            "llama",
            |folder| {
                let path = folder.join("config.json");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replacen('{', "{\"rms_norm_eps\": 0.5, ", 1)).unwrap();
            },
            Warning::DuplicateKey { file: "config.json".to_owned(), key: "rms_norm_eps".to_owned() },
        ),
        (
            "llama",
            |folder| {
                edit(folder, "config.json", |config| {
                    config.insert("eos_token_id".into(), json!([2, 1_000_000]));
                });
                let _ = fs::remove_file(folder.join("generation_config.json"));
            },
            Warning::TokenId { file: "config.json".to_owned(), key: "eos_token_id".to_owned(), found: 1_000_000 },
        ),
    ];
    for (case, change, expected) in rows {
        let scratch = Scratch::new();
        let folder = copy(&scratch, case);
        change(&folder);
        assert_warned(&folder, &[expected]);
    }
}

/// The usual GGUF with a marker of its template and an end of turns typed as normal text.
#[test]
fn markers_typed_as_text() {
    let mut bytes = fs::read(gguf()).unwrap();
    let find = |bytes: &[u8], text: &str| bytes.windows(text.len()).position(|at| at == text.as_bytes()).unwrap();
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    // Behind a key: the type of an array (4 bytes), that of its items (4), their number (8), the items.
    let strings = find(&bytes, "tokenizer.ggml.tokens") + "tokenizer.ggml.tokens".len() + 8;
    let types = find(&bytes, "tokenizer.ggml.token_type") + "tokenizer.ggml.token_type".len() + 16;
    let mut at = strings + 8;
    let mut typed = Vec::new();
    for id in 0..number(&bytes, strings) {
        let length = number(&bytes, at);
        let text = String::from_utf8(bytes[at + 8..at + 8 + length].to_vec()).unwrap();
        at += 8 + length;
        if ["<|start_header_id|>", "<|eot_id|>"].contains(&text.as_str()) {
            assert_eq!(bytes[types + 4 * id], 3, "a control token");
            bytes[types + 4 * id] = 1;
            typed.push(text);
        }
    }
    let scratch = Scratch::new();
    let path = scratch.join("model.gguf");
    fs::write(&path, bytes).unwrap();
    assert_warned(
        &path,
        &[Warning::Markers { file: "model.gguf".to_owned(), first: typed[0].clone(), tokens: typed.len() }],
    );
    assert_eq!(typed.len(), 2);
}

#[test]
fn nothing_to_warn_of() {
    assert_warned(&gguf(), &[]);
    assert_warned(&hf(), &[]);
}

#[test]
fn warnings_beside_a_refusal() {
    let scratch = Scratch::new();
    let folder = copy(&scratch, "llama");
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replacen('{', "{\"num_experts\": 3, \"num_experts\": 4, ", 1)).unwrap();
    let output = inspect(&folder);
    assert_error(&output, &["unsupported: config.json: num_experts = 4 is not supported"]);
    assert_eq!(listed(&output), ["config.json: num_experts: given twice, the last one counts"]);
}

#[test]
fn exit_codes() {
    let scratch = Scratch::new();
    let missing = scratch.join("nothing.gguf");
    for (args, code) in [
        (vec!["inspect".into(), gguf()], 0),
        (vec!["inspect".into(), missing.clone()], 1),
        (vec!["inspect".into()], 2),
        (vec!["inspect".into(), gguf(), "--prompt".into(), "3".into()], 2),
        (vec!["gen".into(), gguf(), "-o".into(), scratch.join("project")], 0),
        (vec!["gen".into(), missing, "-o".into(), scratch.join("other")], 1),
        (vec!["gen".into(), gguf()], 2),
        (vec!["gen".into(), gguf(), "-o".into(), scratch.join("other"), "--kv".into(), "f8".into()], 2),
        (vec!["check".into()], 2),
        (vec!["--help".into()], 0),
        (vec!["unknown".into()], 2),
    ] {
        let output = forge().args(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    }
}
