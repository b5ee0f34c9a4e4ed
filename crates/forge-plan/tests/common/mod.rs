//! A dense pre-norm graph of any sizes, without a checkpoint.

use forge_formats::Format;
use forge_frontend::graph::*;
use forge_frontend::{Graph, ModelConfig};

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub hidden: usize,
    pub ffn: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub layers: usize,
    pub context: usize,
}

struct Builder {
    sizes: Sizes,
    block: Block,
}

impl Builder {
    fn new(sizes: Sizes, name: &str) -> Self {
        let x = Value { name: "x".into(), width: sizes.hidden };
        Builder { sizes, block: Block { name: name.into(), inputs: 1, values: vec![x], ..Block::default() } }
    }

    fn slot(&mut self, role: &str, rows: usize, cols: usize) -> SlotId {
        self.block.slots.push(Slot { role: role.into(), rows, cols });
        self.block.slots.len() - 1
    }

    fn node(&mut self, op: Op, inputs: &[ValueId], width: usize) -> ValueId {
        self.block.values.push(Value { name: format!("v{}", self.block.values.len()), width });
        let output = self.block.values.len() - 1;
        self.block.nodes.push(Node { op, inputs: inputs.to_vec(), output: Some(output) });
        self.block.output = output;
        output
    }

    fn linear(&mut self, role: &str, input: ValueId, rows: usize, cols: usize) -> ValueId {
        let weight = self.slot(role, rows, cols);
        self.node(Op::Linear { weight, bias: None }, &[input], rows)
    }

    /// What follows a layer's mixer: a mixture of experts, or a dense feed-forward.
    fn rest(&mut self, mixed: ValueId, mixture: Option<Mixture>) {
        let Some(mixture) = mixture else { return self.feed_forward(mixed) };
        let hidden = self.sizes.hidden;
        let x = self.node(Op::Add, &[0, mixed], hidden);
        let normed = self.norm("ffn_norm", x);
        let y = self.mixture(normed, mixture);
        self.node(Op::Add, &[x, y], hidden);
    }

    /// A dense feed-forward after a layer's mixer.
    fn feed_forward(&mut self, mixed: ValueId) {
        let Sizes { hidden, ffn, .. } = self.sizes;
        let x = self.node(Op::Add, &[0, mixed], hidden);
        let normed = self.norm("ffn_norm", x);
        let gate = self.linear("ffn_gate", normed, ffn, hidden);
        let up = self.linear("ffn_up", normed, ffn, hidden);
        let act = self.node(Op::GatedActivation { activation: Activation::Silu }, &[gate, up], ffn);
        let down = self.linear("ffn_down", act, hidden, ffn);
        self.node(Op::Add, &[x, down], hidden);
    }

    fn norm(&mut self, role: &str, input: ValueId) -> ValueId {
        let hidden = self.sizes.hidden;
        let gamma = self.slot(role, 1, hidden);
        self.node(Op::RmsNorm { gamma, eps: 1e-5 }, &[input], hidden)
    }
}

/// Sizes of a mixture of experts in place of the feed-forward.
#[derive(Debug, Clone, Copy)]
pub struct Mixture {
    pub experts: usize,
    pub chosen: usize,
    pub width: usize,
    /// Width of an expert that every token takes, behind a gate; 0: there is none.
    pub shared: usize,
}

impl Builder {
    /// The mixture's result, of a normed input.
    fn mixture(&mut self, input: ValueId, mixture: Mixture) -> ValueId {
        let Mixture { experts, chosen, width, shared } = mixture;
        let hidden = self.sizes.hidden;
        let logits = self.linear("router", input, experts, hidden);
        let scores = Scores::SoftmaxOfChosen;
        let routing = Routing { experts, chosen, scores, groups: None, normalised: None, scale: 1.0 };
        let weights = self.node(Op::Route { routing, bias: None }, &[logits], experts);
        let gate = self.slot("expert_gate", experts * width, hidden);
        let up = self.slot("expert_up", experts * width, hidden);
        let down = self.slot("expert_down", experts * hidden, width);
        let activation = Activation::Silu;
        let op = Op::Experts { gate, up, down, biases: None, experts, activation };
        let routed = self.node(op, &[input, weights], hidden);
        if shared == 0 {
            return routed;
        }
        let gate = self.linear("shared_gate", input, shared, hidden);
        let up = self.linear("shared_up", input, shared, hidden);
        let act = self.node(Op::GatedActivation { activation }, &[gate, up], shared);
        let down = self.linear("shared_down", act, hidden, shared);
        let gate = self.linear("shared_router", input, 1, hidden);
        let of_all = self.node(Op::SigmoidGate, &[down, gate], hidden);
        self.node(Op::Add, &[routed, of_all], hidden)
    }
}

