//! Fusion: a block's operations become the few steps that have a kernel each.
//!
//! No step is a norm alone: the norm of a projection's input travels as `x * gamma` and partial sums of
//! squares, and the projection applies the one scalar.

use std::collections::HashMap;

use forge_frontend::graph::{Activation, Attention, Block, Node, Op, Rope, SlotId, StateSlotId, ValueId};

use crate::PlanError;
use crate::families::HeadNorm;
use crate::roles;

/// A block as fused steps.
#[derive(Debug, Clone, PartialEq)]
pub struct FusedBlock {
    /// The block's name.
    pub name: String,
    /// Steps in order.
    pub ops: Vec<Fused>,
}

/// A norm's weights and epsilon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// `[width]`.
    pub gamma: SlotId,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// A fused step.
#[derive(Debug, Clone, PartialEq)]
pub enum Fused {
    /// Token to residual stream.
    Embed {
        /// `[vocab, hidden]`.
        table: SlotId,
        /// Factor.
        scale: f32,
    },
    /// One or several matrices over one input.
    Projection(Projection),
    /// Head norms, RoPE, KV append.
    RopeAppend(RopeStep),
    /// Attention over the cache.
    Attention(AttentionStep),
    /// A projection of the embedding to every layer's own input.
    LayerInputs(LayerInputsStep),
}

/// One matrix of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    /// `[rows, cols]`.
    pub weight: SlotId,
    /// `[rows]`.
    pub bias: Option<SlotId>,
    /// Output rows.
    pub rows: usize,
}

/// Where a projection's input comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The residual stream, through a norm or as it is.
    Stream(Option<Norm>),
    /// The buffer that an earlier step of the block filled.
    Buffer(String),
}

/// What happens to a projection's result.
#[derive(Debug, Clone, PartialEq)]
pub enum Result {
    /// Stored in the buffer of that name.
    Store {
        /// `cap * tanh(y / cap)`.
        softcap: Option<f32>,
    },
    /// Added to the residual stream.
    Residual {
        /// Factor on the projection.
        factor: f32,
        /// Norm of the projection before it is added.
        post_norm: Option<Norm>,
        /// `[1]`: factor on the sum; only with a post-norm.
        scale: Option<SlotId>,
    },
    /// `activation(first) * second`.
    Gated(Activation),
    /// `activation(y)` times the layer's own input.
    GatedByInput(Activation),
}

/// `factor * (norm(projected) + scale * table[token])`, each layer's part with a norm of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInputsStep {
    /// `[vocab, layers * width]`.
    pub table: SlotId,
    /// Factor on the table.
    pub scale: f32,
    /// Buffer with the projection.
    pub projected: String,
    /// Norm of each layer's part, `[width]`.
    pub norm: Norm,
    /// Layers.
    pub layers: usize,
    /// Elements of a layer's part.
    pub width: usize,
    /// Factor on the sum.
    pub factor: f32,
}

/// Matrices over one input, with the norm before and the operation after.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `qkv_proj`, `o_proj`, ...
    pub name: String,
    /// The input.
    pub input: Input,
    /// The matrices, in output order.
    pub matrices: Vec<Matrix>,
    /// Input width.
    pub cols: usize,
    /// What happens to the result.
    pub result: Result,
    /// Buffer that holds a stored or gated result.
    pub buffer: String,
}

/// Norms, rotation and append before attention.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeStep {
    /// Buffer with q, k and v.
    pub buffer: String,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads appended; 0 where the layer only reads a cache.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Values are the keys before their norm and rotation; the buffer has none of their own.
    pub keys_as_values: bool,
    /// Norms of q, k, v with their gamma.
    pub norms: [Option<(HeadNorm, Option<SlotId>)>; 3],
    /// Rotation.
    pub rope: Option<Rope>,
    /// The cache.
    pub state: StateSlotId,
}

