//! The experts of each row of a step: matrix-vector products over the rows that are an expert's in a stack.

use forge_spec::{Activation, Dim, ExpertResults, ExpertsOf, Format, Matrix, Operation, Role, Routing};

use super::projection::{describe_all, matrix_bindings, next_bindings};
use super::route::Router;
use super::{Body, KernelFamily, Launch, NextNorm, NormScale, ONE};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};
use crate::geometry::Geometry;
use crate::linear::Linear;

/// Columns of a tile of packed rows.
const TILE: usize = 256;

/// Constants of the kernel that chooses experts and runs their gate and up projections.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsUp {
    /// Gate and up rows of all experts: in one stack, all gate rows first, or in one each.
    pub matrices: Vec<Matrix>,
    /// How experts are chosen.
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
}

/// Constants of the kernel that runs experts' down projections and sums their results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsDown {
    /// Rows of all experts, expert by expert; as an array for [`KernelFamily::matrices`].
    pub matrix: [Matrix; 1],
    /// Experts, and those of a row.
    pub routing: Routing,
    /// Output rows of an expert.
    pub hidden: usize,
    /// Rows a simdgroup, simdgroups a threadgroup, simdgroups that share the experts of a row.
    pub geometry: Geometry,
    /// Factor on the sum.
    pub factor: f32,
    /// What the next projection needs.
    pub next: Option<NextNorm>,
}

/// Binding of a stack of which each row of the step touches the experts that it takes.
fn stack(binding: Binding, routing: Routing) -> Binding {
    binding.touching(Touch::Chosen { of: routing.experts, each_row: routing.chosen })
}

/// Elements of a row that a simdgroup loads: lanes beyond the last column of packed rows load what another does.
fn loaded(format: Format, cols: usize) -> usize {
    match format {
        Format::F32 | Format::F16 | Format::BF16 => cols,
        _ => cols.next_multiple_of(TILE),
    }
}

impl ExpertsUp {
    /// Threadgroups of one expert.
    fn groups(&self) -> usize {
        self.width.div_ceil(self.geometry.rows_per_threadgroup() / 2)
    }

    /// Rows from gate to up in one stack; 0 where they are in two.
    fn split(&self) -> usize {
        if self.matrices.len() == 1 { self.matrices[0].rows / 2 } else { 0 }
    }

    fn input_loads(&self) -> usize {
        let teams = self.router.routing.chosen * self.width.div_ceil(self.geometry.rows_per_simdgroup / 2);
        teams * self.matrices.iter().map(|matrix| loaded(matrix.format, self.cols)).sum::<usize>()
    }
}

