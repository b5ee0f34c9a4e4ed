//! Hugging Face and MLX folders: config.json and safetensors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;

use forge_formats::Format;
use serde_json::{Map, Value};

use super::toolchains::Folder;
use super::{Dialect, Entry, Hparams, Loaded, Stored, Tensors, apart, brief, json, mlx, without_mark};
use crate::checkpoint::{Dtype, MappedFile, SafetensorsSet, StTensor, read_in_folder};
use crate::graph::FileRange;
use crate::{FrontendError, Refusal};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// The text model's part of a config.json.
#[derive(Debug)]
pub(crate) struct TextConfig {
    /// Its `model_type`.
    pub architecture: String,
    /// `text_config.` or nothing: what errors print before a key.
    pub prefix: String,
    pub values: Map<String, Value>,
}

/// Whether the head is the embedding table.
const TIED: &str = "tie_word_embeddings";

/// Reads a folder's config.json.
pub(crate) fn text_config(folder: &Path) -> Result<TextConfig, FrontendError> {
    text_part(&config_json(folder)?)
}

/// A folder's config.json and tensors. The flag is true for an MLX folder.
pub(crate) fn load_folder(folder: &Path) -> Result<(Loaded, bool), FrontendError> {
    let config = config_json(folder)?;
    let mlx = config.get("quantization").and_then(Value::as_object);
    let TextConfig { architecture, prefix: text_prefix, mut values } = text_part(&config)?;
    let set = SafetensorsSet::open_dir(folder)?;
    let files = set.files().to_vec();
    let mut entries = plain_entries(&set, &files);
    if let Some(quantization) = mlx {
        mlx::join_modules(&mut entries, &set, quantization)?;
    }
    let exported = model_opt(folder)?;
    if let Some(settings) = other_quantization(&config, mlx.is_some()).or(exported.as_ref()) {
        Folder { entries: &mut entries, set: &set, files: &files, settings }.join()?;
    }
    apart::join_blocks(&mut entries, &set)?;
    let (prefix, head_prefix) = prefixes(&entries);
    // transformers goes by the whole model's word, whatever a text model within says, and leaves that at its default.
    if config.get(TIED) == Some(&Value::Bool(false)) && entries.contains_key(&format!("{head_prefix}lm_head.weight")) {
        values.insert(TIED.to_owned(), Value::Bool(false));
    }
    let hparams = Hparams { dialect: Dialect::HuggingFace, file: CONFIG.to_owned(), prefix: text_prefix, values };
    let tensors =
        Tensors { dialect: Dialect::HuggingFace, file: tensors_file(&files), prefix, head_prefix, entries, roles: &[] };
    let name = model_name(folder, &config);
    Ok((
        Loaded { architecture, name, hparams, tensors, files, warnings: RefCell::new(set.warnings().to_vec()) },
        mlx.is_some(),
    ))
}

fn plain_entries(set: &SafetensorsSet, files: &[MappedFile]) -> BTreeMap<String, Entry> {
    let entry = |(name, tensor): (&String, &StTensor)| {
        let range = FileRange { file: tensor.file, range: tensor.range.clone() };
        let stored = match float_format(tensor.dtype) {
            Some(format) => Stored::Rows(format, range),
            None => Stored::Foreign(tensor.dtype.as_str().to_owned()),
        };
        let file = files[tensor.file].name();
        (name.clone(), Entry { shape: tensor.shape.clone(), stored, file, used: Cell::new(false) })
    };
    set.tensors().iter().map(entry).collect()
}

/// The format of a float type that is read.
pub(super) fn float_format(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}

/// Most bytes of a JSON file that is not a tokenizer; real ones have a megabyte or two. Parsed, it takes a multiple.
const LONGEST_JSON: u64 = 16 << 20;
/// Most bytes of any other file that is read whole; real tokenizers have up to 35 MB.
const LONGEST_FILE: u64 = 256 << 20;

/// A JSON object of the folder; `None` when there is no such file.
pub(crate) fn read_json(folder: &Path, name: &str) -> Result<Option<Map<String, Value>>, FrontendError> {
    let limit = if name == TOKENIZER { LONGEST_FILE } else { LONGEST_JSON };
    let Some(bytes) = read_in_folder(folder, name, limit)? else { return Ok(None) };
    let error = |source| FrontendError::Json { file: name.to_owned(), source };
    // The library that reads a tokenizer in the project reads strict JSON alone.
    let value = match name == TOKENIZER {
        true => serde_json::from_slice(without_mark(&bytes)).map_err(error)?,
        false => json::parse(&bytes).map_err(error)?,
    };
    match value {
        Value::Object(map) => Ok(Some(map)),
        other => Err(FrontendError::KeyValue {
            refusal: Refusal::NotAnObject,
            file: name.to_owned(),
            key: "the whole file".to_owned(),
            expected: "a JSON object".to_owned(),
            found: brief(&other),
        }),
    }
}

