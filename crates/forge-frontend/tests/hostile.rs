//! Hostile checkpoints: a bounded, deterministic run of every fuzz target of the readers, and the attacks that a mutation
//! would not find by chance.

#[path = "../../../fuzz/src/bounded.rs"]
mod bounded;
#[path = "checkpoint/build.rs"]
#[expect(dead_code, reason = "shared with the tests of the containers")]
mod build;
#[path = "../../../fuzz/src/frontend.rs"]
mod frontend;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use build::{Folder, Gguf, array, string};
use forge_frontend::checkpoint::GgufFile;
use forge_frontend::{Assets, load};
use forge_runtime::tokenizer::Tokenizer;

/// No attack takes a second; a machine with other things to do gets some more.
const LONGEST: Duration = Duration::from_secs(60);

#[global_allocator]
static ALLOCATOR: bounded::Counting = bounded::Counting;

#[test]
fn mutated_gguf_files() {
    let (seeds, mutations) = bounded::run("gguf", 2000, frontend::gguf);
    assert!(seeds >= 5 && mutations >= 100, "{seeds} seeds and {mutations} mutations were accepted");
}

#[test]
fn mutated_safetensors_files() {
    let (seeds, mutations) = bounded::run("safetensors", 1000, frontend::safetensors);
    assert!(seeds >= 1 && mutations >= 50, "{seeds} seeds and {mutations} mutations were accepted");
}

#[test]
fn mutated_configurations() {
    let (seeds, mutations) = bounded::run("config", 1500, frontend::config);
    assert!(seeds >= 4 && mutations >= 50, "{seeds} seeds and {mutations} mutations were accepted");
}

#[test]
fn mutated_tokenizers() {
    let (seeds, mutations) = bounded::run("tokenizer", 4000, frontend::tokenizer);
    assert!(seeds >= 8 && mutations >= 100, "{seeds} seeds and {mutations} mutations were accepted");
}

/// A folder that loads, to be spoilt.
fn whole_folder() -> Folder {
    let folder = Folder::new();
    folder.write("config.json", frontend::LLAMA_CONFIG.as_bytes());
    folder.write("tokenizer.json", frontend::TOKENIZER_JSON.as_bytes());
    folder.write("model.safetensors", &frontend::llama_weights(|_| true));
    load(folder.path()).expect("a checkpoint");
    folder
}

fn refusal(path: &Path) -> String {
    load(path).expect_err("refused").to_string()
}

