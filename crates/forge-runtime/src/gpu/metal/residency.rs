//! Keeping buffers resident, on macOS 15 and later.
//!
//! Without a residency set Metal makes buffers resident for each command buffer, and the system takes their pages away after about
//! a second without work, which the next token then waits for. The set is asked for again at short intervals while the model
//! is in use and for some minutes after.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use objc2::available;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLAllocation, MTLBuffer, MTLCommandQueue, MTLDevice, MTLResidencySet, MTLResidencySetDescriptor};

/// How often residency is asked for again.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long after the last command buffer that goes on.
const WARM: Duration = Duration::from_secs(180);

pub(super) struct Residency {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    set: Retained<ProtocolObject<dyn MTLResidencySet>>,
    /// Whether buffers were added since the last commit.
    uncommitted: bool,
    last_use: Instant,
    closed: bool,
}

// SAFETY: the set is reached through the mutex around the state only, by one thread at a time.
unsafe impl Send for State {}

impl Residency {
    /// `None` where the system has no residency sets, or gives none.
    pub(super) fn new(
        device: &ProtocolObject<dyn MTLDevice>,
        queue: &ProtocolObject<dyn MTLCommandQueue>,
    ) -> Option<Self> {
        if !available!(macos = 15.0) {
            return None;
        }
        let set = device.newResidencySetWithDescriptor_error(&MTLResidencySetDescriptor::new()).ok()?;
        queue.addResidencySet(&set);
        let state = State { set, uncommitted: false, last_use: Instant::now(), closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let thread = shared.clone();
        // Without the thread buffers are resident all the same, if not as lastingly.
        let _ = std::thread::Builder::new().name("residency".into()).spawn(move || thread.run());
        Some(Self { shared })
    }

    pub(super) fn add(&self, buffer: &ProtocolObject<dyn MTLBuffer>) {
        let allocation: &ProtocolObject<dyn MTLAllocation> = ProtocolObject::from_ref(buffer);
        let mut state = self.shared.lock();
        state.set.addAllocation(allocation);
        state.uncommitted = true;
    }

    /// Tells that the buffers are about to be used.
    pub(super) fn keep_warm(&self) {
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.uncommitted) {
            state.set.commit();
            state.set.requestResidency();
        }
        let was_idle = state.last_use.elapsed() > WARM;
        state.last_use = Instant::now();
        if was_idle {
            self.shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let waited = if state.last_use.elapsed() > WARM {
                self.wake.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.wake.wait_timeout(state, INTERVAL).unwrap_or_else(PoisonError::into_inner).0
            };
            state = waited;
            if !state.closed {
                autoreleasepool(|_| state.set.requestResidency());
            }
        }
    }
}

impl Drop for Residency {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.set.endResidency();
        state.set.removeAllAllocations();
        state.set.commit();
        self.shared.wake.notify_one();
    }
}
