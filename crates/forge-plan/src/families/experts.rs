//! The experts of each row of a step: matrix-vector products over the rows that are an expert's in a stack.

use forge_spec::{Activation, Dim, ExpertResults, ExpertsOf, Format, Matrix, Operation, Role, Routing, SharedExpert};

use super::projection::{describe_all, matrix_bindings, next_bindings};
use super::route::Router;
use super::{Body, KernelFamily, Launch, NextNorm, NormScale, ONE};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};
use crate::geometry::Geometry;
use crate::linear::Linear;
use crate::packed::describe;

/// Columns of a tile of packed rows.
const TILE: usize = 256;

/// Constants of the kernel that chooses experts and runs their gate and up projections.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsUp {
    /// Gate and up rows of all experts: in one stack, all gate rows first, or in one each; then those of an expert that
    /// every row takes, where there is one.
    pub matrices: Vec<Matrix>,
    /// How experts are chosen, and whether there is one that every row takes.
    pub router: Router,
    /// Width of an expert.
    pub width: usize,
    /// Input width.
    pub cols: usize,
    /// Gate and up rows a simdgroup, simdgroups a threadgroup, simdgroups a row.
    pub geometry: Geometry,
    /// Norm of the input.
    pub norm: Option<NormScale>,
    /// The gate's non-linearity.
    pub activation: Activation,
    /// Whether there are biases of gate and up rows, `[2, experts, width]`; the shared expert has none.
    pub biased: bool,
}

/// Constants of the kernel that runs experts' down projections and sums their results.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsDown {
    /// Rows of all experts, expert by expert, then those of an expert that every row takes, where there is one.
    pub matrices: Vec<Matrix>,
    /// Experts, and those of a row.
    pub routing: Routing,
    /// Output rows of an expert.
    pub hidden: usize,
    /// Rows a simdgroup, simdgroups a threadgroup, simdgroups that share the experts of a row.
    pub geometry: Geometry,
    /// Factor on the sum that is added to the residual stream; `None`: the sum is stored.
    pub factor: Option<f32>,
    /// What the next projection needs; only where it is added.
    pub next: Option<NextNorm>,
    /// Whether there are biases of down rows, `[experts, hidden]`; the shared expert has none.
    pub biased: bool,
}

/// Binding of a stack of which each row of the step touches the experts that it takes.
fn stack(binding: Binding, routing: Routing) -> Binding {
    binding.touching(Touch::Chosen { of: routing.experts, each_row: routing.chosen })
}

/// The experts' biases, and what stands for them in a call where there are none: it is not read.
pub(super) fn biases(biased: bool, shape: Vec<usize>, touch: Touch) -> (Option<Binding>, Value) {
    let binding = Binding::read(Role::Bias, Element::F32, Extent::Fixed(shape)).touching(touch);
    (biased.then_some(binding), Value::Bound(if biased { Role::Bias } else { Role::Input }))
}

/// Elements of a row that a simdgroup loads: lanes beyond the last column of packed rows load what another does.
fn loaded(format: Format, cols: usize) -> usize {
    match format {
        Format::F32 | Format::F16 | Format::BF16 => cols,
        _ => cols.next_multiple_of(TILE),
    }
}

/// Binding of the weighted sum: the residual stream, or a buffer of its own.
pub(super) fn sum_binding(adds: bool, hidden: usize) -> Binding {
    let row = Extent::Rows(vec![hidden]);
    if adds { Binding::update(Role::X, Element::F32, row) } else { Binding::write(Role::Y, Element::F32, row) }
}

impl ExpertsUp {
    /// The chosen experts' stacks.
    fn stacks(&self) -> &[Matrix] {
        &self.matrices[..self.matrices.len() - usize::from(self.router.shared.is_some())]
    }

    /// The expert that every row takes.
    fn shared(&self) -> Option<Matrix> {
        self.router.shared.and(self.matrices.last().copied())
    }

    /// Threadgroups of a row.
    fn groups(&self) -> usize {
        let of = |width: usize| width.div_ceil(self.geometry.rows_per_threadgroup() / 2);
        self.router.routing.chosen * of(self.width) + of(self.shared_width())
    }

    /// Rows from gate to up in one stack; 0 where they are in two.
    fn split(&self) -> usize {
        if self.stacks().len() == 1 { self.matrices[0].rows / 2 } else { 0 }
    }

    fn input_loads(&self) -> usize {
        let teams = |width: usize| width.div_ceil(self.geometry.rows_per_simdgroup / 2);
        let row = |matrix: &Matrix| loaded(matrix.format, self.cols);
        let shared = self.shared().map_or(0, |shared| teams(shared.rows / 2) * row(&shared));
        self.router.routing.chosen * teams(self.width) * self.stacks().iter().map(row).sum::<usize>() + shared
    }

    fn shared_width(&self) -> usize {
        self.shared().map_or(0, |shared| shared.rows / 2)
    }

