//! Which geometry of a matrix-vector kernel is the fastest on the device that is there.
//!
//! The generated project has kernels with a few geometries per shape ([`Tuning`], in `src/tuning.rs`). Each is compared
//! with the reference of `verify` before it is timed, with every layer's weights as `profile` does it. What comes out
//! is a file for `forge gen --tuning`.

use serde_json::{Value, json};

use super::Result;
use super::gpu::{Dispatch, Gpu, Kernel, KernelSpec, Source};
use super::profile::time;
use super::verify::{Argument, Checks, Data, Dim, KernelCheck, Role, Verifier};

/// Version of the file's form.
pub const VERSION: u64 = 1;

/// Another geometry has to be this much faster than the one in use: times vary by about as much.
const MARGIN: f64 = 0.02;

/// What a project has to try.
#[derive(Debug)]
pub struct Tuning {
    /// The kernels with other geometries.
    pub source: &'static Source,
    /// Their table.
    pub kernels: &'static [KernelSpec],
    /// Shapes of matrix-vector products.
    pub shapes: &'static [Shape],
}

/// Matrix-vector products of one shape.
#[derive(Debug)]
pub struct Shape {
    /// Format of the matrix; of stacked ones, of the tallest.
    pub format: &'static str,
    /// Output rows.
    pub rows: usize,
    /// Input width.
    pub cols: usize,
    /// The geometry in use.
    pub chosen: Geometry,
    /// Indices into the model's kernels.
    pub kernels: &'static [usize],
    /// What else to try.
    pub variants: &'static [Variant],
}

/// How a matrix is spread over simdgroups and threadgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Output rows that one simdgroup computes.
    pub rows_per_simdgroup: usize,
    /// Simdgroups in a threadgroup.
    pub simdgroups: usize,
    /// Simdgroups that share one row's columns.
    pub split: usize,
}

impl Geometry {
    /// A geometry of these numbers.
    pub const fn new(rows_per_simdgroup: usize, simdgroups: usize, split: usize) -> Self {
        Self { rows_per_simdgroup, simdgroups, split }
    }

    fn json(self) -> Value {
        json!({ "rows_per_simdgroup": self.rows_per_simdgroup, "simdgroups": self.simdgroups, "split": self.split })
    }
}

/// A shape's kernels with another geometry.
#[derive(Debug)]
pub struct Variant {
    /// The geometry.
    pub geometry: Geometry,
    /// In the order of [`Shape::kernels`].
    pub kernels: &'static [Dispatched],
}

/// How a kernel of a variant is dispatched.
#[derive(Debug)]
pub struct Dispatched {
    /// Index into [`Tuning::kernels`].
    pub kernel: usize,
    /// Threadgroups.
    pub threadgroups: usize,
    /// Partial sums of squares that it writes.
    pub sums: usize,
}

/// What came of one geometry.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The geometry.
    pub geometry: Geometry,
    /// Seconds of one dispatch on average, or what is wrong with its results.
    pub result: Result<f64, String>,
}

/// What came of one shape: the geometry in use first.
#[derive(Debug)]
pub struct Tuned {
    /// The shape.
    pub shape: &'static Shape,
    /// Every geometry.
    pub tried: Vec<Tried>,
}

impl Tuned {
    /// The fastest geometry with right results; the one in use unless another is clearly faster.
    pub fn best(&self) -> Geometry {
        let seconds = |tried: &Tried| tried.result.as_ref().map_or(f64::INFINITY, |&seconds| seconds);
        let in_use = self.tried.first().map_or(f64::INFINITY, seconds);
        let fastest = self.tried.iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        match fastest {
            Some(fastest) if seconds(fastest) < in_use * (1.0 - MARGIN) => fastest.geometry,
            _ => self.shape.chosen,
        }
    }
}

/// Compares each variant with its reference; what is wrong with it, by kernel of [`Tuning::kernels`].
pub fn check_variants(
    verifier: &Verifier<'_>,
    tuning: &Tuning,
    kernels: &[Kernel],
    progress: &mut dyn FnMut(&str),
) -> Vec<Option<String>> {
    let mut faults: Vec<Option<String>> = vec![None; kernels.len()];
    for shape in tuning.shapes {
        for variant in shape.variants {
            for (dispatched, &replaced) in variant.kernels.iter().zip(shape.kernels) {
                let kernel = &kernels[dispatched.kernel];
                progress(kernel.name());
                let known = verifier.checks().iter().find(|check| check.kernel == replaced);
                faults[dispatched.kernel] = match known {
                    Some(known) => {
                        let check = variant_check(known, dispatched);
                        verifier.run_kernel(&check, kernel).find_map(|outcome| outcome.fault)
                    }
                    None => Some("there is nothing to compare it with".to_owned()),
                };
            }
        }
    }
    faults
}

