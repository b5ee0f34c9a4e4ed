//! What can go wrong while weights are packed.

use std::io;
use std::path::{Path, PathBuf};

use forge_formats::FormatError;

/// An error of packing; names the file or the tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The disk is too small.
    #[error("{}: packing needs {needed} bytes, the disk has {available} free", path.display())]
    NoSpace {
        /// Where the weights were to go.
        path: PathBuf,
        /// Bytes of the weights file.
        needed: u64,
        /// Bytes the filesystem offers.
        available: u64,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// "create", "write", "read back".
        action: &'static str,
        /// The weights file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// A weight's bytes are not what its shape and format need.
    #[error("tensor {tensor}: expected {expected} bytes, found {found}")]
    Length {
        /// The checkpoint's name for it.
        tensor: String,
        /// What shape and format need.
        expected: usize,
        /// What the checkpoint gives.
        found: usize,
    },
    /// A weight that does not fit the packed tensor that the plan puts it into.
    #[error("tensor {tensor}: expected {expected}, found {found}")]
    Mixed {
        /// The checkpoint's name for it.
        tensor: String,
        /// What the packed tensor holds.
        expected: String,
        /// What the weight is.
        found: String,
    },
    /// A weight that the plan stores in a way that nobody can produce.
    #[error("tensor {tensor}: {source}")]
    Format {
        /// The checkpoint's name for it.
        tensor: String,
        /// What is wrong.
        source: FormatError,
    },
    /// The caller's flag was raised.
    #[error("interrupted")]
    Cancelled,
}

impl PackError {
    /// The same error about a matrix of a stack, whose first tensor has been named.
    #[must_use]
    pub(crate) fn in_stack(self, matrix: usize) -> Self {
        match self {
            Self::Format { tensor, source } => {
                Self::Format { tensor: format!("{tensor}, matrix {matrix} of its stack"), source }
            }
            other => other,
        }
    }

    /// The same error about another path: for callers that write to a temporary one.
    #[must_use]
    pub fn with_path(self, to: &Path) -> Self {
        match self {
            Self::NoSpace { needed, available, .. } => Self::NoSpace { path: to.to_owned(), needed, available },
            Self::Io { action, source, .. } => Self::Io { action, path: to.to_owned(), source },
            other => other,
        }
    }
}