    fn biases(&self) -> (Option<Binding>, Value) {
        let Routing { experts, chosen, .. } = self.router.routing;
        biases(self.biased, vec![2, experts, self.width], Touch::Chosen { of: experts, each_row: chosen })
    }
}

impl KernelFamily for ExpertsUp {
    fn bindings(&self) -> Vec<Binding> {
        let routing = self.router.routing;
        let input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.cols]));
        let mut list: Vec<Binding> = matrix_bindings(self.stacks()).map(|binding| stack(binding, routing)).collect();
        list.extend(self.shared().map(|shared| Binding::matrix(Role::SharedWeights, &shared)));
        list.extend(self.biases().0);
        list.push(input.touching(Touch::Loads(self.input_loads())));
        list.extend(
            self.norm.map(|norm| Binding::read(Role::InputSums, Element::F32, Extent::Rows(vec![norm.partials]))),
        );
        list.extend(self.router.bindings());
        let results = routing.chosen * self.width + self.shared_width();
        list.push(Binding::write(Role::Y, Element::F32, Extent::Rows(vec![results])));
        list
    }

    fn launch(&self) -> Launch {
        let g = self.geometry;
        let floats = if g.split_k > 1 { g.simdgroups * g.rows_per_simdgroup } else { 0 };
        Launch {
            threads: 32 * g.simdgroups as u32,
            threadgroup_bytes: (4 * floats).next_multiple_of(16).max(16) as u32,
            grid: [Dim::Const(self.groups()), Dim::Rows, ONE],
        }
    }

    fn title(&self) -> String {
        let Routing { experts, chosen, .. } = self.router.routing;
        let matrices = describe_all(self.stacks());
        let shared =
            self.shared().map_or_else(String::new, |shared| format!(", and of a shared one: {}", describe(&shared)));
        format!("choice of {chosen} of {experts} experts, gate and up of each: {matrices}{shared}")
    }

    fn body(&self) -> Body<'_> {
        let (routing, g) = (self.router.routing, self.geometry);
        let stacks = self.stacks();
        let [gate, up] = [&stacks[0], stacks.last().expect("a stack")].map(|m| Constant::Gemv(m.format));
        let sizes = [
            routing.experts,
            routing.chosen,
            self.router.logits(),
            self.width,
            self.cols,
            g.rows_per_simdgroup,
            g.simdgroups,
            g.split_k,
            self.split(),
            self.norm.map_or(0, |norm| norm.partials),
            self.shared_width(),
        ];
        let shared = self.shared().map_or(gate, |shared| Constant::Gemv(shared.format));
        let types = [gate, up, shared, Constant::Activation(self.activation), Constant::Router(self.router)];
        let up = if stacks.len() == 1 { Role::Weights } else { Role::Weights1 };
        let sums = if self.norm.is_some() { Role::InputSums } else { Role::Input };
        let shared = if self.router.shared.is_some() { Role::SharedWeights } else { Role::Weights };
        let [gate, up, shared, input, sums] = [Role::Weights, up, shared, Role::Input, sums].map(Value::Bound);
        let bound = [gate, up, shared, self.biases().1, input, sums];
        let eps = Value::Float(self.norm.map_or(0.0, |norm| norm.eps));
        let place = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        let rest = [&[Value::Bound(Role::Y), Value::Shared, eps][..], &self.router.factors(), &place].concat();
        Body::Call(Call {
            function: "experts_gate_up",
            constants: types
                .into_iter()
                .chain(sizes.map(Constant::Size))
                .chain([self.router.shared_weight(), Constant::Size(usize::from(self.biased))])
                .collect(),
            arguments: [&bound[..], &self.router.arguments(), &rest].concat(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["activation", "rows", "route", "experts"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        let routing = self.router.routing;
        Operation::ExpertsUp(forge_spec::ExpertsUp {
            of: ExpertsOf::Rows(routing),
            matrices: self.stacks(),
            experts: routing.experts,
            chosen: routing.chosen,
            width: self.width,
            shared: self.router.shared.zip(self.shared()).map(|(weight, matrix)| SharedExpert { matrix, weight }),
            activation: self.activation,
            norm_eps: self.norm.map(|norm| norm.eps),
            half_operands: false,
        })
    }

    fn flops(&self) -> Linear {
        let width = self.router.routing.chosen * self.width + self.shared_width();
        Linear::per_row(4 * (width * self.cols) as u64)
    }

    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn projection(&self) -> Option<[usize; 2]> {
        Some([2 * self.width, self.cols])
    }
}

impl ExpertsDown {
    fn width(&self) -> usize {
        self.matrices[0].cols
    }

    fn shared_width(&self) -> usize {
        self.matrices.get(1).map_or(0, |shared| shared.cols)
    }

    /// Elements of a row of the input.
    fn cols(&self) -> usize {
        self.routing.chosen * self.width() + self.shared_width()
    }

    fn groups(&self) -> usize {
        self.hidden.div_ceil(self.geometry.rows_per_threadgroup())
    }

    fn biases(&self) -> (Option<Binding>, Value) {
        let Routing { experts, chosen, .. } = self.routing;
        biases(self.biased, vec![experts, self.hidden], Touch::Chosen { of: experts, each_row: chosen })
    }

    /// Partial sums that it writes: one a threadgroup.
    pub(crate) fn partials(hidden: usize, geometry: Geometry) -> usize {
        hidden.div_ceil(geometry.rows_per_threadgroup())
    }

    fn input_loads(&self) -> usize {
        let teams = self.hidden.div_ceil(self.geometry.rows_per_simdgroup);
        let row = |matrix: &Matrix| loaded(matrix.format, matrix.cols);
        teams * (self.routing.chosen * row(&self.matrices[0]) + self.matrices.get(1).map_or(0, row))
    }
}

impl KernelFamily for ExpertsDown {
    fn bindings(&self) -> Vec<Binding> {
        let Routing { chosen, .. } = self.routing;
        let input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.cols()]));
        let mut list = vec![stack(Binding::matrix(Role::Weights, &self.matrices[0]), self.routing)];
        let shared = self.matrices.get(1);
        list.extend(shared.map(|shared| Binding::matrix(Role::SharedWeights, shared)));
        list.extend(self.biases().0);
        list.extend([
            input.touching(Touch::Loads(self.input_loads())),
            Binding::read(Role::Experts, Element::U32, Extent::Rows(vec![chosen])),
            Binding::read(
                Role::ExpertWeights,
                Element::F32,
                Extent::Rows(vec![chosen + usize::from(shared.is_some())]),
            ),
            sum_binding(self.factor.is_some(), self.hidden),
        ]);
        list.extend(next_bindings(self.next, self.hidden));
        list
    }

    fn launch(&self) -> Launch {
        let g = self.geometry;
        let parts = if g.split_k > 1 { g.simdgroups * g.rows_per_simdgroup } else { 0 };
        let floats = parts + if self.next.is_some() { g.simdgroups } else { 0 };
        Launch {
            threads: 32 * g.simdgroups as u32,
            threadgroup_bytes: (4 * floats).next_multiple_of(16).max(16) as u32,
            grid: [Dim::Const(self.groups()), Dim::Rows, ONE],
        }
    }

    fn title(&self) -> String {
        let Routing { experts, chosen, .. } = self.routing;
        let matrices = describe_all(&self.matrices);
        format!("down of {chosen} of {experts} experts: {matrices}, and their weighted sum")
    }

    fn body(&self) -> Body<'_> {
        let (Routing { experts, chosen, .. }, g) = (self.routing, self.geometry);
        let geometry = [g.rows_per_simdgroup, g.simdgroups, g.split_k];
        let flags = [self.shared_width(), usize::from(self.biased)];
        let sizes = [&[experts, chosen, self.width(), self.hidden][..], &geometry, &flags].concat();
        let [own, shared] = [self.matrices.first(), self.matrices.last()].map(|m| m.expect("a stack").format);
        let mut constants: Vec<Constant> = [own, shared].map(Constant::Gemv).into();
        constants.extend(sizes.into_iter().map(Constant::Size));
        let added = Constant::Size(usize::from(self.factor.is_some()));
        constants.push(self.next.map_or(added, |next| Constant::Size(next.partials)));
        let shared = if self.matrices.len() > 1 { Role::SharedWeights } else { Role::Weights };
        let sum = if self.factor.is_some() { Role::X } else { Role::Y };
        let weights = [Role::Weights, shared].map(Value::Bound);
        let rows = [Role::Input, Role::Experts, Role::ExpertWeights, sum].map(Value::Bound);
        let bound = weights.into_iter().chain([self.biases().1]).chain(rows);
        let next = self.next.map(|_| [Role::Gamma, Role::Scaled, Role::Sums].map(Value::Bound));
        let place = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        let rest = [Value::Shared, Value::Float(self.factor.unwrap_or(1.0))];
        Body::Call(Call {
            function: if self.next.is_some() { "experts_down" } else { "experts_accumulate" },
            constants,
            arguments: bound.chain(next.into_iter().flatten()).chain(rest).chain(place).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["activation", "rows", "route", "experts"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::ExpertsDown(forge_spec::ExpertsDown {
            matrix: self.matrices[0],
            experts: self.routing.experts,
            chosen: self.routing.chosen,
            shared: self.matrices.get(1).copied(),
            results: ExpertResults::Summed { factor: self.factor.unwrap_or(1.0) },
        })
    }

    fn flops(&self) -> Linear {
        Linear::per_row(2 * (self.cols() * self.hidden) as u64)
    }

    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn projection(&self) -> Option<[usize; 2]> {
        Some([self.hidden, self.width()])
    }
}