#[test]
fn a_claim_is_not_memory() {
    let config = frontend::LLAMA_CONFIG.replace(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 2147483647"#);
    for model_type in ["llama", "qwen2", "gemma2", "gemma3", "olmo3", "smollm3", "granite", "phi3"] {
        let folder = whole_folder();
        folder.write("config.json", config.replace("\"llama\"", &format!("{model_type:?}")).as_bytes());
        let memory = bounded::memory_of(|| assert!(load(folder.path()).is_err(), "{model_type}"));
        assert!(memory < 1 << 20, "{model_type}: {memory} bytes");
    }
    let claims = [
        Gguf::new().entry(b"k", 9, &array(5, 1 << 60)).bytes(),
        Gguf::new().entry(b"k", 9, &array(8, 1 << 60)).bytes(),
        Gguf::new().entry(b"k", 9, &array(9, u64::MAX)).bytes(),
        Gguf::new().entry(b"k", 8, &(1u64 << 60).to_le_bytes()).bytes(),
        Gguf::new().info(b"t", &[1 << 30, 1 << 30], 0, 0).bytes(),
        Gguf::new().info(b"t", &[u64::MAX, 1], 0, 0).bytes(),
        Gguf { entry_count: u64::MAX, ..Gguf::new() }.bytes(),
        Gguf { tensor_count: 1 << 60, ..Gguf::new() }.bytes(),
    ];
    let folder = Folder::new();
    for (number, bytes) in claims.iter().enumerate() {
        let path = folder.write("claim.gguf", bytes);
        let memory = bounded::memory_of(|| assert!(GgufFile::open(&path).is_err(), "{number}"));
        assert!(memory < 1 << 20, "claim {number}: {memory} bytes");
    }
    // A header of brackets, which as parsed values would take thirty times as much.
    let header = format!("{{\"a\":[{}0]}}", "[],".repeat(2_000_000));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let folder = whole_folder();
    folder.write("model.safetensors", &bytes);
    let memory = bounded::memory_of(|| assert!(refusal(folder.path()).contains("tensor a:")));
    assert!(memory < 2 * bytes.len(), "{memory} bytes");
}

#[test]
fn empty_tensors_of_any_width() {
    let folder = whole_folder();
    let header = r#"{"a.weight":{"dtype":"U32","shape":[0,2305843009213693952],"data_offsets":[0,0]},
        "a.scales":{"dtype":"F16","shape":[0,1],"data_offsets":[0,0]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    folder.write("model.safetensors", &bytes);
    let quantized = r#"{"quantization": {"bits": 4, "group_size": 32}, "#;
    folder.write("config.json", frontend::LLAMA_CONFIG.replacen('{', quantized, 1).as_bytes());
    assert!(refusal(folder.path()).contains("tensor a.weight"));
}

#[test]
fn no_path_leads_out_of_the_folder() {
    for name in ["../w.safetensors", "/etc/passwd", "..", "a/../../w", "..\\w", "C:w", "", "a\0b", "sub/w.safetensors"]
    {
        let folder = whole_folder();
        let index = serde_json::json!({ "weight_map": { "model.norm.weight": name } });
        folder.write("model.safetensors.index.json", index.to_string().as_bytes());
        let message = refusal(folder.path());
        assert!(message.contains("expected the name of a file in the same folder"), "{name:?}: {message}");
    }
    // A tensor's name is a name, whatever it looks like.
    let folder = Folder::new();
    let path = folder.write("names.gguf", &Gguf::new().tensor("../../outside", &[4], 0, &[0; 16]).bytes());
    assert!(GgufFile::open(&path).expect("a GGUF").tensor("../../outside").is_some());
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    // A split file's siblings have its own name.
    let split = Gguf::new().entry(b"split.count", 4, &2u32.to_le_bytes()).entry(b"split.no", 4, &0u32.to_le_bytes());
    let path = folder.write("x-00001-of-00002.gguf", &split.bytes());
    assert!(GgufFile::open(&path).expect_err("the other part").to_string().contains("x-00002-of-00002.gguf"));
}

#[cfg(unix)]
#[test]
fn links_and_pipes() {
    use std::os::unix::fs::symlink;

    let outside = Folder::new();
    outside.write("secret", b"{}");
    let secret = outside.path().join("secret");
    const FILES: [&str; 6] = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
    ];
    for name in FILES {
        let folder = whole_folder();
        let _ = std::fs::remove_file(folder.path().join(name));
        symlink(&secret, folder.path().join(name)).expect("a link");
        let message = refusal(folder.path());
        assert!(message.contains("a link out of the model folder"), "{name}: {message}");
        let _ = std::fs::remove_file(folder.path().join(name));
        std::fs::create_dir(folder.path().join(name)).expect("a folder");
        assert!(refusal(folder.path()).contains("expected a regular file"), "{name}");
    }
    // Without a writer, to open a pipe is to wait for ever.
    for name in ["config.json", "model.safetensors"] {
        let folder = whole_folder();
        let path = folder.path().join(name);
        std::fs::remove_file(&path).expect("a file");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success() && refusal(folder.path()).contains("expected a regular file"), "{name}");
    }
    let folder = whole_folder();
    std::fs::remove_file(folder.path().join("config.json")).expect("a file");
    symlink("/dev/zero", folder.path().join("config.json")).expect("a link");
    assert!(refusal(folder.path()).contains("expected a regular file"));

    // As the Hugging Face cache has them.
    let cache = Folder::new();
    let (blobs, snapshot) = (cache.path().join("m/blobs"), cache.path().join("m/snapshots/r"));
    std::fs::create_dir_all(&blobs).expect("a folder");
    std::fs::create_dir_all(&snapshot).expect("a folder");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(folder_file(&whole_folder(), name), blobs.join(name)).expect("a copy");
        symlink(Path::new("../../blobs").join(name), snapshot.join(name)).expect("a link");
    }
    load(&snapshot).expect("a checkpoint");
}

#[test]
fn names_are_fit_for_a_terminal() {
    let folder = whole_folder();
    let name = r#"{"_name_or_path": "\u001b]0;owned\u0007\r\nx", "#;
    folder.write("config.json", frontend::LLAMA_CONFIG.replacen('{', name, 1).as_bytes());
    let name = load(folder.path()).expect("a checkpoint").graph.config.name;
    assert_eq!(name, " ]0;owned   x");
}

fn folder_file(folder: &Folder, name: &str) -> PathBuf {
    folder.path().join(name)
}

fn strings(items: impl ExactSizeIterator<Item = String>) -> Vec<u8> {
    let mut out = array(8, items.len() as u64);
    items.for_each(|item| out.extend(string(item.as_bytes())));
    out
}

