//! Command buffers: what one submission does, and its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::buffer::{Binding, Buffer};
use crate::counters::DispatchCounters;
use crate::error::Error;
use crate::grid::{Counts, Grid};
use crate::library::Kernel;

/// What a finished command buffer measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timing {
    /// Time that its dispatches took on the device, in seconds.
    pub seconds: f64,
    /// What each dispatch of a checked library did, in order.
    pub counters: Vec<DispatchCounters>,
}

/// A binding that keeps its buffer.
pub(crate) struct Bound {
    pub(crate) buffer: Buffer,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

pub(crate) struct Dispatch {
    pub(crate) kernel: Kernel,
    pub(crate) bindings: Vec<Bound>,
    pub(crate) grid: Grid,
    pub(crate) threads: [u32; 3],
}

pub(crate) enum Command {
    Dispatch(Dispatch),
    Barrier,
}

#[derive(Default)]
pub(crate) struct Completion {
    result: Mutex<Option<Result<Timing, Error>>>,
    changed: Condvar,
    done: AtomicBool,
}

impl Completion {
    pub(crate) fn complete(&self, result: Result<Timing, Error>) {
        let mut slot = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(result);
        self.done.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

/// A committed command buffer on its way to the device thread.
pub(crate) struct Job {
    pub(crate) label: String,
    pub(crate) commands: Vec<Command>,
    pub(crate) completion: Arc<Completion>,
}

impl Drop for Job {
    fn drop(&mut self) {
        // a job that nobody ran must not leave its waiter behind
        self.completion.complete(Err(Error::DeviceLost { label: self.label.clone() }));
    }
}

/// Dispatches and barriers to be run in order. Dispatches between two barriers may run in any order on a GPU; checked
/// mode reports the ones that must not.
pub struct CommandBuffer {
    label: String,
    queue: Sender<Job>,
    commands: Vec<Command>,
    error: Option<Error>,
}

impl CommandBuffer {
    pub(crate) fn new(label: &str, queue: Sender<Job>) -> Self {
        Self { label: label.to_owned(), queue, commands: Vec::new(), error: None }
    }

    /// Adds a dispatch: `bindings[i]` is `[[buffer(i)]]`, `threadgroups` the grid, `threads` the size of a threadgroup.
    /// What is wrong with it is [`Submission::wait`]'s error, and nothing of the command buffer runs.
    pub fn dispatch(&mut self, kernel: &Kernel, bindings: &[Binding<'_>], threadgroups: [u32; 3], threads: [u32; 3]) {
        let grid = if threadgroups.contains(&0) {
            Err(Error::EmptyGrid { kernel: kernel.name().to_owned(), threadgroups })
        } else {
            Ok(Grid::Direct(threadgroups))
        };
        self.add(kernel, bindings, grid, threads);
    }

    /// Adds a dispatch whose grid is in a buffer: three u32 at `counts`, the threadgroups along each axis, as they are when
    /// its turn comes. None may be above `most`; with a zero among them nothing runs. An earlier dispatch of the command
    /// buffer that writes them needs a barrier, as for everything that is read.
    ///
    /// What is wrong is [`Submission::wait`]'s error, as in [`CommandBuffer::dispatch`]. On an NVIDIA GPU, which learns the
    /// counts only while it runs, more than `most` end the device.
    pub fn dispatch_indirect(
        &mut self,
        kernel: &Kernel,
        bindings: &[Binding<'_>],
        counts: Binding<'_>,
        most: [u32; 3],
        threads: [u32; 3],
    ) {
        let grid = Counts::new(kernel.name(), &counts, most, threads).map(Grid::Indirect);
        self.add(kernel, bindings, grid, threads);
    }

    fn add(&mut self, kernel: &Kernel, bindings: &[Binding<'_>], grid: Result<Grid, Error>, threads: [u32; 3]) {
        match validate(kernel, bindings, threads).and(grid) {
            Ok(grid) => {
                let bound = |of: &Binding<'_>| Bound { buffer: of.buffer.clone(), offset: of.offset, len: of.len };
                let bindings = bindings.iter().map(bound).collect();
                self.commands.push(Command::Dispatch(Dispatch { kernel: kernel.clone(), bindings, grid, threads }));
            }
            Err(error) => _ = self.error.get_or_insert(error),
        }
    }

    /// What follows sees all that came before.
    pub fn barrier(&mut self) {
        self.commands.push(Command::Barrier);
    }

    /// Hands the commands to the device and returns at once; command buffers run in the order of their commits.
    pub fn commit(self) -> Submission {
        let completion = Arc::new(Completion::default());
        let submission = Submission { completion: Arc::clone(&completion) };
        let Self { label, queue, commands, error } = self;
        if let Some(error) = error {
            completion.complete(Err(error));
        } else {
            // a device that is gone drops the job, which completes it with an error
            let _ = queue.send(Job { label, commands, completion });
        }
        submission
    }
}

fn validate(kernel: &Kernel, bindings: &[Binding<'_>], threads: [u32; 3]) -> Result<(), Error> {
    let name = || kernel.name().to_owned();
    if bindings.len() > 31 {
        return Err(Error::TooManyBuffers { kernel: name(), index: bindings.len() - 1 });
    }
    for (index, binding) in bindings.iter().enumerate() {
        let end = binding.offset.saturating_add(binding.len);
        if end > binding.buffer.len() {
            return Err(Error::BindingRange {
                kernel: name(),
                index,
                label: binding.buffer.label().to_owned(),
                offset: binding.offset,
                end,
                buffer_len: binding.buffer.len(),
            });
        }
    }
    for argument in kernel.arguments() {
        let Some(binding) = bindings.get(argument.index as usize) else {
            return Err(Error::Unbound { kernel: name(), index: argument.index, name: argument.name.clone() });
        };
        if argument.writable && binding.buffer.is_read_only() {
            return Err(Error::ReadOnly {
                kernel: name(),
                index: argument.index,
                name: argument.name.clone(),
                label: binding.buffer.label().to_owned(),
            });
        }
    }
    let count = threads.iter().map(|threads| u64::from(*threads)).product();
    if count == 0 || count > u64::from(kernel.thread_limit()) {
        return Err(Error::Threads { kernel: name(), threads: count, limit: kernel.thread_limit() });
    }
    Ok(())
}

/// A committed command buffer.
#[must_use = "errors of the run are only in the result of wait"]
pub struct Submission {
    completion: Arc<Completion>,
}

impl Submission {
    /// Waits for its end.
    ///
    /// # Errors
    /// A dispatch that cannot run, or every report of the run.
    pub fn wait(self) -> Result<Timing, Error> {
        let mut slot = self.completion.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = slot.take() {
                return result;
            }
            slot = self.completion.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether [`Submission::wait`] would return at once.
    pub fn is_done(&self) -> bool {
        self.completion.done.load(Ordering::Acquire)
    }
}
