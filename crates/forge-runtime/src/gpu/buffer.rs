//! Buffers and slices of them: bounds are checked here, once for both backends.

use std::fmt;
use std::sync::Arc;

use bytemuck::Pod;

use super::Storage;

/// GPU memory that the host can read and write too. Cloning shares it.
#[derive(Clone)]
pub struct Buffer {
    storage: Storage,
    label: Arc<str>,
}

impl Buffer {
    pub(super) fn new(label: &str, storage: Storage) -> Self {
        Self { storage, label: label.into() }
    }

    /// Name given when it was allocated.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.storage.bytes()
    }

    /// `len` bytes from `offset` on.
    ///
    /// # Panics
    /// If they are not all inside the buffer.
    pub fn slice(&self, offset: u64, len: u64) -> Slice {
        self.check(offset, len);
        Slice { buffer: self.clone(), offset, len }
    }

    /// All of it.
    pub fn whole(&self) -> Slice {
        self.slice(0, self.bytes())
    }

    /// Copies out of the buffer, from byte `offset` on. What a command buffer writes is there once it has been waited for.
    ///
    /// # Panics
    /// If the bytes are not all inside the buffer.
    pub fn read<T: Pod>(&self, offset: u64, out: &mut [T]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
        self.check(offset, bytes.len() as u64);
        self.storage.read(offset, bytes);
    }

    /// Copies into the buffer, from byte `offset` on. Not while a command buffer that touches these bytes is running.
    ///
    /// # Panics
    /// If the bytes are not all inside the buffer.
    pub fn write<T: Pod>(&self, offset: u64, data: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        self.check(offset, bytes.len() as u64);
        // SAFETY: the range was checked to lie inside the storage, which lives as long as `self`; `bytes` is memory of the caller and
        // cannot overlap it. Buffers over read-only mappings are not handed out as `Buffer`.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.storage.contents().add(offset as usize), bytes.len());
        }
        self.storage.written(offset, bytes.len());
    }

    pub(super) fn storage(&self) -> &Storage {
        &self.storage
    }

    fn check(&self, offset: u64, len: u64) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.bytes()),
            "{}: {len} bytes at {offset} are outside its {} bytes",
            self.label,
            self.bytes()
        );
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.label, self.bytes())
    }
}

/// A range of a buffer: what a kernel argument is bound to.
#[derive(Clone, Debug)]
pub struct Slice {
    buffer: Buffer,
    offset: u64,
    len: u64,
}

impl Slice {
    /// First byte, counted from the start of the buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// A part of this slice.
    ///
    /// # Panics
    /// If the bytes are not all inside the slice.
    pub fn slice(&self, offset: u64, len: u64) -> Slice {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{}: {len} bytes at {offset} are outside a slice of {} bytes",
            self.buffer.label,
            self.len
        );
        Slice { buffer: self.buffer.clone(), offset: self.offset + offset, len }
    }

    /// Copies these bytes to another slice, which does not overlap this one. Not while a command buffer that touches either is
    /// running.
    ///
    /// # Panics
    /// If the other is shorter, or over the same bytes.
    pub fn copy_to(&self, other: &Slice) {
        assert!(other.len >= self.len, "{}: {} bytes do not fit {}", other.buffer.label, self.len, other.len);
        let (from, to) = (&self.buffer.storage, &other.buffer.storage);
        from.fetch(self.offset, self.len as usize);
        // SAFETY: both ranges were checked when the slices were made, and lie in storages that live as long as they do.
        unsafe {
            let source = from.contents().add(self.offset as usize);
            let target = to.contents().add(other.offset as usize);
            let apart = source.addr().abs_diff(target.addr()) >= self.len as usize;
            assert!(apart, "{}: a copy over itself", other.buffer.label);
            std::ptr::copy_nonoverlapping(source, target, self.len as usize);
        }
        to.written(other.offset, self.len as usize);
    }

    /// Appends these bytes. What a command buffer writes is there once it has been waited for.
    pub fn read(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.len as usize, 0);
        self.buffer.read(self.offset, &mut out[start..]);
    }

    /// Its content as words of four bytes. Not while a command buffer that writes it is running.
    pub fn words(&self) -> Vec<u32> {
        let mut words = vec![0; self.len as usize / 4];
        self.buffer.read(self.offset, &mut words);
        words
    }

    /// Writes these bytes. Not while a command buffer that touches them is running.
    ///
    /// # Panics
    /// If they are not as many.
    pub fn write(&self, data: &[u8]) {
        assert_eq!(data.len() as u64, self.len, "{}: other bytes than a slice has", self.buffer.label);
        self.buffer.write(self.offset, data);
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}
