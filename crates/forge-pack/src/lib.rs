//! Carries out a [`PackPlan`]: streams the tensors of a checkpoint through repacking into `weights.safetensors`.
//!
//! Owns the file's container, the two workers that convert and write, and the digests. Chooses no layout: that
//! is the plan's and `forge-formats`'. Memory stays bounded: a worker holds one piece of a few MiB at a time.

mod error;
mod header;
mod jobs;
mod measure;
mod quantize;
mod rows;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use forge_formats::Deviation;
use forge_frontend::Checkpoint;
use forge_frontend::graph::{FileRange, Graph, WeightId};
use forge_plan::pack::PackPart;
use forge_plan::{PackPlan, PackedTensor};

pub use error::PackError;
pub use header::{Header, packed_bytes};
use jobs::{Job, jobs};
pub use measure::relative_errors;

/// Threads that convert and write.
const WORKERS: usize = 2;
/// How often what was written is sent on to the disk.
const SYNC_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes read back at a time to digest the file: what several threads share, and a cache still has.
const CHUNK: usize = 4 << 20;

/// Where the bytes of weights come from.
pub trait Source: Sync {
    /// The bytes of a range of one of the checkpoint's files.
    fn bytes(&self, range: &FileRange) -> &[u8];
}

impl Source for Checkpoint {
    fn bytes(&self, range: &FileRange) -> &[u8] {
        Self::bytes(self, range)
    }
}

/// What to pack from what.
#[derive(Clone, Copy)]
pub struct Packing<'a> {
    /// The tensors of the file.
    pub plan: &'a PackPlan,
    /// The weights that they are made of.
    pub graph: &'a Graph,
    /// Their bytes.
    pub source: &'a dyn Source,
    /// Raised by another thread, it ends packing with [`PackError::Cancelled`].
    pub cancel: &'a AtomicBool,
}

/// A file that was packed.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256, in hex, of the length word and the header.
    pub header_sha256: String,
    /// BLAKE3, in hex, of the whole file. It is a tree, so that several threads hash one file, and needs no instructions of its own to
    /// be fast.
    pub blake3: String,
    /// How far each weight that was quantised on the way is from the checkpoint's.
    pub deviations: BTreeMap<WeightId, Deviation>,
}

