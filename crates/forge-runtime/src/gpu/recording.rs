//! What command buffers hold, kept on request: `profile`, `tune`, `imatrix` and `logits --experts` run parts of a schedule again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::Result;
use super::{Commands, Kernel, Slice};

/// Most rows of a tile whose dispatches are run once more after it, and leave all that they read as it was: no more than tiles with logits have.
/// Keys, values and latents are written anew as they were; a recurrent state lies in two copies, of which a tile of an odd number of rows, as all
/// such tiles have, reads the one and writes the other.
pub const REPEATABLE_ROWS: usize = 63;

/// One dispatch of a command buffer.
#[derive(Clone)]
pub struct Dispatch {
    /// The kernel.
    pub kernel: Kernel,
    /// `arguments[i]` is `[[buffer(i)]]`.
    pub arguments: Vec<Slice>,
    /// Threadgroups; the most there may be where a buffer says how many.
    pub threadgroups: [u32; 3],
    /// Where the threadgroups of an indirect dispatch are: three u32.
    pub counts: Option<Slice>,
    /// Whether a barrier precedes it.
    pub barrier: bool,
}

impl Dispatch {
    /// Adds it to a command buffer, without its barrier.
    pub fn encode(&self, commands: &mut Commands) {
        let arguments: Vec<&Slice> = self.arguments.iter().collect();
        match &self.counts {
            Some(counts) => commands.dispatch_indirect(&self.kernel, &arguments, counts, self.threadgroups),
            None => commands.dispatch(&self.kernel, &arguments, self.threadgroups),
        }
    }
}

/// Keeps the dispatches of a [`Gpu`](super::Gpu)'s command buffers while it is on. Clones share what is kept.
#[derive(Clone, Default)]
pub struct Recorder {
    /// Dispatches by command buffer; `None` while off.
    kept: Arc<Mutex<Option<Vec<Vec<Dispatch>>>>>,
}

impl Recorder {
    /// Keeps what is committed from now on.
    pub fn start(&self) {
        *self.lock() = Some(Vec::new());
    }

    /// Gives what was committed since the start, command buffer by command buffer.
    pub fn stop(&self) -> Vec<Vec<Dispatch>> {
        self.lock().take().unwrap_or_default()
    }

    /// What `work` commits, and nothing where it fails.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn record<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Vec<Vec<Dispatch>>> {
        self.start();
        let result = work();
        let kept = self.stop();
        result.map(|_| kept)
    }

    /// For a new command buffer; `None` while off.
    pub(super) fn page(&self) -> Option<Page> {
        self.lock().is_some().then(|| Page { recorder: self.clone(), dispatches: Vec::new(), barrier: false })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Vec<Dispatch>>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept of one command buffer.
pub(super) struct Page {
    recorder: Recorder,
    dispatches: Vec<Dispatch>,
    /// A barrier came after the last dispatch.
    barrier: bool,
}

impl Page {
    pub(super) fn dispatch(
        &mut self,
        kernel: &Kernel,
        arguments: &[&Slice],
        counts: Option<&Slice>,
        threadgroups: [u32; 3],
    ) {
        self.dispatches.push(Dispatch {
            kernel: kernel.clone(),
            arguments: arguments.iter().map(|slice| (*slice).clone()).collect(),
            threadgroups,
            counts: counts.cloned(),
            barrier: std::mem::take(&mut self.barrier),
        });
    }

    pub(super) fn barrier(&mut self) {
        self.barrier = true;
    }

    pub(super) fn commit(self) {
        if let Some(kept) = self.recorder.lock().as_mut() {
            kept.push(self.dispatches);
        }
    }
}
