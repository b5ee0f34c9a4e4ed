//! `Linear -> Route -> Experts -> [Add(shared expert)] -> [Scale] -> Add(stream)`: a mixture of experts is one step, which lowering makes into a router's
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
    /// `[experts]`, added to what it makes.
    pub router_bias: Option<SlotId>,
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
    /// Added to what gate, up and down make: `[experts * width]` twice, `[experts * hidden]`.
    pub biases: Option<[SlotId; 3]>,
    /// Width of an expert.
    pub width: usize,
    /// The gate's non-linearity.
    pub activation: Activation,
    /// An expert that every row takes.
    pub shared: Option<SharedStep>,
    /// Factor on the experts' sum.
    pub factor: f32,
    /// What is to be prepared.
    pub next: Next,
}

/// An expert that every row takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedStep {
    /// `[width, hidden]`.
    pub gate: SlotId,
    /// The same.
    pub up: SlotId,
    /// `[hidden, width]`.
    pub down: SlotId,
    /// Its width.
    pub width: usize,
    /// `[1, hidden]`: its result is multiplied by a sigmoid of this projection of the input.
    pub router: Option<SlotId>,
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
        let Op::Linear { weight, bias: router_bias } = router.op else {
            return Err(self.unsupported("a router that is no projection"));
        };
        let chain = user(router.output).and_then(|route| Some((route, user(block.nodes[route].output)?)));
        let Some((route, experts)) = chain else {
            return Err(self.unsupported("weights of experts that several read"));
        };
        let (&Op::Route { routing, bias }, &Op::Experts { gate, up, down, biases, activation, .. }) =
            (&block.nodes[route].op, &block.nodes[experts].op)
        else {
            return Err(self.unsupported("a router without experts"));
        };
        self.gate(activation)?;
        if block.nodes[experts].inputs != [router.inputs[0], self.output(&block.nodes[route])?] {
            return Err(self.unsupported("experts that read something else than their router"));
        }
        let mut result = self.output(&block.nodes[experts])?;
        let mut shared = None;
        if let Some(sum) = user(Some(result))
            && block.nodes[sum].op == Op::Add
            && !block.nodes[sum].inputs.contains(&stream)
        {
            let of_all = block.nodes[sum].inputs.iter().find(|&&value| value != result);
            let found = of_all.and_then(|&value| self.shared_expert(value, router.inputs[0], activation));
            let Some((nodes, step)) = found else { return Err(self.unsupported("what is added to experts")) };
            for node in nodes.into_iter().chain([sum]) {
                self.done[node] = true;
            }
            result = self.output(&block.nodes[sum])?;
            shared = Some(step);
        }
        let found = self.residual(result, stream);
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
            router_bias,
            routing,
            selection_bias: bias,
            gate,
            up,
            down,
            biases,
            width: slots[down].cols,
            activation,
            shared,
            factor,
            next,
        };
        Ok((step, sum))
    }

    /// The shared expert whose result is `value`: `down(activation(gate x) * up x)`, times a sigmoid of a projection to one
    /// number or not. Its nodes, too.
    fn shared_expert(
        &self,
        value: ValueId,
        input: ValueId,
        activation: Activation,
    ) -> Option<(Vec<usize>, SharedStep)> {
        let block = self.block;
        let mut nodes = vec![self.producer(value)?];
        let node = |index: usize| &block.nodes[index];
        let linear = |index: usize| {
            let Op::Linear { weight, bias: None } = node(index).op else { return None };
            Some((weight, node(index).inputs[0]))
        };
        let mut router = None;
        let mut down = nodes[0];
        if node(down).op == Op::SigmoidGate {
            let &[result, gate] = &node(down).inputs[..] else { return None };
            let gate = self.producer(gate)?;
            let (weight, of) = linear(gate)?;
            if of != input || block.slots[weight].rows != 1 {
                return None;
            }
            router = Some(weight);
            down = self.producer(result)?;
            nodes.extend([gate, down]);
        }
        let (down, gated) = linear(down)?;
        let gated = self.producer(gated)?;
        if node(gated).op != (Op::GatedActivation { activation }) {
            return None;
        }
        let &[gate, up] = &node(gated).inputs[..] else { return None };
        let [gate, up] = [self.producer(gate)?, self.producer(up)?];
        nodes.extend([gated, gate, up]);
        let ((gate, of_gate), (up, of_up)) = (linear(gate)?, linear(up)?);
        // Nothing else reads what lies between.
        let inner = nodes.iter().all(|&index| node(index).output.is_some_and(|value| self.only_user(value).is_some()));
        let width = block.slots[down].cols;
        (inner && of_gate == input && of_up == input).then_some((nodes, SharedStep { gate, up, down, width, router }))
    }
}
