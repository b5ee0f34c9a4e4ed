//! Grids: known when a dispatch is encoded, or three counts in a buffer that an earlier dispatch wrote, read when its turn
//! comes (`dispatchThreadgroups(indirectBuffer:indirectBufferOffset:threadsPerThreadgroup:)` of Metal).

use crate::buffer::Binding;
use crate::command::Bound;
use crate::error::{Error, Report};

/// Bytes of the counts: `MTLDispatchThreadgroupsIndirectArguments`, a u32 for each axis.
pub(crate) const COUNTS_BYTES: usize = 12;

/// The threadgroups of a dispatch.
pub(crate) enum Grid {
    /// So many along each axis.
    Direct([u32; 3]),
    /// As many as the buffer says.
    Indirect(Counts),
}

/// Where the counts of an indirect grid are.
pub(crate) struct Counts {
    /// [`COUNTS_BYTES`] bytes.
    pub(crate) bound: Bound,
    /// Most threadgroups along each axis.
    pub(crate) most: [u32; 3],
}

impl Grid {
    /// The grid of a dispatch of `kernel`, now that what came before is done.
    ///
    /// # Errors
    /// Counts that nobody wrote, and counts above what was declared.
    pub(crate) fn resolve(&self, kernel: &str) -> Result<[u32; 3], Report> {
        match self {
            Self::Direct(threadgroups) => Ok(*threadgroups),
            Self::Indirect(counts) => counts.read(kernel),
        }
    }

    /// The counts of an indirect grid.
    pub(crate) fn counts(&self) -> Option<&Counts> {
        match self {
            Self::Direct(_) => None,
            Self::Indirect(counts) => Some(counts),
        }
    }
}

impl Counts {
    /// Of a dispatch of `kernel` in threadgroups of `threads`.
    ///
    /// # Errors
    /// Counts that are not there or not aligned as Metal asks; a largest grid that is empty, or beyond 32-bit positions.
    pub(crate) fn new(kernel: &str, counts: &Binding<'_>, most: [u32; 3], threads: [u32; 3]) -> Result<Self, Error> {
        let kernel = || kernel.to_owned();
        let label = || counts.buffer.label().to_owned();
        let (offset, len) = (counts.offset, counts.buffer.len());
        if counts.len < COUNTS_BYTES || offset.saturating_add(counts.len) > len {
            return Err(Error::CountsRange {
                kernel: kernel(),
                label: label(),
                offset,
                bytes: counts.len,
                buffer: len,
            });
        }
        if !offset.is_multiple_of(4) {
            return Err(Error::CountsAlignment { kernel: kernel(), label: label(), offset });
        }
        if most.contains(&0) {
            return Err(Error::EmptyGrid { kernel: kernel(), threadgroups: most });
        }
        // `thread_position_in_grid` is a uint for each axis
        if most.iter().zip(threads).any(|(most, threads)| most.checked_mul(threads).is_none()) {
            return Err(Error::GridLimit { kernel: kernel(), threadgroups: most, threads });
        }
        Ok(Self { bound: Bound { buffer: counts.buffer.clone(), offset, len: COUNTS_BYTES }, most })
    }

    fn read(&self, kernel: &str) -> Result<[u32; 3], Report> {
        let Bound { buffer, offset, .. } = &self.bound;
        let report = |message| Report { kernel: kernel.to_owned(), message };
        if let Some(byte) = buffer.written().first_missing(*offset, offset + COUNTS_BYTES) {
            return Err(report(format!(
                "its threadgroup counts are memory nobody wrote: buffer {} byte {byte} of {}",
                buffer.label(),
                buffer.len()
            )));
        }
        let mut bytes = [0; COUNTS_BYTES];
        buffer.read(*offset, &mut bytes);
        let word = |axis: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * axis + byte]));
        let counts = [0, 1, 2].map(word);
        if counts.iter().zip(&self.most).any(|(count, most)| count > most) {
            return Err(report(format!(
                "buffer {} byte {offset} asks for {counts:?} threadgroups, declared are at most {:?}",
                buffer.label(),
                self.most
            )));
        }
        Ok(counts)
    }
}
