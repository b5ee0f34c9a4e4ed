//! The cases under `tests/fixtures` and, where `FORGE_CASES` names a folder of cases, those in it: logits of the graph
//! against the reference, and the tokenizer against the recorded texts.

mod configurations;
mod import;
mod interpreter;
mod latent;
mod mixture;
mod recurrent;
mod tokenizer;

use std::path::{Path, PathBuf};

use forge_frontend::checkpoint::{GgufFile, SafetensorsSet};
use forge_frontend::{Assets, Checkpoint, load};

/// Checkpoints of a case folder: name and path.
fn checkpoints(case: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(case).expect("a case folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(kind) = name.strip_prefix("model.").and_then(|rest| rest.strip_suffix(".gguf")) {
            found.push((kind.to_owned(), entry.path()));
        } else if ["hf", "mlx"].iter().any(|form| name.split('-').next() == Some(form))
            && entry.path().join("config.json").exists()
        {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    found
}

/// Every case folder that is at hand.
fn cases() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = vec![own.join("tests/fixtures/tiny"), own.join("../../tests/fixtures/models")];
    roots.extend(std::env::var_os("FORGE_CASES").map(PathBuf::from));
    let folders = roots.iter().flat_map(|root| std::fs::read_dir(root).expect("a folder of cases")).flatten();
    let mut cases: Vec<PathBuf> =
        folders.map(|entry| entry.path()).filter(|path| path.join("reference.safetensors").exists()).collect();
    cases.sort();
    cases
}

fn describe(case: &Path, kind: &str) -> String {
    format!("{} {kind}", case.file_name().expect("a folder").to_string_lossy())
}

