//! Inputs for the checkpoint readers: whatever the bytes are, a reader answers with a checkpoint or an error.
//!
//! A function per fuzz target. Each returns whether its input was accepted, so that a test can tell that its seeds reach
//! beyond the first check.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use forge_formats::Repacked;
use forge_frontend::checkpoint::{GgufFile, SafetensorsSet};
use forge_frontend::graph::{FileRange, Graph, Source};
use forge_frontend::{Assets, Checkpoint, load};
use forge_runtime::tokenizer::Tokenizer;

/// Separates the files of an input that stands for several.
pub const SEPARATOR: u8 = 0;

/// Texts that every tokenizer is tried on: words, blanks, digits, other scripts, bytes that few vocabularies have.
const TEXTS: [&str; 4] =
    ["Hello world, it's 2024!", "  \n\t  ", "été 你好 🙂 e\u{301}", "<s></s><|im_end|>aaaaaaaaaaaaaaaa"];

/// A GGUF file: the container, the graph and the tokenizer in it.
pub fn gguf(data: &[u8]) -> bool {
    with_gguf(data, |checkpoint| look_at(checkpoint))
}

/// Gives what a GGUF file holds to `check`.
pub fn with_gguf(data: &[u8], check: impl Fn(&mut Checkpoint) -> bool) -> bool {
    let path = write("model.gguf", data);
    if let Ok(gguf) = GgufFile::open(&path) {
        for tensor in gguf.tensors() {
            gguf.data(tensor);
        }
    }
    load(&path).is_ok_and(|mut checkpoint| check(&mut checkpoint))
}

