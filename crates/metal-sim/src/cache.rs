//! Compiled kernels, and the objects that are linked to all of them, kept by what they were compiled from.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// The place of one file in a folder of them.
pub(crate) struct Cache {
    file: PathBuf,
}

impl Cache {
    /// The place of what `key` is compiled to, a file of the kind `extension`.
    pub(crate) fn new(folder: &Path, key: &[String], extension: &str) -> Self {
        // Two hashes of 64 bits, so that no two keys ever meet.
        let hash = |start: u8| {
            let mut hasher = DefaultHasher::new();
            (start, key).hash(&mut hasher);
            hasher.finish()
        };
        Self { file: folder.join(format!("{:016x}{:016x}.{extension}", hash(0), hash(1))) }
    }

    /// Copies it to `out`; whether it was there.
    pub(crate) fn fetch(&self, out: &Path) -> bool {
        self.file.is_file() && fs::copy(&self.file, out).is_ok()
    }

    /// Keeps `compiled`. It appears whole or not at all; a failure only costs the next one its time.
    pub(crate) fn keep(&self, compiled: &Path) {
        let Some(folder) = self.file.parent() else { return };
        let copy = || {
            fs::create_dir_all(folder)?;
            let new = tempfile::NamedTempFile::new_in(folder)?;
            fs::copy(compiled, new.path())?;
            new.persist(&self.file)?;
            Ok::<(), std::io::Error>(())
        };
        let _ = copy();
    }
}
