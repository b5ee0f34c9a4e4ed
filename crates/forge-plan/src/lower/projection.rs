//! Projections: weights stacked where formats allow, the input through its norm, the result, and the kernels of each layer
//! for one row, few rows and tiles.

use forge_formats::Format as Stored;
use forge_frontend::graph::WeightId;
use forge_spec::{CacheType, Format, Matrix as PackedMatrix, Role};

use super::norm::PostNormStep;
use super::weights::{Owners, Parts};
use super::{Lowering, Path};
use crate::families::{Epilogue, Gemm, Gemv, NormScale, Operands, ROOMS, RowScale, Tokens};
use crate::fuse::{Fused, FusedBlock, Input, Matrix, NormKind, Outcome, Projection};
use crate::geometry::{Geometry, Shape, gemv_geometry};
use crate::kernel::KernelId;
use crate::plan::{Arg, Choice, KernelTable, Place, Step};
use crate::{PlanError, roles};

/// What the kernels for two rows, and for more, are called after a projection.
const FEW_NAMES: [&str; 2] = ["two", "few"];
/// Narrowest input of a tile's projection with half operands.
const HALF_TILE_WIDTH: usize = 256;
/// Inputs below this are safe in half, whose largest number is 65 504.
const HALF_TILE_RANGE: f32 = 60_000.0;