/// Attention of the rows over the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionStep {
    /// Buffer with q, k and v.
    pub buffer: String,
    /// Query heads.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Scale, window, soft-cap.
    pub attention: Attention,
    /// The cache.
    pub state: StateSlotId,
}

/// Fuses one block.
///
/// # Errors
/// [`PlanError::Unsupported`] where an operation fits no pattern.
pub fn fuse(block: &Block) -> std::result::Result<FusedBlock, PlanError> {
    Fuser { block, done: vec![false; block.nodes.len()], buffers: HashMap::new() }.run()
}

struct Fuser<'a> {
    block: &'a Block,
    done: Vec<bool>,
    /// Buffer that holds a value, and the row it starts at.
    buffers: HashMap<ValueId, (String, usize)>,
}

/// Buffer of the layers' own inputs.
pub const LAYER_INPUTS: &str = "layer_inputs";
/// The block's input that is the layer's own.
const LAYER_INPUT: ValueId = 1;

type Chain = (ValueId, Option<(HeadNorm, Option<SlotId>)>, Option<Rope>);

impl Fuser<'_> {
    fn run(mut self) -> std::result::Result<FusedBlock, PlanError> {
        let mut ops = Vec::new();
        let mut stream = 0;
        // Norms of the residual stream, and which value the stream was then.
        let mut normed: HashMap<ValueId, (ValueId, Norm)> = HashMap::new();
        let mut layer_inputs = self.block.layer_inputs.map(|value| self.layer_inputs(value)).transpose()?;
        for index in 0..self.block.nodes.len() {
            if self.done[index] {
                continue;
            }
            let node = &self.block.nodes[index];
            match &node.op {
                Op::Embedding { table, scale } => {
                    ops.push(Fused::Embed { table: *table, scale: *scale });
                }
                Op::RmsNorm { gamma, eps } if node.inputs[0] == stream => {
                    normed.insert(self.output(node)?, (stream, Norm { gamma: *gamma, eps: *eps }));
                }
                Op::Linear { .. } => {
                    let input = node.inputs[0];
                    let source = match (normed.get(&input), self.buffers.get(&input)) {
                        (Some((of, norm)), _) if *of == stream => Input::Stream(Some(*norm)),
                        // Only the stream as it is now has a buffer.
                        (Some(_), _) => return Err(self.unsupported("a projection of an earlier residual stream")),
                        (None, Some((buffer, 0))) => Input::Buffer(buffer.clone()),
                        (None, None) if input == stream => Input::Stream(None),
                        _ => return Err(self.unsupported("the input of a projection")),
                    };
                    let (projection, new_stream) = self.projection(index, source, stream)?;
                    stream = new_stream.unwrap_or(stream);
                    ops.push(Fused::Projection(projection));
                    if let Some((_, step)) = layer_inputs.take_if(|(projected, _)| node.output == Some(*projected)) {
                        ops.push(Fused::LayerInputs(step));
                    }
                }
                Op::RmsNorm { .. } | Op::HeadNorm { .. } | Op::Rope { .. } | Op::KvAppend { .. } => continue,
                Op::Attention { state, heads, attention } => {
                    let (rope, head_dim) = self.rope_step(node, *state, *heads)?;
                    let buffer = rope.buffer.clone();
                    ops.push(Fused::RopeAppend(rope));
                    ops.push(Fused::Attention(AttentionStep {
                        buffer,
                        heads: *heads,
                        head_dim,
                        attention: *attention,
                        state: *state,
                    }));
                    self.buffers.insert(self.output(node)?, ("attn".into(), 0));
                }
                other => return Err(self.unsupported(&format!("{other:?}"))),
            }
            self.done[index] = true;
        }
        if let Some(index) = self.done.iter().position(|done| !done) {
            return Err(self.unsupported(&format!("{:?}", self.block.nodes[index].op)));
        }
        Ok(FusedBlock { name: self.block.name.clone(), ops })
    }

    fn unsupported(&self, what: &str) -> PlanError {
        PlanError::Unsupported { block: self.block.name.clone(), what: what.to_owned() }
    }

    fn output(&self, node: &Node) -> std::result::Result<ValueId, PlanError> {
        node.output.ok_or_else(|| self.unsupported("an operation without a result"))
    }

    fn producer(&self, value: ValueId) -> Option<usize> {
        self.block.nodes.iter().position(|node| node.output == Some(value))
    }

    /// Walks back from the layers' own inputs to the projection they come from: its value, and what is done to it.
    fn layer_inputs(&mut self, result: ValueId) -> std::result::Result<(ValueId, LayerInputsStep), PlanError> {
        let block = self.block;
        let unsupported = self.unsupported("layers' own inputs that are not a projection, normed, and a table's row");
        let mut node_of = |value: ValueId| {
            let index = self.producer(value).ok_or_else(|| unsupported.clone())?;
            self.done[index] = true;
            Ok::<_, PlanError>(&block.nodes[index])
        };
        let mut factor = 1.0;
        let mut node = node_of(result)?;
        if let Op::Scale { factor: by } = node.op {
            factor = by;
            node = node_of(node.inputs[0])?;
        }
        let (Op::Add, &[normed, looked_up]) = (&node.op, &node.inputs[..]) else { return Err(unsupported) };
        let Op::Embedding { table, scale } = node_of(looked_up)?.op else { return Err(unsupported) };
        let norm_node = node_of(normed)?;
        let Op::HeadNorm { gamma: Some(gamma), heads, head_dim, mut eps } = norm_node.op else {
            return Err(unsupported);
        };
        let mut projected = norm_node.inputs[0];
        let producer = self.producer(projected).ok_or_else(|| unsupported.clone())?;
        if let Op::Scale { factor: by } = block.nodes[producer].op {
            // The norm of a multiple is the norm with another epsilon.
            eps /= by * by;
            self.done[producer] = true;
            projected = block.nodes[producer].inputs[0];
        }
        let source = self.producer(projected).map(|index| &block.nodes[index].op);
        let Some(Op::Linear { weight, .. }) = source else { return Err(unsupported) };
        let name = roles::projection(&[block.slots[*weight].role.as_str()]);
        let step = LayerInputsStep {
            table,
            scale,
            projected: roles::result(&name),
            norm: Norm { gamma, eps },
            layers: heads,
            width: head_dim,
            factor,
        };
        Ok((projected, step))
    }

    /// The only node that reads `value`; `None` where several do or the block returns it.
    fn only_user(&self, value: ValueId) -> Option<usize> {
        let mut users = (0..self.block.nodes.len()).filter(|&index| self.block.nodes[index].inputs.contains(&value));
        let first = users.next()?;
        (users.next().is_none() && self.block.output != value).then_some(first)
    }

    /// The projection that starts at node `first`, and the new residual stream where it ends in one.
    fn projection(
        &mut self,
        first: usize,
        input: Input,
        stream: ValueId,
    ) -> std::result::Result<(Projection, Option<ValueId>), PlanError> {
        let block = self.block;
        let source = block.nodes[first].inputs[0];
        let mut matrices = Vec::new();
        let mut outputs = Vec::new();
        let mut slots = Vec::new();
        for (index, node) in block.nodes.iter().enumerate().skip(first) {
            if let Op::Linear { weight, bias } = node.op
                && node.inputs[0] == source
            {
                self.done[index] = true;
                matrices.push(Matrix { weight, bias, rows: block.slots[weight].rows });
                slots.push(block.slots[weight].role.as_str());
                outputs.push(self.output(node)?);
            }
        }
        let name = roles::projection(&slots);
        let cols = block.slots[matrices[0].weight].cols;
        let mut projection = Projection {
            buffer: roles::result(&name),
            name,
            input,
            matrices,
            cols,
            result: Result::Store { softcap: None },
        };
        let users: Vec<_> = outputs.iter().map(|&value| self.only_user(value)).collect();
        if let [Some(a), Some(b)] = users[..]
            && a == b
            && let Op::GatedActivation { activation } = block.nodes[a].op
            && block.nodes[a].inputs == outputs
        {
            self.done[a] = true;
            projection.result = Result::Gated(activation);
            projection.buffer = "act".into();
            self.buffers.insert(self.output(&block.nodes[a])?, ("act".into(), 0));
            return Ok((projection, None));
        }
        if let ([Some(user)], &[value]) = (&users[..], &outputs[..])
            && let Op::GatedActivation { activation } = block.nodes[*user].op
            && block.inputs > LAYER_INPUT
            && block.nodes[*user].inputs == [value, LAYER_INPUT]
        {
            self.done[*user] = true;
            projection.result = Result::GatedByInput(activation);
            self.buffers.insert(self.output(&block.nodes[*user])?, (projection.buffer.clone(), 0));
            return Ok((projection, None));
        }
        if let [value] = outputs[..] {
            if let Some((nodes, result, sum)) = self.residual(value, stream) {
                for node in nodes {
                    self.done[node] = true;
                }
                projection.result = result;
                return Ok((projection, Some(sum)));
            }
            if let Some(user) = users[0]
                && let Op::SoftCap { cap } = block.nodes[user].op
            {
                self.done[user] = true;
                projection.result = Result::Store { softcap: Some(cap) };
            }
        }
        let mut row = 0;
        for (value, matrix) in outputs.iter().zip(&projection.matrices) {
            self.buffers.insert(*value, (projection.buffer.clone(), row));
            row += matrix.rows;
        }
        Ok((projection, None))
    }

    /// Matches `value -> [RmsNorm] -> [Scale] -> Add(stream)`.
    fn residual(&self, value: ValueId, stream: ValueId) -> Option<(Vec<usize>, Result, ValueId)> {
        let (mut nodes, mut factor, mut post_norm) = (Vec::new(), 1.0, None);
        let mut value = value;
        loop {
            let user = self.only_user(value)?;
            let node = &self.block.nodes[user];
            nodes.push(user);
            match node.op {
                Op::RmsNorm { gamma, eps } if post_norm.is_none() => {
                    post_norm = Some(Norm { gamma, eps });
                }
                Op::Scale { factor: by } => factor *= by,
                Op::Add if node.inputs.contains(&stream) => {
                    let mut sum = node.output?;
                    let mut scale = None;
                    if let Some(user) = self.only_user(sum)
                        && let Op::ScaleBy { scale: by } = self.block.nodes[user].op
                        && post_norm.is_some()
                    {
                        nodes.push(user);
                        scale = Some(by);
                        sum = self.block.nodes[user].output?;
                    }
                    return Some((nodes, Result::Residual { factor, post_norm, scale }, sum));
                }
                _ => return None,
            }
            value = node.output?;
        }
    }

    /// Walks back from an attention operand over rotation and norms to the projection's buffer.
    fn chain(&mut self, value: ValueId) -> std::result::Result<Chain, PlanError> {
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

    fn rope_step(
        &mut self,
        node: &Node,
        state: StateSlotId,
        heads: usize,
    ) -> std::result::Result<(RopeStep, usize), PlanError> {
        let spec = self.block.state_slots[state];
        let (q, q_norm, rope) = self.chain(node.inputs[0])?;
        let (buffer, row) = self.buffers[&q].clone();
        if row != 0 {
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
            let expected = [(buffer.clone(), q_rows), (buffer.clone(), v_row)];
            if [&self.buffers[&k], &self.buffers[&v]] != [&expected[0], &expected[1]] {
                return Err(self.unsupported("keys and values apart from the queries"));
            }
            if k_rope != rope || v_rope.is_some() {
                return Err(self.unsupported("different rotations of queries and keys"));
            }
            norms = [norms[0], k_norm, v_norm];
            kv_heads = spec.kv_heads;
        }
        let step = RopeStep { buffer, heads, kv_heads, head_dim: spec.head_dim, keys_as_values, norms, rope, state };
        Ok((step, spec.head_dim))
    }
}