/// What the tensors of other toolchains' folders are called, and what config.json says of them.
const TOOLCHAINS: [(&str, &str); 7] = [
    ("qweight", r#""quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true}, "#),
    ("qweight", r#""quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}, "#),
    ("weight_packed", r#""quantization_config": {"quant_method": "compressed-tensors"}, "#),
    ("weight_scale_2", r#""quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "#),
    (".scales", r#""quantization": {"mode": "nvfp4", "group_size": 16, "bits": 4}, "#),
    (".scales", r#""quantization": {"mode": "mxfp8", "group_size": 32, "bits": 8}, "#),
    ("F8_E4M3", r#""quantization_config": {"quant_method": "fp8", "weight_block_size": [8, 32]}, "#),
];

fn contains(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A safetensors file, alone and in a folder with the configuration of a small Llama, also as other toolchains' where its tensors are
/// called as theirs.
pub fn safetensors(data: &[u8]) -> bool {
    with_safetensors(data, |checkpoint| look_at(checkpoint))
}

/// Gives what such folders hold to `check`.
pub fn with_safetensors(data: &[u8], check: impl Fn(&mut Checkpoint) -> bool) -> bool {
    let path = write("st/model.safetensors", data);
    if let Ok(set) = SafetensorsSet::open_file(&path) {
        for tensor in set.tensors().values() {
            set.data(tensor);
        }
    }
    write("st/tokenizer.json", TOKENIZER_JSON.as_bytes());
    let mut accepted = false;
    for settings in [""].into_iter().chain(TOOLCHAINS.iter().filter(|(mark, _)| contains(data, mark)).map(|(_, s)| *s))
    {
        write("st/config.json", LLAMA_CONFIG.replacen('{', &format!("{{{settings}"), 1).as_bytes());
        accepted |= load(&folder().join("st")).is_ok_and(|mut checkpoint| check(&mut checkpoint));
    }
    accepted
}

/// A folder's config.json and model.safetensors.index.json; weights are in one file, or in two where there is an index.
pub fn config(data: &[u8]) -> bool {
    let mut parts = data.splitn(2, |&byte| byte == SEPARATOR);
    write("config/config.json", parts.next().unwrap_or_default());
    let root = folder().join("config");
    match parts.next() {
        Some(index) => {
            // Weights in one file would count before the index.
            remove("config/model.safetensors");
            write("config/model.safetensors.index.json", index);
        }
        None => {
            remove("config/model.safetensors.index.json");
            write("config/model.safetensors", &llama_weights(|_| true));
        }
    }
    if !root.join("tokenizer.json").exists() {
        write("config/tokenizer.json", TOKENIZER_JSON.as_bytes());
        write("config/model-00001-of-00002.safetensors", &llama_weights(|name| name.contains("self_attn")));
        write("config/model-00002-of-00002.safetensors", &llama_weights(|name| !name.contains("self_attn")));
    }
    load(&root).is_ok_and(|checkpoint| look_at(&checkpoint))
}

/// A tokenizer, by the first byte: `G` a GGUF's metadata, `S` a SentencePiece model with its tokenizer_config.json, `J`
/// tokenizer_config.json, special_tokens_map.json, generation_config.json and tokenizer.json.
pub fn tokenizer(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else { return false };
    let assets = match kind {
        b'G' => {
            let path = write("vocabulary.gguf", rest);
            GgufFile::open(&path).ok().and_then(|gguf| Assets::from_gguf(&gguf).ok())
        }
        b'S' => {
            let mut parts = rest.splitn(2, |&byte| byte == SEPARATOR);
            write("sentencepiece/config.json", br#"{"model_type": "llama"}"#);
            write("sentencepiece/tokenizer_config.json", parts.next().unwrap_or_default());
            write("sentencepiece/tokenizer.model", parts.next().unwrap_or_default());
            Assets::from_folder(&folder().join("sentencepiece")).ok()
        }
        b'J' => {
            let mut parts = rest.splitn(4, |&byte| byte == SEPARATOR);
            write("tokenizer/config.json", br#"{"model_type": "llama", "eos_token_id": [1, 2]}"#);
            for name in ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "tokenizer.json"]
            {
                write(&format!("tokenizer/{name}"), parts.next().unwrap_or_default());
            }
            Assets::from_folder(&folder().join("tokenizer")).ok()
        }
        _ => None,
    };
    assets.is_some_and(|assets| tokenize(&assets))
}

/// What a generated program does with the assets: whether its tokenizer takes them.
fn tokenize(assets: &Assets) -> bool {
    let Ok(tokenizer) = Tokenizer::from_bytes(&assets.tokenizer_json) else { return false };
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode(text, true) {
            let _ = tokenizer.decode(&ids, false);
        }
    }
    true
}

/// Every byte that the graph names is in its file; no file name leads elsewhere.
fn look_at(checkpoint: &Checkpoint) -> bool {
    assert!(checkpoint.file_names().iter().all(|name| !name.contains('/')));
    let mut bytes = 0;
    for range in ranges(&checkpoint.graph) {
        bytes += checkpoint.bytes(range).len();
    }
    assert!(bytes > 0);
    for piece in checkpoint.graph.weights.iter().flat_map(|weight| weight.source.pieces()) {
        if let Source::Repack { repack, parts, first_row } = piece {
            let parts: Vec<&[u8]> = parts.iter().map(|range| checkpoint.bytes(range)).collect();
            let _ = repack.rows(&parts, *first_row..first_row + 1, &mut Repacked::default());
        }
    }
    assert_eq!(checkpoint.graph.layers.len(), checkpoint.graph.config.num_layers);
    let _ = Tokenizer::from_bytes(&checkpoint.assets.tokenizer_json);
    true
}

fn ranges(graph: &Graph) -> impl Iterator<Item = &FileRange> {
    graph.weights.iter().flat_map(|weight| weight.source.ranges())
}

/// A folder of this thread, which goes away with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The folder of this thread's input, in memory where the system has such a place.
pub fn folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static FOLDER: Scratch = {
            let memory = Path::new("/dev/shm");
            let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            Scratch(root.join(format!("forge-hostile-{}-{number}", std::process::id())))
        };
    }
    FOLDER.with(|folder| folder.0.clone())
}

fn write(name: &str, data: &[u8]) -> PathBuf {
    let path = folder().join(name);
    fs::create_dir_all(path.parent().expect("a file of the folder")).expect("a folder for the input");
    fs::write(&path, data).expect("the input is written");
    path
}

fn remove(name: &str) -> PathBuf {
    let path = folder().join(name);
    let _ = fs::remove_file(&path);
    path
}

/// Two layers, 16 wide.
pub const LLAMA_CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
"rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"}"#;

/// Eight tokens.
pub const TOKENIZER_JSON: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{"id": 0,
"content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
"normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
"use_regex": true}, "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true,
"trim_offsets": true, "use_regex": true}, "model": {"type": "BPE", "dropout": null, "unk_token": null,
"continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
"ignore_merges": false, "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5, "d": 6, "e": 7},
"merges": [["a", "b"], ["ab", "c"]]}}"#;

/// The weights of [`LLAMA_CONFIG`] whose names are wanted, as a safetensors file.
pub fn llama_weights(wanted: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".into(), vec![8, 16]),
        ("model.norm.weight".into(), vec![16]),
        ("lm_head.weight".into(), vec![8, 16]),
    ];
    for layer in 0..2 {
        for (name, shape) in [
            ("input_layernorm", vec![16]),
            ("post_attention_layernorm", vec![16]),
            ("self_attn.q_proj", vec![16, 16]),
            ("self_attn.k_proj", vec![8, 16]),
            ("self_attn.v_proj", vec![8, 16]),
            ("self_attn.o_proj", vec![16, 16]),
            ("mlp.gate_proj", vec![32, 16]),
            ("mlp.up_proj", vec![32, 16]),
            ("mlp.down_proj", vec![16, 32]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    shapes.retain(|(name, _)| wanted(name));
    let mut header = Vec::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        header.push(format!(r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
    }
    let header = format!("{{{}}}", header.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + end, 0);
    file
}
