//! The view of `src/tuning.rs`: shapes of matrix-vector products with the kernels of other geometries, as data for `tune`.

use askama::Template;
use forge_plan::Plan;
use forge_plan::geometry::Geometry;
use forge_plan::tuning::{ShapeTuning, VariantKernel};

use crate::model::KernelRow;
use crate::naming::identifier;

/// `src/tuning.rs`.
#[derive(Template)]
#[template(path = "project/tuning.rs")]
pub struct TuningFile<'a> {
    pub title: &'a str,
    pub version: &'static str,
    pub source: &'a str,
    pub kernels: Vec<KernelRow>,
    pub shapes: Vec<ShapeView>,
}

/// One shape; numbers are Rust expressions.
pub struct ShapeView {
    /// Kernels of this shape, for the comment.
    pub names: String,
    pub format: String,
    pub rows: usize,
    pub cols: usize,
    pub chosen: String,
    pub kernels: String,
    pub variants: Vec<VariantView>,
}

/// One other geometry.
pub struct VariantView {
    pub geometry: String,
    pub kernels: String,
}

impl<'a> TuningFile<'a> {
    /// The view of a plan's shapes.
    pub fn new(plan: &'a Plan, shapes: &'a [ShapeTuning], title: &'a str, source: &'a str) -> Self {
        let mut index = 0;
        let mut dispatched = |kernel: &VariantKernel| {
            let text = format!(
                "Dispatched {{ kernel: {index}, threadgroups: {}, sums: {} }}",
                kernel.threadgroups, kernel.sums
            );
            index += 1;
            text
        };
        let mut view = |tuning: &ShapeTuning| ShapeView {
            names: list(tuning.kernels.iter().map(|&id| identifier(&plan.kernels[id].name))),
            format: tuning.shape.format.to_string(),
            rows: tuning.shape.rows,
            cols: tuning.shape.cols,
            chosen: geometry(tuning.chosen),
            kernels: list(tuning.kernels.iter().map(usize::to_string)),
            variants: tuning
                .variants
                .iter()
                .map(|variant| VariantView {
                    geometry: geometry(variant.geometry),
                    kernels: list(variant.kernels.iter().map(&mut dispatched)),
                })
                .collect(),
        };
        TuningFile {
            title,
            version: env!("CARGO_PKG_VERSION"),
            source,
            kernels: variant_kernels(shapes).map(KernelRow::new).collect(),
            shapes: shapes.iter().map(&mut view).collect(),
        }
    }
}

/// Every kernel of every variant, in the order in which they are numbered.
pub fn variant_kernels(shapes: &[ShapeTuning]) -> impl Iterator<Item = &forge_plan::Kernel> {
    let variants = shapes.iter().flat_map(|tuning| &tuning.variants);
    variants.flat_map(|variant| &variant.kernels).map(|kernel| &kernel.kernel)
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn geometry(geometry: Geometry) -> String {
    let Geometry { rows_per_simdgroup, simdgroups, split_k } = geometry;
    format!("{rows_per_simdgroup}, {simdgroups}, {split_k}")
}
