//! Puts blocks and graphs together: values, slots and weights by role, each added once.

use std::collections::HashMap;

use forge_formats::Format;

use crate::FrontendError;
use crate::config::ModelConfig;
use crate::graph::{
    Activation, Attention, Block, GatedDelta, Graph, LatentSizes, LatentSpec, Layer, Node, Op, PerHead, PositionScale,
    Rope, Routing, Slot, SlotId, Source, Stage, State, StateId, StateSlotId, StateSpec, Value, ValueId, Weight,
    WeightId,
};
use crate::source::{Part, Shape, Stack, Tensors};

/// Role of the numbers that an activation takes.
pub(crate) const ACTIVATION_NUMBERS: &str = "ffn_act";

/// Builds one [`Block`]. Each method adds one operation and returns its result.
pub(crate) struct BlockBuilder {
    block: Block,
}

impl BlockBuilder {
    pub fn new(name: &str) -> Self {
        Self { block: Block { name: name.to_owned(), ..Block::default() } }
    }

    /// The next input value. Inputs come before everything else.
    pub fn input(&mut self, name: &str, width: usize) -> ValueId {
        self.block.inputs += 1;
        self.value(name, width)
    }

    /// A state slot.
    pub fn state(&mut self, spec: StateSpec) -> StateSlotId {
        self.block.state_slots.push(spec);
        self.block.state_slots.len() - 1
    }

    pub fn width(&self, value: ValueId) -> usize {
        self.block.values[value].width
    }

    fn value(&mut self, name: &str, width: usize) -> ValueId {
        self.block.values.push(Value { name: name.to_owned(), width });
        self.block.values.len() - 1
    }

    fn slot(&mut self, role: &str, rows: usize, cols: usize) -> SlotId {
        self.block.slots.push(Slot { role: role.to_owned(), rows, cols });
        self.block.slots.len() - 1
    }

    fn node(&mut self, op: Op, inputs: &[ValueId], name: &str, width: usize) -> ValueId {
        let output = self.value(name, width);
        self.block.nodes.push(Node { op, inputs: inputs.to_vec(), output: Some(output) });
        output
    }

    pub fn embedding(&mut self, name: &str, role: &str, vocab: usize, hidden: usize, scale: f32) -> ValueId {
        let table = self.slot(role, vocab, hidden);
        self.node(Op::Embedding { table, scale }, &[], name, hidden)
    }

    pub fn rms_norm(&mut self, name: &str, role: &str, x: ValueId, eps: f32) -> ValueId {
        let width = self.width(x);
        let gamma = self.slot(role, 1, width);
        self.node(Op::RmsNorm { gamma, eps }, &[x], name, width)
    }

    /// Norm that subtracts the mean; with `<role>_bias` where `bias`.
    pub fn layer_norm(&mut self, name: &str, role: &str, x: ValueId, eps: f32, bias: bool) -> ValueId {
        let width = self.width(x);
        let gamma = self.slot(role, 1, width);
        let beta = bias.then(|| self.slot(&format!("{role}_bias"), 1, width));
        self.node(Op::LayerNorm { gamma, beta, eps }, &[x], name, width)
    }

    /// Norm of each head; `role` none for a norm without weights.
    pub fn head_norm(&mut self, name: &str, role: Option<&str>, x: ValueId, head_dim: usize, eps: f32) -> ValueId {
        let width = self.width(x);
        let gamma = role.map(|role| self.slot(role, 1, head_dim));
        self.node(Op::HeadNorm { gamma, heads: width / head_dim, head_dim, eps }, &[x], name, width)
    }

    /// `x W^T`, plus `<role>_bias` where there is one.
    pub fn linear(&mut self, name: &str, role: &str, x: ValueId, rows: usize, bias: bool) -> ValueId {
        let weight = self.slot(role, rows, self.width(x));
        let bias = bias.then(|| self.slot(&format!("{role}_bias"), 1, rows));
        self.node(Op::Linear { weight, bias }, &[x], name, rows)
    }

