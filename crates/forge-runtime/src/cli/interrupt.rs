//! Ctrl-C while an answer is under way: it ends the answer and not the program.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Notes the signal.
extern "C" fn note(_: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Takes SIGINT as long as it lives.
pub(super) struct Watch {
    before: Option<libc::sigaction>,
}

/// Watches for SIGINT where somebody sits at a terminal; elsewhere it ends the program, as it would without this.
pub(super) fn watch() -> Watch {
    ASKED.store(false, Ordering::Relaxed);
    if !std::io::stdin().is_terminal() {
        return Watch { before: None };
    }
    // SAFETY: both structures are plain data for which zeros are a valid value, and the handler stores to an atomic, which a
    // handler may do.
    let before = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        // Reads and writes under way go on.
        action.sa_flags = libc::SA_RESTART;
        let mut before: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(libc::SIGINT, &raw const action, &raw mut before) == 0).then_some(before)
    };
    Watch { before }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: it is what the system gave us.
            unsafe { libc::sigaction(libc::SIGINT, before, std::ptr::null_mut()) };
        }
    }
}

/// Whether the signal came since [`watch`].
pub(super) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
