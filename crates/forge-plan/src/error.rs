//! What makes a graph impossible to plan.

use forge_formats::Format;
use forge_spec::CacheType;

/// Why no plan exists for a graph.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// The block's operations do not match any fusion pattern.
    #[error("block {block}: no kernel for {what}")]
    Unsupported {
        /// Block name.
        block: String,
        /// The operation and what is unusual about it.
        what: String,
    },
    /// A width that the kernels cannot read in vectors.
    #[error("{role}: width {cols} is not a multiple of {multiple}")]
    Width {
        /// Weight role.
        role: String,
        /// Columns found.
        cols: usize,
        /// What they must be a multiple of.
        multiple: usize,
    },
    /// Heads that the cache cannot store.
    #[error("--kv {}: heads of {head_dim} elements are no whole number of its blocks of {}", cache.name(), cache.block())]
    CacheBlocks {
        /// How keys and values were to be stored.
        cache: CacheType,
        /// Elements of a head.
        head_dim: usize,
    },
    /// Affine scales that the kernels do not read.
    #[error("{tensor}: scales and biases are {format}; F16 and BF16 are supported")]
    AffineScales {
        /// The checkpoint's tensor name.
        tensor: String,
        /// Format of the scales.
        format: Format,
    },
    /// A plan that does not hold together, which no graph should bring about.
    #[error("kernel {kernel}: {what} (a fault of Forge's: please report it)")]
    Invalid {
        /// The kernel's name.
        kernel: String,
        /// What is wrong with it.
        what: String,
    },
    /// No context, or more than the model was trained for.
    #[error(
        "--context {asked} {} {trained} tokens",
        if *asked == 0 { "holds no token; the trained context is" } else { "exceeds the trained context of" }
    )]
    Context {
        /// Asked for.
        asked: usize,
        /// Trained.
        trained: usize,
    },
    /// A role in a recipe that the model does not have.
    #[error("--quantize {role}=...: no matrix has this role; the roles are {roles}")]
    NoSuchRole {
        /// The role asked for.
        role: String,
        /// Those of the model's matrices, separated by commas.
        roles: String,
    },
    /// No matrix that `--quantize` could convert.
    #[error(
        "--quantize {target}: no F32, F16 or BF16 matrix whose width blocks of {} divide; the matrices are {formats}",
        target.block_elements()
    )]
    NothingToQuantize {
        /// The format asked for.
        target: Format,
        /// The formats of the checkpoint's matrices, separated by commas.
        formats: String,
    },
}