    pub fn rope(&mut self, name: &str, x: ValueId, head_dim: usize, rope: &Rope) -> ValueId {
        let width = self.width(x);
        self.node(Op::Rope { heads: width / head_dim, head_dim, rope: rope.clone() }, &[x], name, width)
    }

    /// `x` times a factor that grows with the position; `x` itself without one.
    pub fn position_scale(&mut self, name: &str, x: ValueId, scale: Option<PositionScale>) -> ValueId {
        let width = self.width(x);
        scale.map_or(x, |scale| self.node(Op::PositionScale { scale }, &[x], name, width))
    }

    pub fn kv_append(&mut self, state: StateSlotId, k: ValueId, v: ValueId) {
        self.block.nodes.push(Node { op: Op::KvAppend { state }, inputs: vec![k, v], output: None });
    }

    /// A short convolution of `taps` taps between gates, over B, C and X side by side; with `<role>_bias` where `bias`.
    pub fn short_conv(&mut self, name: &str, role: &str, bcx: ValueId, taps: usize, bias: bool) -> ValueId {
        let channels = self.width(bcx) / 3;
        let weight = self.slot(role, 1, channels * taps);
        let bias = bias.then(|| self.slot(&format!("{role}_bias"), 1, channels));
        let state = self.state(StateSpec::Recurrent { width: (taps - 1) * channels });
        self.node(Op::ShortConv { state, weight, bias, taps }, &[bcx], name, channels)
    }

    /// The gated delta rule over the results of its four projections: q, k and v, z, b, a.
    pub fn gated_delta(&mut self, name: &str, inputs: [ValueId; 4], delta: GatedDelta) -> ValueId {
        let conv = self.slot("delta_conv", 1, delta.channels() * delta.taps);
        let decay = self.slot("delta_decay", 1, delta.value_heads);
        let time_bias = self.slot("delta_dt_bias", 1, delta.value_heads);
        let gamma = self.slot("delta_norm", 1, delta.value_dim);
        let state = self.state(StateSpec::Recurrent { width: delta.state_width() });
        let op = Op::GatedDelta { state, delta, conv, decay, time_bias, gamma };
        self.node(op, &inputs, name, delta.value_heads * delta.value_dim)
    }

    /// Attention over latents of queries and of what `compressed` has of the token: latent and shared key.
    pub fn latent_attention(
        &mut self,
        name: &str,
        [queries, compressed]: [ValueId; 2],
        sizes: LatentSizes,
        by_key: bool,
        eps: f32,
        (rope, scale): (&Rope, f32),
    ) -> ValueId {
        let LatentSizes { heads, latent, rope: rotated, nope, value } = sizes;
        let gamma = self.slot("attn_kv_a_norm", 1, latent);
        let [rows, cols] = if by_key { [heads * nope, latent] } else { [heads * latent, nope] };
        let keys = self.slot("attn_k_b", rows, cols);
        let values = self.slot("attn_v_b", heads * value, latent);
        let state = self.state(StateSpec::Latent(LatentSpec { latent, rope: rotated }));
        let rope = rope.clone();
        let op = Op::LatentAttention { state, sizes, gamma, eps, rope, scale, keys, by_key, values };
        self.node(op, &[queries, compressed], name, heads * value)
    }

    /// Half of each head, the first or the second.
    pub fn head_half(&mut self, name: &str, x: ValueId, head_dim: usize, second: bool) -> ValueId {
        let width = self.width(x) / 2;
        self.node(Op::HeadHalf { heads: width / head_dim, head_dim, second }, &[x], name, width)
    }

    /// Attention over the cache, with the vectors of a number for each head that `per_head` names, each for its argument.
    pub fn attention(
        &mut self,
        name: &str,
        q: ValueId,
        state: StateSlotId,
        heads: usize,
        attention: Attention,
        per_head: &[(forge_spec::Role, &str)],
    ) -> ValueId {
        let width = self.width(q);
        let per_head = per_head.iter().map(|&(role, name)| PerHead { role, slot: self.slot(name, 1, heads) }).collect();
        self.node(Op::Attention { state, heads, attention, per_head }, &[q], name, width)
    }