impl Lowering<'_> {
    pub(super) fn projection(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        p: &Projection,
        path: Path,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let name = self.projection_name(owner, &p.matrices);
        let groups: Vec<Vec<Matrix>> = self.stack(owner, &p.matrices).into_iter().map(<[_]>::to_vec).collect();
        let mut args = self.weight_args(owner, &groups);
        let (input, norm) = self.input(owner, (p.input, p.cols), path, steps);
        let unscaled = input[0];
        args.extend(input);
        let bias = p.matrices.iter().any(|m| m.bias.is_some());
        if bias {
            let slots: Vec<_> = p.matrices.iter().map(|m| m.bias).collect();
            let lengths: Vec<_> = p.matrices.iter().map(|m| m.rows).collect();
            let parts = Parts { slots: &slots, lengths: &lengths, vector: true };
            args.push((Role::Bias, self.field(owner, &format!("{name}_bias"), &parts)));
        }
        let (result, epilogue, post) = self.result(owner, p, path);
        args.extend(result);
        args.push((Role::Step, Arg::Params));
        let total = p.matrices.iter().map(|m| m.rows).sum();
        let (shape, mut geometry) = self.geometry(owner, p);
        if epilogue.is_gated() {
            // A simdgroup holds gate rows and their up rows.
            geometry.rows_per_simdgroup = geometry.rows_per_simdgroup.next_multiple_of(2);
        }
        let mut packed = Vec::new();
        for layer in 0..owner.count() {
            let matrix = |group: &Vec<Matrix>| {
                self.matrix(owner.weight(layer, group[0].weight), group.iter().map(|m| m.rows).sum())
            };
            packed.push(groups.iter().map(matrix).collect::<Result<Vec<_>, _>>()?);
        }
        let operands = match path {
            Path::Tile => self.operands(block, owner, (p.input, p.cols), &packed),
            Path::Step => Vec::new(),
        };
        if operands.contains(&Operands::ScaledHalves) {
            let (step, scales) = self.row_scales(&name, unscaled, [1, p.cols], path);
            steps.push(step);
            args.push(scales);
        }
        let (mut choices, mut few) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (layer, matrices) in packed.into_iter().enumerate() {
            if path == Path::Tile {
                let operands = operands[layer];
                let gemm = Gemm { matrices, rows: total, cols: p.cols, operands, bias, epilogue };
                choices.push(self.kernels.add(&format!("{name}_tile"), gemm));
                continue;
            }
            let tokens = Tokens::One;
            let (rows, cols, one) = (total, p.cols, geometry);
            let one = Gemv { matrices, rows, cols, shape, geometry, one, norm, bias, epilogue, tokens };
            choices.push(self.kernels.add(&name, one.clone()));
            for ((list, suffix), room) in few.iter_mut().zip(FEW_NAMES).zip(ROOMS) {
                list.push(self.kernels.add(&format!("{name}_{suffix}"), one.for_few_tokens(room)));
            }
        }
        let step = match path {
            Path::Step => {
                let one = self.choose(block, owner, &name, &choices);
                let mut choose = |i: usize| self.choose(block, owner, &format!("{name}_{}", FEW_NAMES[i]), &few[i]);
                Step { few: Some([choose(0), choose(1)]), ..Step::new(one) }
            }
            Path::Tile => Step::new(self.choose(block, owner, &format!("{name}_tile"), &choices)),
        };
        steps.push(step.bind_all(args));
        if let Some(post) = post {
            steps.push(self.post_norm(owner, &post, Place::Projected, path));
        }
        Ok(())
    }

    /// Name of the projection that computes these matrices together, from their roles.
    fn projection_name(&self, owner: &Owners<'_>, matrices: &[Matrix]) -> String {
        let roles: Vec<&str> = matrices.iter().map(|m| self.role(owner, m.weight)).collect();
        roles::projection(&roles)
    }

    /// Runs of matrices that are packed alike in every layer, so that they can be stacked.
    pub(super) fn stack<'m>(&self, owner: &Owners<'_>, matrices: &'m [Matrix]) -> Vec<&'m [Matrix]> {
        let packed = |id: WeightId| (self.graph.weights[id].format, self.pairs(id).ok());
        let formats = |m: &Matrix| (0..owner.count()).map(|i| packed(owner.weight(i, m.weight))).collect::<Vec<_>>();
        matrices.chunk_by(|a, b| formats(a) == formats(b)).collect()
    }

    /// Each stack under the field of its roles.
    pub(super) fn weight_args(&mut self, owner: &Owners<'_>, groups: &[Vec<Matrix>]) -> Vec<(Role, Arg)> {
        let mut args = Vec::new();
        for (group, role) in groups.iter().zip([Role::Weights, Role::Weights1, Role::Weights2]) {
            let roles: Vec<&str> = group.iter().map(|m| self.role(owner, m.weight)).collect();
            let field = roles::field(&roles);
            let slots: Vec<_> = group.iter().map(|m| Some(m.weight)).collect();
            let lengths: Vec<_> = group.iter().map(|m| m.rows).collect();
            args.push((role, self.field(owner, &field, &Parts { slots: &slots, lengths: &lengths, vector: false })));
        }
        args
    }

    /// The input: in steps with its norm as one scalar a row, for tiles through a norm of their own.
    pub(super) fn input(
        &mut self,
        owner: &Owners<'_>,
        (input, cols): (Input, usize),
        path: Path,
        steps: &mut Vec<Step>,
    ) -> (Vec<(Role, Arg)>, Option<NormScale>) {
        let hidden = self.graph.config.hidden_size;
        match input {
            Input::Stream(Some(norm)) if self.fuses_norms(path) => {
                let partials = self.partials;
                let scaled = self.buffer(path, Place::Scaled, hidden);
                let sums = self.buffer(path, Place::Sums, partials);
                // Whoever wrote the stream has applied it; the layers' weights hold it all the same.
                self.vector(owner, norm.gamma);
                let scale = NormScale { partials, eps: norm.eps };
                (vec![(Role::Input, scaled), (Role::InputSums, sums)], Some(scale))
            }
            Input::Stream(Some(norm)) | Input::Apart(norm) => {
                // A norm that stands side by side with another projection of it has been computed.
                let step = self.row_norm(owner, norm, path);
                if !is_normed(steps, &step) {
                    steps.push(step);
                }
                (vec![(Role::Input, self.buffer(path, Place::Normed, hidden))], None)
            }
            Input::Stream(None) => (vec![(Role::Input, self.buffer(path, Place::Stream, hidden))], None),
            Input::Buffer(place) => (vec![(Role::Input, self.buffer(path, place, cols))], None),
        }
    }

    /// The result, and the norm that follows where it is a dispatch of its own.
    fn result(
        &mut self,
        owner: &Owners<'_>,
        p: &Projection,
        path: Path,
    ) -> (Vec<(Role, Arg)>, Epilogue, Option<PostNormStep>) {
        let total: usize = p.matrices.iter().map(|m| m.rows).sum();
        match p.outcome {
            Outcome::Store(place) => {
                let y = self.buffer(path, place, total);
                (vec![(Role::Y, y)], Epilogue::Store { softcap: None, partials: None }, None)
            }
            Outcome::Logits { softcap } => {
                (vec![(Role::Y, Arg::Logits)], Epilogue::Store { softcap, partials: None }, None)
            }
            Outcome::Activated { activation, parameters } => {
                let y = self.buffer(path, Place::Gated, total);
                let parameters = parameters.map(|slot| (Role::Activation, self.vector(owner, slot)));
                let args = parameters.into_iter().chain([(Role::Y, y)]).collect();
                (args, Epilogue::Activated(activation), None)
            }
            Outcome::Gated(activation) => {
                let y = self.buffer(path, Place::Gated, total / 2);
                (vec![(Role::Y, y)], Epilogue::Gated(activation), None)
            }
            Outcome::GatedByInput(activation) => {
                let multiplier = Arg::LayerPart { place: Place::LayerInputs, width: total };
                let y = self.buffer(path, Place::LayerGate, total);
                (vec![(Role::Multiplier, multiplier), (Role::Y, y)], Epilogue::GatedBy(activation), None)
            }
            Outcome::Residual { factor, post_norm: None, next, .. } => {
                let mut args = vec![(Role::X, self.buffer(path, Place::Stream, self.graph.config.hidden_size))];
                args.extend(self.next_args(owner, next, path));
                (args, Epilogue::Residual { factor, next: self.next(path) }, None)
            }
            Outcome::Residual { factor, post_norm: Some(norm), scale, next } => {
                let mut args = vec![(Role::Y, self.buffer(path, Place::Projected, total))];
                let partials = self.fuses_norms(path).then(|| self.projection_partials(owner, p));
                args.extend(partials.map(|count| (Role::ResultSums, self.buffer(path, Place::ProjectedSums, count))));
                let post = PostNormStep { norm, factor, scale, partials, next };
                (args, Epilogue::Store { softcap: None, partials }, Some(post))
            }
        }
    }

    /// The geometry of a projection's matrix-vector kernels, and what it is chosen by. Layers share a grid, so they share it
    /// also where their formats differ: it is that of the format that most of them have, and every kernel works with every
    /// geometry.
    fn geometry(&self, owner: &Owners<'_>, p: &Projection) -> (Shape, Geometry) {
        let format = |layer: usize| {
            let widest = p.matrices.iter().max_by_key(|m| m.rows);
            widest.map_or(Stored::F32, |m| self.graph.weights[owner.weight(layer, m.weight)].format)
        };
        let most = most_common((0..owner.count()).map(format));
        let shape = Shape { format: most, rows: p.matrices.iter().map(|m| m.rows).sum(), cols: p.cols };
        let asked = self.options.geometries.get(&shape).copied();
        (shape, asked.unwrap_or_else(|| gemv_geometry(shape.format, shape.rows, shape.cols)))
    }

    /// What the tiles of a projection hold in each layer: halves where the input cannot leave their range, as they are; halves of scaled
    /// rows where it can in some layer; floats where the weights may be out of that range, or the input is too narrow for tiles to
    /// matter.
    fn operands(
        &self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        (input, cols): (Input, usize),
        layers: &[Vec<PackedMatrix>],
    ) -> Vec<Operands> {
        let as_they_are =
            |(layer, matrices): (usize, &Vec<_>)| self.half_tiles(block, owner, (input, cols), layer, matrices);
        let as_they_are: Vec<bool> = layers.iter().enumerate().map(as_they_are).collect();
        // A layer's kernels are bound to the same arguments as another's.
        let scaled = as_they_are.contains(&false) && layers.iter().all(|matrices| halves_hold(matrices, cols));
        let of = |halves| if scaled { Operands::ScaledHalves } else { Operands::unscaled(halves) };
        as_they_are.into_iter().map(of).collect()
    }

    /// The step that finds the scales of the rows of an input, which has `each` of `width` elements for a row of the step; and where they are.
    pub(super) fn row_scales(
        &mut self,
        name: &str,
        input: (Role, Arg),
        [each, width]: [usize; 2],
        path: Path,
    ) -> (Step, (Role, Arg)) {
        let kernel = self.kernels.add(&format!("{name}_scales"), RowScale { width, each });
        let scales = (Role::InputScales, self.buffer(path, Place::InputScales, each));
        (Step::new(Choice::Fixed(kernel)).bind_all([input, scales]), scales)
    }

    /// Whether the tiles of a projection may hold its input in halves as it is: its weights have no more range than that, its input
    /// cannot leave the half range, and it is wide enough for the tiles to matter. A norm bounds its result by sqrt(width)
    /// times the largest gamma, plus the largest beta; attention is a mean of values, which an F16 cache holds as halves.
    pub(super) fn half_tiles(
        &self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        (input, cols): (Input, usize),
        layer: usize,
        matrices: &[PackedMatrix],
    ) -> bool {
        let largest = |slot| self.graph.weights[owner.weight(layer, slot)].max_abs.unwrap_or(f32::INFINITY);
        let bound = match input {
            Input::Stream(Some(norm)) | Input::Apart(norm) => {
                let added = match norm.kind {
                    NormKind::Layer { beta: Some(beta) } => largest(beta),
                    _ => 0.0,
                };
                largest(norm.gamma) * (cols as f32).sqrt() + added
            }
            Input::Buffer(Place::Attention) => {
                let of_halves =
                    self.options.kv == CacheType::F16 && block.ops.iter().any(|op| matches!(op, Fused::Attention(_)));
                if of_halves { 0.0 } else { f32::INFINITY }
            }
            Input::Stream(None) | Input::Buffer(_) => f32::INFINITY,
        };
        bound < HALF_TILE_RANGE && halves_hold(matrices, cols)
    }

    /// Partial sums that a projection of one matrix writes: one a threadgroup.
    pub(super) fn projection_partials(&self, owner: &Owners<'_>, p: &Projection) -> usize {
        p.matrices[0].rows.div_ceil(self.geometry(owner, p).1.rows_per_threadgroup())
    }

    /// One kernel for all layers, or a table.
    pub(super) fn choose(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        name: &str,
        choices: &[KernelId],
    ) -> Choice {
        if choices.iter().all(|&id| id == choices[0]) {
            return Choice::Fixed(choices[0]);
        }
        let mut kernels = vec![choices[0]; self.graph.layers.len()];
        if let Owners::Layers(layers) = owner {
            for ((layer, _), &id) in layers.iter().zip(choices) {
                kernels[*layer] = id;
            }
        }
        let block = if self.graph.blocks.len() > 1 { format!("{}_", block.name) } else { String::new() };
        self.tables.push(KernelTable { name: format!("{block}{name}").to_uppercase(), kernels });
        Choice::PerLayer(self.tables.len() - 1)
    }
}