fn layer_block(sizes: Sizes, mixture: Option<Mixture>) -> Block {
    let Sizes { hidden, heads, kv_heads, head_dim, .. } = sizes;
    let mut b = Builder::new(sizes, "layer");
    b.block.state_slots.push(StateSpec::Kv(KvSpec { kv_heads, head_dim, window: None }));
    let normed = b.norm("attn_norm", 0);
    let q = b.linear("attn_q", normed, heads * head_dim, hidden);
    let k = b.linear("attn_k", normed, kv_heads * head_dim, hidden);
    let v = b.linear("attn_v", normed, kv_heads * head_dim, hidden);
    let rope = Rope {
        pairing: RopePairing::Halves,
        rotary_dim: head_dim,
        inv_freq: vec![1.0; head_dim / 2],
        magnitude: 1.0,
        long: None,
    };
    let q = b.node(Op::Rope { heads, head_dim, rope: rope.clone() }, &[q], heads * head_dim);
    let k = b.node(Op::Rope { heads: kv_heads, head_dim, rope }, &[k], kv_heads * head_dim);
    b.block.nodes.push(Node { op: Op::KvAppend { state: 0 }, inputs: vec![k, v], output: None });
    let attention = Attention { scale: 0.088_388_35, window: None, softcap: None };
    let y = b.node(Op::Attention { state: 0, heads, attention, per_head: Vec::new() }, &[q], heads * head_dim);
    let y = b.linear("attn_output", y, hidden, heads * head_dim);
    b.rest(y, mixture);
    b.block
}

/// A layer with attention over latents; its queries come from a latent of so many elements, or 0 from the stream.
#[allow(dead_code, reason = "not every test has latents")]
fn latent_block(sizes: Sizes, latents: LatentSizes, query_latent: usize, by_key: bool) -> Block {
    let Sizes { hidden, .. } = sizes;
    let LatentSizes { heads, latent, rope, nope, value } = latents;
    let mut b = Builder::new(sizes, "layer");
    b.block.state_slots.push(StateSpec::Latent(LatentSpec { latent, rope }));
    let normed = b.norm("attn_norm", 0);
    let queries = latents.queries();
    let (first, width) = if query_latent > 0 { ("attn_q_a", query_latent) } else { ("attn_q", queries) };
    let first = b.linear(first, normed, width, hidden);
    let compressed = b.linear("attn_kv_a", normed, latents.position(), hidden);
    let q = if query_latent > 0 {
        let gamma = b.slot("attn_q_a_norm", 1, query_latent);
        let normed = b.node(Op::RmsNorm { gamma, eps: 1e-6 }, &[first], query_latent);
        b.linear("attn_q_b", normed, queries, query_latent)
    } else {
        first
    };
    let gamma = b.slot("attn_kv_a_norm", 1, latent);
    let [rows, cols] = if by_key { [heads * nope, latent] } else { [heads * latent, nope] };
    let keys = b.slot("attn_k_b", rows, cols);
    let values = b.slot("attn_v_b", heads * value, latent);
    let pairing = RopePairing::Interleaved;
    let rope = Rope { pairing, rotary_dim: rope, inv_freq: vec![1.0; rope / 2], magnitude: 1.0, long: None };
    let (state, eps, scale) = (0, 1e-6, 0.07);
    let op = Op::LatentAttention { state, sizes: latents, gamma, eps, rope, scale, keys, by_key, values };
    let y = b.node(op, &[q, compressed], heads * value);
    let y = b.linear("attn_output", y, hidden, heads * value);
    b.feed_forward(y);
    b.block
}

/// A model of such layers, with dense feed-forwards.
#[allow(dead_code, reason = "not every test has latents")]
pub fn latents(sizes: Sizes, latents: LatentSizes, query_latent: usize, by_key: bool, format: Format) -> Graph {
    graph_of(sizes, latent_block(sizes, latents, query_latent, by_key), format)
}

/// A layer with the gated delta rule in place of attention.
fn delta_block(sizes: Sizes, delta: GatedDelta, mixture: Option<Mixture>) -> Block {
    let Sizes { hidden, .. } = sizes;
    let values = delta.value_heads * delta.value_dim;
    let mut b = Builder::new(sizes, "delta_layer");
    b.block.state_slots.push(StateSpec::Recurrent { width: delta.state_width() });
    let normed = b.norm("attn_norm", 0);
    let rows = [delta.channels(), values, delta.value_heads, delta.value_heads];
    let inputs: Vec<ValueId> = ["delta_qkv", "delta_z", "delta_b", "delta_a"]
        .iter()
        .zip(rows)
        .map(|(role, rows)| b.linear(role, normed, rows, hidden))
        .collect();
    let conv = b.slot("delta_conv", 1, delta.channels() * delta.taps);
    let decay = b.slot("delta_decay", 1, delta.value_heads);
    let time_bias = b.slot("delta_dt_bias", 1, delta.value_heads);
    let gamma = b.slot("delta_norm", 1, delta.value_dim);
    let y = b.node(Op::GatedDelta { state: 0, delta, conv, decay, time_bias, gamma }, &inputs, values);
    let y = b.linear("delta_out", y, hidden, values);
    b.rest(y, mixture);
    b.block
}

