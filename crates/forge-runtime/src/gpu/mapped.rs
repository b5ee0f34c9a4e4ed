//! A memory-mapped file as GPU buffers, without a copy.
//!
//! A device's largest buffer may be smaller than the file. The file is then covered by views that overlap by the length of the
//! largest tensor, so that each tensor lies whole in one of them.

use std::ops::{Deref, Range};

use memmap2::Mmap;

use super::{Buffer, GpuError, Slice};

/// The bytes of a weights file where the system has mapped them, from the start of a page.
#[derive(Debug)]
pub enum Pages {
    /// The file itself.
    File(Mmap),
    /// The program that the file is part of. What is left of its last page is mapped too.
    Program(&'static [u8]),
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::File(map) => map,
            Self::Program(bytes) => bytes,
        }
    }
}

/// A weights file that kernels can read.
pub struct Mapped {
    views: Vec<(u64, Buffer)>,
}

impl Mapped {
    /// `views`: the byte of the file that each starts at, ascending, and the buffer over it.
    pub(super) fn new(views: Vec<(u64, Buffer)>) -> Self {
        Self { views }
    }

    /// `len` bytes of the file from `offset` on, as a kernel argument.
    ///
    /// # Panics
    /// If no view holds them all: they are outside the file, or longer than the largest tensor given at import.
    pub fn slice(&self, offset: u64, len: u64) -> Slice {
        let holder = self.views.iter().rev().find(|(start, _)| *start <= offset);
        let Some((start, buffer)) = holder else {
            panic!("byte {offset} is before the mapped file");
        };
        buffer.slice(offset - start, len)
    }
}

/// Covers `len` bytes with views of at most `max_view` bytes that start on pages and overlap such that any `largest` bytes lie
/// whole in the last view that starts at or before them. Lengths are rounded up to pages.
///
/// # Errors
/// [`GpuError::TensorTooLarge`] when `largest` bytes cannot lie in one view.
pub fn plan_views(len: u64, max_view: u64, page: u64, largest: u64) -> Result<Vec<Range<u64>>, GpuError> {
    let end = len.next_multiple_of(page);
    let max_view = max_view - max_view % page;
    if end <= max_view {
        return Ok(std::iter::once(0..end).collect());
    }
    // A tensor that begins on the last byte before the next view still ends inside this one.
    let overlap = largest.next_multiple_of(page);
    let Some(step) = max_view.checked_sub(overlap).filter(|step| *step > 0) else {
        return Err(GpuError::TensorTooLarge { tensor: largest, largest: max_view });
    };
    let mut views = Vec::new();
    let mut start = 0;
    loop {
        let stop = (start + max_view).min(end);
        views.push(start..stop);
        if stop == end {
            return Ok(views);
        }
        start += step;
    }
}
