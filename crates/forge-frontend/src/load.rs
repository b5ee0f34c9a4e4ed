//! From a path to a [`Checkpoint`].

use std::path::Path;

use forge_formats::decode_row;
use serde_json::Value;

use crate::arch;
use crate::assets::{Assets, mistyped_markers, template_file, unknown_ids};
use crate::checkpoint::{GgufFile, MappedFile};
use crate::graph::{FileRange, Graph, Source};
use crate::source::{Loaded, duplicate_keys, load_folder, load_gguf, read_json, text_config, unsigned};
use crate::{FrontendError, Refusal, Warning};

/// The small files of a folder of which every key may count.
const JSON_FILES: [&str; 4] =
    ["config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"];

/// A checkpoint, read: what is computed, with which bytes, and what a program around it needs.
#[derive(Debug)]
pub struct Checkpoint {
    /// The computation and its weights.
    pub graph: Graph,
    /// Tokenizer, chat template and generation defaults.
    pub assets: Assets,
    /// `GGUF v3`, `Hugging Face folder` or `MLX folder`.
    pub kind: String,
    /// The mapped files that [`FileRange::file`] indexes.
    pub files: Vec<MappedFile>,
    /// What its owner should know.
    pub warnings: Vec<Warning>,
}

impl Checkpoint {
    /// The bytes of a range of one of the files.
    ///
    /// # Panics
    /// A range that is not of this checkpoint's graph.
    pub fn bytes(&self, range: &FileRange) -> &[u8] {
        &self.files[range.file].bytes()[range.range.start as usize..range.range.end as usize]
    }

    /// Names of the files that hold weights, in the order of [`Checkpoint::files`].
    pub fn file_names(&self) -> Vec<String> {
        self.files.iter().map(MappedFile::name).collect()
    }
}

/// Reads a GGUF file (any part of a split one), a Hugging Face folder or an MLX folder.
///
/// # Errors
/// Anything that keeps the checkpoint from being generated, named by file, key or tensor.
pub fn load(path: &Path) -> Result<Checkpoint, FrontendError> {
    let container = Container::open(path)?;
    let (mut loaded, kind) = container.read()?;
    let family = arch::family(&loaded.hparams, &loaded.architecture)?;
    let mut graph = arch::build(&mut loaded, family)?;
    measure_vectors(&mut graph, &loaded.files);
    let mut assets = container.assets()?;
    container.check_first_token(&assets, graph.config.vocab_size)?;
    let mut warnings = loaded.warnings.into_inner();
    warnings.extend(container.warnings(&mut assets, Some(graph.config.vocab_size)));
    Ok(Checkpoint { graph, assets, kind, files: loaded.files, warnings })
}

/// Sets [`Weight::max_abs`](crate::graph::Weight::max_abs) of every vector.
fn measure_vectors(graph: &mut Graph, files: &[MappedFile]) {
    for weight in graph.weights.iter_mut().filter(|weight| weight.rows == 1) {
        let mut values = vec![0.0; weight.cols];
        let decoded = match &weight.source {
            Source::Rows(FileRange { file, range }) => {
                let bytes = &files[*file].map[range.start as usize..range.end as usize];
                decode_row(weight.format, bytes, &mut values).is_ok()
            }
            Source::Values(made) => {
                values.clone_from(made);
                true
            }
            Source::Strided { elements: FileRange { file, range }, strides } => {
                let bytes = &files[*file].bytes()[range.start as usize..range.end as usize];
                let mut row = Vec::new();
                strides.gather(bytes, weight.format.block_bytes(), 0..1, weight.cols, &mut row);
                decode_row(weight.format, &row, &mut values).is_ok()
            }
            Source::Quantize { .. }
            | Source::Affine { .. }
            | Source::Apart { .. }
            | Source::Factored { .. }
            | Source::Repack { .. }
            | Source::Stack(_) => false,
        };
        if decoded {
            let packed = values.iter().map(|&value| weight.element(value).abs());
            weight.max_abs = Some(largest(packed));
        }
    }
}

/// The largest of some sizes. What is not a number has no bound, though [`f32::max`] passes over it.
fn largest(sizes: impl Iterator<Item = f32>) -> f32 {
    sizes.fold(0.0, |most, size| if size.is_nan() { f32::INFINITY } else { most.max(size) })
}

/// An opened checkpoint.
pub(crate) enum Container<'a> {
    Gguf(GgufFile),
    Folder(&'a Path),
}

