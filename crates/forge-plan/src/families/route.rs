//! The choice of experts: for the rows of a tile as a kernel of its own, and the order in which their experts run.

use forge_spec::{Dim, Operation, Role, Routing, SharedWeight, SortExperts};

use super::{Body, KernelFamily, Launch, ONE};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Param, Position, Value};

/// Most experts that a token takes: one a lane.
pub const MOST_CHOSEN: usize = 32;
/// Most experts: a simdgroup holds their scores in registers, and `sort_experts` counts of each in threadgroup memory.
pub const MOST_EXPERTS: usize = 1024;
/// Most groups of experts.
pub const MOST_GROUPS: usize = 31;

/// A router: its rule, and what kernels read of its logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Router {
    /// The rule.
    pub routing: Routing,
    /// Whether a vector is added to the scores for the choice.
    pub biased: bool,
    /// Whether the weights are multiplied by a number of each expert; not where a vector is added.
    pub factors: bool,
    /// The weight of an expert that every row takes.
    pub shared: Option<SharedWeight>,
}

impl Router {
    /// Logits of a row; those of experts come first.
    pub fn logits(&self) -> usize {
        self.routing.experts + usize::from(self.shared == Some(SharedWeight::Gate))
    }

    /// Weights of a row, that of an expert that every row takes last.
    pub fn weights(&self) -> usize {
        self.routing.chosen + usize::from(self.shared.is_some())
    }

    /// The kind of that weight, as kernels number them.
    pub(super) fn shared_weight(&self) -> Constant {
        Constant::Size(match self.shared {
            None => 0,
            Some(SharedWeight::One) => 1,
            Some(SharedWeight::Gate) => 2,
        })
    }

    /// What kernels that choose experts are bound to.
    pub(super) fn bindings(&self) -> impl Iterator<Item = Binding> + use<> {
        let Routing { experts, chosen, .. } = self.routing;
        let row = |count: usize| Extent::Rows(vec![count]);
        let vector = |role| Binding::read(role, Element::F32, Extent::Fixed(vec![experts]));
        [
            Some(Binding::read(Role::RouterLogits, Element::F32, row(self.logits()))),
            self.biased.then(|| vector(Role::SelectionBias)),
            self.factors.then(|| vector(Role::ExpertFactors)),
            Some(Binding::write(Role::Experts, Element::U32, row(chosen))),
            Some(Binding::write(Role::ExpertWeights, Element::F32, row(self.weights()))),
        ]
        .into_iter()
        .flatten()
    }

    /// The same as arguments of a call.
    pub(super) fn arguments(&self) -> [Value; 4] {
        // A vector that is not there is not read.
        let vector = match (self.biased, self.factors) {
            (true, _) => Role::SelectionBias,
            (false, true) => Role::ExpertFactors,
            (false, false) => Role::RouterLogits,
        };
        [Role::RouterLogits, vector, Role::Experts, Role::ExpertWeights].map(Value::Bound)
    }

    /// What the sum of the weights is divided by beside itself, where it is, and the factor on the weights.
    pub(super) fn factors(&self) -> [Value; 2] {
        [Value::Float(self.routing.normalised.unwrap_or(-1.0)), Value::Float(self.routing.scale)]
    }
}

/// Constants of the kernel that chooses the experts of each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Route(pub Router);

impl KernelFamily for Route {
    fn bindings(&self) -> Vec<Binding> {
        self.0.bindings().collect()
    }

    fn launch(&self) -> Launch {
        Launch { threads: 32, threadgroup_bytes: 0, grid: [Dim::Rows, ONE, ONE] }
    }

    fn title(&self) -> String {
        let Routing { experts, chosen, .. } = self.0.routing;
        format!("{chosen} of {experts} experts for each row")
    }

    fn body(&self) -> Body<'_> {
        let place = [Position::Group, Position::Lane].map(Value::At);
        let Routing { chosen, .. } = self.0.routing;
        Body::Call(Call {
            function: "route_row",
            constants: vec![
                Constant::Router(self.0),
                Constant::Size(self.0.logits()),
                Constant::Size(chosen),
                self.0.shared_weight(),
            ],
            arguments: [&self.0.arguments()[..], &self.0.factors(), &place].concat(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["route"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::Route { routing: self.0.routing, shared: self.0.shared }
    }
}

/// Simdgroups that sort: as many as have room for counts of their own.
fn sorters(experts: usize) -> usize {
    if experts <= 512 { 8 } else { 4 }
}

impl KernelFamily for SortExperts {
    fn bindings(&self) -> Vec<Binding> {
        let row = Extent::Rows(vec![self.chosen]);
        vec![
            Binding::read(Role::Experts, Element::U32, row.clone()),
            Binding::write(Role::Pairs, Element::U32, row),
            // An expert that has no row has no tile.
            Binding::write(Role::Tiles, Element::U32, Extent::Rows(vec![3 * self.chosen])).touching(Touch::AtMost),
            Binding::write(Role::Threadgroups, Element::U32, Extent::Fixed(vec![6])),
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        Launch {
            threads: 32 * sorters(self.experts) as u32,
            threadgroup_bytes: (4 * sorters(self.experts) * self.experts).next_multiple_of(16) as u32,
            grid: [ONE, ONE, ONE],
        }
    }

    fn title(&self) -> String {
        format!("rows in order of their experts, in tiles of {}", self.tile)
    }

    fn body(&self) -> Body<'_> {
        let [up, down] = self.columns;
        let sizes = [self.experts, self.chosen, self.tile, up, down, sorters(self.experts)];
        let bound = [Role::Experts, Role::Pairs, Role::Tiles, Role::Threadgroups].map(Value::Bound);
        let rest =
            [Value::Shared, Value::Param(Param::Rows), Value::At(Position::Simdgroup), Value::At(Position::Lane)];
        Body::Call(Call {
            function: "sort_pairs",
            constants: sizes.map(Constant::Size).into(),
            arguments: [&bound[..], &rest].concat(),
        })
    }

    fn shared_integers(&self) -> bool {
        true
    }

    fn sources(&self) -> &'static [&'static str] {
        &["route"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::SortExperts(*self)
    }
}
