//! The device: one thread that runs command buffers in commit order.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::buffer::Buffer;
use crate::check::{self, Segment};
use crate::command::{Command, CommandBuffer, Dispatch, Job, Timing};
use crate::error::{Error, Report};
use crate::library::Worker;
use crate::pool::Pool;

/// A software GPU. Dropping it waits for what was committed.
pub struct Device {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// A device whose threadgroups run on `threads` threads; 0 means one for each core.
    pub fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { cores() } else { threads };
        let (queue, jobs) = channel();
        let thread = std::thread::Builder::new()
            .name("metal-sim device".to_owned())
            .spawn(move || run_jobs(&jobs, threads))
            .ok();
        Self { queue: Some(queue), thread }
    }

    /// A buffer of `len` bytes, zero-filled. Checked mode still takes its bytes for unwritten, as on a real device.
    pub fn buffer(&self, label: &str, len: usize) -> Buffer {
        Buffer::zeroed(label, len)
    }

    /// The caller's memory as a read-only buffer.
    ///
    /// # Safety
    /// `ptr` must be valid for reads of `len` bytes, and the bytes unchanged, as long as `keep_alive` lives.
    pub unsafe fn buffer_no_copy(
        &self,
        label: &str,
        ptr: *const u8,
        len: usize,
        keep_alive: Arc<dyn Any + Send + Sync>,
    ) -> Buffer {
        Buffer::borrowed(label, ptr, len, keep_alive)
    }

    /// An empty command buffer.
    pub fn command_buffer(&self, label: &str) -> CommandBuffer {
        // the queue is only taken by drop
        let queue = self.queue.clone().unwrap_or_else(|| channel().0);
        CommandBuffer::new(label, queue)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run_jobs(jobs: &Receiver<Job>, threads: usize) {
    let mut runner = Runner { pool: Pool::new(threads), checked: None };
    while let Ok(job) = jobs.recv() {
        let result = runner.run(&job);
        job.completion.complete(result);
    }
}

struct Runner {
    pool: Pool,
    checked: Option<Worker>,
}

impl Runner {
    fn run(&mut self, job: &Job) -> Result<Timing, Error> {
        let begin = Instant::now();
        let (mut reports, mut counters) = (Vec::new(), Vec::new());
        let mut segment = Segment::default();
        for command in &job.commands {
            match command {
                Command::Dispatch(dispatch) => match dispatch.kernel.loaded.interface.check {
                    Some(functions) => {
                        let worker = self.checked_worker(dispatch)?;
                        let (new, counted) = check::run(worker, functions, dispatch, &mut segment)?;
                        reports.extend(new);
                        counters.push(counted);
                    }
                    None => reports.extend(self.unchecked(dispatch)?),
                },
                Command::Barrier => segment.barrier(),
            }
        }
        if reports.is_empty() {
            Ok(Timing { seconds: begin.elapsed().as_secs_f64(), counters })
        } else {
            Err(Error::Checked { reports })
        }
    }

    fn unchecked(&mut self, dispatch: &Dispatch) -> Result<Vec<Report>, Error> {
        let buffers =
            dispatch.bindings.iter().map(|bound| bound.buffer.contents().wrapping_add(bound.offset).cast()).collect();
        // what a kernel without checks writes is not known in detail
        for argument in dispatch.kernel.arguments().iter().filter(|argument| argument.writable) {
            let bound = &dispatch.bindings[argument.index as usize];
            bound.buffer.mark_written(bound.offset, bound.len);
        }
        self.pool.run(dispatch, buffers)
    }

    fn checked_worker(&mut self, dispatch: &Dispatch) -> Result<&mut Worker, Error> {
        Ok(match &mut self.checked {
            Some(worker) => worker,
            none => none.insert(Worker::new(&dispatch.kernel.loaded)?),
        })
    }
}
