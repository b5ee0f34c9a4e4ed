//! Matrices over one input become one step: `Linear.. -> GatedActivation`, `Linear -> Activation`,
//! `Linear -> GatedActivation(layer input)`,
//! `Linear -> .. -> Add(stream)`, `Linear -> [SoftCap]` as the block's result, or `Linear..` for a later step.

use forge_frontend::graph::{Activation, Op, ValueId};

use super::{Fuser, Input, Matrix, Outcome, Projection};
use crate::PlanError;
use crate::plan::Place;

/// The block's input that is the layer's own.
const LAYER_INPUT: ValueId = 1;

impl Fuser<'_> {
    /// The projection that starts at node `first`, and the new residual stream where it ends in one. `for_layers`: it makes
    /// the layers' own inputs.
    pub(super) fn projection(
        &mut self,
        first: usize,
        input: Input,
        stream: ValueId,
        for_layers: bool,
    ) -> Result<(Projection, Option<ValueId>), PlanError> {
        let block = self.block;
        let source = block.nodes[first].inputs[0];
        let activation = self.activation_of(first);
        let mut matrices = Vec::new();
        let mut outputs = Vec::new();
        for (index, node) in block.nodes.iter().enumerate().skip(first) {
            if let Op::Linear { weight, bias } = node.op
                && node.inputs[0] == source
                && self.activation_of(index) == activation
            {
                self.done[index] = true;
                matrices.push(Matrix { weight, bias, rows: block.slots[weight].rows });
                outputs.push(self.output(node)?);
            }
        }
        let cols = block.slots[matrices[0].weight].cols;
        let (outcome, sum) = self.outcome(&outputs, input, stream, for_layers)?;
        if let Outcome::Store(place) = outcome {
            if self.buffers.values().any(|(taken, _)| *taken == place) {
                return Err(self.unsupported("a second projection that is neither activated nor added to the stream"));
            }
            let mut row = 0;
            for (value, matrix) in outputs.iter().zip(&matrices) {
                self.buffers.insert(*value, (place, row));
                row += matrix.rows;
            }
        }
        Ok((Projection { input, matrices, cols, outcome }, sum))
    }

    /// The activation that alone reads the result of node `linear`: matrices over one input that stand side by side, as
    /// attention's and the feed-forward's may, are one projection only where their results go the same way.
    fn activation_of(&self, linear: usize) -> Option<usize> {
        let user = self.only_user(self.block.nodes[linear].output?)?;
        matches!(self.block.nodes[user].op, Op::GatedActivation { .. } | Op::Activation { .. }).then_some(user)
    }

    /// Refuses a gate whose activation takes numbers of the layer: only feed-forwards without a gate bind them.
    pub(super) fn gate(&self, activation: Activation) -> Result<(), PlanError> {
        if activation.parameters() > 0 {
            return Err(self.unsupported(&format!("{activation:?}, which takes numbers of the layer, as a gate")));
        }
        Ok(())
    }

    /// What happens to the results of one projection, and the new residual stream.
    fn outcome(
        &mut self,
        outputs: &[ValueId],
        input: Input,
        stream: ValueId,
        for_layers: bool,
    ) -> Result<(Outcome, Option<ValueId>), PlanError> {
        let block = self.block;
        let users: Vec<_> = outputs.iter().map(|&value| self.only_user(value)).collect();
        if let [Some(a), Some(b)] = users[..]
            && a == b
            && let Op::GatedActivation { activation } = block.nodes[a].op
            && block.nodes[a].inputs == outputs
        {
            self.gate(activation)?;
            self.done[a] = true;
            self.buffers.insert(self.output(&block.nodes[a])?, (Place::Gated, 0));
            return Ok((Outcome::Gated(activation), None));
        }
        if let [Some(user)] = users[..]
            && let Op::Activation { activation, parameters } = block.nodes[user].op
        {
            if let Activation::ClampedSwiglu { .. } = activation {
                return Err(self.unsupported(&format!("{activation:?}, which is a gate's, without one")));
            }
            self.done[user] = true;
            self.buffers.insert(self.output(&block.nodes[user])?, (Place::Gated, 0));
            return Ok((Outcome::Activated { activation, parameters }, None));
        }
        if let ([Some(user)], &[value]) = (&users[..], outputs)
            && let Op::GatedActivation { activation } = block.nodes[*user].op
            && block.inputs > LAYER_INPUT
            && block.nodes[*user].inputs == [value, LAYER_INPUT]
        {
            self.gate(activation)?;
            self.done[*user] = true;
            self.buffers.insert(self.output(&block.nodes[*user])?, (Place::LayerGate, 0));
            return Ok((Outcome::GatedByInput(activation), None));
        }
        if let &[value] = outputs {
            if let Some((nodes, outcome, sum)) = self.residual(value, stream) {
                for node in nodes {
                    self.done[node] = true;
                }
                return Ok((outcome, Some(sum)));
            }
            if let Some(user) = users[0]
                && let Op::SoftCap { cap } = block.nodes[user].op
                && block.nodes[user].output == Some(block.output)
            {
                self.done[user] = true;
                return Ok((Outcome::Logits { softcap: Some(cap) }, None));
            }
            if value == block.output {
                return Ok((Outcome::Logits { softcap: None }, None));
            }
        }
        // What else is stored is for attention; where it is for anything else, that finds no pattern.
        let place = match for_layers {
            true => Place::LayerModel,
            false if outputs.iter().any(|&value| self.is_mixed(value)) => Place::MixerInput,
            false if input == Input::Buffer(Place::QueryLatent) => Place::HeadQueries,
            false if matches!(outputs, &[value] if self.is_beside(value, stream)) => Place::Branch,
            false => Place::Qkv,
        };
        Ok((Outcome::Store(place), None))
    }
}
