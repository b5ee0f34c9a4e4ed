//! Everything that can keep a name from becoming files.

use std::io;
use std::path::{Path, PathBuf};

/// One of several checkpoints under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What to write behind the colon: the quantisation where it tells this one from the others, else the file.
    pub wanted: String,
    /// The file, of several parts the first.
    pub file: String,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// An error of a source; one line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A name that is none.
    #[error("{name}: not a name of a model: expected {expected}")]
    Name {
        /// What was given.
        name: String,
        /// Its form.
        expected: &'static str,
    },
    /// The hub has no such repository, revision or file.
    #[error("{name}: {what}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// What is missing, and where.
        what: String,
    },
    /// The hub wants to know who asks, or does not let who asks have it.
    #[error("{name}: {reason}")]
    Restricted {
        /// What was asked for.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The hub answers with an error.
    #[error("{name}: the hub answers {status}{}", if *status == 429 { " (too many requests): try again later; with HF_TOKEN the limits are wider" } else { "" })]
    Status {
        /// What was asked for.
        name: String,
        /// The HTTP status.
        status: u16,
    },
    /// No connection.
    #[error("{name}: {endpoint} cannot be reached ({reason})")]
    Unreachable {
        /// What was asked for.
        name: String,
        /// The hub.
        endpoint: String,
        /// What the connection says.
        reason: String,
    },
    /// The connection breaks again and again.
    #[error(
        "{name}: the transfer of {file} broke off at {received} of {bytes} bytes ({reason}); run the command again to go on from there"
    )]
    Broken {
        /// What was asked for.
        name: String,
        /// The file.
        file: String,
        /// Bytes that are there.
        received: u64,
        /// Bytes of the file.
        bytes: u64,
        /// What the connection says.
        reason: String,
    },
    /// An answer that is not of the hub's protocol.
    #[error("{name}: the answer of {endpoint} makes no sense: {reason}")]
    Answer {
        /// What was asked for.
        name: String,
        /// The hub.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What arrived is not what the hub has.
    #[error(
        "{name}: {file} arrived damaged ({kind} {found}, the hub's is {expected}); it was deleted, run the command again"
    )]
    Hash {
        /// What was asked for.
        name: String,
        /// The file.
        file: String,
        /// The kind of digest.
        kind: &'static str,
        /// The hub's.
        expected: String,
        /// That of what arrived.
        found: String,
    },
    /// No room.
    #[error("{name}: {file} needs {needed} bytes and {} has {free} free: make room, or set HF_HUB_CACHE to another disk", path.display())]
    DiskFull {
        /// What was asked for.
        name: String,
        /// The file.
        file: String,
        /// Bytes still to come.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// The cache.
        path: PathBuf,
    },
    /// Not in the cache, and no network is to be used.
    #[error("{name}: {what} in {}, and nothing is fetched when offline (--offline, HF_HUB_OFFLINE)", cache.display())]
    Offline {
        /// What was asked for.
        name: String,
        /// What is missing.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// Several checkpoints under one name.
    #[error("{name}: {} checkpoints; name one, as in {name}:{}", choices.len(), choices[0].wanted)]
    Several {
        /// What was asked for.
        name: String,
        /// What there is; two at least.
        choices: Vec<Choice>,
    },
    /// No checkpoint of what is there is the one wanted.
    #[error("{name}: there is no {wanted}; there is {}", list(choices))]
    NoSuchFile {
        /// What was asked for.
        name: String,
        /// The file or quantisation.
        wanted: String,
        /// What there is; one at least.
        choices: Vec<Choice>,
    },
    /// Neither a GGUF file nor safetensors.
    #[error("{name}: no weights that Forge reads: neither GGUF files nor a config.json with safetensors")]
    NoWeights {
        /// What was asked for.
        name: String,
    },
    /// A store does not hold the model.
    #[error("{name}: not in {}{}", store.display(), if similar.is_empty() { String::new() } else { format!(", which has {}", similar.join(", ")) })]
    NotHeld {
        /// What was asked for.
        name: String,
        /// The store.
        store: PathBuf,
        /// What it has of that or a similar name.
        similar: Vec<String>,
    },
    /// A manifest of Ollama that cannot be used.
    #[error("{name}: {}: {reason}", path.display())]
    Manifest {
        /// What was asked for.
        name: String,
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Cancelled,
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl SourceError {
    /// For `map_err` on work with a file.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

fn list(choices: &[Choice]) -> String {
    choices.iter().map(|choice| choice.wanted.as_str()).collect::<Vec<_>>().join(", ")
}
