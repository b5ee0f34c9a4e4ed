//! The layout of a case folder: which checkpoints it has and what is expected of each.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::compare::{Logits, Reference};

/// Largest logit difference for exact weights with an f32 KV cache.
const EXACT_BOUND: f32 = 2e-3;
/// Largest logit difference with an f16 KV cache or weights of 16 bits and fewer.
const HALF_BOUND: f32 = 2e-2;
/// The same where keys and values have 8 bits, whose rounding is 16 times that of half: 0.16 on the demo, with every choice the
/// same. What is exact of it, the stored blocks and each kernel, other tests hold to their bounds.
const Q8_0_BOUND: f32 = 2.5e-1;
/// And where they have 4, whose rounding is 16 times that again.
const Q4_0_BOUND: f32 = 4.0;

/// A case folder with its checkpoints.
#[derive(Debug)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// Its checkpoints: folders (`hf`, `hf-bf16`, `mlx`, ..), then GGUF files by name.
    pub checkpoints: Vec<Checkpoint>,
}

/// One checkpoint of a case.
#[derive(Debug)]
pub struct Checkpoint {
    /// A folder's name, which begins with `hf` or `mlx`, or the type in a GGUF file's name: `Q8_0`.
    pub label: String,
    /// The file or folder.
    pub path: PathBuf,
    /// F32 or BF16 weights, which f32 arithmetic follows exactly.
    pub exact: bool,
}

/// The context that the case asks its projects to be built for: `context` in its `case.json`.
///
/// # Errors
/// A file that is no JSON.
pub fn context(case: &Case) -> Result<Option<String>> {
    let path = case.path.join("case.json");
    let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
    let json: serde_json::Value = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    Ok(json["context"].as_u64().map(|context| context.to_string()))
}

/// A way to generate from a checkpoint, and how close its logits have to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Argument of `--quantize`.
    pub quantize: Option<String>,
    /// Argument of `--tuning`.
    pub tuning: Option<String>,
    /// Argument of `--slots`.
    pub slots: Option<usize>,
    /// Argument of `--kv`.
    pub kv: &'static str,
    /// Largest absolute difference of a logit.
    pub bound: f32,
}

impl Variant {
    /// The ways to try with a checkpoint of a case. A folder of exact weights is also quantised to those of the
    /// formats that the case has a reference for. A cache in blocks is tried when it is asked for.
    ///
    /// # Errors
    /// An unreadable reference.
    pub fn all(case: &Case, checkpoint: &Checkpoint, quantize: &[String], kv: Option<&str>) -> Result<Vec<Self>> {
        let blocks = [("q8_0", Q8_0_BOUND), ("q4_0", Q4_0_BOUND)];
        if let Some((kv, bound)) = blocks.into_iter().find(|(name, _)| kv == Some(*name)) {
            return Ok(vec![Self { quantize: None, tuning: None, slots: None, kv, bound }]);
        }
        let half = Self { quantize: None, tuning: None, slots: None, kv: "f16", bound: HALF_BOUND };
        if !checkpoint.exact {
            return Ok(vec![half]);
        }
        let mut all = vec![Self { kv: "f32", bound: EXACT_BOUND, ..half.clone() }, half.clone()];
        for format in quantize.iter().filter(|_| checkpoint.label == "hf") {
            if has_own_reference(case, &label(format))? {
                all.push(Self { quantize: Some(format.clone()), ..half.clone() });
            }
        }
        Ok(all)
    }

    /// The label whose reference is to be met.
    pub fn reference(&self, checkpoint: &Checkpoint) -> String {
        self.quantize.as_deref().map_or_else(|| checkpoint.label.clone(), label)
    }
}

/// The label of a format as GGUF files have it.
fn label(format: &str) -> String {
    format.to_ascii_uppercase()
}

/// Whether the case's reference has numbers of its own for the label.
fn has_own_reference(case: &Case, label: &str) -> Result<bool> {
    let path = case.path.join("reference.safetensors");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let tensors =
        SafeTensors::deserialize(&bytes).with_context(|| format!("{}: not a safetensors file", path.display()))?;
    Ok(tensors.tensor(&format!("{label}.logits")).is_ok())
}

/// Whether the reference's own numbers, those of the weights that the folder of floats has, are the ones for this label.
///
/// # Errors
/// An unreadable reference.
pub fn is_reference_of_weights(case: &Case, label: &str) -> Result<bool> {
    Ok(!has_own_reference(case, label)?)
}