/// The check of a kernel for one that is dispatched otherwise.
fn variant_check(check: &KernelCheck, dispatched: &Dispatched) -> KernelCheck {
    let arguments = check.arguments.iter().map(|argument| match argument.role {
        Role::Sums | Role::ResultSums => Argument { data: Data::Words(dispatched.sums), ..*argument },
        _ => *argument,
    });
    // As static as the tables that projects have; a handful, and the command ends soon.
    let arguments: &'static [Argument] = arguments.collect::<Vec<_>>().leak();
    KernelCheck { grid: [Dim::Const(dispatched.threadgroups), Dim::Const(1), Dim::Const(1)], arguments, ..*check }
}

/// Times every geometry of a shape. `step` are the dispatches of a decode step; `faults` are from [`check_variants`].
///
/// # Errors
/// What the device reports.
pub fn tune_shape(
    gpu: &Gpu,
    checks: &Checks,
    shape: &'static Shape,
    kernels: &[Kernel],
    faults: &[Option<String>],
    step: &[Vec<Dispatch>],
) -> Result<Tuned> {
    let mut tried = Vec::new();
    let own = |kernel: usize| {
        let name = gpu.kernel(kernel).name();
        let own = step.iter().flatten().filter(move |dispatch| dispatch.kernel.name() == name);
        own.map(|dispatch| Dispatch { barrier: true, ..dispatch.clone() }).collect::<Vec<_>>()
    };
    let in_use: Vec<Dispatch> = shape.kernels.iter().flat_map(|&kernel| own(kernel)).collect();
    let average = |dispatches: &[Dispatch]| -> Result<f64> {
        Ok(time(gpu, &[dispatches.iter().collect()])? / dispatches.len().max(1) as f64)
    };
    tried.push(Tried { geometry: shape.chosen, result: Ok(average(&in_use)?) });
    for variant in shape.variants {
        let fault = variant.kernels.iter().find_map(|dispatched| faults[dispatched.kernel].clone());
        if let Some(fault) = fault {
            tried.push(Tried { geometry: variant.geometry, result: Err(fault) });
            continue;
        }
        let mut dispatches = Vec::new();
        for (dispatched, &replaced) in variant.kernels.iter().zip(shape.kernels) {
            let known = checks.kernels.iter().find(|check| check.kernel == replaced);
            let is_sums = |argument: &Argument| matches!(argument.role, Role::Sums | Role::ResultSums);
            let sums = known.and_then(|check| check.arguments.iter().position(is_sums));
            // More threadgroups may write more partial sums than the model has room for.
            let room = gpu.alloc("sums", (dispatched.sums.max(1) * 4) as u64)?.whole();
            for mut dispatch in own(replaced) {
                dispatch.kernel = kernels[dispatched.kernel].clone();
                dispatch.threadgroups = [dispatched.threadgroups as u32, 1, 1];
                if let Some(index) = sums {
                    dispatch.arguments[index] = room.clone();
                }
                dispatches.push(dispatch);
            }
        }
        tried.push(Tried { geometry: variant.geometry, result: Ok(average(&dispatches)?) });
    }
    Ok(Tuned { shape, tried })
}

/// The file for `forge gen --tuning`.
pub fn tuning_file(device: &str, model: &str, source: &str, tuned: &[Tuned]) -> Value {
    let entry = |tuned: &Tuned| {
        let tried = tuned.tried.iter().map(|tried| {
            let mut value = tried.geometry.json();
            match &tried.result {
                Ok(seconds) => value["microseconds"] = json!((seconds * 1e9).round() / 1e3),
                Err(fault) => value["fault"] = json!(fault),
            }
            value
        });
        let mut value = json!({ "format": tuned.shape.format, "rows": tuned.shape.rows, "cols": tuned.shape.cols });
        value["geometry"] = tuned.best().json();
        value["tried"] = tried.collect();
        value
    };
    json!({
        "forge_tuning": VERSION,
        "device": device,
        "model": model,
        "source": source,
        "geometries": tuned.iter().map(entry).collect::<Vec<_>>(),
    })
}
