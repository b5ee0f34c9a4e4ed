//! A buffer's bytes on the GPU. Host and GPU have a copy each; which one is newer is known for each byte, and a byte is
//! copied when the other side needs it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Gpu;
use super::ranges::Ranges;
use crate::error::Error;

/// Bytes of buffers whose memory is pinned once the host has read as many of them: copies of fewer are as fast without, more
/// would take much of the machine's memory, and of a large buffer that is read now and then pinning costs more than copies.
const PINNED: Range<usize> = 16 << 10..256 << 20;

/// A read of at most this part of a buffer does not go through the host's copy.
const SMALL_PART: usize = 16;

/// Which bytes are newer on one side.
#[derive(Default)]
struct Newer {
    host: Ranges,
    gpu: Ranges,
}

impl Newer {
    fn host_wrote(&mut self, range: Range<usize>) {
        self.gpu.remove(&range);
        self.host.insert(range);
    }

    /// A kernel may have written `range`. What the host wrote since the kernel was committed it has not seen.
    fn gpu_wrote(&mut self, range: Range<usize>) {
        self.gpu.insert(range);
        for host in self.host.iter() {
            self.gpu.remove(host);
        }
    }
}

struct State {
    /// The GPU's address; 0 until it is needed there.
    address: u64,
    newer: Newer,
    /// Bytes that were copied to the host so far.
    pulled: usize,
    /// Whether the host's memory has been offered to the driver, and the driver took it.
    pinned: Option<bool>,
}

/// The GPU's side of a buffer.
pub(crate) struct Mirror {
    gpu: Arc<Gpu>,
    len: usize,
    state: Mutex<State>,
}

impl Mirror {
    /// Of a buffer of `len` bytes; `filled` where the host's are something else than zeros.
    pub(crate) fn new(gpu: &Arc<Gpu>, len: usize, filled: bool) -> Self {
        let mut newer = Newer::default();
        if filled {
            newer.host_wrote(0..len);
        }
        Self { gpu: Arc::clone(gpu), len, state: Mutex::new(State { address: 0, newer, pulled: 0, pinned: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that the host wrote these bytes.
    pub(crate) fn host_wrote(&self, range: Range<usize>) {
        self.state().newer.host_wrote(range);
    }

    /// Tells that a command buffer that is done may have written these bytes.
    pub(super) fn gpu_wrote(&self, range: Range<usize>) {
        self.state().newer.gpu_wrote(range);
    }

    /// The GPU's address, with what the host wrote copied there before what follows in the stream.
    ///
    /// # Errors
    /// Memory that the GPU does not have.
    ///
    /// # Safety
    /// `host` must be the buffer's memory, its context current.
    pub(super) unsafe fn push(&self, host: *const u8) -> Result<u64, Error> {
        let mut state = self.state();
        let Gpu { driver, stream, .. } = &*self.gpu;
        if state.address == 0 {
            // a buffer without bytes has an address too
            let bytes = self.len.max(1);
            // SAFETY: fills a local; then zeroes what was allocated
            unsafe {
                let status = (driver.allocate)(&raw mut state.address, bytes);
                driver.check(&format!("cuMemAlloc of {bytes} bytes"), status)?;
                driver.check("cuMemsetD8Async", (driver.fill)(state.address, 0, bytes, *stream))?;
            }
        }
        for range in state.newer.host.take() {
            let (to, from) = (state.address + range.start as u64, host.wrapping_add(range.start));
            // SAFETY: the range is inside the buffer on both sides
            let status = unsafe { (driver.upload)(to, from.cast(), range.len(), *stream) };
            driver.check("cuMemcpyHtoDAsync", status)?;
        }
        Ok(state.address)
    }

    /// Copies the bytes at `offset` straight from the GPU, if all of them are newer there and they are a small part of the buffer: pages of
    /// the host's copy would have to be made for them. Whether it did.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let state = self.state();
        let range = offset..offset + bytes.len();
        if bytes.len() > self.len / SMALL_PART || !state.newer.gpu.has(&range) || self.gpu.enter().is_err() {
            return false;
        }
        let from = state.address + offset as u64;
        // SAFETY: the range is inside the buffer, since something of it is newer on the GPU, and `bytes` is as long
        unsafe { (self.gpu.driver.download)(bytes.as_mut_ptr().cast(), from, bytes.len()) == 0 }
    }

    /// Copies what command buffers that are done wrote of the bytes `wanted` to `host`.
    ///
    /// # Safety
    /// `host` must be the buffer's memory.
    pub(crate) unsafe fn pull(&self, host: *mut u8, wanted: &Range<usize>) {
        let mut state = self.state();
        let ranges = state.newer.gpu.take_within(wanted);
        // a copy fails where the context is lost, and then every later command buffer fails too and says so
        if ranges.is_empty() || self.gpu.enter().is_err() {
            return;
        }
        state.pulled += ranges.iter().map(Range::len).sum::<usize>();
        if state.pinned.is_none() && state.pulled >= self.len && PINNED.contains(&self.len) {
            // SAFETY: the memory is the buffer's, which unpins it before it is freed
            state.pinned = Some(unsafe { (self.gpu.driver.pin)(host.cast(), self.len, 0) } == 0);
        }
        for range in ranges {
            let from = state.address + range.start as u64;
            // SAFETY: the range is inside the buffer on both sides
            unsafe { (self.gpu.driver.download)(host.wrapping_add(range.start).cast(), from, range.len()) };
        }
    }

    /// Undoes what [`Mirror::pull`] may have done to the host's memory, which is about to be freed.
    pub(crate) fn release(&self, host: *mut u8) {
        if self.state().pinned.take() == Some(true) && self.gpu.enter().is_ok() {
            // SAFETY: the memory was pinned
            unsafe { (self.gpu.driver.unpin)(host.cast()) };
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let address = self.state().address;
        if address != 0 && self.gpu.enter().is_ok() {
            // SAFETY: jobs hold the buffers they use
            unsafe { (self.gpu.driver.free)(address) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ranges: &Ranges) -> Vec<Range<usize>> {
        ranges.iter().cloned().collect()
    }

    #[test]
    fn the_newer_side_is_the_one_that_wrote_last() {
        let mut newer = Newer::default();
        newer.host_wrote(0..100);
        newer.host_wrote(200..300);
        assert_eq!(newer.host.take(), [0..100, 200..300]); // copied to the GPU
        newer.gpu_wrote(0..64);
        newer.host_wrote(16..20);
        newer.host_wrote(200..201);
        assert_eq!(list(&newer.gpu), [0..16, 20..64]);
        assert_eq!(list(&newer.host), [16..20, 200..201]);
        // a command buffer that was under way while the host wrote bytes beside those it used
        newer.gpu_wrote(0..64);
        assert_eq!(list(&newer.gpu), [0..16, 20..64]);
        assert_eq!(newer.host.take(), [16..20, 200..201]);
        newer.gpu_wrote(10..30);
        newer.gpu_wrote(70..80);
        assert_eq!(list(&newer.gpu), [0..64, 70..80]);
    }
}