    pub fn gated(&mut self, name: &str, gate: ValueId, up: ValueId, activation: Activation) -> ValueId {
        let width = self.width(up);
        self.node(Op::GatedActivation { activation }, &[gate, up], name, width)
    }

    /// The weights of the experts that `routing` chooses by these logits; with a selection bias `<role>_bias` where
    /// `bias`.
    pub fn route(&mut self, name: &str, role: &str, logits: ValueId, routing: Routing, bias: bool) -> ValueId {
        let width = self.width(logits);
        let bias = bias.then(|| self.slot(&format!("{role}_bias"), 1, width));
        self.node(Op::Route { routing, bias }, &[logits], name, width)
    }

    /// The weights of experts times the numbers in `role`, one for each.
    pub fn scale_experts(&mut self, name: &str, role: &str, weights: ValueId) -> ValueId {
        let width = self.width(weights);
        let scale = self.slot(role, 1, width);
        self.node(Op::ScaleExperts { scale }, &[weights], name, width)
    }

    /// The weighted sum of what gated experts of this width make of `x`, with biases where `biases`.
    pub fn experts(
        &mut self,
        name: &str,
        x: ValueId,
        weights: ValueId,
        width: usize,
        activation: Activation,
        biases: bool,
    ) -> ValueId {
        let (hidden, experts) = (self.width(x), self.width(weights));
        let gate = self.slot("expert_gate", experts * width, hidden);
        let up = self.slot("expert_up", experts * width, hidden);
        let down = self.slot("expert_down", experts * hidden, width);
        let biases = biases.then(|| {
            [("expert_gate_bias", width), ("expert_up_bias", width), ("expert_down_bias", hidden)]
                .map(|(role, each)| self.slot(role, 1, experts * each))
        });
        self.node(Op::Experts { gate, up, down, biases, experts, activation }, &[x, weights], name, hidden)
    }

    /// `x * sigmoid(gate)`.
    pub fn sigmoid_gate(&mut self, name: &str, x: ValueId, gate: ValueId) -> ValueId {
        let width = self.width(x);
        self.node(Op::SigmoidGate, &[x, gate], name, width)
    }

    /// `activation(x)`; where it takes numbers, with those of the role `ffn_act`.
    pub fn activation(&mut self, name: &str, x: ValueId, activation: Activation) -> ValueId {
        let width = self.width(x);
        let count = activation.parameters();
        let parameters = (count > 0).then(|| self.slot(ACTIVATION_NUMBERS, 1, count));
        self.node(Op::Activation { activation, parameters }, &[x], name, width)
    }

    pub fn add(&mut self, name: &str, residual: ValueId, x: ValueId) -> ValueId {
        let width = self.width(residual);
        self.node(Op::Add, &[residual, x], name, width)
    }

    /// `x * factor`; `x` itself when the factor is 1.
    pub fn scale(&mut self, name: &str, x: ValueId, factor: f32) -> ValueId {
        if factor == 1.0 {
            return x;
        }
        let width = self.width(x);
        self.node(Op::Scale { factor }, &[x], name, width)
    }

    /// `x` times the number in the checkpoint's `role`.
    pub fn scale_by(&mut self, name: &str, role: &str, x: ValueId) -> ValueId {
        let scale = self.slot(role, 1, 1);
        let width = self.width(x);
        self.node(Op::ScaleBy { scale }, &[x], name, width)
    }

    /// Makes `value` the layers' own inputs, a part for each.
    pub fn layer_inputs(&mut self, value: ValueId) {
        self.block.layer_inputs = Some(value);
    }

    /// `cap * tanh(x / cap)`; `x` itself without a cap.
    pub fn soft_cap(&mut self, name: &str, x: ValueId, cap: Option<f32>) -> ValueId {
        let width = self.width(x);
        cap.map_or(x, |cap| self.node(Op::SoftCap { cap }, &[x], name, width))
    }

    pub fn finish(mut self, output: ValueId) -> Block {
        self.block.output = output;
        self.block
    }
}

