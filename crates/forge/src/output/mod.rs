//! Putting a generated project in place, all of it or nothing.
//!
//! Everything is first written into a staging folder on the target's filesystem. A new target appears by one
//! rename. An existing one (`--force`) is updated file by file with renames that are undone when one of them
//! fails; files that Forge did not write are never touched, and files a person edited are kept as copies.
//! Knows nothing of models: paths and bytes only.

mod error;
mod manifest;
mod update;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;

pub use error::OutputError;
pub use manifest::{MANIFEST, Manifest, PackedWeights, hex, sha256};
use update::Update;

/// A folder to generate into, checked before any work is done.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    previous: Option<Manifest>,
}

impl Target {
    /// Checks that `path` may be written.
    ///
    /// # Errors
    /// An existing path without `force`; with it, a path that is no folder or has no manifest of Forge.
    pub fn open(path: &Path, force: bool) -> Result<Self, OutputError> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: path.to_owned(), previous: None });
            }
            Err(error) => return Err(OutputError::io("open", path)(error)),
        };
        if !force {
            return Err(OutputError::Exists { path: path.to_owned() });
        }
        if !metadata.is_dir() && !path.is_dir() {
            return Err(OutputError::NotAFolder { path: path.to_owned() });
        }
        match Manifest::read(path)? {
            Some(previous) => Ok(Self { path: path.to_owned(), previous: Some(previous) }),
            None => Err(OutputError::NotOurs { path: path.to_owned() }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier run of Forge left in the folder.
    pub fn previous(&self) -> Option<&Manifest> {
        self.previous.as_ref()
    }

    /// Makes the staging folder.
    ///
    /// # Errors
    /// A folder that cannot be created.
    pub fn stage(&self) -> Result<Staging<'_>, OutputError> {
        let base = if self.previous.is_some() { self.path.join(".forge") } else { existing_ancestor(&self.path) };
        let holder = tempfile::Builder::new()
            .prefix(".forge-")
            .tempdir_in(&base)
            .map_err(OutputError::io("create a folder in it", &base))?;
        // The holder is private to its owner; what is renamed into place gets the usual permissions.
        let root = holder.path().join("project");
        fs::create_dir(&root).map_err(OutputError::io("create the folder", &root))?;
        Ok(Staging { target: self, holder, root, files: BTreeMap::new(), weights: None })
    }
}

/// The nearest folder above `path` that exists: parents are only made when everything else has succeeded.
fn existing_ancestor(path: &Path) -> PathBuf {
    path.ancestors()
        .skip(1)
        .map(|ancestor| if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor })
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// A project being written. Dropped without [`Staging::commit`], it leaves nothing.
#[derive(Debug)]
pub struct Staging<'a> {
    target: &'a Target,
    holder: TempDir,
    root: PathBuf,
    files: BTreeMap<String, String>,
    weights: Option<Weights>,
}

#[derive(Debug)]
struct Weights {
    packed: PackedWeights,
    /// The file already in the target is the right one.
    kept: bool,
}

/// What [`Staging::commit`] did to an existing folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files a person had edited, each with where the copy is, both relative to the project.
    pub edited: Vec<(PathBuf, PathBuf)>,
    /// Files of an earlier run that the project no longer has.
    pub removed: Vec<PathBuf>,
    /// Files whose content did not change.
    pub unchanged: usize,
}

impl Staging<'_> {
    /// The folder on the target's filesystem that becomes the project.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Writes one file of the project.
    ///
    /// # Errors
    /// A path that would leave the project, or a failed write.
    pub fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
        let name = portable(path)?;
        self.put(&name, bytes)?;
        self.files.insert(name, sha256(bytes));
        Ok(())
    }

    /// Records the weights file, already written to [`Staging::path`] unless it is `kept` from an earlier run.
    pub fn weights(&mut self, packed: PackedWeights, kept: bool) {
        self.weights = Some(Weights { packed, kept });
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
        let path = self.root.join(name);
        let parent = path.parent().expect("a file in the staging folder has a parent");
        fs::create_dir_all(parent).map_err(OutputError::io("create the folder", parent))?;
        // Errors speak of the place the user asked for, not of the staging folder.
        fs::write(&path, bytes).map_err(OutputError::io("write", &self.target.path.join(name)))
    }

    /// Puts the project in place.
    ///
    /// # Errors
    /// A failed rename; the target is then as it was.
    pub fn commit(self) -> Result<Report, OutputError> {
        let manifest = Manifest {
            forge: env!("CARGO_PKG_VERSION").to_owned(),
            files: self.files.clone(),
            weights: self.weights.as_ref().map(|weights| weights.packed.clone()),
        };
        self.put(MANIFEST, manifest.to_json().as_bytes())?;
        let target = &self.target.path;
        if let Some(previous) = &self.target.previous {
            let mut moved: Vec<&str> = Vec::new();
            if let Some(weights) = self.weights.as_ref().filter(|weights| !weights.kept) {
                moved.push(&weights.packed.file);
            }
            moved.push(MANIFEST);
            let scratch = self.holder.path().join("replaced");
            return Update::new(target, &self.root, scratch).run(previous, &manifest, &moved);
        }
        let created = create_parents(target)?;
        fs::rename(&self.root, target).map_err(|error| {
            for folder in created.iter().rev() {
                let _ = fs::remove_dir(folder);
            }
            OutputError::io("create the folder", target)(error)
        })?;
        Ok(Report::default())
    }
}

/// Makes the folders above `target` that are missing; returns those it made, outermost first.
fn create_parents(target: &Path) -> Result<Vec<PathBuf>, OutputError> {
    let missing: Vec<PathBuf> = target
        .ancestors()
        .skip(1)
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .map(Path::to_owned)
        .collect();
    let mut created: Vec<PathBuf> = Vec::new();
    for folder in missing.into_iter().rev() {
        if let Err(error) = fs::create_dir(&folder) {
            for made in created.iter().rev() {
                let _ = fs::remove_dir(made);
            }
            return Err(OutputError::io("create the folder", &folder)(error));
        }
        created.push(folder);
    }
    Ok(created)
}

/// `path` with `/` between its parts, when it is plain and relative.
fn portable(path: &Path) -> Result<String, OutputError> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => match part.to_str() {
                Some(part) if !part.contains(['\\', ':', '\0']) => parts.push(part),
                _ => return Err(OutputError::BadPath { path: path.to_owned() }),
            },
            _ => return Err(OutputError::BadPath { path: path.to_owned() }),
        }
    }
    if parts.is_empty() {
        return Err(OutputError::BadPath { path: path.to_owned() });
    }
    Ok(parts.join("/"))
}
