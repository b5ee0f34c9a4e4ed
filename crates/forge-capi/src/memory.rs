//! Memory of the caller: what pointers and sizes of C stand for, as far as that can be told.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use crate::failure::{Failure, ForgeStatus};

/// The elements that a caller lends; none where `count` is 0, whatever the pointer.
///
/// # Safety
/// Where `start` is neither null nor misaligned, `count` elements from it can be read until the caller's function returns, and nothing writes them.
pub(crate) unsafe fn lent<'a, T>(start: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check(start, what)?;
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure::new(ForgeStatus::Argument, format!("{count} are more {what} than memory has room for")));
    }
    // SAFETY: not null, aligned, no more than an object may have; the rest is the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(start, count) })
}

/// A text that a caller lends.
///
/// # Safety
/// Those of [`lent`].
pub(crate) unsafe fn text<'a>(start: *const c_char, bytes: usize, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's word.
    utf8(unsafe { lent(start.cast(), bytes, what) }?, what)
}

/// A text that ends with a zero byte.
///
/// # Safety
/// Where `start` is not null, bytes from it up to the first zero can be read until the caller's function returns, and nothing writes them.
pub(crate) unsafe fn terminated<'a>(start: *const c_char, what: &str) -> Result<&'a str, Failure> {
    check(start, what)?;
    // SAFETY: not null; the rest is the caller's word.
    utf8(unsafe { CStr::from_ptr(start) }.to_bytes(), what)
}

/// A path that ends with a zero byte; none for a null pointer.
///
/// # Safety
/// Those of [`terminated`].
pub(crate) unsafe fn path(start: *const c_char) -> Result<Option<PathBuf>, Failure> {
    if start.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's word.
    unsafe { terminated(start, "path of the weights") }.map(|path| Some(path.into()))
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Failure> {
    let failure = |error| Failure::new(ForgeStatus::Utf8, format!("the {what} is no UTF-8: {error}"));
    std::str::from_utf8(bytes).map_err(failure)
}

/// Where a result is written.
pub(crate) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// A place that there has to be.
    ///
    /// # Safety
    /// Where `place` is neither null nor misaligned, a `T` can be written there until the caller's function returns, and nothing else reads or writes it.
    pub(crate) unsafe fn new(place: *mut T, what: &str) -> Result<Self, Failure> {
        check(place, what)?;
        Ok(Self(place))
    }

    pub(crate) fn write(&self, value: T) {
        // SAFETY: `new` was told that it can be written, and checked what can be.
        unsafe { self.0.write(value) }
    }
}

/// Copies elements, `end` after them, to a buffer of the caller, whose size in elements is `capacity`. `count` gets their number without `end`,
/// also where there is no buffer, which asks for that alone.
///
/// # Safety
/// Where `buffer` is neither null nor misaligned, `capacity` elements can be written there until the caller's function returns, and nothing else
/// reads or writes them.
pub(crate) unsafe fn copy<T: Copy>(
    from: &[T],
    end: Option<T>,
    buffer: *mut T,
    capacity: usize,
    count: &Place<usize>,
) -> Result<(), Failure> {
    count.write(from.len());
    if buffer.is_null() {
        return Ok(());
    }
    check(buffer, "buffer")?;
    let needed = from.len() + usize::from(end.is_some());
    if capacity < needed {
        let words = format!("the buffer has room for {capacity}, {needed} are needed");
        return Err(Failure::new(ForgeStatus::Buffer, words));
    }
    // SAFETY: as many elements as the caller says there is room for, or fewer; what is copied is the library's own.
    unsafe {
        buffer.copy_from_nonoverlapping(from.as_ptr(), from.len());
        if let Some(end) = end {
            buffer.add(from.len()).write(end);
        }
    }
    Ok(())
}

fn check<T>(pointer: *const T, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::new(ForgeStatus::Null, format!("the {what} is a null pointer")));
    }
    if !pointer.is_aligned() {
        return Err(Failure::new(ForgeStatus::Argument, format!("the {what} is not aligned")));
    }
    Ok(())
}
