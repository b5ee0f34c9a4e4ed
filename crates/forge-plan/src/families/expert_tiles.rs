//! The experts of a tile of rows: matrix products over the rows of each expert, in the order that `sort_experts` leaves, and the
//! sum of their results.

use forge_spec::{Activation, Dim, ExpertResults, ExpertsOf, Matrix, Operation, Role, Routing};

use super::experts::{biases, sum_binding};
use super::gemm::{Operands, product_bytes};
use super::projection::{describe_all, matrix_bindings};
use super::{Body, KernelFamily, Launch, ONE, ROW_ELEMENTS, ROW_THREADS};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Position, Value};
use crate::linear::Linear;

/// Weight rows of one threadgroup.
const TILE_ROWS: usize = 64;

/// Pairs of a row and an expert in one tile, from the pairs that an expert has on average: tall tiles share the decoding of
/// weights among more rows, short ones leave less of a tile empty.
pub fn expert_tile(routing: &Routing, rows: usize) -> usize {
    match rows * routing.chosen / routing.experts {
        0..48 => 16,
        48..96 => 32,
        _ => 64,
    }
}

/// Constants of the kernel that runs experts' gate and up projections over a tile of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsUpTile {
    /// Gate and up rows of all experts: in one stack, all gate rows first, or in one each.
    pub matrices: Vec<Matrix>,
    /// Experts, and those of a row.
    pub routing: Routing,
    /// Width of an expert.
    pub width: usize,
    /// Input width.
    pub cols: usize,
    /// Pairs in a tile.
    pub tile: usize,
    /// Most rows whose pairs they are.
    pub rows: usize,
    /// What tiles hold; a norm's result has no scales.
    pub operands: Operands,
    /// The gate's non-linearity.
    pub activation: Activation,
    /// Whether there are biases of gate and up rows, `[2, experts, width]`.
    pub biased: bool,
}

/// Constants of the kernel that runs experts' down projections over a tile of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsDownTile {
    /// Rows of all experts, expert by expert; as an array for [`KernelFamily::matrices`].
    pub matrix: [Matrix; 1],
    /// Experts, and those of a row.
    pub routing: Routing,
    /// Output rows of an expert.
    pub hidden: usize,
    /// Pairs in a tile.
    pub tile: usize,
    /// Most rows whose pairs they are.
    pub rows: usize,
    /// Whether there are biases of down rows, `[experts, hidden]`.
    pub biased: bool,
    /// What tiles hold; no norm bounds the input.
    pub operands: Operands,
}

/// Constants of the kernel that sums the results of each row's experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsSum {
    /// Experts of a row.
    pub chosen: usize,
    /// Elements of a row.
    pub hidden: usize,
    /// Whether there is one that every row takes.
    pub shared: bool,
    /// Factor on the sum that is added to the residual stream; `None`: the sum is stored.
    pub factor: Option<f32>,
}

/// Which pairs a tile has.
fn order(routing: Routing) -> [Binding; 2] {
    let pairs = Binding::read(Role::Pairs, Element::U32, Extent::Rows(vec![routing.chosen]));
    let tiles = Binding::read(Role::Tiles, Element::U32, Extent::Rows(vec![3 * routing.chosen]));
    [pairs, tiles.touching(Touch::AtMost)]
}

/// A stack of which all experts may be touched.
fn stack(binding: Binding, routing: Routing) -> Binding {
    binding.touching(Touch::ChosenOfMany { of: routing.experts, each_row: routing.chosen })
}

fn launch(columns: usize, tile: usize, routing: Routing, rows: usize) -> Launch {
    // No tile without a row of its own; of whole ones no more than rows make.
    let most = (rows * routing.chosen).min(rows * routing.chosen / tile + routing.experts);
    let columns = Dim::Const(columns);
    let tiles = Dim::Indirect { per_row: routing.chosen, most };
    Launch { threads: 128, threadgroup_bytes: product_bytes(tile), grid: [columns, tiles, ONE] }
}

