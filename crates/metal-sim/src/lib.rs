//! The software Metal device: compiles Metal Shading Language with the host's clang++, runs threadgroups on all cores
//! with true simdgroup semantics, and, in checked mode, reports what a GPU would answer with wrong numbers.
//!
//! With the feature `cuda` an NVIDIA GPU can take the place of the cores: a proof and a measuring instrument, no product.
//!
//! [`Library`] is a kernel file made into a shared object; [`Device`] runs [`CommandBuffer`]s of dispatches over
//! [`Buffer`]s, in commit order, asynchronously. It knows Metal's compute model and nothing of models.

mod buffer;
mod cache;
mod check;
mod command;
mod compile;
mod counters;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod grid;
mod library;
pub mod msl;
mod pool;
mod shadow;
mod symbols;

pub use buffer::{Binding, Buffer};
pub use command::{CommandBuffer, Submission, Timing};
pub use compile::{CompileOptions, compile, compile_in, compiler};
pub use counters::{BindingCounters, DispatchCounters};
pub use device::Device;
pub use error::{Error, Report};
pub use library::{Argument, Kernel, Library};
