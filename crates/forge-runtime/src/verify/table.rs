//! What a generated project says of its kernels, as data: `src/checks.rs` holds the table.

use super::super::gpu::Source;
pub use super::super::spec::*;
use super::super::tune::Tuning;

/// Every kernel of a project, for `verify`, `profile` and `tune`.
#[derive(Debug)]
pub struct Checks {
    /// Version of Forge that generated the project.
    pub forge_version: &'static str,
    /// The kernels.
    pub source: &'static Source,
    /// Sequences that the program holds.
    pub slots: usize,
    /// One entry per kernel.
    pub kernels: &'static [KernelCheck],
    /// What each kernel moves and computes, in the same order.
    pub costs: &'static [Cost],
    /// Fields of the weights file and the matrices that each has stacked, by their names in GGUF: what `imatrix` calls them.
    pub matrices: &'static [(&'static str, &'static [&'static str])],
    /// Other geometries of the matrix-vector kernels.
    pub tuning: &'static Tuning,
}

/// One kernel, how the schedule dispatches it, and what it computes.
#[derive(Debug, Clone, Copy)]
pub struct KernelCheck {
    /// Index into the model's kernels.
    pub kernel: usize,
    /// The layer whose weights are used, of those that run it; `None` outside the layers.
    pub layer: Option<usize>,
    /// Rows (tokens of a step) to try.
    pub rows: &'static [usize],
    /// Whether the rows of a step may be of several sequences.
    pub mixed: bool,
    /// Threadgroups.
    pub grid: [Dim; 3],
    /// What it computes.
    pub operation: Operation<'static>,
    /// What is bound: index = `[[buffer(i)]]`.
    pub arguments: &'static [Argument<'static>],
}