/// Whether halves can hold weights, and their input is wide enough for tiles to matter.
pub(super) fn halves_hold(matrices: &[PackedMatrix], cols: usize) -> bool {
    cols >= HALF_TILE_WIDTH && !matrices.iter().any(|m| matches!(m.format, Format::F32 | Format::BF16))
}

/// The format that most layers have; of equally many the last one's.
pub(super) fn most_common(formats: impl Iterator<Item = Stored>) -> Stored {
    let formats: Vec<Stored> = formats.collect();
    let count = |format: &Stored| formats.iter().filter(|other| *other == format).count();
    formats.iter().rev().max_by_key(|format| count(format)).copied().unwrap_or(Stored::F32)
}

/// Whether the buffer of the normed stream holds the result of `norm`: it was computed by one of `steps`, and since then
/// neither the stream nor that buffer was written.
fn is_normed(steps: &[Step], norm: &Step) -> bool {
    let writes = |step: &Step| {
        let places = [Place::Stream, Place::Normed].map(Arg::Buffer);
        [Role::X, Role::Y].iter().any(|role| step.args.get(role).is_some_and(|arg| places.contains(arg)))
    };
    steps
        .iter()
        .rev()
        .find(|step| writes(step))
        .is_some_and(|last| last.args == norm.args && last.kernel == norm.kernel)
}
