//! SIGINT and SIGTERM as a flag: whoever works looks at it, so that an interrupted run cleans up after itself.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Turns the signals into the flag, for the rest of the process.
pub fn install() {
    // Where no handler can be had, the signals keep their default effect.
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
}

/// The flag.
pub fn flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Ends the work in hand once a signal has come.
///
/// # Errors
/// [`Error::Interrupted`] after a signal.
pub fn check() -> Result<(), Error> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}