impl<'a> Container<'a> {
    pub fn open(path: &'a Path) -> Result<Self, FrontendError> {
        let meta = std::fs::metadata(path).map_err(|source| FrontendError::Io { path: path.to_owned(), source })?;
        if meta.is_dir() {
            return Ok(Self::Folder(path));
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.filter(|extension| ["safetensors", "json"].contains(extension)) {
            Some(extension) => Err(FrontendError::NotACheckpoint {
                refusal: Refusal::SingleFile,
                path: path.to_owned(),
                expected: "a GGUF file, or a folder with config.json and safetensors files",
                found: format!("a {extension} file (give its folder)"),
            }),
            None => Ok(Self::Gguf(GgufFile::open(path)?)),
        }
    }

    /// Hyper-parameters and tensors, and the kind of checkpoint they are from.
    pub fn read(&self) -> Result<(Loaded, String), FrontendError> {
        match self {
            Self::Gguf(gguf) => Ok((load_gguf(gguf)?, format!("GGUF v{}", gguf.version()))),
            Self::Folder(folder) => {
                let (loaded, mlx) = load_folder(folder)?;
                Ok((loaded, if mlx { "MLX folder" } else { "Hugging Face folder" }.to_owned()))
            }
        }
    }

    pub fn assets(&self) -> Result<Assets, FrontendError> {
        match self {
            Self::Gguf(gguf) => Assets::from_gguf(gguf),
            Self::Folder(folder) => Assets::from_folder(folder),
        }
    }

    /// Refuses a token that the tokenizer puts before every text and that the embedding has no row for.
    fn check_first_token(&self, assets: &Assets, vocab_size: usize) -> Result<(), FrontendError> {
        const KEY: &str = "bos_token_id";
        match assets.generation.bos_token_id.filter(|_| assets.generation.add_bos) {
            Some(id) if id as usize >= vocab_size => {
                let (file, key) = self.place_of_id(KEY, id);
                Err(FrontendError::KeyValue {
                    refusal: Refusal::FirstToken,
                    file,
                    key,
                    expected: format!("an id below {vocab_size} for the token that begins a text"),
                    found: id.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// What there is to know of the files beside the weights. Ids that a vocabulary of this size lacks are taken out of the
    /// assets.
    pub fn warnings(&self, assets: &mut Assets, vocab_size: Option<usize>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        match self {
            Self::Gguf(gguf) => {
                let file = gguf.files()[0].name();
                let markers = mistyped_markers(gguf);
                if let Some(first) = markers.first() {
                    let (first, tokens) = (first.clone(), markers.len());
                    warnings.push(Warning::Markers { file: file.clone(), first, tokens });
                }
                for (key, found) in unknown_ids(gguf) {
                    warnings.push(Warning::TokenId { file: file.clone(), key: key.to_owned(), found });
                }
            }
            Self::Folder(folder) => {
                for file in JSON_FILES {
                    let keys = duplicate_keys(folder, file).into_iter();
                    warnings.extend(keys.map(|key| Warning::DuplicateKey { file: file.to_owned(), key }));
                }
            }
        }
        for (name, reason) in assets.template_problems() {
            let file = match self {
                Self::Gguf(gguf) => gguf.files()[0].name(),
                Self::Folder(folder) => template_file(folder, name.as_deref()),
            };
            warnings.push(Warning::Template { file, name, reason });
        }
        let mut check = |key: &'static str, id: u32| {
            let known = vocab_size.is_none_or(|size| (id as usize) < size);
            if !known {
                let (file, key) = self.place_of_id(key, id);
                warnings.push(Warning::TokenId { file, key, found: id });
            }
            known
        };
        assets.generation.end_token_ids.retain(|&id| check("eos_token_id", id));
        assets.generation.bos_token_id = assets.generation.bos_token_id.filter(|&id| check("bos_token_id", id));
        warnings
    }
    /// The file and the key that say an id: that of the special token, else the list of the tokens.
    fn place_of_id(&self, key: &str, id: u32) -> (String, String) {
        let folder = match self {
            Self::Gguf(gguf) => return (gguf.files()[0].name(), "tokenizer.ggml.tokens".to_owned()),
            Self::Folder(folder) => folder,
        };
        let says = |value: &Value| match value {
            Value::Array(items) => items.iter().any(|item| unsigned(item) == Some(id)),
            value => unsigned(value) == Some(id),
        };
        let text = text_config(folder).ok().map(|config| (format!("{}{key}", config.prefix), config.values));
        let generation = read_json(folder, "generation_config.json").ok().flatten();
        match (generation.as_ref().and_then(|values| values.get(key)), text) {
            (Some(value), _) if says(value) => ("generation_config.json".to_owned(), key.to_owned()),
            (_, Some((spelling, values))) if values.get(key).is_some_and(says) => ("config.json".to_owned(), spelling),
            _ => ("tokenizer.json".to_owned(), "added_tokens".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::largest;

    #[test]
    fn what_is_not_a_number_has_no_bound() {
        assert_eq!(largest([1.0, 3.0, 2.0].into_iter()), 3.0);
        assert_eq!(largest([1.0, f32::NAN, 2.0].into_iter()), f32::INFINITY);
    }
}
