//! From a [`Graph`](forge_frontend::Graph) to a [`Plan`]: which kernels, with which constants, in which
//! order, over which buffers and packed weights.
//!
//! Pure: no I/O and no source text. The passes are build (the frontend) → [`quantize`](mod@quantize) where asked for →
//! [`fuse`] → [`kernels`] →
//! [`schedule`] → [`barriers`] → [`pack`].

pub mod attention;
pub mod barriers;
pub mod binding;
pub mod costs;
pub mod error;
pub mod families;
pub mod fuse;
pub mod geometry;
pub mod kernel;
pub mod linear;
pub mod memory;
pub mod pack;
mod packed;
pub mod plan;
pub mod quantize;
mod roles;
mod schedule;
pub mod tuning;

pub use error::PlanError;
pub use families::Family;
pub use kernel::{Kernel, KernelId};
pub use pack::{PackPlan, PackedTensor};
pub use packed::{describe, format_name, stored};
pub use plan::{CacheType, Plan, PlanOptions};
pub use quantize::quantize;

use forge_frontend::Graph;

/// Plans a graph.
///
/// # Errors
/// [`PlanError`] names the block, role or option that has no plan.
pub fn plan(graph: &Graph, options: &PlanOptions) -> Result<Plan, PlanError> {
    let trained = graph.config.trained_context;
    let context = options.context.unwrap_or(graph.default_context());
    if context > trained || context == 0 {
        return Err(PlanError::Context { asked: context, trained });
    }
    let embed = fuse::fuse(&graph.embed.block)?;
    let head = fuse::fuse(&graph.head.block)?;
    let blocks = graph.blocks.iter().map(fuse::fuse).collect::<Result<Vec<_>, _>>()?;
    schedule::Scheduler::new(graph, context, options).run(&embed, &blocks, &head)
}
