//! What `tune` of a generated project tries: for each shape of a matrix-vector product, its kernels with other geometries.

use crate::families::{Family, Gemv, Tokens};
use crate::geometry::{Geometry, Shape, candidates};
use crate::kernel::{Kernel, KernelId};
use crate::plan::Plan;

/// One shape, and what may be done differently.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapeTuning {
    /// The shape.
    pub shape: Shape,
    /// The plan's geometry.
    pub chosen: Geometry,
    /// The plan's kernels of this shape.
    pub kernels: Vec<KernelId>,
    /// Other geometries.
    pub variants: Vec<Variant>,
}

/// The kernels of a shape with another geometry.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The geometry.
    pub geometry: Geometry,
    /// In the order of [`ShapeTuning::kernels`].
    pub kernels: Vec<VariantKernel>,
}

/// One kernel with another geometry.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantKernel {
    /// The kernel, named by role and geometry: `qkv_proj_4x4x1`.
    pub kernel: Kernel,
    /// Threadgroups of its dispatch.
    pub threadgroups: usize,
    /// Partial sums of squares that it writes; 0 where it writes none.
    pub sums: usize,
}

impl Gemv {
    /// The same product with another geometry; at least as many partial sums as it has threadgroups.
    fn with(&self, geometry: Geometry) -> Self {
        let gemv = Gemv { geometry, one: geometry, ..self.clone() };
        let epilogue = self.epilogue.with_partials(gemv.threadgroups());
        Gemv { epilogue, ..gemv }
    }
}

/// The shapes of a plan's matrix-vector products, each once, in file order, with other geometries for each.
pub fn tuning(plan: &Plan) -> Vec<ShapeTuning> {
    let mut shapes: Vec<ShapeTuning> = Vec::new();
    for (id, kernel) in plan.kernels.iter().enumerate() {
        let Some((_, gemv)) = gemv(kernel) else { continue };
        let shape = gemv.shape;
        match shapes.iter_mut().find(|known| known.shape == shape) {
            Some(known) => {
                known.kernels.push(id);
                if gemv.epilogue.is_gated() {
                    known.chosen = gemv.geometry;
                }
            }
            None => {
                shapes.push(ShapeTuning { shape, chosen: gemv.geometry, kernels: vec![id], variants: Vec::new() });
            }
        }
    }
    for tuning in &mut shapes {
        let gemvs: Vec<(&str, &Gemv)> = tuning.kernels.iter().filter_map(|&id| gemv(&plan.kernels[id])).collect();
        let gated = gemvs.iter().any(|(_, gemv)| gemv.epilogue.is_gated());
        let others = candidates(tuning.shape, tuning.chosen, gated);
        let variant = |geometry| Variant {
            geometry,
            kernels: gemvs.iter().map(|(name, gemv)| variant_kernel(name, &gemv.with(geometry))).collect(),
        };
        tuning.variants = others.into_iter().map(variant).collect();
    }
    shapes
}

/// A decode kernel. The geometry of kernels for several tokens follows from theirs.
fn gemv(kernel: &Kernel) -> Option<(&str, &Gemv)> {
    let Family::Gemv(gemv) = &kernel.family else { return None };
    (gemv.tokens == Tokens::One).then_some((&kernel.name, gemv))
}

fn variant_kernel(name: &str, gemv: &Gemv) -> VariantKernel {
    let Geometry { rows_per_simdgroup, simdgroups, split_k } = gemv.geometry;
    let name = format!("{name}_{rows_per_simdgroup}x{simdgroups}x{split_k}");
    let (threadgroups, sums) = (gemv.threadgroups(), gemv.epilogue.partials());
    VariantKernel { kernel: Kernel::new(name, gemv.clone().into()), threadgroups, sums }
}
