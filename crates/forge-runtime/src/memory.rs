//! A bound on the memory of one thread, for work whose input a stranger made.
//!
//! The template engine has no hook on its operators, and `x ~ x` doubles a string at each of thirty instructions. So the
//! bound sits where memory is given out: a thread that asks for more than it may is stopped there for good, and whoever
//! waits for it is told by a flag. What it holds is lost, at most its bound; the flag is that thread's alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The system's allocator; within [`bounded`], what a thread holds is counted.
pub struct Allocator;

thread_local! {
    /// Bytes that this thread may still take, where it is bounded.
    static LEFT: Cell<Option<isize>> = const { Cell::new(None) };
    /// Raised when it asks for more. Points to what [`bounded`] was lent, while it runs.
    static STOPPED: Cell<*const AtomicBool> = const { Cell::new(ptr::null()) };
}

/// Runs `work` on this thread, which holds at most `bytes` more than now. If it asks for more, `stopped` is raised and this
/// thread waits for ever. Without effect unless [`Allocator`] is the program's global allocator.
pub fn bounded<T>(bytes: usize, stopped: &AtomicBool, work: impl FnOnce() -> T) -> T {
    /// Ends the bound, also where `work` panics.
    struct Bound;
    impl Drop for Bound {
        fn drop(&mut self) {
            LEFT.set(None);
            STOPPED.set(ptr::null());
        }
    }
    STOPPED.set(stopped);
    LEFT.set(Some(bytes as isize));
    let _bound = Bound;
    work()
}

fn take(bytes: isize) {
    // A thread that is ending has no counters any more.
    let _ = LEFT.try_with(|left| {
        let Some(before) = left.get() else { return };
        left.set(Some(before - bytes));
        if before < bytes {
            left.set(None);
            // SAFETY: null, or what `bounded` borrows for as long as this thread is within it, which it never leaves.
            if let Some(stopped) = unsafe { STOPPED.get().as_ref() } {
                stopped.store(true, Ordering::Relaxed);
            }
            loop {
                thread::park();
            }
        }
    });
}

// SAFETY: every call goes to the system's allocator as it is, or never returns.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size() as isize);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        take(-(layout.size() as isize));
        // SAFETY: the caller keeps `dealloc`'s contract, and the pointer is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps `realloc`'s contract, and the pointer is the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