impl ExpertsUpTile {
    /// Threadgroups along the first axis of the grid.
    pub fn columns(width: usize) -> usize {
        width.div_ceil(TILE_ROWS / 2)
    }

    fn biases(&self) -> (Option<Binding>, Value) {
        let Routing { experts, chosen, .. } = self.routing;
        biases(self.biased, vec![2, experts, self.width], Touch::ChosenOfMany { of: experts, each_row: chosen })
    }
}

impl ExpertsDownTile {
    /// Threadgroups along the first axis of the grid.
    pub fn columns(hidden: usize) -> usize {
        hidden.div_ceil(TILE_ROWS)
    }

    fn biases(&self) -> (Option<Binding>, Value) {
        let Routing { experts, chosen, .. } = self.routing;
        biases(self.biased, vec![experts, self.hidden], Touch::ChosenOfMany { of: experts, each_row: chosen })
    }
}

impl KernelFamily for ExpertsUpTile {
    fn bindings(&self) -> Vec<Binding> {
        let routing = self.routing;
        let mut list: Vec<Binding> = matrix_bindings(&self.matrices).map(|binding| stack(binding, routing)).collect();
        list.extend(self.biases().0);
        list.push(Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.cols])));
        list.extend(order(routing));
        list.push(Binding::write(Role::Y, Element::F32, Extent::Rows(vec![routing.chosen, self.width])));
        list
    }

    fn launch(&self) -> Launch {
        launch(Self::columns(self.width), self.tile, self.routing, self.rows)
    }

    fn title(&self) -> String {
        let (matrices, tile, experts) = (describe_all(&self.matrices), self.tile, self.routing.experts);
        format!("gate and up of {experts} experts: {matrices}, a tile of {tile} rows of one expert per threadgroup")
    }

    fn body(&self) -> Body<'_> {
        let Routing { experts, chosen, .. } = self.routing;
        let [gate, up] =
            [&self.matrices[0], self.matrices.last().expect("a stack")].map(|m| Constant::Weights(m.format));
        let split = if self.matrices.len() == 1 { self.matrices[0].rows / 2 } else { 0 };
        let types = [gate, up, Constant::Operands(self.operands), Constant::Activation(self.activation)];
        let sizes = [self.tile, experts, chosen, self.width, self.cols, split, usize::from(self.biased)];
        let up = if split > 0 { Role::Weights } else { Role::Weights1 };
        let weights = [Role::Weights, up].map(Value::Bound).into_iter().chain([self.biases().1]);
        let bound = weights.chain([Role::Input, Role::Pairs, Role::Tiles, Role::Y].map(Value::Bound));
        let place = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        Body::Call(Call {
            function: "experts_gate_up_tile",
            constants: types.into_iter().chain(sizes.map(Constant::Size)).collect(),
            arguments: bound.chain([Value::Shared]).chain(place).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["activation", "product", "expert_tiles"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::ExpertsUp(forge_spec::ExpertsUp {
            of: ExpertsOf::Tiles(self.tile),
            matrices: &self.matrices,
            experts: self.routing.experts,
            chosen: self.routing.chosen,
            width: self.width,
            shared: None,
            activation: self.activation,
            norm_eps: None,
            half_operands: self.operands.are_halves(),
        })
    }

    fn flops(&self) -> Linear {
        Linear::per_row(4 * (self.routing.chosen * self.width * self.cols) as u64)
    }

    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn projection(&self) -> Option<[usize; 2]> {
        Some([2 * self.width, self.cols])
    }
}

impl KernelFamily for ExpertsDownTile {
    fn bindings(&self) -> Vec<Binding> {
        let Routing { chosen, .. } = self.routing;
        let mut list = vec![stack(Binding::matrix(Role::Weights, &self.matrix[0]), self.routing)];
        list.extend(self.biases().0);
        list.push(Binding::read(Role::Input, Element::F32, Extent::Rows(vec![chosen, self.matrix[0].cols])));
        let scales = || Binding::read(Role::InputScales, Element::F32, Extent::Rows(vec![chosen]));
        list.extend(self.operands.are_scaled().then(scales));
        list.extend(order(self.routing));
        list.push(Binding::write(Role::Y, Element::F32, Extent::Rows(vec![chosen, self.hidden])));
        list
    }

    fn launch(&self) -> Launch {
        launch(Self::columns(self.hidden), self.tile, self.routing, self.rows)
    }

    fn title(&self) -> String {
        let (matrices, tile, experts) = (describe_all(&self.matrix), self.tile, self.routing.experts);
        format!("down of {experts} experts: {matrices}, a tile of {tile} rows of one expert per threadgroup")
    }

    fn body(&self) -> Body<'_> {
        let types = [Constant::Weights(self.matrix[0].format), Constant::Operands(self.operands)];
        let flags = [self.biased, self.operands.are_scaled()].map(usize::from);
        let sizes = [self.tile, self.routing.experts, self.matrix[0].cols, self.hidden, flags[0], flags[1]];
        let weights = [Value::Bound(Role::Weights), self.biases().1];
        let scales = if self.operands.are_scaled() { Role::InputScales } else { Role::Input };
        let bound = [Role::Input, scales, Role::Pairs, Role::Tiles, Role::Y].map(Value::Bound);
        let bound = weights.into_iter().chain(bound);
        let place = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        Body::Call(Call {
            function: "experts_down_tile",
            constants: types.into_iter().chain(sizes.map(Constant::Size)).collect(),
            arguments: bound.chain([Value::Shared]).chain(place).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["activation", "product", "expert_tiles"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::ExpertsDown(forge_spec::ExpertsDown {
            matrix: self.matrix[0],
            experts: self.routing.experts,
            chosen: self.routing.chosen,
            shared: None,
            results: ExpertResults::Tiles(self.tile),
        })
    }

    fn flops(&self) -> Linear {
        Linear::per_row(2 * (self.routing.chosen * self.matrix[0].cols * self.hidden) as u64)
    }

    fn matrices(&self) -> &[Matrix] {
        &self.matrix
    }

    fn projection(&self) -> Option<[usize; 2]> {
        Some([self.hidden, self.matrix[0].cols])
    }
}

impl KernelFamily for ExpertsSum {
    fn bindings(&self) -> Vec<Binding> {
        let row = |role, shape: Vec<usize>| Binding::read(role, Element::F32, Extent::Rows(shape));
        let mut list = vec![
            row(Role::Input, vec![self.chosen, self.hidden]),
            row(Role::ExpertWeights, vec![self.chosen + usize::from(self.shared)]),
        ];
        list.extend(self.shared.then(|| row(Role::Projected, vec![self.hidden])));
        list.push(sum_binding(self.factor.is_some(), self.hidden));
        list
    }

    fn launch(&self) -> Launch {
        let grid = [Dim::Const(self.hidden.div_ceil(ROW_ELEMENTS)), Dim::Rows, ONE];
        Launch { threads: ROW_THREADS, threadgroup_bytes: 0, grid }
    }

    fn title(&self) -> String {
        format!(
            "weighted sum of the results of {} experts a row{}",
            self.chosen,
            if self.factor.is_some() { ", added to the residual stream" } else { "" }
        )
    }

    fn body(&self) -> Body<'_> {
        let shared = if self.shared { Role::Projected } else { Role::Input };
        let sum = if self.factor.is_some() { Role::X } else { Role::Y };
        let bound = [Role::Input, Role::ExpertWeights, shared, sum].map(Value::Bound);
        let rest = [Value::Float(self.factor.unwrap_or(1.0)), Value::At(Position::Group2), Value::At(Position::Thread)];
        Body::Call(Call {
            function: "experts_sum",
            constants: [self.chosen, self.hidden, usize::from(self.shared), usize::from(self.factor.is_some())]
                .map(Constant::Size)
                .into(),
            arguments: [&bound[..], &rest].concat(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["expert_tiles"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::ExpertsSum {
            width: self.hidden,
            chosen: self.chosen,
            shared: self.shared,
            factor: self.factor.unwrap_or(1.0),
        }
    }
}