/// The keys that a JSON file of the folder gives twice.
pub(crate) fn duplicate_keys(folder: &Path, name: &str) -> Vec<String> {
    let bytes = read_in_folder(folder, name, LONGEST_JSON).ok().flatten();
    bytes.map_or_else(Vec::new, |bytes| json::duplicate_keys(&bytes))
}

/// A file of the folder; `None` when there is none. JSON comes without a byte order mark.
pub(crate) fn read_file(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, FrontendError> {
    let bytes = read_in_folder(folder, name, LONGEST_FILE)?;
    let is_json = name.ends_with(".json");
    Ok(bytes.map(|bytes| if is_json { without_mark(&bytes).to_vec() } else { bytes }))
}

fn config_json(folder: &Path) -> Result<Map<String, Value>, FrontendError> {
    read_json(folder, CONFIG)?.ok_or_else(|| FrontendError::NotACheckpoint {
        refusal: Refusal::NoConfig,
        path: folder.to_owned(),
        expected: "a GGUF file, or a folder with config.json and safetensors files",
        found: format!("a folder without config.json{}", beside(folder)),
    })
}

/// What a folder without config.json is, where its files tell.
fn beside(folder: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    let named = |test: fn(&str) -> bool| names.iter().find(|name| test(name));
    if let Some(gguf) = named(|name| name.ends_with(".gguf")) {
        return format!(", but with {gguf} (give this file itself)");
    }
    let original =
        named(|name| name == "params.json").map(|name| format!(", but with {name} (take its Hugging Face form)"));
    original.unwrap_or_default()
}

fn text_part(config: &Map<String, Value>) -> Result<TextConfig, FrontendError> {
    let model_type = |map: &Map<String, Value>| map.get("model_type").and_then(Value::as_str).map(str::to_owned);
    let missing = || FrontendError::MissingKey {
        refusal: Refusal::NoModelType,
        file: CONFIG.to_owned(),
        key: "model_type".to_owned(),
    };
    let Some(Value::Object(text)) = config.get("text_config") else {
        let architecture = model_type(config).ok_or_else(missing)?;
        return Ok(TextConfig { architecture, prefix: String::new(), values: config.clone() });
    };
    let architecture = model_type(text).or_else(|| model_type(config)).ok_or_else(missing)?;
    let mut values = text.clone();
    for key in [TIED, "eos_token_id", "bos_token_id"] {
        if let (true, Some(value)) = (values.get(key).is_none_or(Value::is_null), config.get(key)) {
            values.insert(key.to_owned(), value.clone());
        }
    }
    Ok(TextConfig { architecture, prefix: "text_config.".to_owned(), values })
}

/// The settings of another toolchain's quantisation. MLX folders repeat their own under this key; MXFP4 blocks are known by their names.
fn other_quantization(config: &Map<String, Value>, mlx: bool) -> Option<&Map<String, Value>> {
    let settings = config.get("quantization_config").and_then(Value::as_object)?;
    let method = settings.get("quant_method").and_then(Value::as_str);
    ((!mlx || method.is_some()) && method != Some("mxfp4")).then_some(settings)
}

/// The settings that ModelOpt writes beside config.json, in older folders there alone.
fn model_opt(folder: &Path) -> Result<Option<Map<String, Value>>, FrontendError> {
    let Some(mut file) = read_json(folder, "hf_quant_config.json")? else { return Ok(None) };
    let Some(Value::Object(mut settings)) = file.remove("quantization") else { return Ok(None) };
    settings.insert("quant_method".to_owned(), Value::from("modelopt"));
    Ok(Some(settings))
}

/// What precedes `embed_tokens` and `lm_head` in this folder's tensor names.
fn prefixes(entries: &BTreeMap<String, Entry>) -> (String, String) {
    const BODIES: [&str; 6] = [
        "model.",
        "language_model.model.",
        "model.language_model.",
        "model.language_model.model.",
        "language_model.",
        "",
    ];
    const HEADS: [&str; 4] = ["", "language_model.", "model.language_model.", "model."];
    let first = |prefixes: &[&str], stem: &str| {
        let has = |prefix: &&&str| entries.contains_key(&format!("{prefix}{stem}.weight"));
        prefixes.iter().find(has).unwrap_or(&prefixes[0]).to_string()
    };
    (first(&BODIES, "embed_tokens"), first(&HEADS, "lm_head"))
}

fn tensors_file(files: &[MappedFile]) -> String {
    match files {
        [only] => only.name(),
        _ => "model.safetensors.index.json".to_owned(),
    }
}

/// The last part of `_name_or_path`, else the folder's name; `hf` and `mlx` folders take their parent's.
fn model_name(folder: &Path, config: &Map<String, Value>) -> String {
    let stated = config
        .get("_name_or_path")
        .and_then(Value::as_str)
        .and_then(|name| name.rsplit('/').find(|part| !part.is_empty()));
    if let Some(name) = stated {
        return name.to_owned();
    }
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let own = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match own(&folder) {
        Some(name) if name == "hf" || name == "mlx" => folder.parent().and_then(own).unwrap_or(name),
        Some(name) => name,
        None => "model".to_owned(),
    }
}
