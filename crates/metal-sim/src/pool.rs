//! The threads that share the threadgroups of one dispatch: the device thread, and helpers that join while there is work.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::command::Dispatch;
use crate::error::{Error, Report};
use crate::library::{Kernel, Loaded, Worker};

/// Threads of a grid below which helpers are not woken: the device thread alone is done sooner.
const SMALL_GRID: u64 = 1024;

/// How often an idle helper looks for the next dispatch before it sleeps: some tens of microseconds, the time between two
/// dispatches.
const SPINS: u32 = 2000;

struct Task {
    loaded: Arc<Loaded>,
    kernel: Kernel,
    buffers: Vec<*mut c_void>,
    threadgroups: [u32; 3],
    threads: [u32; 3],
    next: AtomicU64,
    total: u64,
    chunk: u64,
    reports: Mutex<Vec<Report>>,
}

// SAFETY: the pointers are the bindings of a dispatch, which outlives the task; kernels share them as on a GPU
unsafe impl Send for Task {}
// SAFETY: as above
unsafe impl Sync for Task {}

impl Task {
    fn work(&self, worker: &mut Worker) {
        loop {
            let begin = self.next.fetch_add(self.chunk, Ordering::Relaxed);
            if begin >= self.total {
                return;
            }
            let range = begin..self.total.min(begin + self.chunk);
            // SAFETY: the pool runs unchecked kernels on unchecked workers, with bindings validated at the dispatch
            let clean = unsafe {
                worker.run(&self.loaded, &self.kernel, &self.buffers, self.threadgroups, self.threads, range)
            };
            if !clean {
                let reports = worker.take_reports(self.kernel.name());
                let mut all = lock(&self.reports);
                for report in reports {
                    if !all.contains(&report) {
                        all.push(report);
                    }
                }
            }
        }
    }
}

#[derive(Default)]
struct Slot {
    task: Option<Arc<Task>>,
    inside: usize,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    /// Counts tasks and the stop, for helpers that spin.
    epoch: AtomicU64,
    wake: Condvar,
    left: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device thread's worker and its helpers, made at the first dispatch that needs them.
pub(crate) struct Pool {
    threads: usize,
    own: Option<Worker>,
    helpers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, own: None, helpers: Vec::new(), shared: Arc::default() }
    }

    /// Runs the threadgroups of one dispatch to their end.
    pub(crate) fn run(
        &mut self,
        dispatch: &Dispatch,
        threadgroups: [u32; 3],
        buffers: Vec<*mut c_void>,
    ) -> Result<Vec<Report>, Error> {
        let loaded = dispatch.kernel.object()?;
        let total = threadgroups.iter().map(|groups| u64::from(*groups)).product::<u64>();
        let group_threads = dispatch.threads.iter().map(|threads| u64::from(*threads)).product::<u64>();
        let helped = total > 1 && total * group_threads > SMALL_GRID && self.threads > 1;
        while helped && self.helpers.len() + 1 < self.threads {
            let worker = Worker::new(loaded)?;
            let shared = Arc::clone(&self.shared);
            let helper = std::thread::Builder::new().name("metal-sim helper".to_owned());
            match helper.spawn(move || help(&shared, worker)) {
                Ok(helper) => self.helpers.push(helper),
                // fewer threads do the same work
                Err(_) => self.threads = self.helpers.len() + 1,
            }
        }
        let own = match &mut self.own {
            Some(worker) => worker,
            none => none.insert(Worker::new(loaded)?),
        };
        let task = Arc::new(Task {
            loaded: Arc::clone(loaded),
            kernel: dispatch.kernel.clone(),
            buffers,
            threadgroups,
            threads: dispatch.threads,
            next: AtomicU64::new(0),
            total,
            chunk: if helped { (total / (self.threads as u64 * 8)).max(1) } else { total },
            reports: Mutex::default(),
        });
        if helped {
            let mut slot = lock(&self.shared.slot);
            slot.task = Some(Arc::clone(&task));
            self.shared.epoch.fetch_add(1, Ordering::Release);
            drop(slot);
            self.shared.wake.notify_all();
        }
        task.work(own);
        if helped {
            let mut slot = lock(&self.shared.slot);
            slot.task = None;
            while slot.inside > 0 {
                slot = self.shared.left.wait(slot).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let reports = std::mem::take(&mut *lock(&task.reports));
        Ok(reports)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.slot).stopped = true;
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

fn help(shared: &Shared, mut worker: Worker) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen && spins < SPINS {
            std::hint::spin_loop();
            spins += 1;
        }
        let task = {
            let mut slot = lock(&shared.slot);
            while !slot.stopped && shared.epoch.load(Ordering::Acquire) == seen {
                slot = shared.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
            }
            if slot.stopped {
                return;
            }
            seen = shared.epoch.load(Ordering::Acquire);
            // a task that is done already has left the slot
            let Some(task) = slot.task.clone() else { continue };
            slot.inside += 1;
            task
        };
        task.work(&mut worker);
        let mut slot = lock(&shared.slot);
        slot.inside -= 1;
        if slot.inside == 0 {
            shared.left.notify_one();
        }
    }
}
