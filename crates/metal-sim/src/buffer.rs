//! Device memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shadow::Shadow;

/// Alignment of a buffer's first byte: the page of an Apple GPU.
const ALIGNMENT: usize = 16384;

enum Memory {
    Owned { block: *mut u8, layout: Layout },
    Borrowed { _keep_alive: Arc<dyn Any + Send + Sync> },
}

struct Inner {
    label: String,
    contents: *mut u8,
    len: usize,
    memory: Memory,
    written: Mutex<Shadow>,
    /// Where a GPU has its bytes.
    #[cfg(feature = "cuda")]
    mirror: Option<crate::cuda::Mirror>,
}

// SAFETY: the memory is shared as a GPU's is: whoever reads or writes `contents` orders that by waiting for submissions
unsafe impl Send for Inner {}
// SAFETY: as above
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        #[cfg(feature = "cuda")]
        if let Some(mirror) = &self.mirror {
            mirror.release(self.contents);
        }
        if let Memory::Owned { block, layout } = self.memory {
            // SAFETY: allocated with this layout in `Buffer::zeroed`
            unsafe { dealloc(block, layout) }
        }
    }
}

/// Memory of the device that the host sees too. Cheap to clone; clones are the same memory.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<Inner>,
}

/// A range of a buffer for one `[[buffer(i)]]` of a dispatch.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The first byte.
    pub offset: usize,
    /// Bytes that the kernel may touch.
    pub len: usize,
}

impl Buffer {
    pub(crate) fn zeroed(label: &str, len: usize) -> Self {
        // aligned by hand: the allocator hands out large zeroed blocks untouched only at its own alignment
        let Ok(layout) = Layout::from_size_align(len + ALIGNMENT, 16) else {
            handle_alloc_error(Layout::new::<u8>());
        };
        // SAFETY: the layout is not empty
        let block = unsafe { alloc_zeroed(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        let contents = block.wrapping_add(block.align_offset(ALIGNMENT));
        Self::new(label, contents, len, Memory::Owned { block, layout }, Shadow::nothing())
    }

    pub(crate) fn borrowed(label: &str, ptr: *const u8, len: usize, keep_alive: Arc<dyn Any + Send + Sync>) -> Self {
        Self::new(label, ptr.cast_mut(), len, Memory::Borrowed { _keep_alive: keep_alive }, Shadow::everything())
    }

    fn new(label: &str, contents: *mut u8, len: usize, memory: Memory, written: Shadow) -> Self {
        let inner = Inner {
            label: label.to_owned(),
            contents,
            len,
            memory,
            written: Mutex::new(written),
            #[cfg(feature = "cuda")]
            mirror: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same buffer on a GPU; it must not have been cloned yet.
    #[cfg(feature = "cuda")]
    pub(crate) fn on(mut self, gpu: &Arc<crate::cuda::Gpu>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            // a caller's memory is what is not there yet; new memory is zero on both sides
            let filled = matches!(inner.memory, Memory::Borrowed { .. });
            inner.mirror = Some(crate::cuda::Mirror::new(gpu, inner.len, filled));
        }
        self
    }

    /// Where a GPU has its bytes, for buffers of one.
    #[cfg(feature = "cuda")]
    pub(crate) fn mirror(&self) -> Option<&crate::cuda::Mirror> {
        self.inner.mirror.as_ref()
    }

    /// Its label, which reports name.
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }

    /// Whether it is the caller's memory, which kernels must not write.
    pub fn is_read_only(&self) -> bool {
        matches!(self.inner.memory, Memory::Borrowed { .. })
    }

    /// The first byte. Reads and writes must not overlap a submission that uses the same bytes. What is written through
    /// it must be told with [`Buffer::mark_written`], or checked mode takes it for memory that nobody wrote and a GPU does
    /// not see it. What a GPU wrote is there once it was [fetched](Buffer::fetch).
    pub fn contents(&self) -> *mut u8 {
        self.inner.contents
    }

    /// Brings what submissions that have ended wrote of `len` bytes at `offset` to where the host reads them. Nothing is to be done
    /// where the device is the host.
    pub fn fetch(&self, offset: usize, len: usize) {
        #[cfg(feature = "cuda")]
        if let Some(mirror) = &self.inner.mirror {
            let end = offset.saturating_add(len).min(self.len());
            // SAFETY: the memory is this buffer's, of the length that its mirror was made with
            unsafe { mirror.pull(self.inner.contents, &(offset.min(end)..end)) };
        }
        #[cfg(not(feature = "cuda"))]
        let _ = (offset, len);
    }

    /// Tells that the host wrote `len` bytes at `offset`.
    pub fn mark_written(&self, offset: usize, len: usize) {
        let end = offset.saturating_add(len).min(self.len());
        #[cfg(feature = "cuda")]
        if let Some(mirror) = &self.inner.mirror {
            mirror.host_wrote(offset.min(end)..end);
        }
        self.written().mark(offset.min(end), end, self.len());
    }

    /// Copies `bytes` to `offset` and marks them written.
    ///
    /// # Panics
    /// If they do not fit, or the buffer is read-only.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len());
        assert!(fits && !self.is_read_only(), "{} bytes at {offset} into buffer {}", bytes.len(), self.label());
        // SAFETY: in bounds, and the source is a Rust slice of other memory
        unsafe { self.contents().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.mark_written(offset, bytes.len());
    }

    /// Copies `bytes.len()` bytes from `offset`.
    ///
    /// # Panics
    /// If the range is not inside the buffer.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len());
        assert!(fits, "{} bytes at {offset} from buffer {}", bytes.len(), self.label());
        #[cfg(feature = "cuda")]
        if self.inner.mirror.as_ref().is_some_and(|mirror| mirror.read(offset, bytes)) {
            return;
        }
        self.fetch(offset, bytes.len());
        // SAFETY: in bounds, and the destination is a Rust slice of other memory
        unsafe { self.contents().add(offset).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    }

    /// A binding of all of it.
    pub fn whole(&self) -> Binding<'_> {
        Binding { buffer: self, offset: 0, len: self.len() }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn written(&self) -> MutexGuard<'_, Shadow> {
        self.inner.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
