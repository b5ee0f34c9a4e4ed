//! Command buffers: one concurrent compute encoder each, explicit barriers, and the outcome checked after the wait.

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLBarrierScope, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue,
    MTLComputeCommandEncoder, MTLDispatchType, MTLSize,
};

use super::super::{GpuError, GpuTime, Page, Slice, explain_fault};
use super::Kernel;

type CommandBuffer = Retained<ProtocolObject<dyn MTLCommandBuffer>>;
type Encoder = Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>;

/// A command buffer being filled.
pub struct Commands {
    /// `None` if Metal gave no command buffer or encoder, and once committed.
    open: Option<(CommandBuffer, Encoder)>,
    label: String,
    page: Option<Page>,
}

// SAFETY: Metal asks that a command buffer and its encoder are not used by two threads at once, which owning them ensures; they may
// move between threads.
unsafe impl Send for Commands {}

impl Commands {
    pub(super) fn new(queue: &ProtocolObject<dyn MTLCommandQueue>, label: &str, page: Option<Page>) -> Self {
        let open = queue.commandBuffer().and_then(|commands| {
            commands.setLabel(Some(&NSString::from_str(label)));
            let encoder = commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent)?;
            Some((commands, encoder))
        });
        Self { open, label: label.to_owned(), page }
    }

    /// Adds a dispatch of `threadgroups` threadgroups; `args[i]` is `[[buffer(i)]]`.
    pub fn dispatch(&mut self, kernel: &Kernel, args: &[&Slice], threadgroups: [u32; 3]) {
        if let Some(page) = &mut self.page {
            page.dispatch(kernel, args, None, threadgroups);
        }
        let Some((_, encoder)) = &self.open else { return };
        let threads = bind(encoder, kernel, args);
        let [width, height, depth] = threadgroups.map(|count| count as usize);
        encoder.dispatchThreadgroups_threadsPerThreadgroup(MTLSize { width, height, depth }, threads);
    }

    /// Adds a dispatch of as many threadgroups as `counts` says when its turn comes: three u32, one for each axis
    /// (`MTLDispatchThreadgroupsIndirectArguments`), none of them above `most`. Where one is 0 nothing runs. The dispatch reads
    /// `counts`, so that one of the same command buffer that writes it needs a barrier between.
    ///
    /// # Panics
    /// If `counts` is shorter than 12 bytes or does not start at a multiple of 4.
    pub fn dispatch_indirect(&mut self, kernel: &Kernel, args: &[&Slice], counts: &Slice, most: [u32; 3]) {
        let fits = counts.bytes() >= 12 && counts.offset().is_multiple_of(4);
        assert!(fits, "{}: {} bytes at {} hold no threadgroup counts", kernel.name, counts.bytes(), counts.offset());
        if let Some(page) = &mut self.page {
            page.dispatch(kernel, args, Some(counts), most);
        }
        let Some((_, encoder)) = &self.open else { return };
        let threads = bind(encoder, kernel, args);
        let (buffer, offset) = (&counts.buffer().storage().0, counts.offset() as usize);
        // SAFETY: twelve bytes from the offset on lie inside the buffer, which the command buffer retains; the device reads the
        // counts, and what the kernel does beyond `most` is the kernel's own affair, as with any grid.
        unsafe {
            encoder.dispatchThreadgroupsWithIndirectBuffer_indirectBufferOffset_threadsPerThreadgroup(
                buffer, offset, threads,
            );
        }
    }

    /// Makes what the dispatches before it wrote visible to those after it.
    pub fn barrier(&mut self) {
        if let Some(page) = &mut self.page {
            page.barrier();
        }
        if let Some((_, encoder)) = &self.open {
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        }
    }

    /// Hands the command buffer to the device.
    pub fn commit(mut self) -> Pending {
        let commands = self.open.take().map(|(commands, encoder)| {
            encoder.endEncoding();
            commands.commit();
            commands
        });
        if let Some(page) = self.page.take() {
            page.commit();
        }
        Pending { commands, label: std::mem::take(&mut self.label), waited: false }
    }
}

/// Sets the kernel and its arguments; gives the size of its threadgroups.
fn bind(encoder: &Encoder, kernel: &Kernel, args: &[&Slice]) -> MTLSize {
    encoder.setComputePipelineState(&kernel.pipeline);
    for (index, slice) in args.iter().enumerate() {
        let buffer = &slice.buffer().storage().0;
        // SAFETY: the offset lies inside the buffer (checked when the slice was made), which the command buffer retains.
        unsafe { encoder.setBuffer_offset_atIndex(Some(buffer), slice.offset() as usize, index) };
    }
    MTLSize { width: kernel.threads as usize, height: 1, depth: 1 }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // Metal aborts the process over an encoder that is released without having been ended.
        if let Some((_, encoder)) = &self.open {
            encoder.endEncoding();
        }
    }
}

/// A command buffer that the device has. Dropped, it is waited for: its buffers are the host's again afterwards.
#[must_use = "what became of it is only in the result of wait"]
pub struct Pending {
    commands: Option<CommandBuffer>,
    label: String,
    waited: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.as_ref().filter(|_| !self.waited) {
            // Whoever drops it has an error of its own to tell.
            autoreleasepool(|_| commands.waitUntilCompleted());
        }
    }
}

// SAFETY: a committed command buffer is only waited for and asked for its outcome, by the one thread that owns this.
unsafe impl Send for Pending {}

impl Pending {
    /// Waits until it has run.
    ///
    /// # Errors
    /// [`GpuError::CommandBuffer`] unless it completed: what its kernels wrote is not to be used then.
    pub fn wait(mut self) -> Result<GpuTime, GpuError> {
        self.waited = true;
        let failed = |reason| GpuError::CommandBuffer { label: self.label.clone(), reason };
        let Some(commands) = &self.commands else {
            return Err(failed("Metal gave no command buffer for it".to_owned()));
        };
        autoreleasepool(|_| {
            commands.waitUntilCompleted();
            if commands.status() == MTLCommandBufferStatus::Completed {
                return Ok(GpuTime { seconds: commands.GPUEndTime() - commands.GPUStartTime() });
            }
            Err(failed(match commands.error() {
                Some(error) => explain_fault(&error.localizedDescription().to_string(), error.code()),
                None => "it did not complete, and Metal gives no reason".to_owned(),
            }))
        })
    }
}
