//! Compares a tokenizer.json with the texts, ids and decoded texts of a `tokenizer_cases.json`.

use std::path::Path;

use forge_frontend::Assets;
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper, Tokenizer};

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Every text of the case, with and without special tokens, and back; every rendered chat.
pub fn check(what: &str, assets: &Assets, cases: &Path) {
    let tokenizer = Tokenizer::from_bytes(&assets.tokenizer_json).unwrap_or_else(|error| panic!("{what}: {error}"));
    let cases: Value = serde_json::from_slice(&std::fs::read(cases).expect("cases")).expect("JSON");
    let encode = |text: &str, special| tokenizer.encode(text, special).expect("encodes").get_ids().to_vec();
    for string in cases["strings"].as_array().expect("strings") {
        let text = string["text"].as_str().expect("a text");
        assert_eq!(encode(text, true), ids(&string["ids"]), "{what}: {text:?} with special tokens");
        assert_eq!(encode(text, false), ids(&string["ids_no_special"]), "{what}: {text:?} without");
        let decoded = tokenizer.decode(&ids(&string["ids_no_special"]), false).expect("decodes");
        assert_eq!(decoded, string["decoded"].as_str().expect("a text"), "{what}: decoding {text:?}");
    }
    for chat in cases["chats"].as_array().expect("chats") {
        let text = chat["rendered"].as_str().expect("a text");
        assert_eq!(encode(text, false), ids(&chat["ids"]), "{what}: chat {text:?}");
    }
}

fn changed_by_normalizer(tokenizer: &Tokenizer, text: &str) -> bool {
    let Some(NormalizerWrapper::NFC(nfc)) = tokenizer.get_normalizer() else { return false };
    let mut normalized = NormalizedString::from(text);
    nfc.normalize(&mut normalized).expect("NFC");
    normalized.get() != text
}

/// The texts of a `.inp` file against the ids of a `.out` file; what differs.
pub fn check_vocabulary(name: &str, assets: &Assets, gguf: &Path) -> Vec<String> {
    let beside = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", gguf.display()));
    let (Ok(texts), Ok(expected)) = (beside(".inp"), beside(".out")) else { return Vec::new() };
    let tokenizer = Tokenizer::from_bytes(&assets.tokenizer_json).unwrap_or_else(|error| panic!("{name}: {error}"));
    let texts = texts.split("\n__ggml_vocab_test__\n");
    let mut failures = Vec::new();
    for (text, line) in texts.zip(expected.lines()) {
        // llama.cpp does not normalise; where the model's own tokenizer does, it is followed.
        if changed_by_normalizer(&tokenizer, text) {
            continue;
        }
        let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
        let found = tokenizer.encode(text, false).expect("encodes").get_ids().to_vec();
        if found != expected {
            failures.push(format!("{name}: {text:?}: expected {expected:?}, found {found:?}"));
        }
    }
    eprintln!("{name}: {} failures", failures.len());
    failures
}

/// A text survives encoding and decoding.
pub fn check_round_trip(name: &str, assets: &Assets, text: &str) {
    let tokenizer = Tokenizer::from_bytes(&assets.tokenizer_json).unwrap_or_else(|error| panic!("{name}: {error}"));
    let started = std::time::Instant::now();
    let ids = tokenizer.encode(text, false).expect("encodes").get_ids().to_vec();
    let decoded = tokenizer.decode(&ids, false).expect("decodes");
    let start: String = text.chars().take(3).collect();
    eprintln!("{name} {start:?}: {} ids in {:.1} s", ids.len(), started.elapsed().as_secs_f32());
    assert!(decoded == text, "{name}: {start:?}... loses text: {} bytes of {}", decoded.len(), text.len());
}
