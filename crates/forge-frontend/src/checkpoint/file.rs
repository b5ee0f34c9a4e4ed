//! A checkpoint file mapped into memory.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
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
    /// The file cannot be opened or mapped, or is no regular file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        // Asked before opening: to open a pipe is to wait for its writer.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(CheckpointError::NotAFile { path: path.to_owned() });
        }
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

/// The bytes of a small file of a model folder; `None` when there is none. Links may lead to other files of the folder, and
/// out of a folder of the Hugging Face cache to that cache's blobs, where all of its files are.
///
/// # Errors
/// The file cannot be read, is no regular file or longer than `limit`, or a link leads out of the folder.
pub(crate) fn read_in_folder(folder: &Path, name: &str, limit: u64) -> Result<Option<Vec<u8>>, CheckpointError> {
    let path = folder.join(name);
    let io = |source| CheckpointError::Io { path: path.clone(), source };
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(source)),
    };
    if !meta.is_file() {
        return Err(CheckpointError::NotAFile { path });
    }
    let (target, root) = (fs::canonicalize(&path).map_err(io)?, fs::canonicalize(folder).map_err(io)?);
    if !target.starts_with(&root) && !is_blob(&root, &target) {
        return Err(CheckpointError::Outside { path, target });
    }
    if meta.len() > limit {
        return Err(CheckpointError::TooLarge { path, limit, found: meta.len() });
    }
    let mut bytes = Vec::new();
    File::open(&target).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(io)?;
    Ok(Some(bytes))
}

/// Whether `target` is a blob of the model whose snapshot `folder` is: `models--x/blobs/..` and `models--x/snapshots/..`.
fn is_blob(folder: &Path, target: &Path) -> bool {
    let snapshots = folder.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
    blobs.is_some_and(|blobs| target.parent() == Some(&blobs))
}

/// The first two ranges of one file that share a byte. `ranges` are (start, end, index), in any order.
pub(super) fn first_overlap(mut ranges: Vec<(u64, u64, usize)>) -> Option<(usize, usize)> {
    ranges.retain(|(start, end, _)| start < end);
    ranges.sort_unstable();
    ranges.windows(2).find(|pair| pair[1].0 < pair[0].1).map(|pair| (pair[0].2, pair[1].2))
}