/// Builds a [`Graph`] from blocks and the checkpoint's tensors.
pub(crate) struct GraphBuilder<'a> {
    tensors: &'a Tensors,
    /// Roles that are rows of another role's tensor.
    pub parts: Vec<Part>,
    /// Vectors of layers that the front end has made, by role and layer: values, and the tensor or key that they are of.
    pub made: HashMap<(&'static str, usize), (String, Vec<f32>)>,
    /// Added to every norm's weights: 1 where the checkpoint stores `w` of `1 + w`.
    pub norm_offset: f32,
    /// Ways to store stacks that are the family's own.
    pub stacks: &'static [Stack],
    /// Role whose tensors are multiplied by a number as they are packed.
    pub multiplied: Option<(&'static str, f32)>,
    /// Role whose tensors hold the logarithm of what is meant, with its sign turned.
    pub logarithm: Option<&'static str>,
    weights: Vec<Weight>,
    known: HashMap<(String, Option<usize>), WeightId>,
    states: Vec<State>,
    blocks: Vec<Block>,
    layers: Vec<Layer>,
}

impl<'a> GraphBuilder<'a> {
    pub fn new(tensors: &'a Tensors) -> Self {
        Self {
            tensors,
            parts: Vec::new(),
            made: HashMap::new(),
            norm_offset: 0.0,
            stacks: &[],
            multiplied: None,
            logarithm: None,
            weights: Vec::new(),
            known: HashMap::new(),
            states: Vec::new(),
            blocks: Vec::new(),
            layers: Vec::new(),
        }
    }

    /// A block that is not tied to a layer: the embedding or the head. A tied head's `output` slot is filled by the
    /// embedding table.
    pub fn stage(&mut self, block: Block, tied: bool) -> Result<Stage, FrontendError> {
        let weights = self.fill(&block, None, tied)?;
        Ok(Stage { block, weights })
    }

    /// Adds the next layer. Its block is shared with the earlier layers of an equal block; one that differs under the same
    /// name gets a number.
    pub fn layer(&mut self, mut block: Block, states: Vec<StateId>) -> Result<(), FrontendError> {
        let weights = self.fill(&block, Some(self.layers.len()), false)?;
        let stem = block.name.clone();
        let mut count = 1;
        let index = loop {
            match self.blocks.iter().position(|known| known.name == block.name) {
                None => {
                    self.blocks.push(block);
                    break self.blocks.len() - 1;
                }
                Some(index) if self.blocks[index] == block => break index,
                Some(_) => {
                    count += 1;
                    block.name = format!("{stem}_{count}");
                }
            }
        };
        self.layers.push(Layer { block: index, weights, states });
        Ok(())
    }

    pub fn state(&mut self, spec: StateSpec) -> StateId {
        self.states.push(State { spec });
        self.states.len() - 1
    }

    fn fill(&mut self, block: &Block, layer: Option<usize>, tied: bool) -> Result<Vec<WeightId>, FrontendError> {
        let norms: Vec<SlotId> = block
            .nodes
            .iter()
            .filter_map(|node| match node.op {
                Op::RmsNorm { gamma, .. } | Op::LayerNorm { gamma, .. } => Some(gamma),
                Op::LatentAttention { gamma, .. } => Some(gamma),
                Op::HeadNorm { gamma, .. } => gamma,
                _ => None,
            })
            .collect();
        let experts = |id: SlotId| {
            block.nodes.iter().find_map(|node| match node.op {
                Op::Experts { gate, up, down, biases, experts, .. } => {
                    let mut slots = [gate, up, down].into_iter().chain(biases.into_iter().flatten());
                    slots.any(|slot| slot == id).then_some(experts)
                }
                _ => None,
            })
        };
        let latents = |id: SlotId| {
            block.nodes.iter().find_map(|node| match node.op {
                Op::LatentAttention { sizes, keys, by_key, values, .. } if [keys, values].contains(&id) => {
                    Some((sizes, by_key))
                }
                _ => None,
            })
        };
        let taps_of = |id: SlotId| {
            block.nodes.iter().find_map(|node| match node.op {
                Op::ShortConv { weight, taps, .. } if weight == id => Some(taps),
                Op::GatedDelta { conv, delta, .. } if conv == id => Some(delta.taps),
                _ => None,
            })
        };
        let is_vector = |id: SlotId| {
            let of = |op: &Op| match op {
                Op::GatedDelta { decay, gamma, .. } => [decay, gamma].contains(&&id),
                Op::Attention { per_head, .. } => per_head.iter().any(|vector| vector.slot == id),
                Op::ScaleExperts { scale } => *scale == id,
                _ => false,
            };
            block.nodes.iter().any(|node| of(&node.op))
        };
        let fill_slot = |(id, slot): (SlotId, &Slot)| {
            if let Some(experts) = experts(id) {
                return self.stack(&slot.role, layer, experts, slot);
            }
            if let Some((sizes, together)) = latents(id) {
                let weight = self.tensors.of_heads(&slot.role, layer, &sizes, together)?;
                self.weights.push(weight);
                return Ok(self.weights.len() - 1);
            }
            let norm = norms.contains(&id);
            let role = if tied && slot.role == "output" { "token_embd" } else { &slot.role };
            let shape = match taps_of(id) {
                Some(taps) => Shape::Taps { channels: slot.cols / taps, taps },
                None if norm || is_vector(id) || slot.rows == 1 && slot.cols == 1 || role.ends_with("_bias") => {
                    Shape::Vector
                }
                None => Shape::Matrix,
            };
            self.weight(role, layer, slot, shape, if norm { self.norm_offset } else { 0.0 })
        };
        block.slots.iter().enumerate().map(fill_slot).collect()
    }

    fn weight(
        &mut self,
        role: &str,
        layer: Option<usize>,
        slot: &Slot,
        shape: Shape,
        offset: f32,
    ) -> Result<WeightId, FrontendError> {
        if let Some(&id) = self.known.get(&(role.to_owned(), layer)) {
            return Ok(id);
        }
        let made = layer.and_then(|layer| self.made.iter().find(|((made, of), _)| *made == role && *of == layer));
        let weight = match made {
            Some((_, (tensor, values))) => Weight {
                tensor: tensor.clone(),
                role: role.to_owned(),
                layer,
                rows: slot.rows,
                cols: slot.cols,
                format: Format::F32,
                source: Source::Values(values.clone()),
                offset: 0.0,
                factor: 1.0,
                negated_exp: false,
                max_abs: None,
            },
            None => {
                let part = self.parts.iter().find(|part| part.role == role);
                self.tensors.weight(role, layer, slot.rows, slot.cols, shape, part)?
            }
        };
        let negated_exp = self.logarithm == Some(role);
        let factor = self.multiplied.filter(|(of, _)| *of == role).map_or(1.0, |(_, factor)| factor);
        self.weights.push(Weight { offset, factor, negated_exp, ..weight });
        self.known.insert((role.to_owned(), layer), self.weights.len() - 1);
        Ok(self.weights.len() - 1)
    }

    fn stack(
        &mut self,
        role: &str,
        layer: Option<usize>,
        experts: usize,
        slot: &Slot,
    ) -> Result<WeightId, FrontendError> {
        let weight = match slot.rows {
            1 => self.tensors.stack_vector(self.stacks, role, layer, experts, slot.cols / experts)?,
            rows => self.tensors.stack(self.stacks, role, layer, experts, rows / experts, slot.cols)?,
        };
        self.weights.push(weight);
        Ok(self.weights.len() - 1)
    }

    /// Multiplies a vector outside the layers, as it is packed.
    pub fn scale_vector(&mut self, role: &str, factor: f32) {
        if let Some(&id) = self.known.get(&(role.to_owned(), None)) {
            self.weights[id].factor *= factor;
        }
    }

    pub fn finish(self, config: ModelConfig, embed: Stage, head: Stage) -> Graph {
        Graph {
            config,
            weights: self.weights,
            states: self.states,
            embed,
            blocks: self.blocks,
            layers: self.layers,
            head,
        }
    }
}
