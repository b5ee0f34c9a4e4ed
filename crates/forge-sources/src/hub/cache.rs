//! The hub's cache: `models--OWNER--NAME` with content by its digest in `blobs`, a folder of links a commit in `snapshots`, and
//! the commits of branches in `refs`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::gguf::Listed;
use crate::{SourceError, Watcher, names};

const PREFIX: &str = "models--";
/// Between two looks at a lock that another process holds.
const LOOK: Duration = Duration::from_millis(100);

/// The repository whose folder has this name.
pub fn repository_of(folder: &str) -> Option<String> {
    let (owner, name) = folder.strip_prefix(PREFIX)?.split_once("--")?;
    (!owner.is_empty() && !name.is_empty()).then(|| format!("{owner}/{name}"))
}

/// A repository's folder in the cache.
#[derive(Debug, Clone)]
pub struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub fn new(cache: &Path, repository: &str) -> Self {
        let name = format!("{PREFIX}{}", repository.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit that a branch or tag of the copy stands for; a commit stands for itself.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let named = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        let named = named.map(|text| text.trim().to_owned()).filter(|commit| is_commit(commit));
        let commit = named.or_else(|| is_commit(revision).then(|| revision.to_owned()))?;
        self.snapshot(&commit).is_dir().then_some(commit)
    }

    /// The branches and tags of the copy.
    pub fn revisions(&self) -> Vec<String> {
        files_below(&self.folder.join("refs")).into_iter().map(|file| file.path).collect()
    }

    /// The files of a commit's copy whose content is there.
    pub fn files(&self, commit: &str) -> Vec<Listed> {
        files_below(&self.snapshot(commit))
    }

    /// Lets a branch or tag stand for a commit.
    pub fn name(&self, revision: &str, commit: &str) -> Result<(), SourceError> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        fs::write(&path, commit).map_err(SourceError::io(&path))
    }

    /// Lets a file of a commit be a blob.
    pub fn link(&self, commit: &str, file: &str, digest: &str) -> Result<(), SourceError> {
        let path = self.snapshot(commit).join(file);
        let target = self.blobs().join(digest);
        // What a link leads to is told apart from what it is: another digest under the same name is replaced.
        if path.canonicalize().is_ok_and(|found| target.canonicalize().is_ok_and(|target| target == found)) {
            return Ok(());
        }
        create_parent(&path)?;
        let depth = Path::new(file).components().filter(|part| matches!(part, Component::Normal(_))).count() + 1;
        let up: PathBuf = (0..depth).map(|_| "..").collect();
        let new = path.with_file_name(format!(".{digest}.{}.link", std::process::id()));
        let _ = fs::remove_file(&new);
        symlink(up.join("blobs").join(digest), &new).map_err(SourceError::io(&path))?;
        fs::rename(&new, &path).map_err(SourceError::io(&path))
    }

    /// Waits until no other process fetches this blob; none does while the file is open.
    pub fn lock(&self, digest: &str, watcher: &dyn Watcher) -> Result<File, SourceError> {
        let path = self.locks.join(format!("{digest}.lock"));
        create_parent(&path)?;
        let file = File::options().create(true).append(true).open(&path).map_err(SourceError::io(&path))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK | Errno::INTR) if watcher.cancelled() => return Err(SourceError::Cancelled),
                Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(LOOK),
                Err(error) => return Err(SourceError::Io { path, source: error.into() }),
            }
        }
    }
}

/// Whether a revision is a commit and no branch.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn create_parent(path: &Path) -> Result<(), SourceError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(SourceError::io(folder))
}

/// Files below a folder with their paths from there, sorted; links are followed, those that lead nowhere left out.
fn files_below(folder: &Path) -> Vec<Listed> {
    fn walk(folder: &Path, prefix: &str, files: &mut Vec<Listed>) {
        for name in names(folder).into_iter().filter(|name| !name.starts_with('.')) {
            let Ok(meta) = fs::metadata(folder.join(&name)) else { continue };
            let path = format!("{prefix}{name}");
            if meta.is_dir() {
                walk(&folder.join(&name), &format!("{path}/"), files);
            } else {
                files.push(Listed { path, bytes: meta.len() });
            }
        }
    }
    let mut files = Vec::new();
    walk(folder, "", &mut files);
    files
}
