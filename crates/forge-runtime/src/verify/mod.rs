//! `verify`: every kernel of the schedule, on the device that is there, against a plain reference implementation.
//!
//! A kernel runs with its real sizes, one layer's real weights and seeded inputs, for several numbers of rows; what it
//! leaves is compared with f64 arithmetic over weights decoded here. The generated project says what its kernels are
//! ([`Checks`], in `src/checks.rs`); of large matrices a sample of output rows is compared.

mod batches;
mod cache;
mod choices;
mod compare;
mod error;
mod operations;
pub mod packed;
mod random;
mod run;
mod table;

use super::gpu::{Gpu, Kernel, Mapped};
use super::weights::Weights;
use super::{ModelInfo, Result};
pub use batches::{Compared, batches};
pub use choices::{Choices, choices};
use compare::Comparison;
use operations::reference;
use run::{Bench, Run};
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
        let reference = reference(&check.operation);
        for case in reference.cases(rows, self.info.trained_context) {
            let case = case.of_slots(self.checks.slots, check.mixed);
            match Run::new(&bench, check, kernel, &case, &reference.inputs(&case)) {
                Ok(run) => reference.check(&run, &mut comparison),
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