#[test]
fn logits_match_the_reference() {
    let mut compared = 0;
    let mut wrong: Vec<String> = Vec::new();
    for case in cases() {
        let Ok(reference) = SafetensorsSet::open_file(&case.join("reference.safetensors")) else { continue };
        let floats = |name: &str| {
            let tensor = reference.tensors().get(name)?;
            let bytes = reference.data(tensor).chunks_exact(4);
            Some(bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>())
        };
        let ids = &reference.tensors()["input_ids"];
        let ids: Vec<u32> =
            reference.data(ids).chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        for (kind, path) in checkpoints(&case) {
            let what = describe(&case, &kind);
            let Some(expected) = floats(&format!("{kind}.logits")).or_else(|| match kind.as_str() {
                "hf" | "hf-bf16" | "F32" | "BF16" | "MIXED" | "MXFP4" | "mlx" | "Q1_0_g128" | "TQ2_0_g128" => {
                    floats("logits")
                }
                _ => None,
            }) else {
                continue;
            };
            let checkpoint = match load(&path) {
                Ok(checkpoint) => checkpoint,
                Err(error) if std::env::var_os("FORGE_CASES").is_some() => {
                    eprintln!("{what}: {error}");
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            let found: Vec<f32> = interpreter::logits(&checkpoint, &ids).concat();
            assert_eq!(found.len(), expected.len(), "{what}");
            // `f32::max` would pass over what is not a number.
            let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, |most: f32, difference| {
                if difference.is_nan() { f32::INFINITY } else { most.max(difference) }
            });
            eprintln!("{what}: largest difference {largest:.2e}");
            if largest >= 1e-3 {
                wrong.push(what);
            }
            compared += 1;
        }
    }
    assert!(compared > 0);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn tokenizers_reproduce_the_recorded_ids() {
    let mut compared = 0;
    for case in cases() {
        for (kind, path) in checkpoints(&case) {
            let recorded = case.join("tokenizer_cases.json");
            if !recorded.exists() {
                continue;
            }
            let what = describe(&case, &kind);
            let assets = match load(&path) {
                Ok(Checkpoint { assets, .. }) => assets,
                Err(error) if std::env::var_os("FORGE_CASES").is_some() => {
                    eprintln!("{what}: {error}");
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            tokenizer::check(&what, &assets, &recorded);
            compared += 1;
        }
    }
    assert!(compared > 0);
}

/// Folders with tokenizers alone: `vocabulary.gguf`, `hf`, and `sentencepiece` with a tokenizer.model.
#[test]
fn tokenizers_come_from_every_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers");
    for case in ["qwen3", "gemma3"].map(|name| root.join(name)) {
        let gguf = GgufFile::open(&case.join("vocabulary.gguf")).expect("a GGUF");
        let mut sources = vec![("gguf", Assets::from_gguf(&gguf)), ("hf", Assets::from_folder(&case.join("hf")))];
        if case.join("sentencepiece").exists() {
            sources.push(("sentencepiece", Assets::from_folder(&case.join("sentencepiece"))));
        }
        let ends: Vec<Vec<u32>> = sources
            .into_iter()
            .map(|(kind, assets)| {
                let assets = assets.unwrap_or_else(|error| panic!("{}: {error}", describe(&case, kind)));
                tokenizer::check(&describe(&case, kind), &assets, &case.join("tokenizer_cases.json"));
                assert!(assets.chat_template.is_some());
                assets.generation.end_token_ids
            })
            .collect();
        assert!(!ends[0].is_empty() && ends.iter().all(|ids| *ids == ends[0]), "{ends:?}");
    }
}

/// A folder with a unigram model: its tokens are found, and the text comes back.
#[test]
fn unigram_models_of_folders_are_taken_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let pieces: Vec<(&str, f64)> = vec![
        ("<unk>", 0.0),
        ("<s>", 0.0),
        ("</s>", 0.0),
        ("\u{2581}", -3.0),
        ("a", -3.0),
        ("b", -3.5),
        ("\u{2581}ab", -4.0),
    ];
    let metaspace =
        serde_json::json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": metaspace, "post_processor": null, "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false},
    });
    let config = r#"{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}"#;
    for (name, text) in [
        ("tokenizer.json", tokenizer.to_string()),
        ("tokenizer_config.json", config.to_owned()),
        ("config.json", r#"{"model_type": "llama"}"#.to_owned()),
    ] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let assets = Assets::from_folder(folder.path()).expect("assets");
    assert_eq!(assets.generation.end_token_ids, [2]);
    let tokenizer = tokenizers::Tokenizer::from_bytes(&assets.tokenizer_json).expect("a tokenizer");
    let encoded = tokenizer.encode("ab ba", true).expect("encodes");
    assert_eq!(encoded.get_ids(), [1, 6, 3, 5, 4]);
    assert_eq!(tokenizer.decode(&encoded.get_ids()[1..], false).expect("decodes"), "ab ba");
}

/// A megabyte of one character, and of a character repeated before another, comes back whole.
#[test]
fn long_repetitions_keep_their_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers");
    for name in ["qwen3", "gemma3"] {
        let gguf = GgufFile::open(&root.join(name).join("vocabulary.gguf")).expect("a GGUF");
        let assets = Assets::from_gguf(&gguf).expect("assets");
        for text in ["a", " "].map(|unit| unit.repeat(1_000_000 / unit.len())) {
            tokenizer::check_round_trip(name, &assets, &text);
            tokenizer::check_round_trip(name, &assets, &format!("{text}x"));
        }
    }
}

/// `FORGE_VOCABULARIES` may name a folder of vocabulary-only GGUFs with `.inp` and `.out` beside them, as llama.cpp's
/// sources have.
#[test]
#[ignore = "needs the folder that FORGE_VOCABULARIES names"]
fn vocabularies_reproduce_llama_cpp_ids() {
    let folder = std::env::var_os("FORGE_VOCABULARIES").expect("FORGE_VOCABULARIES names a folder");
    let mut failures = Vec::new();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".gguf"));
    paths.sort();
    assert!(!paths.is_empty(), "no GGUF in the folder that FORGE_VOCABULARIES names");
    for path in paths {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        match Assets::from_gguf(&GgufFile::open(&path).expect("a GGUF")) {
            Err(error) => eprintln!("{name}: {error}"),
            Ok(assets) => failures.extend(tokenizer::check_vocabulary(&name, &assets, &path)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
