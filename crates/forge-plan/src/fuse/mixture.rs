//! `Linear -> Route -> Experts -> [Scale] -> Add(stream)`: a mixture of experts is one step, which lowering makes into a router's
//! projection and the kernels that choose and run the experts.

use forge_frontend::graph::{Activation, Node, Op, Routing, SlotId, ValueId};

use super::{Fuser, Input, Next, Outcome};
use crate::PlanError;

/// A mixture of experts over the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureStep {
    /// The input of the router and of the experts.
    pub input: Input,
    /// Input width, and that of the result.
    pub hidden: usize,
    /// `[experts, hidden]`.
    pub router: SlotId,
    /// The rule.
    pub routing: Routing,
    /// `[experts]`, for the choice alone.
    pub selection_bias: Option<SlotId>,
    /// `[experts * width, hidden]`.
    pub gate: SlotId,
    /// The same.
    pub up: SlotId,
    /// `[experts * hidden, width]`.
    pub down: SlotId,
    /// Width of an expert.
    pub width: usize,
    /// The gate's non-linearity.
    pub activation: Activation,
    /// Factor on the experts' sum.
    pub factor: f32,
    /// What is to be prepared.
    pub next: Next,
}

impl Fuser<'_> {
    /// Whether a projection is a router's.
    pub(super) fn routes(&self, linear: &Node) -> bool {
        let user = linear.output.and_then(|logits| self.only_user(logits));
        user.is_some_and(|user| matches!(self.block.nodes[user].op, Op::Route { .. }))
    }

    /// The mixture whose router is node `first`, and the new residual stream.
    pub(super) fn mixture(
        &mut self,
        first: usize,
        input: Input,
        stream: ValueId,
    ) -> Result<(MixtureStep, ValueId), PlanError> {
        let block = self.block;
        let user = |value: Option<ValueId>| value.and_then(|value| self.only_user(value));
        let router = &block.nodes[first];
        let Op::Linear { weight, bias: None } = router.op else {
            return Err(self.unsupported("a router with a bias"));
        };
        let chain = user(router.output).and_then(|route| Some((route, user(block.nodes[route].output)?)));
        let Some((route, experts)) = chain else { return Err(self.unsupported("weights of experts that several read")) };
        let (
            &Op::Route { routing, bias },
            &Op::Experts { gate, up, down, activation, .. },
        ) = (&block.nodes[route].op, &block.nodes[experts].op)
        else {
            return Err(self.unsupported("a router without experts"));
        };
        if block.nodes[experts].inputs != [router.inputs[0], self.output(&block.nodes[route])?] {
            return Err(self.unsupported("experts that read something else than their router"));
        }
        let found = self.residual(self.output(&block.nodes[experts])?, stream);
        let Some((nodes, Outcome::Residual { factor, post_norm: None, scale: None, next }, sum)) = found else {
            return Err(self.unsupported("experts that are not added to the residual stream"));
        };
        for node in nodes.into_iter().chain([first, route, experts]) {
            self.done[node] = true;
        }
        let slots = &block.slots;
        let step = MixtureStep {
            input,
            hidden: slots[weight].cols,
            router: weight,
            routing,
            selection_bias: bias,
            gate,
            up,
            down,
            width: slots[down].cols,
            activation,
            factor,
            next,
        };
        Ok((step, sum))
    }
}