/// A model whose layers all have the gated delta rule, and a mixture or a dense feed-forward.
#[allow(dead_code, reason = "not every test has a recurrent state")]
pub fn delta(sizes: Sizes, delta: GatedDelta, mixture: Option<Mixture>, format: Format) -> Graph {
    graph_of(sizes, delta_block(sizes, delta, mixture), format)
}

/// A layer with a short convolution of three taps in place of attention.
#[allow(dead_code, reason = "not every test has layers of two kinds")]
fn conv_block(sizes: Sizes) -> Block {
    let Sizes { hidden, .. } = sizes;
    let mut b = Builder::new(sizes, "conv_layer");
    b.block.state_slots.push(StateSpec::Recurrent { width: 2 * hidden });
    let normed = b.norm("attn_norm", 0);
    let bcx = b.linear("conv_in", normed, 3 * hidden, hidden);
    let weight = b.slot("conv", 1, 3 * hidden);
    let y = b.node(Op::ShortConv { state: 0, weight, bias: None, taps: 3 }, &[bcx], hidden);
    let y = b.linear("conv_out", y, hidden, hidden);
    b.feed_forward(y);
    b.block
}

/// A Llama of which every second layer has a convolution instead.
#[allow(dead_code, reason = "not every test has layers of two kinds")]
pub fn hybrid(sizes: Sizes, format: Format) -> Graph {
    let mut graph = llama(sizes, format);
    let block = conv_block(sizes);
    for index in (1..sizes.layers).step_by(2) {
        graph.states[index].spec = block.state_slots[0];
        let weights = fill(&mut graph.weights, format, &block, Some(index));
        graph.layers[index] = Layer { block: 1, weights, states: vec![index] };
    }
    if sizes.layers > 1 {
        graph.blocks.push(block);
    }
    graph
}

/// A weight for each slot of a block.
fn fill(weights: &mut Vec<Weight>, format: Format, block: &Block, layer: Option<usize>) -> Vec<WeightId> {
    let slots = block.slots.iter().map(|slot| {
        let (rows, cols) = (slot.rows, slot.cols);
        weights.push(Weight {
            tensor: slot.role.clone(),
            role: slot.role.clone(),
            layer,
            rows,
            cols,
            format: if rows == 1 || slot.role == "router" { Format::F32 } else { format },
            source: Source::Rows(FileRange { file: 0, range: 0..0 }),
            offset: 0.0,
            factor: 1.0,
            negated_exp: false,
            max_abs: (rows == 1).then_some(1.0),
        });
        weights.len() - 1
    });
    slots.collect()
}

/// A Llama of these sizes whose matrices are all of one format.
#[allow(dead_code, reason = "not every test has a dense model")]
pub fn llama(sizes: Sizes, format: Format) -> Graph {
    graph(sizes, None, format)
}

/// The same with a mixture in every layer, whose router is F32.
#[allow(dead_code, reason = "not every test has a mixture")]
pub fn mixture(sizes: Sizes, mixture: Mixture, format: Format) -> Graph {
    graph(sizes, Some(mixture), format)
}

fn graph(sizes: Sizes, mixture: Option<Mixture>, format: Format) -> Graph {
    graph_of(sizes, layer_block(sizes, mixture), format)
}

/// A model whose layers are all this block.
fn graph_of(sizes: Sizes, block: Block, format: Format) -> Graph {
    let Sizes { hidden, vocab, .. } = sizes;
    let mut weights = Vec::new();
    let mut fill = |block: &Block, layer: Option<usize>| fill(&mut weights, format, block, layer);
    let mut embed = Builder::new(sizes, "embed");
    let table = embed.slot("token_embd", vocab, hidden);
    embed.node(Op::Embedding { table, scale: 1.0 }, &[], hidden);
    let mut head = Builder::new(sizes, "head");
    let normed = head.norm("output_norm", 0);
    head.linear("output", normed, vocab, hidden);
    let embed = Stage { weights: fill(&embed.block, None), block: embed.block };
    let list = (0..sizes.layers).map(|i| Layer { block: 0, weights: fill(&block, Some(i)), states: vec![i] }).collect();
    let head = Stage { weights: fill(&head.block, None), block: head.block };
    Graph {
        config: ModelConfig {
            architecture: "llama".into(),
            name: "llama-3-8b".into(),
            hidden_size: hidden,
            intermediate_size: sizes.ffn,
            num_layers: sizes.layers,
            num_heads: sizes.heads,
            num_kv_heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            vocab_size: vocab,
            trained_context: sizes.context,
        },
        weights,
        states: (0..sizes.layers).map(|_| State { spec: block.state_slots[0] }).collect(),
        embed,
        blocks: vec![block],
        layers: list,
        head,
    }
}