impl KernelFamily for ExpertsUp {
    fn bindings(&self) -> Vec<Binding> {
        let routing = self.router.routing;
        let input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.cols]));
        let mut list: Vec<Binding> = matrix_bindings(&self.matrices).map(|binding| stack(binding, routing)).collect();
        list.push(input.touching(Touch::Loads(self.input_loads())));
        list.extend(
            self.norm.map(|norm| Binding::read(Role::InputSums, Element::F32, Extent::Rows(vec![norm.partials]))),
        );
        list.extend(self.router.bindings());
        list.push(Binding::write(Role::Y, Element::F32, Extent::Rows(vec![routing.chosen, self.width])));
        list
    }

    fn launch(&self) -> Launch {
        let g = self.geometry;
        let floats = if g.split_k > 1 { g.simdgroups * g.rows_per_simdgroup } else { 0 };
        Launch {
            threads: 32 * g.simdgroups as u32,
            threadgroup_bytes: (4 * floats).next_multiple_of(16).max(16) as u32,
            grid: [Dim::Const(self.router.routing.chosen * self.groups()), Dim::Rows, ONE],
        }
    }

    fn title(&self) -> String {
        let Routing { experts, chosen, .. } = self.router.routing;
        let matrices = describe_all(&self.matrices);
        format!("choice of {chosen} of {experts} experts, gate and up of each: {matrices}")
    }

    fn body(&self) -> Body<'_> {
        let (routing, g) = (self.router.routing, self.geometry);
        let [gate, up] = [&self.matrices[0], self.matrices.last().expect("a stack")].map(|m| Constant::Gemv(m.format));
        let sizes = [
            routing.experts,
            routing.chosen,
            self.router.logits,
            self.width,
            self.cols,
            g.rows_per_simdgroup,
            g.simdgroups,
            g.split_k,
            self.split(),
            self.norm.map_or(0, |norm| norm.partials),
        ];
        let types = [gate, up, Constant::Activation(self.activation), Constant::Router(self.router)];
        let up = if self.matrices.len() == 1 { Role::Weights } else { Role::Weights1 };
        let sums = if self.norm.is_some() { Role::InputSums } else { Role::Input };
        let bound = [Role::Weights, up, Role::Input, sums].map(Value::Bound);
        let eps = Value::Float(self.norm.map_or(0.0, |norm| norm.eps));
        let place = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        let rest = [&[Value::Bound(Role::Y), Value::Shared, eps][..], &self.router.factors(), &place].concat();
        Body::Call(Call {
            function: "experts_gate_up",
            constants: types.into_iter().chain(sizes.map(Constant::Size)).collect(),
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
            matrices: &self.matrices,
            experts: routing.experts,
            chosen: routing.chosen,
            width: self.width,
            activation: self.activation,
            norm_eps: self.norm.map(|norm| norm.eps),
            half_operands: false,
        })
    }

    fn flops(&self) -> Linear {
        Linear::per_row(4 * (self.router.routing.chosen * self.width * self.cols) as u64)
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
        self.matrix[0].cols
    }

    fn groups(&self) -> usize {
        self.hidden.div_ceil(self.geometry.rows_per_threadgroup())
    }

    /// Partial sums that it writes: one a threadgroup.
    pub(crate) fn partials(hidden: usize, geometry: Geometry) -> usize {
        hidden.div_ceil(geometry.rows_per_threadgroup())
    }

    fn input_loads(&self) -> usize {
        let teams = self.hidden.div_ceil(self.geometry.rows_per_simdgroup);
        teams * self.routing.chosen * loaded(self.matrix[0].format, self.width())
    }
}

impl KernelFamily for ExpertsDown {
    fn bindings(&self) -> Vec<Binding> {
        let Routing { chosen, .. } = self.routing;
        let input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![chosen, self.width()]));
        let mut list = vec![
            stack(Binding::matrix(Role::Weights, &self.matrix[0]), self.routing),
            input.touching(Touch::Loads(self.input_loads())),
            Binding::read(Role::Experts, Element::U32, Extent::Rows(vec![chosen])),
            Binding::read(Role::ExpertWeights, Element::F32, Extent::Rows(vec![chosen])),
            Binding::update(Role::X, Element::F32, Extent::Rows(vec![self.hidden])),
        ];
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
        let matrices = describe_all(&self.matrix);
        format!("down of {chosen} of {experts} experts: {matrices}, and their weighted sum")
    }

    fn body(&self) -> Body<'_> {
        let (Routing { experts, chosen, .. }, g) = (self.routing, self.geometry);
        let sizes = [experts, chosen, self.width(), self.hidden, g.rows_per_simdgroup, g.simdgroups, g.split_k];
        let mut constants: Vec<Constant> = [Constant::Gemv(self.matrix[0].format)].into();
        constants.extend(sizes.map(Constant::Size));
        constants.extend(self.next.map(|next| Constant::Size(next.partials)));
        let bound = [Role::Weights, Role::Input, Role::Experts, Role::ExpertWeights, Role::X].map(Value::Bound);
        let next = self.next.map(|_| [Role::Gamma, Role::Scaled, Role::Sums].map(Value::Bound));
        let place = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        let rest = [Value::Shared, Value::Float(self.factor)];
        Body::Call(Call {
            function: if self.next.is_some() { "experts_down" } else { "experts_accumulate" },
            constants,
            arguments: bound.into_iter().chain(next.into_iter().flatten()).chain(rest).chain(place).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["activation", "rows", "route", "experts"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::ExpertsDown(forge_spec::ExpertsDown {
            matrix: self.matrix[0],
            experts: self.routing.experts,
            chosen: self.routing.chosen,
            results: ExpertResults::Summed { factor: self.factor },
        })
    }

    fn flops(&self) -> Linear {
        Linear::per_row(2 * (self.routing.chosen * self.width() * self.hidden) as u64)
    }

    fn matrices(&self) -> &[Matrix] {
        &self.matrix
    }

    fn projection(&self) -> Option<[usize; 2]> {
        Some([self.hidden, self.width()])
    }
}
