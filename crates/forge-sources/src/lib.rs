//! From what a user calls a model to its files on this machine: a path, a repository of the Hugging Face hub (fetched into the
//! hub's own cache), a model in Ollama's or LM Studio's store (read where it lies).
//!
//! Owns names, the hub's protocol and cache, and the layouts of the stores. Knows nothing of what is in a checkpoint.

mod environment;
mod error;
mod gguf;
mod held;
mod hub;
mod lm_studio;
mod ollama;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use environment::{Environment, Patience};
pub use error::{Choice, SourceError};
pub use held::{Held, held};
pub use hub::HubName;
pub use lm_studio::LmStudioName;
pub use ollama::OllamaName;

/// Where a checkpoint is to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or folder. That of a repository in the hub's cache (`models--OWNER--NAME`) stands for the repository's copy.
    Path(PathBuf),
    /// `hf:OWNER/NAME[@REVISION][:FILE]`.
    Hub(HubName),
    /// `ollama:NAME[:TAG]`.
    Ollama(OllamaName),
    /// `lmstudio:[PUBLISHER/]NAME[:FILE]`.
    LmStudio(LmStudioName),
}

impl Source {
    /// Takes an argument for a name where it begins with `hf:`, `ollama:` or `lmstudio:`, and for a path otherwise.
    ///
    /// # Errors
    /// [`SourceError::Name`] for a name that is none.
    pub fn parse(argument: &OsStr) -> Result<Self, SourceError> {
        let scheme = argument.to_str().and_then(|text| text.split_once(':'));
        match scheme {
            Some(("hf", rest)) => HubName::parse(rest).map(Self::Hub),
            Some(("ollama", rest)) => OllamaName::parse(rest).map(Self::Ollama),
            Some(("lmstudio", rest)) => LmStudioName::parse(rest).map(Self::LmStudio),
            _ => Ok(Self::Path(PathBuf::from(argument))),
        }
    }
}

/// A checkpoint's files on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The GGUF file (of several parts the first), or the folder.
    pub path: PathBuf,
    /// What the model is called, where the file or folder has a name that says nothing (a digest).
    pub name: Option<String>,
    /// The name that leads to just this checkpoint again; none for a path.
    pub source: Option<String>,
    /// Why a copy in the cache is taken unasked, where it is.
    pub stale: Option<String>,
}

/// What a user sees of a transfer, and how it is stopped.
pub trait Watcher {
    /// A file of `total` bytes begins, of which `done` are there from an earlier try.
    fn begin(&self, file: &str, done: u64, total: u64);
    /// This many bytes more are there.
    fn advance(&self, bytes: u64);
    /// What is there of the file turned out to be of no use.
    fn restart(&self);
    /// The file is there.
    fn end(&self);
    /// Whether to stop.
    fn cancelled(&self) -> bool;
}

/// Finds a checkpoint; fetches from the hub what the cache does not hold.
///
/// # Errors
/// Names that lead to nothing or to several checkpoints, and everything that can go wrong with a transfer.
pub fn locate(source: &Source, environment: &Environment, watcher: &dyn Watcher) -> Result<Located, SourceError> {
    match source {
        Source::Path(path) => match HubName::of_cache_folder(path) {
            Some((cache, name)) => hub::locate_copy(&name, &cache),
            None => Ok(Located { path: path.clone(), name: None, source: None, stale: None }),
        },
        Source::Hub(name) => hub::locate(name, environment, watcher),
        Source::Ollama(name) => ollama::locate(name, environment),
        Source::LmStudio(name) => lm_studio::locate(name, environment),
    }
}

/// The names in a folder, sorted; none where it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}