impl Packing<'_> {
    /// Writes the weights file to `path`, which must not exist. `progress` gets the number of bytes of the file
    /// that are complete.
    ///
    /// # Errors
    /// Too little disk space (found before anything is written), a weight of the wrong size, a failed write. The
    /// file is incomplete then; removing it is up to the caller.
    pub fn pack(&self, path: &Path, mut progress: impl FnMut(u64)) -> Result<Packed, PackError> {
        let header = Header::new(self.plan);
        check_space(path, header.file_bytes)?;
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(io_error("create", path))?;
        // Padding is never written: a file is zero where nothing was.
        file.set_len(header.file_bytes).map_err(io_error("write", path))?;
        file.write_all_at(&header.bytes, 0).map_err(io_error("write", path))?;
        let jobs = jobs(self.plan, |tensor, part| self.part_len(tensor, part));
        let ends = ends(&jobs, &header);
        let output = Output { file: &file, path, header: &header };
        let queue = Mutex::new(jobs.iter().enumerate());
        let stop = AtomicBool::new(false);
        let (queue, stop, output) = (&queue, &stop, &output);
        let (blake3, found) = thread::scope(|scope| {
            let (done, finished) = channel();
            for _ in 0..WORKERS {
                let done = done.clone();
                scope.spawn(move || {
                    let mut scratch = rows::Scratch::default();
                    loop {
                        let next = queue.lock().expect("no worker panics with the queue").next();
                        let Some((index, job)) = next else { break };
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let result = if self.cancel.load(Ordering::Relaxed) {
                            Err(PackError::Cancelled)
                        } else {
                            self.run(job, output, &mut scratch)
                        };
                        // The receiver is gone only after an error of another worker.
                        if done.send((index, result)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(done);
            // The disk works while the processors do, rather than after them.
            let syncing = scope.spawn(move || {
                loop {
                    thread::park_timeout(SYNC_INTERVAL);
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    output.file.sync_data().map_err(io_error("write", output.path))?;
                }
            });
            let digest = follow(output, &ends, &finished, &mut progress);
            stop.store(true, Ordering::Relaxed);
            syncing.thread().unpark();
            let synced = syncing.join().expect("syncing does not panic");
            let digest = digest?;
            synced.map(|()| digest)
        })?;
        // In file order, so that sums do not depend on which worker was first.
        let mut deviations: BTreeMap<WeightId, Deviation> = BTreeMap::new();
        for (job, deviation) in jobs.iter().zip(found) {
            if let (PackPart::Weight(id), Some(deviation)) = (job.part, deviation) {
                deviations.entry(id).or_default().merge(&deviation);
            }
        }
        Ok(Packed { bytes: header.file_bytes, header_sha256: header.digest(), blake3, deviations })
    }

    /// Rows of a part; its elements where it belongs to a vector.
    fn part_len(&self, tensor: &PackedTensor, part: &PackPart) -> usize {
        match part {
            PackPart::Weight(id) => {
                let weight = &self.graph.weights[*id];
                if tensor.is_vector() { weight.cols } else { weight.rows }
            }
            PackPart::Zeros(len) => *len,
        }
    }
}

/// The file being written.
pub(crate) struct Output<'a> {
    file: &'a File,
    path: &'a Path,
    header: &'a Header,
}

impl Output<'_> {
    /// Writes bytes of a tensor, `at` counted from its first byte.
    fn write(&self, tensor: usize, at: u64, bytes: &[u8]) -> Result<(), PackError> {
        let at = self.header.offsets[tensor] + at;
        self.file.write_all_at(bytes, at).map_err(io_error("write", self.path))
    }
}

/// For each job, the offset in the file before which everything is complete once it and all before it are: the
/// end of its tensor where it is the tensor's last job, else 0.
fn ends(jobs: &[Job], header: &Header) -> Vec<u64> {
    let end = |index: usize| {
        let next = jobs.get(index + 1).map(|job| job.tensor);
        match next {
            None => header.file_bytes,
            Some(tensor) if tensor != jobs[index].tensor => header.offsets[tensor],
            Some(_) => 0,
        }
    };
    (0..jobs.len()).map(end).collect()
}

/// What a worker reports of a job.
type Finished = (usize, Result<Option<Deviation>, PackError>);

/// Follows the workers: reports progress and digests the file as its tensors are completed. Returns the digest and each
/// job's deviation.
fn follow(
    output: &Output<'_>,
    ends: &[u64],
    finished: &Receiver<Finished>,
    progress: &mut dyn FnMut(u64),
) -> Result<(String, Vec<Option<Deviation>>), PackError> {
    let mut deviations = vec![None; ends.len()];
    let mut complete = vec![false; ends.len()];
    let mut next = 0;
    let mut hasher = blake3::Hasher::new();
    let mut hashed = 0;
    let mut chunk = vec![0; CHUNK];
    for (index, result) in finished {
        deviations[index] = result?;
        complete[index] = true;
        while complete.get(next) == Some(&true) {
            while hashed < ends[next] {
                let bytes = CHUNK.min((ends[next] - hashed) as usize);
                let read = output.file.read_exact_at(&mut chunk[..bytes], hashed);
                read.map_err(io_error("read back", output.path))?;
                hasher.update_rayon(&chunk[..bytes]);
                hashed += bytes as u64;
            }
            next += 1;
            progress(hashed);
        }
    }
    if ends.is_empty() {
        hasher.update(&output.header.bytes);
    }
    Ok((hasher.finalize().to_hex().to_string(), deviations))
}

/// Free space before work: a full disk is better found now than after an hour.
fn check_space(path: &Path, needed: u64) -> Result<(), PackError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // A filesystem that cannot tell its free space may still have it.
    let Ok(space) = rustix::fs::statvfs(folder) else { return Ok(()) };
    if space.f_blocks == 0 {
        return Ok(());
    }
    let available = space.f_bavail.saturating_mul(space.f_frsize);
    if available < needed {
        return Err(PackError::NoSpace { path: path.to_owned(), needed, available });
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PackError {
    let path = path.to_owned();
    move |source| PackError::Io { action, path, source }
}
