//! From a path to a [`Checkpoint`].

use std::path::Path;

use forge_formats::decode_row;

use crate::FrontendError;
use crate::arch;
use crate::assets::Assets;
use crate::checkpoint::{GgufFile, MappedFile};
use crate::graph::{FileRange, Graph, Source};
use crate::source::{Loaded, load_folder, load_gguf};

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
    /// What the checkpoint holds and the graph leaves out, with the reason; one line each.
    pub ignored: Vec<String>,
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
    let family = arch::family(loaded.hparams.dialect, &loaded.hparams.file, &loaded.architecture)?;
    let mut graph = arch::build(&mut loaded, family)?;
    measure_vectors(&mut graph, &loaded.files);
    let assets = container.assets()?;
    Ok(Checkpoint { graph, assets, kind, files: loaded.files, ignored: loaded.notes.into_inner() })
}

/// Sets [`Weight::max_abs`](crate::graph::Weight::max_abs) of every vector.
fn measure_vectors(graph: &mut Graph, files: &[MappedFile]) {
    for weight in graph.weights.iter_mut().filter(|weight| weight.rows == 1) {
        let Source::Rows(FileRange { file, range }) = &weight.source else { continue };
        let mut values = vec![0.0; weight.cols];
        let bytes = &files[*file].map[range.start as usize..range.end as usize];
        if decode_row(weight.format, bytes, &mut values).is_ok() {
            let packed = values.iter().map(|value| ((value + weight.offset) * weight.factor).abs());
            weight.max_abs = Some(packed.fold(0.0, f32::max));
        }
    }
}

/// An opened checkpoint.
pub(crate) enum Container<'a> {
    Gguf(GgufFile),
    Folder(&'a Path),
}

impl<'a> Container<'a> {
    pub fn open(path: &'a Path) -> Result<Self, FrontendError> {
        let meta = std::fs::metadata(path).map_err(|source| FrontendError::Io { path: path.to_owned(), source })?;
        Ok(if meta.is_dir() { Self::Folder(path) } else { Self::Gguf(GgufFile::open(path)?) })
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
}
