//! Tokenizers of many configurations against independent implementations, on 2,000 texts each: `fixtures/configurations`,
//! written by `tests/python/tokenizer_fixtures.py`, whose head describes the files.

use std::fs;
use std::path::{Path, PathBuf};

use forge_frontend::Assets;
use forge_frontend::checkpoint::GgufFile;
use forge_runtime::tokenizer::{Detokenizer, Tokenizer};
use serde_json::{Map, Value};

/// Failures of a case that are shown.
const SHOWN: usize = 6;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/configurations")
}

fn json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn str_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key}: {value}"))
}

/// The assets of a case, from its files as the manifest changes them.
fn assets(name: &str, case: &Value) -> Assets {
    let checked = |assets: Result<Assets, _>| assets.unwrap_or_else(|error| panic!("{name}: {error}"));
    if let Some(gguf) = case["gguf"].as_str() {
        return checked(Assets::from_gguf(&GgufFile::open(&root().join(gguf)).expect("a GGUF")));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let copied = case["copy"].as_array().into_iter().flatten().map(|file| root().join(file.as_str().expect("a path")));
    let own =
        fs::read_dir(root().join(str_of(case, "folder"))).expect("a folder").map(|file| file.expect("a file").path());
    for file in own.chain(copied) {
        fs::copy(&file, folder.path().join(file.file_name().expect("a name"))).expect("copied");
    }
    let change = |file: &str, changed: Map<String, Value>| {
        let path = folder.path().join(file);
        let mut whole = json(&path);
        whole.as_object_mut().expect("an object").extend(changed);
        fs::write(path, whole.to_string()).expect("written");
    };
    if let Some(keys) = case["tokenizer_config"].as_object() {
        change("tokenizer_config.json", keys.clone());
    }
    if let Some(kind) = case["post_processor"].as_str() {
        let processor = json(&root().join("bos/post_processors.json"))[kind].clone();
        change("tokenizer.json", Map::from_iter([("post_processor".to_owned(), processor)]));
    }
    checked(Assets::from_folder(folder.path()))
}

/// The three base64 digits that stand for a result.
fn digits(ids: &[u32], text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).chain(text.bytes());
    let hash = bytes.fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    [12, 6, 0].iter().map(|shift| char::from(DIGITS[(hash >> shift & 63) as usize])).collect()
}

/// What is given out piece by piece.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = Detokenizer::new(tokenizer);
    let mut text: String = ids.iter().map(|id| stream.push(*id).expect("decodes")).collect();
    text += &stream.finish().expect("decodes");
    text
}

/// What differs in a case; `texts` are those of its kind.
fn failures(name: &str, case: &Value, texts: &[String]) -> Vec<String> {
    let tokenizer =
        Tokenizer::from_bytes(&assets(name, case).tokenizer_json).unwrap_or_else(|error| panic!("{name}: {error}"));
    let results = json(&root().join("results").join(str_of(case, "results")));
    let lines = results["hashes"].as_array().expect("lines").iter().map(|line| line.as_str().expect("text"));
    let hashes: Vec<char> = lines.flat_map(str::chars).collect();
    assert!(texts.len() == 2000 && hashes.len() == 3 * texts.len(), "{name}: {} digits", hashes.len());
    let mut wrong = Vec::new();
    for (number, (text, expected)) in texts.iter().zip(hashes.chunks(3)).enumerate() {
        let ids = tokenizer.encode(text, true).expect("encodes");
        let whole = tokenizer.decode(&ids, false).expect("decodes");
        let decoded = if case["decoded"] == true { whole } else { String::new() };
        if digits(&ids, &decoded) != expected.iter().collect::<String>() {
            let tokens: Vec<String> = ids.iter().map(|id| tokenizer.token(*id).unwrap_or_default()).collect();
            let sample = results["sample"].get(number).map(|sample| format!("; expected {sample}")).unwrap_or_default();
            wrong.push(format!("{name} {number}: {text:?}: found {ids:?} {tokens:?} {decoded:?}{sample}"));
        }
        let whole = tokenizer.decode(&ids, true).expect("decodes");
        let pieces = streamed(&tokenizer, &ids);
        if pieces != whole {
            wrong.push(format!("{name} {number}: {text:?}: streamed as {pieces:?}, decoded as {whole:?}"));
        }
    }
    wrong
}

/// Every case whose name begins with `prefix`; `least` are how many there must be.
fn check(prefix: &str, least: usize) {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (name, case) in json(&root().join("cases.json")).as_object().expect("cases") {
        if !name.starts_with(prefix) {
            continue;
        }
        let texts = json(&root().join(format!("texts-{}.json", str_of(case, "texts"))));
        let texts: Vec<String> = serde_json::from_value(texts).expect("texts");
        let failures = failures(name, case, &texts);
        if !failures.is_empty() {
            let shown = failures[..failures.len().min(SHOWN)].join("\n");
            wrong.push(format!("{name}: {} failures against {}\n{shown}", failures.len(), str_of(case, "reference")));
        }
        compared += 1;
    }
    assert!(compared >= least, "{compared} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sentencepiece_models_as_sentencepiece_has_them() {
    check("spm/", 19);
}

#[test]
fn role_tokens_of_ggufs_as_llama_cpp_has_them() {
    check("gguf/", 4);
}

#[test]
fn added_tokens_as_transformers_has_them() {
    check("added/", 6);
}

#[test]
fn tokens_around_a_text_as_transformers_has_them() {
    check("bos/", 135);
}
