//! Mixtures of experts: in steps a router's projection, a kernel that chooses each row's experts and runs their gate and up
//! projections, and one for down and the weighted sum; in tiles the experts one after another, each over its rows.

use forge_formats::Format as Stored;
use forge_spec::{Matrix as PackedMatrix, Role, Routing, SharedWeight, SortExperts};

use super::norm::PostNormStep;
use super::projection::{halves_hold, most_common};
use super::weights::{Owners, Parts};
use super::{Lowering, Path};
use crate::PlanError;
use crate::families::{
    ExpertsDown, ExpertsDownTile, ExpertsSum, ExpertsUp, ExpertsUpTile, Operands, Route, Router, expert_tile,
};
use crate::fuse::{BesideStep, FusedBlock, Input, Matrix, MixtureStep, Outcome, Projection};
use crate::geometry::{Geometry, gemv_geometry};
use crate::plan::{Arg, Choice, Counts, Place, Step};

/// Simdgroups that share the experts of a row at most.
const MOST_PARTS: usize = 8;

/// The stacks of a mixture: gate and up together where every layer has them in one format.
struct Stacks {
    up: Vec<Vec<Matrix>>,
    down: Matrix,
}

impl Lowering<'_> {
    pub(super) fn mixture(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        m: &MixtureStep,
        path: Path,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        self.check_routing(block, m)?;
        let router = self.router(block, owner, m, path, steps)?;
        if path == Path::Step {
            self.mixture_row(block, owner, m, router, steps)
        } else {
            self.mixture_tile(block, owner, m, router, steps)
        }
    }

    /// What the kernels have room for; the frontend says the same of a checkpoint's keys.
    fn check_routing(&self, block: &FusedBlock, m: &MixtureStep) -> Result<(), PlanError> {
        let routing = &m.routing;
        let groups = routing.groups.map_or(1, |groups| groups.count);
        let limits = [
            (routing.chosen, Routing::MOST_CHOSEN, "experts of a token"),
            (routing.experts, Routing::MOST_EXPERTS, "experts"),
            (groups, Routing::MOST_GROUPS, "groups of experts"),
        ];
        match limits.into_iter().find(|(found, most, _)| found > most) {
            Some((found, most, what)) => Err(PlanError::Unsupported {
                block: block.name.clone(),
                what: format!("{found} {what}; there may be {most}"),
            }),
            None => Ok(()),
        }
    }

    /// The router's projection.
    fn router(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        m: &MixtureStep,
        path: Path,
        steps: &mut Vec<Step>,
    ) -> Result<Router, PlanError> {
        let gate = m.shared.and_then(|shared| shared.router);
        let mut matrices = vec![Matrix { weight: m.router, bias: m.router_bias, rows: m.routing.experts }];
        matrices.extend(gate.map(|weight| Matrix { weight, bias: None, rows: 1 }));
        let outcome = Outcome::Store(Place::RouterLogits);
        let router = Projection { input: m.router_input, matrices, cols: m.hidden, outcome };
        self.projection(block, owner, &router, path, steps)?;
        let shared = m.shared.map(|_| if gate.is_some() { SharedWeight::Gate } else { SharedWeight::One });
        let (biased, factors) = (m.selection_bias.is_some(), m.factors.is_some());
        Ok(Router { routing: m.routing, biased, factors, shared })
    }

    fn stacks(&self, owner: &Owners<'_>, m: &MixtureStep) -> Stacks {
        let rows = m.routing.experts * m.width;
        let [gate, up] = [m.gate, m.up].map(|weight| Matrix { weight, bias: None, rows });
        let up = self.stack(owner, &[gate, up]).into_iter().map(<[_]>::to_vec).collect();
        Stacks { up, down: Matrix { weight: m.down, bias: None, rows: m.routing.experts * m.hidden } }
    }

    /// The biases of gate and up rows, and of down rows, where there are some.
    fn expert_biases(&mut self, owner: &Owners<'_>, m: &MixtureStep) -> Option<[(Role, Arg); 2]> {
        let [gate, up, down] = m.biases?;
        let (slots, lengths) = ([Some(gate), Some(up)], [m.routing.experts * m.width; 2]);
        let up = self.field(owner, "expert_gate_up_bias", &Parts { slots: &slots, lengths: &lengths, vector: true });
        Some([up, self.vector(owner, down)].map(|arg| (Role::Bias, arg)))
    }

    /// The packed matrices of groups of stacks in a layer.
    fn packed_stacks(
        &self,
        owner: &Owners<'_>,
        groups: &[Vec<Matrix>],
        layer: usize,
    ) -> Result<Vec<PackedMatrix>, PlanError> {
        let packed = |group: &Vec<Matrix>| {
            let rows = group.iter().map(|matrix| matrix.rows).sum();
            self.matrix(owner.weight(layer, group[0].weight), rows)
        };
        groups.iter().map(packed).collect()
    }

    /// Gate and up, and down of an expert that every row takes.
    fn shared_matrices(
        &self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        m: &MixtureStep,
    ) -> Result<Option<[Vec<Matrix>; 2]>, PlanError> {
        let Some(shared) = m.shared else { return Ok(None) };
        let matrix = |weight, rows| Matrix { weight, bias: None, rows };
        let up = vec![matrix(shared.gate, shared.width), matrix(shared.up, shared.width)];
        if self.stack(owner, &up).len() > 1 {
            let what = "a shared expert whose gate and up are stored in different formats".to_owned();
            return Err(PlanError::Unsupported { block: block.name.clone(), what });
        }
        Ok(Some([up, vec![matrix(shared.down, m.hidden)]]))
    }

    /// The argument of its matrices.
    fn shared_arg(&mut self, owner: &Owners<'_>, group: &[Matrix]) -> (Role, Arg) {
        let args = self.weight_args(owner, &[group.to_vec()]);
        (Role::SharedWeights, args[0].1)
    }

    /// What a kernel that chooses experts is bound to.
    fn route_args(&mut self, owner: &Owners<'_>, m: &MixtureStep, router: Router, path: Path) -> Vec<(Role, Arg)> {
        let bias = m.selection_bias.map(|slot| (Role::SelectionBias, self.vector(owner, slot)));
        let factors = m.factors.map(|slot| (Role::ExpertFactors, self.vector(owner, slot)));
        let logits = self.buffer(path, Place::RouterLogits, router.logits());
        let experts = self.buffer(path, Place::Experts, m.routing.chosen);
        let weights = self.buffer(path, Place::ExpertWeights, router.weights());
        let own = [(Role::RouterLogits, logits), (Role::Experts, experts), (Role::ExpertWeights, weights)];
        bias.into_iter().chain(factors).chain(own).collect()
    }

    /// One row, or a few: three steps with the router's.
    fn mixture_row(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        m: &MixtureStep,
        router: Router,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let path = Path::Step;
        let Stacks { up, down } = self.stacks(owner, m);
        let (routing, width) = (m.routing, m.width);
        let (input, norm) = self.input(owner, (m.input, m.hidden), path, steps);
        let geometry = self.up_geometry(owner, m);
        let shared = self.shared_matrices(block, owner, m)?;
        let biases = self.expert_biases(owner, m);
        let biased = biases.is_some();
        let mut choices = Vec::new();
        for layer in 0..owner.count() {
            let mut matrices = self.packed_stacks(owner, &up, layer)?;
            if let Some([up, _]) = &shared {
                matrices.extend(self.packed_stacks(owner, std::slice::from_ref(up), layer)?);
            }
            let activation = m.activation;
            let family = ExpertsUp { matrices, router, width, cols: m.hidden, geometry, norm, activation, biased };
            choices.push(self.kernels.add("expert_gate_up", family));
        }
        let act = self.buffer(path, Place::Gated, routing.chosen * width + m.shared.map_or(0, |shared| shared.width));
        let of_all = shared.clone().map(|groups| groups.map(|group| self.shared_arg(owner, &group)));
        let step = Step::new(self.choose(block, owner, "expert_gate_up", &choices))
            .bind_all(self.weight_args(owner, &up))
            .bind_all(of_all.map(|[up, _]| up))
            .bind_all(biases.map(|[up, _]| up))
            .bind_all(input)
            .bind_all(self.route_args(owner, m, router, path))
            .bind(Role::Y, act);
        steps.push(step);
        let geometry = self.down_geometry(owner, m);
        let next = if m.beside.is_some() { None } else { self.next(path) };
        let factor = m.beside.is_none().then_some(m.factor);
        let mut choices = Vec::new();
        for layer in 0..owner.count() {
            let mut matrices = vec![self.matrix(owner.weight(layer, down.weight), down.rows)?];
            if let Some([_, down]) = &shared {
                matrices.extend(self.packed_stacks(owner, std::slice::from_ref(down), layer)?);
            }
            let family = ExpertsDown { matrices, routing, hidden: m.hidden, geometry, factor, next, biased };
            choices.push(self.kernels.add("expert_down", family));
        }
        let step = Step::new(self.choose(block, owner, "expert_down", &choices))
            .bind_all(self.weight_args(owner, &[vec![down]]))
            .bind_all(of_all.map(|[_, down]| down))
            .bind_all(biases.map(|[_, down]| down))
            .bind(Role::Input, act)
            .bind(Role::Experts, self.buffer(path, Place::Experts, routing.chosen))
            .bind(Role::ExpertWeights, self.buffer(path, Place::ExpertWeights, router.weights()));
        if let Some(beside) = &m.beside {
            steps.push(step.bind(Role::Y, self.buffer(path, Place::Projected, m.hidden)));
            self.beside(owner, m, beside, path, steps);
            return Ok(());
        }
        let step = step
            .bind(Role::X, self.buffer(path, Place::Stream, m.hidden))
            .bind_all(self.next_args(owner, m.next, path));
        steps.push(step);
        Ok(())
    }

    /// A tile of rows: the choice, the order of the experts, the experts, their sum.
    fn mixture_tile(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        m: &MixtureStep,
        router: Router,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let path = Path::Tile;
        let Stacks { up, down } = self.stacks(owner, m);
        let (routing, width, hidden) = (m.routing, m.width, m.hidden);
        let chosen = routing.chosen;
        let tile = expert_tile(&routing, self.tile);
        if let Some(shared) = m.shared {
            let matrix = |weight, rows| Matrix { weight, bias: None, rows };
            let matrices = vec![matrix(shared.gate, shared.width), matrix(shared.up, shared.width)];
            let outcome = Outcome::Gated(m.activation);
            let up = Projection { input: m.input, matrices, cols: hidden, outcome };
            self.projection(block, owner, &up, path, steps)?;
            let input = Input::Buffer(Place::Gated);
            let outcome = Outcome::Store(Place::Projected);
            let down = Projection { input, matrices: vec![matrix(shared.down, hidden)], cols: shared.width, outcome };
            self.projection(block, owner, &down, path, steps)?;
        }
        let route = self.kernels.add("route", Route(router));
        let step = Step::new(Choice::Fixed(route)).bind_all(self.route_args(owner, m, router, path));
        steps.push(step);
        let columns = [ExpertsUpTile::columns(width), ExpertsDownTile::columns(hidden)];
        let sort = SortExperts { experts: routing.experts, chosen, tile, columns };
        let sort = self.kernels.add("sort_experts", sort);
        let pairs = self.buffer(path, Place::Pairs, chosen);
        let tiles = self.buffer(path, Place::Tiles, 3 * chosen);
        let counts = self.buffer(path, Place::Threadgroups, 2 * Counts::WORDS);
        let step = Step::new(Choice::Fixed(sort))
            .bind(Role::Experts, self.buffer(path, Place::Experts, chosen))
            .bind(Role::Pairs, pairs)
            .bind(Role::Tiles, tiles)
            .bind(Role::Threadgroups, counts)
            .bind(Role::Step, Arg::Params);
        steps.push(step);
        // The router's projection has left the normed input.
        let (input, _) = self.input(owner, (m.input, hidden), path, steps);
        let biases = self.expert_biases(owner, m);
        let biased = biases.is_some();
        let (mut ups, mut downs) = (Vec::new(), Vec::new());
        let down_matrix = |layer| self.matrix(owner.weight(layer, down.weight), down.rows);
        let stacks = (0..owner.count()).map(down_matrix).collect::<Result<Vec<_>, _>>()?;
        let scaled = stacks.iter().all(|&matrix| halves_hold(&[matrix], width));
        let of_downs = if scaled { Operands::ScaledHalves } else { Operands::Floats };
        for (layer, &stack) in stacks.iter().enumerate() {
            let matrices = self.packed_stacks(owner, &up, layer)?;
            let halves = self.half_tiles(block, owner, (m.input, hidden), layer, &matrices);
            let activation = m.activation;
            let family = ExpertsUpTile {
                matrices,
                routing,
                width,
                cols: hidden,
                tile,
                rows: self.tile,
                operands: Operands::unscaled(halves),
                activation,
                biased,
            };
            ups.push(self.kernels.add("expert_gate_up_tile", family));
            let rows = self.tile;
            let family = ExpertsDownTile { matrix: [stack], routing, hidden, tile, rows, biased, operands: of_downs };
            downs.push(self.kernels.add("expert_down_tile", family));
        }
        let act = self.buffer(path, Place::Gated, chosen * width);
        let at = |word: usize| Counts { place: Place::Threadgroups, word };
        let step = Step::new(self.choose(block, owner, "expert_gate_up_tile", &ups))
            .bind_all(self.weight_args(owner, &up))
            .bind_all(biases.map(|[up, _]| up))
            .bind_all(input)
            .bind(Role::Pairs, pairs)
            .bind(Role::Tiles, tiles)
            .bind(Role::Y, act)
            .with_counts(at(0));
        steps.push(step);
        let scales = scaled.then(|| self.row_scales("expert_down", (Role::Input, act), [chosen, width], path));
        let (step, scales) = scales.unzip();
        steps.extend(step);
        let results = self.buffer(path, Place::ExpertResults, chosen * hidden);
        let step = Step::new(self.choose(block, owner, "expert_down_tile", &downs))
            .bind_all(self.weight_args(owner, &[vec![down]]))
            .bind_all(biases.map(|[_, down]| down))
            .bind(Role::Input, act)
            .bind_all(scales)
            .bind(Role::Pairs, pairs)
            .bind(Role::Tiles, tiles)
            .bind(Role::Y, results)
            .with_counts(at(Counts::WORDS));
        steps.push(step);
        let shared = m.shared.is_some();
        let factor = m.beside.is_none().then_some(m.factor);
        let sum = self.kernels.add("expert_sum", ExpertsSum { chosen, hidden, shared, factor });
        let of_all = shared.then(|| (Role::Projected, self.buffer(path, Place::Projected, hidden)));
        let step = Step::new(Choice::Fixed(sum))
            .bind(Role::Input, results)
            .bind(Role::ExpertWeights, self.buffer(path, Place::ExpertWeights, router.weights()))
            .bind_all(of_all);
        if let Some(beside) = &m.beside {
            steps.push(step.bind(Role::Y, self.buffer(path, Place::Projected, hidden)));
            self.beside(owner, m, beside, path, steps);
            return Ok(());
        }
        steps.push(step.bind(Role::X, self.buffer(path, Place::Stream, hidden)));
        Ok(())
    }

    /// Norms of the dense feed-forward's result and of the experts' sum, then that of both together, which is added to the
    /// residual stream.
    fn beside(&mut self, owner: &Owners<'_>, m: &MixtureStep, beside: &BesideStep, path: Path, steps: &mut Vec<Step>) {
        let BesideStep { norms: [dense, experts], post_norm, scale } = *beside;
        steps.push(self.norm_of(owner, dense, Place::Branch, path));
        steps.push(self.norm_onto(owner, experts, [Place::Projected, Place::Normed], path));
        let step = PostNormStep { norm: post_norm, factor: m.factor, scale, partials: None, next: m.next };
        steps.push(self.post_norm(owner, &step, Place::Normed, path));
    }

    /// The format that most layers have a stack in.
    fn stack_format(&self, owner: &Owners<'_>, slot: usize) -> Stored {
        most_common((0..owner.count()).map(|layer| self.graph.weights[owner.weight(layer, slot)].format))
    }

    /// The geometry of all chosen experts' gate and up rows as one matrix, with rows that divide an expert's.
    fn up_geometry(&self, owner: &Owners<'_>, m: &MixtureStep) -> Geometry {
        let format = self.stack_format(owner, m.gate);
        let mut geometry = gemv_geometry(format, 2 * m.routing.chosen * m.width, m.hidden);
        // Of gate and up each; where a simdgroup has whole rows to itself, two of either.
        let least = if geometry.split_k == 1 { 4 } else { 2 };
        geometry.rows_per_simdgroup = geometry.rows_per_simdgroup.next_multiple_of(2).max(least);
        let widths = [m.width, m.shared.map_or(m.width, |shared| shared.width)];
        while !widths.iter().all(|width| width.is_multiple_of(geometry.rows_per_simdgroup / 2)) {
            geometry.rows_per_simdgroup /= 2;
        }
        geometry
    }

    /// That of the down rows, whose simdgroups share the experts of a row rather than the columns.
    fn down_geometry(&self, owner: &Owners<'_>, m: &MixtureStep) -> Geometry {
        let format = self.stack_format(owner, m.down);
        let mut geometry = gemv_geometry(format, m.hidden, m.routing.chosen * m.width);
        while !m.hidden.is_multiple_of(geometry.rows_per_simdgroup) {
            geometry.rows_per_simdgroup /= 2;
        }
        let parts = 1 << m.routing.chosen.min(MOST_PARTS).ilog2();
        // Here more of them would share the same rows.
        let own = geometry.fewest_simdgroups();
        // With four rows each there are few simdgroups, so that one more shares the experts.
        let simdgroups = if geometry.rows_per_simdgroup >= 4 { own.max(parts) } else { own };
        Geometry { simdgroups, split_k: parts.min(simdgroups), ..geometry }
    }

    /// Partial sums that a mixture's last step writes.
    pub(super) fn mixture_partials(&self, owner: &Owners<'_>, m: &MixtureStep) -> usize {
        ExpertsDown::partials(m.hidden, self.down_geometry(owner, m))
    }
}
