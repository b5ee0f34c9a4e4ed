//! `Linear -> [norm] -> [Rope] -> [KvAppend] -> Attention`: attention takes the norms, the rotation and the append of its operands
//! along, and its result may be gated: `HeadHalf, Attention -> SigmoidGate`.

use forge_frontend::graph::{Attention, Node, Op, Rope, SlotId, StateSlotId, ValueId};

use super::{AttentionStep, Fuser, RopeStep};
use crate::PlanError;
use crate::families::{HeadGate, HeadNorm};
use crate::plan::Place;

/// The projection's value that an operand comes from, and what is on the way.
struct Chain {
    value: ValueId,
    norm: Option<(HeadNorm, Option<SlotId>)>,
    rope: Option<Rope>,
    /// It is the first half of each of the value's heads.
    halved: bool,
}

impl Fuser<'_> {
    /// Walks back from an attention operand over rotation and norms to the projection's buffer.
    fn chain(&mut self, value: ValueId) -> Result<Chain, PlanError> {
        let (mut value, mut norm, mut rope, mut halved) = (value, None, None, false);
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
                Op::HeadHalf { second: false, .. } if !halved => halved = true,
                other => return Err(self.unsupported(&format!("{other:?} before attention"))),
            }
            self.done[index] = true;
            value = self.block.nodes[index].inputs[0];
        }
        Ok(Chain { value, norm, rope, halved })
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
        let spec = self.block.state_slots[state].kv();
        let spec = spec.ok_or_else(|| self.unsupported("attention over a state that is no cache"))?;
        let Chain { value: q, norm: q_norm, rope, halved: gated } = self.chain(node.inputs[0])?;
        if self.buffers[&q] != (Place::Qkv, 0) {
            return Err(self.unsupported("queries that do not come first in their projection"));
        }
        if gated && q_norm.is_some_and(|(norm, _)| norm.norm.across_heads) {
            return Err(self.unsupported("a norm across the heads of gated queries"));
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
            let (keys, values) = (self.chain(inputs[0])?, self.chain(inputs[1])?);
            if keys.halved || values.halved {
                return Err(self.unsupported("halves of keys or values"));
            }
            let (k, v) = (keys.value, values.value);
            let q_rows = heads * spec.head_dim * if gated { 2 } else { 1 };
            let kv_rows = spec.kv_heads * spec.head_dim;
            keys_as_values = k == v;
            let v_row = if keys_as_values { q_rows } else { q_rows + kv_rows };
            if [self.buffers[&k], self.buffers[&v]] != [(Place::Qkv, q_rows), (Place::Qkv, v_row)] {
                return Err(self.unsupported("keys and values apart from the queries"));
            }
            if keys.rope != rope || values.rope.is_some() {
                return Err(self.unsupported("different rotations of queries and keys"));
            }
            norms = [norms[0], keys.norm, values.norm];
            kv_heads = spec.kv_heads;
        }
        let head_dim = spec.head_dim;
        let step = RopeStep { heads, kv_heads, head_dim, keys_as_values, gated, norms, rope, state };
        Ok((step, AttentionStep { heads, head_dim, attention, sinks, state }))
    }
    /// The gate of attention's result, which lies with the queries: the second half of each of their heads.
    pub(super) fn head_gate(&mut self, node: &Node) -> Result<HeadGate, PlanError> {
        let unfit = || self.unsupported("a gate that does not lie with the queries of the attention that it is for");
        let [attention, gate] = node.inputs[..] else { return Err(unfit()) };
        let index = self.producer(gate).ok_or_else(unfit)?;
        let half = &self.block.nodes[index];
        let Op::HeadHalf { heads, head_dim, second: true } = half.op else { return Err(unfit()) };
        let places = [half.inputs[0], attention].map(|value| self.buffers.get(&value).copied());
        if places != [Some((Place::Qkv, 0)), Some((Place::Attention, 0))] {
            return Err(unfit());
        }
        let rows = |(value, (place, row)): (&ValueId, &(Place, usize))| {
            if *place == Place::Qkv { row + self.block.values[*value].width } else { 0 }
        };
        let width = self.buffers.iter().map(rows).max().unwrap_or(0);
        self.done[index] = true;
        Ok(HeadGate { heads, head_dim, width })
    }
}
