//! `Linear -> [norm] -> [Rope] -> [KvAppend] -> Attention`: attention takes the norms, the rotation and the append of its operands
//! along. Norms may come after the rotation, and queries be scaled by their position after both. The result may be gated:
//! `HeadHalf, Attention -> SigmoidGate`, or by a projection of its own: `Linear, Attention -> SigmoidGate`.

use forge_frontend::graph::{Attention, Node, Op, PerHead, PositionScale, Rope, SlotId, StateSlotId, ValueId};

use forge_spec::Gates;

use super::{AttentionStep, Fuser, RopeStep};
use crate::PlanError;
use crate::families::{HeadGate, HeadNorm};
use crate::plan::Place;

/// How an operand of attention comes from a projection.
struct Chain {
    /// The projection's value.
    value: ValueId,
    norm: Option<(HeadNorm, Option<SlotId>)>,
    rope: Option<Rope>,
    /// Whether the norm comes after the rotation.
    norm_last: bool,
    scale: Option<PositionScale>,
    /// It is the first half of each of the value's heads.
    halved: bool,
}

impl Fuser<'_> {
    /// Walks back from an attention operand over its factor, rotation and norms to the projection's buffer.
    fn chain(&mut self, value: ValueId) -> Result<Chain, PlanError> {
        let mut chain = Chain { value, norm: None, rope: None, norm_last: false, scale: None, halved: false };
        while !self.buffers.contains_key(&chain.value) {
            let index = self
                .producer(chain.value)
                .ok_or_else(|| self.unsupported("an attention operand that no projection makes"))?;
            let node = &self.block.nodes[index];
            let normed = |norm: forge_spec::HeadNorm, gamma: Option<SlotId>| {
                Some((HeadNorm { norm, gamma: gamma.is_some() }, gamma))
            };
            match &node.op {
                Op::PositionScale { scale }
                    if chain.scale.is_none() && chain.rope.is_none() && chain.norm.is_none() =>
                {
                    chain.scale = Some(*scale);
                }
                Op::Rope { rope: by, .. } if chain.rope.is_none() => {
                    chain.rope = Some(by.clone());
                    chain.norm_last = chain.norm.is_some();
                }
                Op::HeadNorm { gamma, eps, .. } if chain.norm.is_none() => {
                    chain.norm = normed(forge_spec::HeadNorm { eps: *eps, across_heads: false }, *gamma);
                }
                Op::RmsNorm { gamma, eps } if chain.norm.is_none() => {
                    chain.norm = normed(forge_spec::HeadNorm { eps: *eps, across_heads: true }, Some(*gamma));
                }
                Op::HeadHalf { second: false, .. } if !chain.halved => chain.halved = true,
                other => return Err(self.unsupported(&format!("{other:?} before attention"))),
            }
            self.done[index] = true;
            chain.value = self.block.nodes[index].inputs[0];
        }
        // The kernel takes the root of the mean of squares before it rotates, which keeps it.
        if chain.norm_last && chain.rope.as_ref().is_some_and(|rope| rope.magnitude != 1.0) {
            return Err(self.unsupported("a norm after a rotation that scales"));
        }
        Ok(chain)
    }

    /// The steps of attention `node` over `state`.
    pub(super) fn attention(
        &mut self,
        node: &Node,
        state: StateSlotId,
        heads: usize,
        attention: Attention,
        per_head: &[PerHead],
    ) -> Result<(RopeStep, AttentionStep), PlanError> {
        let spec = self.block.state_slots[state].kv();
        let spec = spec.ok_or_else(|| self.unsupported("attention over a state that is no cache"))?;
        let q = self.chain(node.inputs[0])?;
        let gates = if q.halved { Gates::ByHead } else { self.gates_last(node) };
        if self.buffers[&q.value] != (Place::Qkv, 0) {
            return Err(self.unsupported("queries that do not come first in their projection"));
        }
        if q.halved && q.norm.is_some_and(|(norm, _)| norm.norm.across_heads) {
            return Err(self.unsupported("a norm across the heads of gated queries"));
        }
        let append = self
            .block
            .nodes
            .iter()
            .position(|node| matches!(node.op, Op::KvAppend { state: appended } if appended == state));
        let (mut norms, mut norms_last) = ([q.norm, None, None], q.norm_last);
        let mut kv_heads = 0;
        let mut keys_as_values = false;
        if let Some(append) = append {
            self.done[append] = true;
            let inputs = self.block.nodes[append].inputs.clone();
            let k = self.chain(inputs[0])?;
            let v = self.chain(inputs[1])?;
            if k.halved || v.halved {
                return Err(self.unsupported("halves of keys or values"));
            }
            let q_rows = heads * spec.head_dim * gates.query_stride();
            let kv_rows = spec.kv_heads * spec.head_dim;
            keys_as_values = k.value == v.value;
            let v_row = if keys_as_values { q_rows } else { q_rows + kv_rows };
            if [self.buffers[&k.value], self.buffers[&v.value]] != [(Place::Qkv, q_rows), (Place::Qkv, v_row)] {
                return Err(self.unsupported("keys and values apart from the queries"));
            }
            if k.rope != q.rope || v.rope.is_some() {
                return Err(self.unsupported("different rotations of queries and keys"));
            }
            if k.norm_last != q.norm_last && q.norm.is_some() && k.norm.is_some() {
                return Err(self.unsupported("norms before and after the rotation"));
            }
            norms_last |= k.norm_last;
            if k.scale.is_some() || v.scale.is_some() {
                return Err(self.unsupported("keys or values that are scaled by their position"));
            }
            norms = [norms[0], k.norm, v.norm];
            kv_heads = spec.kv_heads;
        }
        let head_dim = spec.head_dim;
        let (rope, query_scale) = (q.rope, q.scale);
        let step =
            RopeStep { heads, kv_heads, head_dim, keys_as_values, gates, norms, norms_last, rope, query_scale, state };
        Ok((step, AttentionStep { heads, head_dim, attention, per_head: per_head.to_vec(), state }))
    }

    /// Where gates are that a projection beside that of the queries makes for the result of attention `node`.
    fn gates_last(&self, node: &Node) -> Gates {
        let gate = node.output.and_then(|value| self.only_user(value)).and_then(|user| {
            let node = &self.block.nodes[user];
            matches!(node.op, Op::SigmoidGate).then(|| node.inputs[1])
        });
        match gate.and_then(|gate| self.buffers.get(&gate)) {
            Some((Place::Qkv, _)) => Gates::Last,
            _ => Gates::None,
        }
    }

    /// The gate of attention's result: the second half of each head of the queries' projection, or what a projection beside it made,
    /// behind the values.
    pub(super) fn head_gate(&mut self, node: &Node) -> Result<HeadGate, PlanError> {
        let unfit = || self.unsupported("a gate that does not lie with the queries of the attention that it is for");
        let [attention, gate] = node.inputs[..] else { return Err(unfit()) };
        if self.buffers.get(&attention) != Some(&(Place::Attention, 0)) {
            return Err(unfit());
        }
        let rows = |(value, (place, row)): (&ValueId, &(Place, usize))| {
            if *place == Place::Qkv { row + self.block.values[*value].width } else { 0 }
        };
        let width = self.buffers.iter().map(rows).max().unwrap_or(0);
        if let Some(&(Place::Qkv, first)) = self.buffers.get(&gate) {
            let of = self.producer(attention).map(|index| &self.block.nodes[index].op);
            let Some(Op::Attention { heads, .. }) = of else { return Err(unfit()) };
            let head_dim = self.block.values[gate].width / heads;
            if first + heads * head_dim != width || self.block.values[attention].width != heads * head_dim {
                return Err(unfit());
            }
            return Ok(HeadGate { heads: *heads, head_dim, first, stride: head_dim, width });
        }
        let index = self.producer(gate).ok_or_else(unfit)?;
        let half = &self.block.nodes[index];
        let Op::HeadHalf { heads, head_dim, second: true } = half.op else { return Err(unfit()) };
        if self.buffers.get(&half.inputs[0]) != Some(&(Place::Qkv, 0)) {
            return Err(unfit());
        }
        self.done[index] = true;
        Ok(HeadGate { heads, head_dim, first: head_dim, stride: 2 * head_dim, width })
    }
}
