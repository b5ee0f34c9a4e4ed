//! A checkpoint file mapped into memory.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::{CheckpointError, kind};

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
    /// The file cannot be opened or mapped, is no regular file, or stands for one that was not fetched.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        // Asked before opening: to open a pipe is to wait for its writer.
        let meta = fs::metadata(path).map_err(|source| broken_link(path, &source).unwrap_or_else(|| io(source)))?;
        if !meta.is_file() {
            return Err(CheckpointError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only; a checkpoint is not changed while it is read, and a program that did so would
        // change bytes whose values nothing relies on for memory safety once the header is parsed.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        match stand_in(path, &map) {
            Some(StandIn::Pointer) => Err(CheckpointError::LfsPointer { path: path.to_owned() }),
            Some(StandIn::Link(target)) => Self::open(&once(path, target)?),
            None => Ok(Self { path: path.to_owned(), map: Arc::new(map) }),
        }
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

/// The bytes of a small file of a model folder; `None` when there is none.
///
/// Links, and the text that Git leaves in place of one where it makes none, are followed wherever they lead, as transformers and mlx-lm follow them: people keep models in caches and on other
/// disks. But a checkpoint is also something that strangers write, and what is read here may be copied into a project. So
/// what a link out of the folder leads to has to be what its name says ([`kind::is`]), unless both are of one model in the
/// Hugging Face cache.
///
/// # Errors
/// The file cannot be read, is no regular file or longer than `limit`, or a link leads nowhere or out of the folder to
/// something else than its name says.
pub(crate) fn read_in_folder(folder: &Path, name: &str, limit: u64) -> Result<Option<Vec<u8>>, CheckpointError> {
    let path = folder.join(name);
    let io = |source| CheckpointError::Io { path: path.clone(), source };
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return broken_link(&path, &error).map_or(Ok(None), Err);
        }
        Err(source) => return Err(io(source)),
    };
    if !meta.is_file() {
        return Err(CheckpointError::NotAFile { path });
    }
    if meta.len() > limit {
        return Err(CheckpointError::TooLarge { path, limit, found: meta.len() });
    }
    let (mut target, root) = (fs::canonicalize(&path).map_err(io)?, fs::canonicalize(folder).map_err(io)?);
    let read = |file: &Path| {
        let mut bytes = Vec::new();
        File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map(|_| bytes).map_err(io)
    };
    let mut bytes = read(&target)?;
    match stand_in(&path, &bytes) {
        Some(StandIn::Pointer) => return Err(CheckpointError::LfsPointer { path }),
        Some(StandIn::Link(text)) => {
            target = fs::canonicalize(once(&path, text)?).map_err(io)?;
            let found = fs::metadata(&target).map_err(io)?.len();
            if found > limit {
                return Err(CheckpointError::TooLarge { path, limit, found });
            }
            bytes = read(&target)?;
        }
        None => {}
    }
    if !target.starts_with(&root) && !is_blob(&root, &target) && !kind::is(name, &bytes) {
        return Err(CheckpointError::Outside { path, target });
    }
    Ok(Some(bytes))
}

/// What Git leaves in place of a file.
enum StandIn {
    /// A pointer to a large one that it has not fetched (git-lfs, docs/spec.md).
    Pointer,
    /// The text of a link, where it makes none (`core.symlinks`).
    Link(PathBuf),
}

/// What stands in place of the file at `path`, which has these bytes.
fn stand_in(path: &Path, bytes: &[u8]) -> Option<StandIn> {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
    const LONGEST_PATH: usize = 4096;
    if bytes.starts_with(POINTER) {
        return Some(StandIn::Pointer);
    }
    let text = str::from_utf8(bytes).ok().filter(|text| (1..=LONGEST_PATH).contains(&text.len()))?;
    let is_path =
        text.contains('/') && !text.contains(|c: char| c.is_control() || c.is_whitespace() || "{}\"".contains(c));
    let target = is_path.then(|| path.parent().map(|folder| folder.join(text))).flatten()?;
    target.is_file().then_some(StandIn::Link(target))
}

/// The file that the text of a link at `path` leads to, unless that is the text of a link again.
fn once(path: &Path, target: PathBuf) -> Result<PathBuf, CheckpointError> {
    const LONGEST: u64 = 8192;
    let mut bytes = Vec::new();
    let read = File::open(&target).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    match read.map(|_| stand_in(&target, &bytes)) {
        Ok(Some(StandIn::Link(_))) => Err(CheckpointError::LinkText { path: path.to_owned(), target }),
        Ok(Some(StandIn::Pointer)) => Err(CheckpointError::LfsPointer { path: target }),
        Ok(None) => Ok(target),
        Err(source) => Err(CheckpointError::Io { path: target, source }),
    }
}

/// The error about a link that leads to nothing; `None` where there is no link, or something else is wrong with it.
fn broken_link(path: &Path, error: &io::Error) -> Option<CheckpointError> {
    let target = fs::read_link(path).ok().filter(|_| error.kind() == ErrorKind::NotFound)?;
    Some(CheckpointError::BrokenLink { path: path.to_owned(), target })
}

/// Whether `target` is a blob of the model whose snapshot `folder` is: `models--x/blobs/..` and `models--x/snapshots/..`.
fn is_blob(folder: &Path, target: &Path) -> bool {
    let snapshots = folder.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|model| model.join("blobs"));
    blobs.is_some_and(|blobs| target.parent() == Some(&blobs))
}

/// The names in a folder, sorted; those that are no text are left out.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// The first two ranges of one file that share a byte. `ranges` are (start, end, index), in any order.
pub(super) fn first_overlap(mut ranges: Vec<(u64, u64, usize)>) -> Option<(usize, usize)> {
    ranges.retain(|(start, end, _)| start < end);
    ranges.sort_unstable();
    ranges.windows(2).find(|pair| pair[1].0 < pair[0].1).map(|pair| (pair[0].2, pair[1].2))
}
