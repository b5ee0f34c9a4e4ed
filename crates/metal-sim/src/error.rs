//! What can go wrong, from the kernel text to the run.

use std::fmt;
use std::path::PathBuf;

use crate::msl::MslError;

/// One fault that a run showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel it happened in.
    pub kernel: String,
    /// What happened, with lines, buffers and threads.
    pub message: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kernel, self.message)
    }
}

fn lines(reports: &[Report]) -> String {
    reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Errors of the software Metal device.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the names in the messages")]
pub enum Error {
    /// The text is not MSL that this device handles.
    #[error(transparent)]
    Msl(#[from] MslError),
    /// There is no C++ compiler that understands clang's vector extensions.
    #[error(
        "kernels cannot be compiled: no clang++ of version 16 or newer found (tried {tried}); install one (apt-get install clang-19) or name it in METAL_SIM_CXX"
    )]
    CompilerMissing { tried: String },
    /// clang++ rejected the kernels; its messages are whole.
    #[error("{compiler} rejected {file}:\n{messages}")]
    Compile { compiler: String, file: String, messages: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// The shared object cannot be loaded, or is not one of ours.
    #[error("{path} cannot be loaded: {source}")]
    Load { path: PathBuf, source: libloading::Error },
    #[error("{path} was compiled for another version of the software Metal device (ABI {found}, expected {expected})")]
    Abi { path: PathBuf, expected: u32, found: u32 },
    #[error("no memory for a worker of the software Metal device")]
    WorkerMemory,
    #[error("kernel {kernel}: buffer({index}) {name} is not bound")]
    Unbound { kernel: String, index: u32, name: String },
    #[error("kernel {kernel}: buffer({index}) is bound, but at most 31 buffers may be")]
    TooManyBuffers { kernel: String, index: usize },
    #[error(
        "kernel {kernel}: buffer({index}): bytes {offset}..{end} are outside of buffer {label} of {buffer_len} bytes"
    )]
    BindingRange { kernel: String, index: usize, label: String, offset: usize, end: usize, buffer_len: usize },
    #[error("kernel {kernel}: buffer({index}) {name} is written, but buffer {label} is read-only memory")]
    ReadOnly { kernel: String, index: u32, name: String, label: String },
    #[error("kernel {kernel}: {threads} threads per threadgroup are outside of 1..={limit}")]
    Threads { kernel: String, threads: u64, limit: u32 },
    #[error("kernel {kernel}: a grid of {threadgroups:?} threadgroups is empty")]
    EmptyGrid { kernel: String, threadgroups: [u32; 3] },
    #[error(
        "kernel {kernel}: its threadgroup counts are 12 bytes; bound are {bytes} at {offset} in buffer {label} of {buffer} bytes"
    )]
    CountsRange { kernel: String, label: String, offset: usize, bytes: usize, buffer: usize },
    #[error(
        "kernel {kernel}: its threadgroup counts are at byte {offset} of buffer {label}, which is not a multiple of 4"
    )]
    CountsAlignment { kernel: String, label: String, offset: usize },
    #[error(
        "kernel {kernel}: {threadgroups:?} threadgroups of {threads:?} threads have positions of more than 32 bits"
    )]
    GridLimit { kernel: String, threadgroups: [u32; 3], threads: [u32; 3] },
    #[error("kernel {kernel} was compiled for another device than the one it was dispatched on")]
    OtherDevice { kernel: String },
    /// `METAL_SIM_DEVICE` asks for what is not there.
    #[error("METAL_SIM_DEVICE is {name:?}, which is neither cpu nor cuda")]
    DeviceName { name: String },
    /// An NVIDIA GPU that cannot be used, or that failed.
    #[error("NVIDIA GPU: {reason}")]
    Cuda { reason: String },
    /// A run showed faults: checked mode's reports, or a barrier that not all threads reached.
    #[error("{}", lines(reports))]
    Checked { reports: Vec<Report> },
    /// The device thread ended before the command buffer did.
    #[error("the software Metal device stopped before command buffer {label} was done")]
    DeviceLost { label: String },
}
