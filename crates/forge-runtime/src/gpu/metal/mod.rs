//! The Metal backend, for macOS 13 and later on Apple silicon.
//!
//! One queue; buffers in shared storage; hazards between command buffers are tracked by Metal, those inside one are the business
//! of the schedule's barriers. Selectors newer than macOS 13 are called behind a check of the system's version.

mod commands;
mod library;
mod residency;

use core::ffi::c_void;
use core::ptr::NonNull;
use std::sync::Arc;

use block2::RcBlock;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSString, NSUInteger};
use objc2_metal::{
    MTLBuffer, MTLCommandQueue, MTLComputePipelineState, MTLCreateSystemDefaultDevice, MTLDevice, MTLGPUFamily,
    MTLResource, MTLResourceOptions,
};

use super::{Buffer, GpuError, KernelSpec, Limits, Mapped, Pages, Recorder, SIMD_WIDTH, Source, plan_views};
pub use commands::{Commands, Pending};
use residency::Residency;

// MTLCreateSystemDefaultDevice finds no device in a process that does not link CoreGraphics.
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

/// The Metal device with a pipeline for every kernel of the model.
pub struct Gpu {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    kernels: Vec<Kernel>,
    residency: Option<Residency>,
    limits: Limits,
    recorder: Recorder,
}

/// A kernel ready to be dispatched.
#[derive(Clone)]
pub struct Kernel {
    pipeline: Retained<ProtocolObject<dyn MTLComputePipelineState>>,
    name: &'static str,
    threads: u32,
}

impl Kernel {
    /// Name of the kernel function.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

#[derive(Clone)]
pub(super) struct Storage(Retained<ProtocolObject<dyn MTLBuffer>>);

// SAFETY: Metal's resources may be used from any thread; objc2-metal leaves the traits out because the bytes in them may race, and
// those are reached through raw pointers only, under the rules of `Buffer::read` and `Buffer::write`.
unsafe impl Send for Storage {}
// SAFETY: as for `Send`.
unsafe impl Sync for Storage {}

impl Storage {
    pub(super) fn bytes(&self) -> u64 {
        self.0.length() as u64
    }

    pub(super) fn contents(&self) -> *mut u8 {
        self.0.contents().cast::<u8>().as_ptr()
    }

