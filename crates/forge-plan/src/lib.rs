//! From a [`Graph`](forge_frontend::Graph) to a [`Plan`]: which kernels, with which constants, in which
//! order, over which buffers and packed weights.
//!
//! Pure: no I/O and no source text. The passes are build (the frontend) → [`quantize`](mod@quantize) where asked for →
//! [`fuse`] → [`kernels`] →
//! [`schedule`] → [`barriers`] → [`pack`].

pub mod attention;
pub mod barriers;
pub mod costs;
pub mod error;
pub mod formula;
pub mod fuse;
pub mod geometry;
pub mod kernel;
mod kernels;
pub mod memory;
pub mod pack;
pub mod plan;
pub mod quantize;
mod roles;
mod schedule;
pub mod tuning;

pub use error::PlanError;
pub use kernel::{Family, Kernel, KernelId};
pub use kernels::format_name;
pub use pack::{PackPlan, PackedTensor};
pub use plan::{KvFormat, Plan, PlanOptions, plan};
pub use quantize::quantize;
