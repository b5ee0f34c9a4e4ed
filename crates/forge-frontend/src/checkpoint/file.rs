//! A checkpoint file mapped into memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::CheckpointError;

/// A file and its mapping; clones share the mapping.
#[derive(Clone, Debug)]
pub struct MappedFile {
    /// Where the file lies.
    pub path: PathBuf,
    /// All of its bytes.
    pub map: Arc<Mmap>,
}

impl MappedFile {
    /// Maps a file for reading.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only; a checkpoint is not changed while it is read, and a program that did so would
        // change bytes whose values nothing relies on for memory safety once the header is parsed.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { path: path.to_owned(), map: Arc::new(map) })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The file's name without its folder.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// The first two ranges of one file that share a byte. `ranges` are (start, end, index), in any order.
pub(super) fn first_overlap(mut ranges: Vec<(u64, u64, usize)>) -> Option<(usize, usize)> {
    ranges.retain(|(start, end, _)| start < end);
    ranges.sort_unstable();
    ranges.windows(2).find(|pair| pair[1].0 < pair[0].1).map(|pair| (pair[0].2, pair[1].2))
}
