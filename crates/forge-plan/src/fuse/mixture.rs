//! `Linear -> Route -> [ScaleExperts] -> Experts -> [Add(shared expert)] -> [Scale] -> Add(stream)`: a mixture of experts is one
//! step, which lowering makes into a router's projection and the kernels that choose and run the experts. Beside a dense
//! feed-forward it ends in `RmsNorm -> Add(RmsNorm(dense)) -> RmsNorm -> Add(stream) -> [ScaleBy]`.

use std::collections::HashMap;

use forge_frontend::graph::{Activation, Node, Op, Routing, SlotId, ValueId};

use super::{Fuser, Input, Next, Norm, NormKind, Outcome};
use crate::PlanError;
use crate::plan::Place;

/// A mixture of experts over the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureStep {
    /// The input of the experts.
    pub input: Input,
    /// That of the router.
    pub router_input: Input,
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
    /// `[experts]`, on the weights.
    pub factors: Option<SlotId>,
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
    /// A dense feed-forward beside it.
    pub beside: Option<BesideStep>,
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

/// A dense feed-forward beside a mixture, whose result is in [`Place::Branch`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BesideStep {
    /// Norms of its result and of the experts'.
    pub norms: [Norm; 2],
    /// Norm of their sum.
    pub post_norm: Norm,
    /// `[1]`: factor on the residual stream after that.
    pub scale: Option<SlotId>,
}

impl Fuser<'_> {
    /// Whether a projection is a dense feed-forward's whose normed result is added to that of a mixture: `RmsNorm -> Add`, and
    /// the sum is not the residual stream's.
    pub(super) fn is_beside(&self, value: ValueId, stream: ValueId) -> bool {
        let norm = self.only_user(value).map(|user| &self.block.nodes[user]);
        let normed = norm.filter(|norm| matches!(norm.op, Op::RmsNorm { .. })).and_then(|norm| norm.output);
        let sum = normed.and_then(|normed| self.only_user(normed)).map(|user| &self.block.nodes[user]);
        sum.is_some_and(|sum| sum.op == Op::Add && !sum.inputs.contains(&stream))
    }

    /// What a mixture's result is added to, where that is a dense feed-forward beside it: the nodes, the factor on the sum, and
    /// the new residual stream.
    fn beside(&self, result: ValueId, stream: ValueId) -> Option<(Vec<usize>, BesideStep, f32, ValueId)> {
        let block = self.block;
        let norm_of = |index: usize| {
            let Op::RmsNorm { gamma, eps } = block.nodes[index].op else { return None };
            Some(Norm { gamma, eps, kind: NormKind::Rms })
        };
        let own = self.only_user(result)?;
        let own_norm = norm_of(own)?;
        let own_normed = block.nodes[own].output?;
        let sum = self.only_user(own_normed)?;
        let inputs = &block.nodes[sum].inputs;
        if block.nodes[sum].op != Op::Add || inputs.contains(&stream) {
            return None;
        }
        let dense = self.producer(*inputs.iter().find(|&&value| value != own_normed)?)?;
        let dense_norm = norm_of(dense)?;
        if self.buffers.get(&block.nodes[dense].inputs[0]) != Some(&(Place::Branch, 0)) {
            return None;
        }
        let (mut nodes, outcome, stream) = self.residual(block.nodes[sum].output?, stream)?;
        let Outcome::Residual { factor, post_norm: Some(post_norm), scale, .. } = outcome else { return None };
        nodes.extend([own, dense, sum]);
        Some((nodes, BesideStep { norms: [dense_norm, own_norm], post_norm, scale }, factor, stream))
    }

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
        normed: &HashMap<ValueId, (ValueId, Norm)>,
    ) -> Result<(MixtureStep, ValueId), PlanError> {
        let block = self.block;
        let user = |value: Option<ValueId>| value.and_then(|value| self.only_user(value));
        let router = &block.nodes[first];
        let Op::Linear { weight, bias: router_bias } = router.op else {
            return Err(self.unsupported("a router that is no projection"));
        };
        let mut factors = None;
        let chain = user(router.output).and_then(|route| {
            let next = user(block.nodes[route].output)?;
            let Op::ScaleExperts { scale } = block.nodes[next].op else { return Some((route, next, route)) };
            factors = Some(scale);
            Some((route, user(block.nodes[next].output)?, next))
        });
        let Some((route, experts, weights)) = chain else {
            return Err(self.unsupported("weights of experts that several read"));
        };
        let (&Op::Route { routing, bias }, &Op::Experts { gate, up, down, biases, activation, .. }) =
            (&block.nodes[route].op, &block.nodes[experts].op)
        else {
            return Err(self.unsupported("a router without experts"));
        };
        self.gate(activation)?;
        if factors.is_some() && bias.is_some() {
            return Err(self.unsupported("a router with a selection bias and factors on its weights"));
        }
        let apart = |value: ValueId| match normed.get(&value) {
            Some((of, norm)) if *of == stream => Some(Input::Apart(*norm)),
            _ => None,
        };
        let &[own_input, own_weights] = &block.nodes[experts].inputs[..] else {
            return Err(self.unsupported("experts without an input"));
        };
        let inputs = match own_input == router.inputs[0] {
            true => Some((input, input)),
            false => apart(router.inputs[0]).zip(apart(own_input)),
        };
        let inputs = inputs.filter(|_| Some(own_weights) == block.nodes[weights].output);
        let Some((router_input, experts_input)) = inputs else {
            return Err(self.unsupported("experts that read something else than their router"));
        };
        let mut result = self.output(&block.nodes[experts])?;
        let (mut shared, mut beside) = (None, None);
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
        let (nodes, factor, sum) = match self.beside(result, stream) {
            Some((nodes, step, factor, sum)) => {
                beside = Some(step);
                (nodes, factor, sum)
            }
            None => match self.residual(result, stream) {
                Some((nodes, Outcome::Residual { factor, post_norm: None, scale: None, .. }, sum)) => {
                    (nodes, factor, sum)
                }
                _ => return Err(self.unsupported("experts that are not added to the residual stream")),
            },
        };
        for node in nodes.into_iter().chain([first, route, weights, experts]) {
            self.done[node] = true;
        }
        let slots = &block.slots;
        let step = MixtureStep {
            input: experts_input,
            router_input,
            hidden: slots[weight].cols,
            router: weight,
            router_bias,
            routing,
            selection_bias: bias,
            factors,
            gate,
            up,
            down,
            biases,
            width: slots[down].cols,
            activation,
            shared,
            beside,
            factor,
            next: Next::AfterBlock,
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