fn ggml_tokenizer(model: &str, pre: &str, tokens: impl ExactSizeIterator<Item = String>) -> Gguf {
    Gguf::new()
        .entry(b"tokenizer.ggml.model", 8, &string(model.as_bytes()))
        .entry(b"tokenizer.ggml.pre", 8, &string(pre.as_bytes()))
        .entry(b"tokenizer.ggml.tokens", 9, &strings(tokens))
        .entry(b"tokenizer.ggml.merges", 9, &strings(std::iter::empty::<String>()))
}

/// The assets of a GGUF, in the time that any input may take.
fn assets(gguf: &Gguf) -> Result<Assets, String> {
    let folder = Folder::new();
    let path = folder.write("vocabulary.gguf", &gguf.bytes());
    let start = Instant::now();
    let assets = Assets::from_gguf(&GgufFile::open(&path).expect("a GGUF")).map_err(|error| error.to_string());
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    assets
}

#[test]
fn vocabularies_that_join_in_every_way() {
    // Runs of one letter, each of which is any two shorter ones.
    let runs = ggml_tokenizer("llama", "default", (1..1500).map(|length| "a".repeat(length)));
    assert!(assets(&runs).expect_err("too many merges").contains("expected merges of at most"));
    // One token as long as a book.
    assets(&ggml_tokenizer("llama", "default", ["a".repeat(1 << 20), "a".into()].into_iter())).expect("a tokenizer");
    // As many pairs of competing merges as the square of the vocabulary, all of one score.
    let words = |number: usize| ["".to_owned(), "a".to_owned()].map(|a| format!("{a}{number:x}b"));
    let competing: Vec<String> = ["a".to_owned()]
        .into_iter()
        .chain((0..20_000).flat_map(|n| [format!("{n:x}ba")].into_iter().chain(words(n))))
        .collect();
    assets(&ggml_tokenizer("llama", "default", competing.into_iter())).expect("a tokenizer");
}

#[test]
fn as_many_added_tokens_as_can_be() {
    let folder = whole_folder();
    let mut added = String::new();
    for id in 8..30_000 {
        let _ = write!(added, r#"{}"{id}":{{"content":"<{id}>"}}"#, if id == 8 { "" } else { "," });
    }
    folder.write("tokenizer_config.json", format!(r#"{{"added_tokens_decoder":{{{added}}}}}"#).as_bytes());
    let start = Instant::now();
    load(folder.path()).expect("a checkpoint");
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
}

#[test]
fn files_too_long_for_what_they_are() {
    let folder = whole_folder();
    std::fs::File::create(folder.path().join("config.json"))
        .and_then(|file| file.set_len(1 << 40))
        .expect("a sparse file");
    let memory = bounded::memory_of(|| assert!(refusal(folder.path()).contains("expected at most")));
    assert!(memory < 1 << 20, "{memory} bytes");
}

/// GPT-2's byte-level alphabet.
fn bytes_as_characters() -> impl ExactSizeIterator<Item = String> {
    let mut spare = 0x100;
    let character = move |byte: u8| {
        if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
            return char::from(byte).to_string();
        }
        spare += 1;
        char::from_u32(spare - 1).expect("a character").to_string()
    };
    (0..=255u8).map(character).collect::<Vec<_>>().into_iter()
}

#[test]
fn a_megabyte_of_one_character() {
    let mut tokenizers = vec![(
        "sentencepiece",
        ggml_tokenizer("llama", "default", (0..256).map(|byte| format!("<0x{byte:02X}>")))
            .entry(b"tokenizer.ggml.token_type", 9, &[array(5, 256), 6i32.to_le_bytes().repeat(256)].concat())
            .entry(b"tokenizer.ggml.add_space_prefix", 7, &[0]),
    )];
    for pre in ["llama-bpe", "tekken", "deepseek-v3"] {
        tokenizers.push((pre, ggml_tokenizer("gpt2", pre, bytes_as_characters())));
    }
    for (name, gguf) in tokenizers {
        let assets = assets(&gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tokenizer = Tokenizer::from_bytes(&assets.tokenizer_json).expect("a tokenizer");
        for unit in ["a", " "] {
            let long = unit.repeat(1 << 20);
            let start = Instant::now();
            let ids = tokenizer.encode(&long, false);
            assert!(start.elapsed() < LONGEST, "{name}: {unit:?} took {:?}", start.elapsed());
            match ids {
                Ok(ids) => assert!(tokenizer.decode(&ids, false).expect("a text") == long, "{name}: {unit:?} is lost"),
                // A refusal loses nothing; of the engine's limits only that on blanks is known.
                Err(error) => assert!(unit == " ", "{name}: {unit:?}: {error}"),
            }
        }
    }
}
