//! The program's allocator, with a count of what all threads hold.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

use forge_runtime::memory::Allocator;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are held now.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// Most bytes that were held since [`forget_peak`].
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// From now on the most is looked for anew.
pub fn forget_peak() {
    PEAK.store(held(), Ordering::Relaxed);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    /// `M_ARENA_MAX`.
    pub const ARENAS: c_int = -8;

    unsafe extern "C" {
        pub fn malloc_trim(keep: usize) -> c_int;
        pub fn mallopt(what: c_int, value: c_int) -> c_int;
    }
}

/// Has all threads share one heap, where the system's allocator can be told to: with a heap each, what one thread has given back is no room for another.
pub fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: changes what later allocations do, and nothing of those that there are.
    unsafe {
        glibc::mallopt(glibc::ARENAS, 1);
    }
}

/// Has the system's allocator give back what it keeps for later, where it can be told to.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time, by any thread.
    unsafe {
        glibc::malloc_trim(0);
    }
}

fn count(more: usize, less: usize) {
    let held = HELD.fetch_add(more.wrapping_sub(less), Ordering::Relaxed).wrapping_add(more).wrapping_sub(less);
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call goes to the program's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc`'s contract.
        let pointer = unsafe { Allocator.alloc(layout) };
        count(layout.size(), 0);
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        let pointer = unsafe { Allocator.alloc_zeroed(layout) };
        count(layout.size(), 0);
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { Allocator.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps `realloc`'s contract.
        let pointer = unsafe { Allocator.realloc(pointer, layout, size) };
        count(size, layout.size());
        pointer
    }
}
