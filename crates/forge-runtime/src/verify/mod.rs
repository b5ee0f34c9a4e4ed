//! `verify`: every kernel of the schedule, on the device that is there, against a plain reference implementation.
//!
//! A kernel runs with its real sizes, one layer's real weights and seeded inputs, for several numbers of rows; what it
//! leaves is compared with f64 arithmetic over weights decoded here. The generated project says what its kernels are
//! ([`Checks`], in `src/checks.rs`); of large matrices a sample of output rows is compared.

mod compare;
pub mod packed;
mod random;
mod reference;
mod run;
mod sampling;
mod table;

use super::gpu::{Gpu, Kernel, Mapped};
use super::weights::Weights;
use super::{ModelInfo, Result};
use compare::Comparison;
use run::{Bench, Case, Run};
use sampling::Draw;
pub use table::*;

/// The device with a model's kernels and weights.
pub struct Verifier<'a> {
    checks: &'a Checks,
    info: &'static ModelInfo,
    weights: &'a Weights,
    gpu: &'a Gpu,
    mapped: Mapped,
}

/// What came of one kernel with one number of rows.
#[derive(Debug)]
pub struct Outcome {
    /// Rows of the step.
    pub rows: usize,
    /// Error of the element that came closest to its bound.
    pub error: f64,
    /// That bound.
    pub bound: f64,
    /// `error` relative to the largest value expected of its argument.
    pub relative: f64,
    /// What is wrong, if anything is.
    pub fault: Option<String>,
}

impl<'a> Verifier<'a> {
    /// Maps the weights for a device that was opened with the model's kernels.
    ///
    /// # Errors
    /// What [`Gpu::import`] reports.
    pub fn new(gpu: &'a Gpu, checks: &'a Checks, info: &'static ModelInfo, weights: &'a Weights) -> Result<Self> {
        let mapped = gpu.import("weights", weights.map(), weights.largest())?;
        Ok(Self { checks, info, weights, gpu, mapped })
    }

    /// Name of the device.
    pub fn device(&self) -> &str {
        &self.gpu.limits().name
    }

    /// Every check, in the order of the kernels.
    pub fn checks(&self) -> &'a [KernelCheck] {
        self.checks.kernels
    }

    /// Name of a check's kernel.
    pub fn name(&self, check: &KernelCheck) -> &'static str {
        self.info.kernels[check.kernel].name
    }

    /// Runs one check for each of its numbers of rows.
    pub fn run(&self, check: &KernelCheck) -> impl Iterator<Item = Outcome> {
        self.run_kernel(check, self.gpu.kernel(check.kernel))
    }

    /// Runs one check with a kernel in place of its own.
    pub fn run_kernel(&self, check: &KernelCheck, kernel: &Kernel) -> impl Iterator<Item = Outcome> {
        check.rows.iter().map(|&rows| self.run_rows(check, kernel, rows))
    }

    fn run_rows(&self, check: &KernelCheck, kernel: &Kernel, rows: usize) -> Outcome {
        let bench = Bench { gpu: self.gpu, weights: self.weights, mapped: &self.mapped };
        let mut comparison = Comparison::default();
        let mut fault = None;
        for case in cases(&check.operation, rows, self.info.trained_context) {
            match Run::new(&bench, check, kernel, &case) {
                Ok(run) => reference::check(&check.operation, &run, &mut comparison),
                Err(error) => {
                    fault = Some(error.to_string());
                    break;
                }
            }
        }
        let worst = comparison.worst;
        let fault = fault.or_else(|| comparison.fault());
        Outcome {
            rows,
            error: worst.map_or(0.0, |worst| worst.error),
            bound: worst.map_or(0.0, |worst| worst.bound),
            relative: comparison.relative(),
            fault,
        }
    }
}

/// What to run a kernel with: where positions matter several of them, and all kinds of draws.
fn cases(operation: &Operation, rows: usize, context: usize) -> Vec<Case> {
    let at = |position: usize, wrap: Option<usize>| Case {
        rows,
        position,
        capacity: wrap.unwrap_or(position + rows),
        draw: None,
    };
    match operation {
        Operation::RopeAppend(RopeAppend { wrap, .. }) | Operation::Attention(Attention { wrap, .. }) => {
            let positions = positions(rows, *wrap, operation.split(), context);
            positions.into_iter().map(|position| at(position, *wrap)).collect()
        }
        Operation::AttentionCombine { split, .. } => {
            positions(rows, None, Some(*split), context).into_iter().map(|position| at(position, None)).collect()
        }
        Operation::SampleBest(v) | Operation::SampleCollect(v) | Operation::SampleDraw(v) => {
            Draw::all(v).into_iter().map(|draw| Case { draw: Some(draw), ..at(0, None) }).collect()
        }
        Operation::Embed { .. }
        | Operation::LayerInputs { .. }
        | Operation::Project(_)
        | Operation::RmsNorm { .. }
        | Operation::LayerNorm { .. }
        | Operation::PostNorm { .. } => vec![at(0, None)],
    }
}

/// The start of a sequence, somewhere in it, far in, and where a cache wraps; of a split context those that are.
fn positions(rows: usize, wrap: Option<usize>, split: Option<Split>, context: usize) -> Vec<usize> {
    let last = context.saturating_sub(rows);
    let mut positions = match split {
        Some(split) => vec![split.above, 4 * split.above - 1, split.positions * split.most + 100],
        None => vec![0, 100, 300],
    };
    positions.extend(wrap.map(|wrap| wrap.saturating_sub(rows / 2 + 1)));
    let least = split.map_or(0, |split| split.above);
    let mut positions: Vec<usize> = positions.into_iter().map(|position| position.min(last).max(least)).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

impl Operation<'_> {
    /// Sizes, for the report: `[4096, 4096] q8_0`.
    pub fn describe(&self) -> String {
        match self {
            Self::Embed { table, .. } | Self::LayerInputs { table, .. } => table.describe(),
            Self::Project(projection) => {
                let matrices: Vec<String> = projection.matrices.iter().map(Matrix::describe).collect();
                matrices.join(" + ")
            }
            Self::RopeAppend(rope) => format!("{} + {} heads of {}", rope.heads, rope.kv_heads, rope.head_dim),
            Self::Attention(attention) => {
                let window = attention.window.map_or_else(String::new, |window| format!(", window {window}"));
                format!("{} / {} heads of {}{window}", attention.heads, attention.kv_heads, attention.head_dim)
            }
            Self::AttentionCombine { heads, head_dim, split } => {
                format!("{heads} heads of {head_dim}, {} parts", split.most)
            }
            Self::RmsNorm { width, .. } | Self::LayerNorm { width, .. } | Self::PostNorm { width, .. } => {
                format!("[{width}]")
            }
            Self::SampleBest(v) | Self::SampleCollect(v) | Self::SampleDraw(v) => format!("[{}]", v.tokens),
        }
    }
}
