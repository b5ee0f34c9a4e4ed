//! Updating an existing project in place: a short series of renames, undone when one of them fails.

use std::fs;
use std::path::{Path, PathBuf};

use super::Report;
use super::error::OutputError;
use super::manifest::{Manifest, sha256};

/// Copies of edited files go to a numbered folder below this one.
const BACKUP: &str = ".forge/backup";

/// One update of `target` from `staged`.
pub(super) struct Update<'a> {
    target: &'a Path,
    staged: &'a Path,
    /// Replaced files wait here until all renames have succeeded.
    scratch: PathBuf,
    /// Renames done, as (from, to).
    done: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Update<'a> {
    pub(super) fn new(target: &'a Path, staged: &'a Path, scratch: PathBuf) -> Self {
        Self { target, staged, scratch, done: Vec::new() }
    }

    /// Replaces what `previous` lists by what `next` lists; `moved` are staged files outside that list.
    pub(super) fn run(mut self, previous: &Manifest, next: &Manifest, moved: &[&str]) -> Result<Report, OutputError> {
        let report = self.apply(previous, next, moved).inspect_err(|_| {
            for (from, to) in self.done.iter().rev() {
                // Best effort: the first error is the one to report.
                let _ = fs::rename(to, from);
            }
        })?;
        for name in &report.removed {
            self.remove_empty_folders(name);
        }
        Ok(report)
    }

    /// Removes the folders of the project that a removed file has left empty.
    fn remove_empty_folders(&self, removed: &Path) {
        for folder in removed.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            // One that holds something else stays, and so do those above it.
            if fs::remove_dir(self.target.join(folder)).is_err() {
                return;
            }
        }
    }

    fn apply(&mut self, previous: &Manifest, next: &Manifest, moved: &[&str]) -> Result<Report, OutputError> {
        let mut report = Report::default();
        let backup = self.free_backup();
        for (name, digest) in &next.files {
            match self.digest(name)? {
                Some(found) if found == *digest => {
                    report.unchanged += 1;
                    continue;
                }
                Some(found) if previous.files.get(name) != Some(&found) => {
                    self.rename(self.target.join(name), self.target.join(&backup).join(name))?;
                    report.edited.push((name.into(), backup.join(name)));
                }
                Some(_) => self.set_aside(name)?,
                None => {}
            }
            self.rename(self.staged.join(name), self.target.join(name))?;
        }
        for (name, digest) in &previous.files {
            if next.files.contains_key(name) {
                continue;
            }
            match self.digest(name)? {
                Some(found) if found == *digest => self.set_aside(name)?,
                Some(_) => {
                    self.rename(self.target.join(name), self.target.join(&backup).join(name))?;
                    report.edited.push((name.into(), backup.join(name)));
                }
                None => continue,
            }
            report.removed.push(name.into());
        }
        for name in moved {
            if self.target.join(name).exists() {
                self.set_aside(name)?;
            }
            self.rename(self.staged.join(name), self.target.join(name))?;
        }
        Ok(report)
    }

    /// The first backup folder that does not exist, relative to the project.
    fn free_backup(&self) -> PathBuf {
        (1..)
            .map(|number| Path::new(BACKUP).join(number.to_string()))
            .find(|folder| !self.target.join(folder).exists())
            .expect("there are more numbers than folders")
    }

    /// SHA-256 of a file of the target; `None` where there is none.
    fn digest(&self, name: &str) -> Result<Option<String>, OutputError> {
        let path = self.target.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(OutputError::io("read", &path))?;
        Ok(Some(sha256(&bytes)))
    }

    fn set_aside(&mut self, name: &str) -> Result<(), OutputError> {
        self.rename(self.target.join(name), self.scratch.join(name))
    }

    fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<(), OutputError> {
        let parent = to.parent().expect("a file has a parent");
        fs::create_dir_all(parent).map_err(OutputError::io("create the folder", parent))?;
        fs::rename(&from, &to).map_err(OutputError::io("write", &to))?;
        self.done.push((from, to));
        Ok(())
    }
}
