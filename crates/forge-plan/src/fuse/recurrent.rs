//! `Linear -> ShortConv`, `Linear.. -> GatedDelta`: what mixes tokens through a recurrent state is a step of its own, and its
//! input has a buffer of its own.

use forge_frontend::graph::{Node, Op, ValueId};

use super::{Fuser, GatedDeltaStep, ShortConvStep};
use crate::PlanError;
use crate::families::ShortConv;
use crate::plan::Place;

impl Fuser<'_> {
    /// Whether the one that reads a projection's result mixes tokens through a recurrent state.
    pub(super) fn is_mixed(&self, value: ValueId) -> bool {
        self.only_user(value)
            .is_some_and(|user| matches!(self.block.nodes[user].op, Op::ShortConv { .. } | Op::GatedDelta { .. }))
    }

    /// The short convolution of `node`.
    pub(super) fn short_conv(&self, node: &Node) -> Result<ShortConvStep, PlanError> {
        let Op::ShortConv { state, weight, bias, taps } = node.op else {
            return Err(self.unsupported("another operation as a short convolution"));
        };
        if self.buffers.get(&node.inputs[0]) != Some(&(Place::MixerInput, 0)) {
            return Err(self.unsupported("a short convolution of what no projection makes"));
        }
        if !(2..=ShortConv::MAX_TAPS).contains(&taps) {
            return Err(self.unsupported(&format!("a short convolution of {taps} taps")));
        }
        let channels = self.block.values[self.output(node)?].width;
        Ok(ShortConvStep { channels, taps, weight, bias, state })
    }
    /// The gated delta rule of `node`, whose four operands lie side by side.
    pub(super) fn gated_delta(&self, node: &Node) -> Result<GatedDeltaStep, PlanError> {
        let Op::GatedDelta { state, delta, conv, decay, time_bias, gamma } = node.op else {
            return Err(self.unsupported("another operation as a delta rule"));
        };
        let mut row = 0;
        for &value in &node.inputs {
            if self.buffers.get(&value) != Some(&(Place::MixerInput, row)) {
                return Err(self.unsupported("a delta rule whose operands are not side by side"));
            }
            row += self.block.values[value].width;
        }
        if row != delta.row_width() {
            return Err(self.unsupported("a delta rule of operands of another width"));
        }
        Ok(GatedDeltaStep { delta, conv, decay, time_bias, gamma, state })
    }
}
