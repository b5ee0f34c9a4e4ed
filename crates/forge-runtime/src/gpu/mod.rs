//! The GPU as the generated model sees it: kernels by index, buffers, slices of them, and command buffers with explicit barriers.
//!
//! One API, two backends with the same inherent methods: `metal` on macOS, `software` (the software Metal device) elsewhere. Whatever
//! both need, bounds above all, is written once in `buffer` and `mapped`.
//!
//! Every dispatch of a command buffer may run at the same time as the others: two that touch the same bytes, one of them
//! writing, need [`Commands::barrier`] between them. An indirect grid is read by its dispatch. Command buffers run in the order in
//! which they are committed.

mod buffer;
mod fault;
mod mapped;
#[cfg(target_os = "macos")]
mod metal;
mod recording;
#[cfg(not(target_os = "macos"))]
mod software;

pub use buffer::{Buffer, Slice};
pub use fault::explain_fault;
pub use mapped::{Mapped, Pages, plan_views};
#[cfg(target_os = "macos")]
pub use metal::{Commands, Gpu, Kernel, Pending, pool, prepare_process};
pub use recording::{Dispatch, REPEATABLE_ROWS, Recorder};
#[cfg(not(target_os = "macos"))]
pub use software::{Commands, Gpu, Kernel, Pending, pool, prepare_process};

#[cfg(target_os = "macos")]
use metal::Storage;
use recording::Page;
#[cfg(not(target_os = "macos"))]
use software::Storage;

/// Threads of a simdgroup; the kernels are written for it.
pub const SIMD_WIDTH: usize = 32;

/// What the host has to know of one kernel.
#[derive(Debug, Clone, Copy)]
pub struct KernelSpec {
    /// Name of the kernel function.
    pub name: &'static str,
    /// Threads in a threadgroup, along x.
    pub threads: u32,
    /// Bytes of threadgroup memory that the kernel declares; at most 32 768.
    pub threadgroup_bytes: u32,
}

/// Kernels to be compiled.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The file's name, for messages.
    pub file: &'static str,
    /// Its text.
    pub metal: &'static str,
    /// What `build.rs` made of it: a metallib on macOS, a shared object for the software device elsewhere.
    pub compiled: Option<&'static [u8]>,
}

impl Source {
    /// The model's `kernels.metal`. Takes an empty `compiled` for "was not compiled at build time", which lets `build.rs`
    /// always write the file.
    pub const fn new(metal: &'static str, compiled: &'static [u8]) -> Self {
        Self { file: "kernels.metal", metal, compiled: if compiled.is_empty() { None } else { Some(compiled) } }
    }

    /// A file that is compiled when it is needed.
    pub const fn text(file: &'static str, metal: &'static str) -> Self {
        Self { file, metal, compiled: None }
    }
}

/// How long a command buffer took on the GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuTime {
    /// Seconds from the start of its first dispatch to the end of its last.
    pub seconds: f64,
}

/// What the device can hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The device's name.
    pub name: String,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Bytes that can stay resident at once, if the device says so (`recommendedMaxWorkingSetSize`).
    pub working_set_bytes: Option<u64>,
}

impl Limits {
    /// Refuses a model that the device cannot hold; called before anything is loaded.
    ///
    /// # Errors
    /// [`GpuError::WorkingSet`].
    pub fn check_memory(&self, needed: u64) -> Result<(), GpuError> {
        match self.working_set_bytes {
            Some(available) if needed > available => {
                Err(GpuError::WorkingSet { device: self.name.clone(), needed, available })
            }
            _ => Ok(()),
        }
    }
}

/// What can go wrong on the GPU.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// There is no device to run on.
    #[error("no Metal device: this program needs a Mac with Apple silicon")]
    NoDevice,
    /// The device is not of a kind that the kernels run on.
    #[error("{device} is not supported: {reason}")]
    Unsupported {
        /// The device's name.
        device: String,
        /// What it lacks.
        reason: &'static str,
    },
    /// The device that was asked for cannot be opened.
    #[error("the device cannot be opened: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// The kernels do not compile; the compiler's messages follow in full.
    #[error("{file} does not compile:\n{log}")]
    Compile {
        /// The file.
        file: &'static str,
        /// Everything the compiler said.
        log: String,
    },
    /// A compiled library that does not load.
    #[error("the compiled kernels do not load: {reason}")]
    Library {
        /// What the loader said.
        reason: String,
    },
    /// A kernel that the library lacks.
    #[error("kernels.metal has no kernel {name:?}")]
    NoKernel {
        /// The kernel.
        name: &'static str,
    },
    /// A pipeline that could not be built.
    #[error("kernel {name}: {reason}")]
    Pipeline {
        /// The kernel.
        name: &'static str,
        /// What Metal said.
        reason: String,
    },
    /// Simdgroups that are not 32 threads wide.
    #[error("kernel {name} runs in simdgroups of {found} threads on {device}; it is written for 32")]
    SimdWidth {
        /// The kernel.
        name: &'static str,
        /// The device's name.
        device: String,
        /// `threadExecutionWidth`.
        found: usize,
    },
    /// A kernel that cannot have as many threads as its schedule gives it.
    #[error("kernel {name} needs {needed} threads in a threadgroup; {device} gives it {found}")]
    ThreadLimit {
        /// The kernel.
        name: &'static str,
        /// The device's name.
        device: String,
        /// [`KernelSpec::threads`].
        needed: u32,
        /// `maxTotalThreadsPerThreadgroup`.
        found: usize,
    },
    /// A kernel that needs more threadgroup memory than there is.
    #[error("kernel {name} needs {needed} bytes of threadgroup memory; {device} has {found}")]
    ThreadgroupMemory {
        /// The kernel.
        name: &'static str,
        /// The device's name.
        device: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A model beyond what the device can keep resident.
    #[error(
        "not enough GPU memory: {} are needed and {device} can hold {} at once; a smaller --context needs less",
        format_bytes(*.needed), format_bytes(*.available)
    )]
    WorkingSet {
        /// The device's name.
        device: String,
        /// Bytes needed.
        needed: u64,
        /// `recommendedMaxWorkingSetSize`.
        available: u64,
    },
    /// A buffer that the device did not give.
    #[error("no GPU memory for {label}: {} ({bytes} bytes) were asked for", format_bytes(*.bytes))]
    OutOfMemory {
        /// The buffer.
        label: String,
        /// Bytes asked for.
        bytes: u64,
    },
    /// A tensor larger than the largest buffer.
    #[error("a tensor of {} does not fit the device's largest buffer of {}", format_bytes(*.tensor), format_bytes(*.largest))]
    TensorTooLarge {
        /// Bytes of the tensor.
        tensor: u64,
        /// Bytes of the largest buffer.
        largest: u64,
    },
    /// A command buffer that did not complete.
    #[error("GPU work {label:?} failed: {reason}")]
    CommandBuffer {
        /// The command buffer.
        label: String,
        /// The device's account of it, whole.
        reason: String,
    },
}

/// Bytes as a person reads them: `1.50 GiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}
