//! A blob that is not all there yet: `DIGEST.incomplete` beside the others, as the hub's own library names it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::listing::{Entry, Running};
use crate::{SourceError, Watcher};

/// Bytes read at a time of what is there.
const PIECE: usize = 1 << 20;

/// What has arrived of a file.
pub struct Partial<'a> {
    blob: &'a Path,
    entry: &'a Entry,
    /// What the user asked for.
    name: String,
    path: PathBuf,
    file: File,
    received: u64,
    running: Running,
}

impl<'a> Partial<'a> {
    /// Takes up what an earlier try left, where that is not more than there should be.
    ///
    /// # Errors
    /// [`SourceError::DiskFull`] where the rest has no room.
    pub fn open(blob: &'a Path, entry: &'a Entry, name: &str, watcher: &dyn Watcher) -> Result<Self, SourceError> {
        let path = blob.with_file_name(format!("{}.incomplete", entry.digest.hex()));
        let file = File::options().read(true).append(true).create(true).open(&path).map_err(SourceError::io(&path))?;
        let running = entry.digest.begin(entry.file.bytes);
        let mut partial = Self { blob, entry, name: name.to_owned(), path, file, received: 0, running };
        let length = partial.file.metadata().map_err(SourceError::io(&partial.path))?.len();
        if length > entry.file.bytes {
            partial.restart()?;
        } else {
            partial.read(length, watcher)?;
        }
        let needed = entry.file.bytes - partial.received;
        match partial.free() {
            Some(free) if free < needed => Err(partial.full(needed, free)),
            _ => Ok(partial),
        }
    }

    /// Takes what is there into the digest.
    fn read(&mut self, length: u64, watcher: &dyn Watcher) -> Result<(), SourceError> {
        let mut piece = vec![0; PIECE];
        while self.received < length {
            if watcher.cancelled() {
                return Err(SourceError::Cancelled);
            }
            let count = self.file.read(&mut piece).map_err(SourceError::io(&self.path))?;
            if count == 0 {
                break;
            }
            self.running.update(&piece[..count]);
            self.received += count as u64;
        }
        Ok(())
    }

    /// Bytes that are there.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Writes the bytes that follow.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.file.write_all(bytes).map_err(|error| self.unwritten(error))?;
        self.running.update(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Begins again with nothing.
    pub fn restart(&mut self) -> Result<(), SourceError> {
        self.file.set_len(0).map_err(SourceError::io(&self.path))?;
        self.received = 0;
        self.running = self.entry.digest.begin(self.entry.file.bytes);
        Ok(())
    }

    /// Gives the blob its name, if it is what the hub has; deletes it otherwise.
    pub fn put_in_place(self) -> Result<(), SourceError> {
        let found = self.running.hex();
        if found != self.entry.digest.hex() {
            fs::remove_file(&self.path).map_err(SourceError::io(&self.path))?;
            return Err(SourceError::Hash {
                name: self.name,
                file: self.entry.file.path.clone(),
                kind: self.entry.digest.kind(),
                expected: self.entry.digest.hex().to_owned(),
                found,
            });
        }
        // Else a name could outlive a loss of power that its bytes do not.
        self.file.sync_all().map_err(SourceError::io(&self.path))?;
        fs::rename(&self.path, self.blob).map_err(SourceError::io(self.blob))
    }

    /// Bytes free where the blob lies, as far as the system tells.
    fn free(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&self.file).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }

    fn full(&self, needed: u64, free: u64) -> SourceError {
        let path = self.blob.parent().unwrap_or(self.blob).to_owned();
        SourceError::DiskFull { name: self.name.clone(), file: self.entry.file.path.clone(), needed, free, path }
    }

    fn unwritten(&self, error: io::Error) -> SourceError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                self.full(self.entry.file.bytes - self.received, self.free().unwrap_or(0))
            }
            _ => SourceError::Io { path: self.path.clone(), source: error },
        }
    }
}
