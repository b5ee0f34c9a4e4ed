//! The thread that writes snapshots: plain writing to a temporary file, which is renamed once all of it is on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Instant, SystemTime};

/// What names of files that are being written end with.
const UNFINISHED: &str = "unfinished";

/// Something to do on the disk; done in order.
pub(super) enum Job {
    /// Writes a file.
    Write {
        /// Who asks.
        id: u64,
        /// The file.
        path: PathBuf,
        /// What it begins with.
        header: Vec<u8>,
        /// And goes on with.
        parts: Vec<Arc<Vec<u8>>>,
    },
    /// Says that a file is used.
    Touch(PathBuf),
    /// Removes a file, if it is still there.
    Remove(PathBuf),
}

/// What became of a file.
pub(super) struct Written {
    pub(super) id: u64,
    pub(super) result: io::Result<()>,
}

/// The way to the thread.
pub(super) struct Writer {
    jobs: Sender<Job>,
    results: Receiver<Written>,
}

impl Writer {
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = channel();
        let (done, results) = channel();
        std::thread::Builder::new().name("snapshots".into()).spawn(move || work(&queue, &done))?;
        Ok(Self { jobs, results })
    }

    pub(super) fn send(&self, job: Job) {
        // A thread that has panicked does nothing more; what it was asked for stays unwritten.
        let _ = self.jobs.send(job);
    }

    /// What has been written since.
    pub(super) fn written(&self) -> impl Iterator<Item = Written> {
        self.results.try_iter()
    }

    /// Waits for the next file to be written, until a time.
    pub(super) fn wait(&self, until: Instant) -> Result<Written, RecvTimeoutError> {
        self.results.recv_timeout(until.saturating_duration_since(Instant::now()))
    }
}

fn work(queue: &Receiver<Job>, done: &Sender<Written>) {
    let mut count = 0;
    for job in queue {
        match job {
            Job::Write { id, path, header, parts } => {
                count += 1;
                let result = write(&path, count, &header, &parts);
                if done.send(Written { id, result }).is_err() {
                    return;
                }
            }
            Job::Touch(path) => {
                // Another server may have removed it.
                let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
            }
            Job::Remove(path) => {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Writes a file as a whole or not at all.
fn write(path: &Path, count: u64, header: &[u8], parts: &[Arc<Vec<u8>>]) -> io::Result<()> {
    let (unfinished, mut file) = create(path, count)?;
    let result = (|| {
        file.write_all(header)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    })();
    result.inspect_err(|_| {
        let _ = std::fs::remove_file(&unfinished);
    })
}

/// Makes a temporary file that no other server takes for one that was left over: it is locked while it is written.
fn create(path: &Path, count: u64) -> io::Result<(PathBuf, File)> {
    for attempt in 0..3 {
        let unfinished = path.with_extension(format!("{}-{count}-{attempt}.{UNFINISHED}", std::process::id()));
        // One of a process of the same number, long gone.
        let _ = std::fs::remove_file(&unfinished);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        // A server that started this moment may have taken it for left over before it was locked.
        if lock(&file) && file.metadata()?.nlink() > 0 {
            return Ok((unfinished, file));
        }
    }
    Err(io::Error::other("temporary files are taken away"))
}

/// Takes a file for this process, unless another has it.
fn lock(file: &File) -> bool {
    // SAFETY: the descriptor is the file's, which is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Removes a temporary file that nobody is writing any more. Says whether the file is a temporary one at all.
pub(super) fn clean(path: &Path) -> bool {
    if path.extension().is_none_or(|extension| extension != UNFINISHED) {
        return false;
    }
    if File::open(path).is_ok_and(|file| lock(&file)) {
        let _ = std::fs::remove_file(path);
    }
    true
}