/// All case folders in `dir`, or `dir` itself when it is one, by name.
///
/// # Errors
/// An unreadable folder, or one without cases.
pub fn discover(dir: &Path) -> Result<Vec<Case>> {
    let is_case = |path: &Path| path.join("reference.safetensors").is_file();
    let mut folders = Vec::new();
    if is_case(dir) {
        folders.push(dir.canonicalize()?);
    } else {
        for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if is_case(&path) {
                folders.push(path);
            }
        }
    }
    folders.sort();
    if folders.is_empty() {
        bail!("{}: no case folder (with a reference.safetensors) in it", dir.display());
    }
    folders.into_iter().map(case).collect()
}

fn case(path: PathBuf) -> Result<Case> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut checkpoints = Vec::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort_by_key(|file| (file.is_file(), file.clone()));
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_form = ["hf", "mlx"].iter().any(|form| name.split('-').next() == Some(form));
        if is_form && file.join("model.safetensors").is_file() {
            let exact = name.starts_with("hf") && is_exact(&file)?;
            checkpoints.push(Checkpoint { label: name, path: file, exact });
        } else if let Some(label) = name.strip_prefix("model.").and_then(|name| name.strip_suffix(".gguf")) {
            let exact = matches!(label, "F32" | "BF16");
            checkpoints.push(Checkpoint { label: label.into(), path: file.clone(), exact });
        }
    }
    Ok(Case { name, path, checkpoints })
}

/// True when a Hugging Face folder says that its weights are f32 or bf16.
fn is_exact(folder: &Path) -> Result<bool> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(alias = "torch_dtype")]
        dtype: Option<String>,
    }
    let path = folder.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Config =
        serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    Ok(matches!(config.dtype.as_deref(), Some("float32" | "bfloat16")))
}

/// The expected numbers of `case` for the checkpoint called `label`: its own where the reference has them,
/// else those of the unquantised weights.
///
/// # Errors
/// A reference that is unreadable or lacks a tensor.
pub fn reference(case: &Case, label: &str) -> Result<Reference> {
    read_reference(&case.path.join("reference.safetensors"), label)
}

/// The expected numbers in a reference file for the checkpoint called `label`: its own where the file has them, else
/// those of the unquantised weights.
///
/// # Errors
/// A file that is unreadable or lacks a tensor.
pub fn read_reference(path: &Path, label: &str) -> Result<Reference> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tensors =
        SafeTensors::deserialize(&bytes).with_context(|| format!("{}: not a safetensors file", path.display()))?;
    let own = format!("{label}.");
    let prefix = if tensors.tensor(&format!("{own}logits")).is_ok() { &own } else { "" };
    let logits = logits(&tensors, &format!("{prefix}logits")).with_context(|| format!("{}", path.display()))?;
    let ids = |name: &str| -> Result<Vec<u32>> {
        words(&tensors, name, Dtype::I32).with_context(|| format!("{}", path.display()))
    };
    // A reference may be of the prompt alone.
    let (greedy_ids, margin) = match format!("{prefix}greedy_ids") {
        name if tensors.tensor(&name).is_err() => (Vec::new(), Vec::new()),
        name => (ids(&name)?, words(&tensors, &format!("{prefix}greedy_margin"), Dtype::F32)?),
    };
    Ok(Reference {
        input_ids: ids("input_ids")?,
        logits,
        greedy_ids,
        greedy_margin: margin.into_iter().map(f32::from_bits).collect(),
    })
}

/// The tensor `name`, `[rows, vocab]` f32, of a safetensors file.
///
/// # Errors
/// A missing tensor or one of another type or rank.
pub fn logits(tensors: &SafeTensors<'_>, name: &str) -> Result<Logits> {
    let data = words(tensors, name, Dtype::F32)?;
    let shape = tensors.tensor(name)?.shape().to_vec();
    let [_, vocab] = shape[..] else { bail!("tensor {name}: shape {shape:?} is no matrix") };
    Ok(Logits { data: data.into_iter().map(f32::from_bits).collect(), vocab })
}

/// The 32-bit elements of the tensor `name`.
///
/// # Errors
/// A missing tensor or one of another type.
pub fn words(tensors: &SafeTensors<'_>, name: &str, dtype: Dtype) -> Result<Vec<u32>> {
    let tensor = tensors.tensor(name).with_context(|| format!("tensor {name}"))?;
    if tensor.dtype() != dtype {
        bail!("tensor {name}: {:?} where {dtype:?} is expected", tensor.dtype());
    }
    let words = tensor.data().chunks_exact(4);
    Ok(words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}