    /// Copies bytes from an offset on, which the caller has checked.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        // SAFETY: the range lies inside the buffer, which lives as long as `self`; `bytes` is memory of the caller and cannot overlap
        // it.
        unsafe {
            std::ptr::copy_nonoverlapping(self.contents().add(offset as usize), bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Shared memory needs no word of what the host wrote.
    pub(super) fn written(&self, _offset: u64, _len: usize) {}

    /// Nor of what it is about to read.
    pub(super) fn fetch(&self, _offset: u64, _len: usize) {}
}

impl Gpu {
    /// Opens the device, loads or compiles the kernels and builds a pipeline for each of `specs`.
    ///
    /// # Errors
    /// [`GpuError::NoDevice`], [`GpuError::Unsupported`], [`GpuError::Compile`] with the whole of the compiler's messages, and for
    /// single kernels [`GpuError::NoKernel`], [`GpuError::Pipeline`], [`GpuError::SimdWidth`], [`GpuError::ThreadLimit`] and
    /// [`GpuError::ThreadgroupMemory`].
    pub fn open(source: &Source, specs: &'static [KernelSpec]) -> Result<Self, GpuError> {
        autoreleasepool(|_| {
            let device = MTLCreateSystemDefaultDevice().ok_or(GpuError::NoDevice)?;
            let name = device.name().to_string();
            // The device of a virtual machine reports an older family than the GPU behind it has.
            if !device.supportsFamily(MTLGPUFamily::Apple7) && !name.contains("Paravirtual") {
                return Err(GpuError::Unsupported { device: name, reason: "Apple silicon (M1 or later) is needed" });
            }
            let limits = Limits {
                name,
                max_buffer_bytes: device.maxBufferLength() as u64,
                working_set_bytes: Some(device.recommendedMaxWorkingSetSize()).filter(|bytes| *bytes > 0),
            };
            let kernels = kernels(&device, &limits.name, source, specs)?;
            let queue = device.newCommandQueue().ok_or(GpuError::NoDevice)?;
            let residency = Residency::new(&device, &queue);
            Ok(Self { device, queue, kernels, residency, limits, recorder: Recorder::default() })
        })
    }

    /// Compiles more kernels for this device, each of `specs`.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn compile(&self, source: &Source, specs: &'static [KernelSpec]) -> Result<Vec<Kernel>, GpuError> {
        autoreleasepool(|_| kernels(&self.device, &self.limits.name, source, specs))
    }

    /// Keeps what command buffers hold, once started.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Whether its times say nothing about a GPU: never.
    pub fn is_software(&self) -> bool {
        false
    }

    /// Name and sizes of the device.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The kernel at `index` of the table given to [`Gpu::open`].
    ///
    /// # Panics
    /// If there is none.
    pub fn kernel(&self, index: usize) -> &Kernel {
        &self.kernels[index]
    }

    /// A zero-filled buffer of `bytes` bytes.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`].
    pub fn alloc(&self, label: &str, bytes: u64) -> Result<Buffer, GpuError> {
        // Hazards are tracked so that one command buffer waits for what another before it writes.
        let options = MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeTracked;
        let storage = self.new_buffer(label, bytes, options)?;
        // SAFETY: the storage has this many bytes, and nothing else knows of it yet.
        unsafe { std::ptr::write_bytes(storage.contents(), 0, bytes as usize) };
        Ok(Buffer::new(label, storage))
    }

    /// A mapped file as buffers that kernels may read; `largest` is the length of its largest tensor. Nothing is copied, except
    /// in a virtual machine whose device cannot map.
    ///
    /// # Errors
    /// [`GpuError::TensorTooLarge`] and [`GpuError::OutOfMemory`].
    pub fn import(&self, label: &str, map: &Arc<Pages>, largest: u64) -> Result<Mapped, GpuError> {
        let views = plan_views(map.len() as u64, self.limits.max_buffer_bytes, page_bytes(), largest)?;
        let buffers = views.into_iter().map(|view| {
            let storage = match self.map_view(map, view.start as usize, (view.end - view.start) as usize) {
                Some(storage) => storage,
                None => self.copy_view(label, map, view.start as usize, view.end as usize)?,
            };
            self.adopt(label, &storage);
            Ok((view.start, Buffer::new(label, storage)))
        });
        Ok(Mapped::new(buffers.collect::<Result<_, GpuError>>()?))
    }

    /// A new command buffer.
    pub fn commands(&self, label: &str) -> Commands {
        if let Some(residency) = &self.residency {
            residency.keep_warm();
        }
        Commands::new(&self.queue, label, self.recorder.page())
    }

    /// A buffer over `len` bytes of the mapping from `start` on, both on page boundaries. `None` if the device makes no such
    /// buffer, or one without a length.
    fn map_view(&self, map: &Arc<Pages>, start: usize, len: usize) -> Option<Storage> {
        let pointer = NonNull::new(map.as_ptr().wrapping_add(start).cast_mut().cast::<c_void>())?;
        let keep = map.clone();
        // The mapping lives as long as this block, and the block as long as the buffer.
        let release = RcBlock::new(move |_: NonNull<c_void>, _: NSUInteger| {
            let _ = &keep;
        });
        let options = MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
        // SAFETY: the pages are mapped (the last one whole, whatever the file's length) and stay so until the block is gone; an
        // `Arc<Pages>` may be dropped on any thread.
        let buffer = unsafe {
            self.device.newBufferWithBytesNoCopy_length_options_deallocator(pointer, len, options, Some(&release))
        }?;
        (buffer.length() >= len).then_some(Storage(buffer))
    }

    fn copy_view(&self, label: &str, map: &Pages, start: usize, end: usize) -> Result<Storage, GpuError> {
        let options = MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
        let storage = self.new_buffer(label, (end - start) as u64, options)?;
        let bytes = &map[start..end.min(map.len())];
        // SAFETY: the new buffer has at least this many bytes, and nothing else knows of it yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), storage.contents(), bytes.len()) };
        Ok(storage)
    }

    fn new_buffer(&self, label: &str, bytes: u64, options: MTLResourceOptions) -> Result<Storage, GpuError> {
        let refused = || GpuError::OutOfMemory { label: label.to_owned(), bytes };
        if bytes > self.limits.max_buffer_bytes {
            return Err(refused());
        }
        // Metal makes no empty buffers.
        let buffer = self.device.newBufferWithLength_options(bytes.max(1) as usize, options).ok_or_else(refused)?;
        let storage = Storage(buffer);
        self.adopt(label, &storage);
        Ok(storage)
    }

    fn adopt(&self, label: &str, storage: &Storage) {
        storage.0.setLabel(Some(&NSString::from_str(label)));
        if let Some(residency) = &self.residency {
            residency.add(&storage.0);
        }
    }
}

/// A pipeline for each of `specs`, checked.
fn kernels(
    device: &ProtocolObject<dyn MTLDevice>,
    device_name: &str,
    source: &Source,
    specs: &'static [KernelSpec],
) -> Result<Vec<Kernel>, GpuError> {
    library::pipelines(device, source, specs)?
        .into_iter()
        .zip(specs)
        .map(|(pipeline, spec)| {
            check_pipeline(device, device_name, &pipeline, spec)?;
            Ok(Kernel { pipeline, name: spec.name, threads: spec.threads })
        })
        .collect()
}

fn check_pipeline(
    device: &ProtocolObject<dyn MTLDevice>,
    device_name: &str,
    pipeline: &ProtocolObject<dyn MTLComputePipelineState>,
    spec: &KernelSpec,
) -> Result<(), GpuError> {
    let device_name = || device_name.to_owned();
    let width = pipeline.threadExecutionWidth();
    if width != SIMD_WIDTH {
        return Err(GpuError::SimdWidth { name: spec.name, device: device_name(), found: width });
    }
    let threads = pipeline.maxTotalThreadsPerThreadgroup();
    if threads < spec.threads as usize {
        return Err(GpuError::ThreadLimit {
            name: spec.name,
            device: device_name(),
            needed: spec.threads,
            found: threads,
        });
    }
    let needed = pipeline.staticThreadgroupMemoryLength() as u64;
    let found = device.maxThreadgroupMemoryLength() as u64;
    if needed > found {
        return Err(GpuError::ThreadgroupMemory { name: spec.name, device: device_name(), needed, found });
    }
    Ok(())
}

/// Bytes of a page: 16 KiB on Apple silicon.
fn page_bytes() -> u64 {
    // SAFETY: sysconf only reads; it fails for unknown names alone, and this one is known.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(16384)
}

/// Runs `f` in an autorelease pool of its own; threads of Rust have none, and what Metal autoreleases would stay for ever.
pub fn pool<R>(f: impl FnOnce() -> R) -> R {
    autoreleasepool(|_| f())
}

/// Sets what the driver reads from the environment when the device is made: without it, macOS stops long GPU work on machines
/// that also draw a screen.
///
/// # Safety
/// Call it before the process has a second thread.
pub unsafe fn prepare_process() {
    const NAME: &str = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: the caller says that no other thread can be reading the environment.
        unsafe { std::env::set_var(NAME, "1") };
    }
}
