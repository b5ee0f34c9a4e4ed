//! `Linear -> [norm] -> [Rope] -> [KvAppend] -> Attention`: attention takes the norms, the rotation and the append of its operands
//! along.

use forge_frontend::graph::{Attention, Node, Op, Rope, SlotId, StateSlotId, ValueId};

use super::{AttentionStep, Fuser, RopeStep};
use crate::PlanError;
use crate::families::HeadNorm;
use crate::plan::Place;

/// The projection's value that an operand comes from, and the norm and rotation on the way.
type Chain = (ValueId, Option<(HeadNorm, Option<SlotId>)>, Option<Rope>);

impl Fuser<'_> {
    /// Walks back from an attention operand over rotation and norms to the projection's buffer.
    fn chain(&mut self, value: ValueId) -> Result<Chain, PlanError> {
        let (mut value, mut norm, mut rope) = (value, None, None);
        while !self.buffers.contains_key(&value) {
            let index = self
                .producer(value)
                .ok_or_else(|| self.unsupported("an attention operand that no projection makes"))?;
            let node = &self.block.nodes[index];
            match &node.op {
                Op::Rope { rope: by, .. } if rope.is_none() && norm.is_none() => {
                    rope = Some(by.clone());
                }
                Op::HeadNorm { gamma, eps, .. } if norm.is_none() => {
                    let norm_of = forge_spec::HeadNorm { eps: *eps, across_heads: false };
                    let kind = HeadNorm { norm: norm_of, gamma: gamma.is_some() };
                    norm = Some((kind, *gamma));
                }
                Op::RmsNorm { gamma, eps } if norm.is_none() => {
                    let norm_of = forge_spec::HeadNorm { eps: *eps, across_heads: true };
                    let kind = HeadNorm { norm: norm_of, gamma: true };
                    norm = Some((kind, Some(*gamma)));
                }
                other => return Err(self.unsupported(&format!("{other:?} before attention"))),
            }
            self.done[index] = true;
            value = self.block.nodes[index].inputs[0];
        }
        Ok((value, norm, rope))
    }

    /// The steps of attention `node` over `state`.
    pub(super) fn attention(
        &mut self,
        node: &Node,
        state: StateSlotId,
        heads: usize,
        attention: Attention,
        sinks: Option<SlotId>,
    ) -> Result<(RopeStep, AttentionStep), PlanError> {
        let spec = self.block.state_slots[state];
        let (q, q_norm, rope) = self.chain(node.inputs[0])?;
        if self.buffers[&q] != (Place::Qkv, 0) {
            return Err(self.unsupported("queries that do not come first in their projection"));
        }
        let append = self
            .block
            .nodes
            .iter()
            .position(|node| matches!(node.op, Op::KvAppend { state: appended } if appended == state));
        let mut norms = [q_norm, None, None];
        let mut kv_heads = 0;
        let mut keys_as_values = false;
        if let Some(append) = append {
            self.done[append] = true;
            let inputs = self.block.nodes[append].inputs.clone();
            let (k, k_norm, k_rope) = self.chain(inputs[0])?;
            let (v, v_norm, v_rope) = self.chain(inputs[1])?;
            let (q_rows, kv_rows) = (heads * spec.head_dim, spec.kv_heads * spec.head_dim);
            keys_as_values = k == v;
            let v_row = if keys_as_values { q_rows } else { q_rows + kv_rows };
            if [self.buffers[&k], self.buffers[&v]] != [(Place::Qkv, q_rows), (Place::Qkv, v_row)] {
                return Err(self.unsupported("keys and values apart from the queries"));
            }
            if k_rope != rope || v_rope.is_some() {
                return Err(self.unsupported("different rotations of queries and keys"));
            }
            norms = [norms[0], k_norm, v_norm];
            kv_heads = spec.kv_heads;
        }
        let head_dim = spec.head_dim;
        let step = RopeStep { heads, kv_heads, head_dim, keys_as_values, norms, rope, state };
        Ok((step, AttentionStep { heads, head_dim, attention, sinks, state }))
    }
}
