//! From a [`Graph`](forge_frontend::Graph) to a [`Plan`]: which kernels, with which constants, in which
//! order, over which buffers and packed weights.
//!
//! Pure: no I/O and no source text. The passes are build (the frontend) → [`quantize`](mod@quantize) where asked for →
//! [`fuse`] → lowering → [`barriers`] → [`valid`].

pub mod attention;
pub mod barriers;
pub mod binding;
pub mod call;
pub mod costs;
pub mod error;
pub mod families;
pub mod fuse;
pub mod geometry;
pub mod kernel;
pub mod linear;
mod lower;
pub mod memory;
pub mod pack;
mod packed;
pub mod plan;
pub mod quantize;
pub mod roles;
pub mod schedule;
pub mod state;
pub mod tuning;
pub mod valid;

pub use error::PlanError;
pub use families::Family;
pub use kernel::{Kernel, KernelId};
pub use pack::{PackPlan, PackedTensor};
pub use packed::{describe, format_name, stored};
pub use plan::{CacheType, Plan, PlanOptions};
pub use quantize::quantize;

use forge_frontend::Graph;
use forge_frontend::graph::StateSpec;

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
    for state in &graph.states {
        let cache = options.kv;
        // What is stored in blocks of its own.
        let parts = match state.spec {
            StateSpec::Kv(spec) => vec![spec.head_dim],
            StateSpec::Latent(spec) => vec![spec.latent, spec.rope],
            StateSpec::Recurrent { .. } => Vec::new(),
        };
        if let Some(head_dim) = parts.into_iter().find(|part| !part.is_multiple_of(cache.block())) {
            return Err(PlanError::CacheBlocks { cache, head_dim });
        }
    }
    let fused = lower::FusedGraph {
        embed: fuse::fuse(&graph.embed.block)?,
        blocks: graph.blocks.iter().map(fuse::fuse).collect::<Result<_, _>>()?,
        head: fuse::fuse(&graph.head.block)?,
    };
    let plan = lower::lower(graph, &fused, context, options)?;
    valid::check(&plan)?;
    Ok(plan)
}
