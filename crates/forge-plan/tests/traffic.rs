//! Decode traffic of a Llama-3-8B-shaped plan against the lower bound, for the formats that the documentation quotes.

use forge_formats::Format;
use forge_frontend::graph::*;
use forge_frontend::{Graph, ModelConfig};
use forge_plan::costs::StepSize;
use forge_plan::formula::{Formula, Linear};
use forge_plan::plan::{Choice, Dim};
use forge_plan::{Plan, PlanOptions, attention, costs, plan};

const HIDDEN: usize = 4096;
const FFN: usize = 14_336;
const HEADS: usize = 32;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 128;
const VOCAB: usize = 128_256;

struct Builder {
    block: Block,
}

impl Builder {
    fn new(name: &str) -> Self {
        let x = Value { name: "x".into(), width: HIDDEN };
        Builder { block: Block { name: name.into(), inputs: 1, values: vec![x], ..Block::default() } }
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

    fn norm(&mut self, role: &str, input: ValueId) -> ValueId {
        let gamma = self.slot(role, 1, HIDDEN);
        self.node(Op::RmsNorm { gamma, eps: 1e-5 }, &[input], HIDDEN)
    }
}

fn layer_block() -> Block {
    let mut b = Builder::new("layer");
    b.block.state_slots.push(StateSpec { kv_heads: KV_HEADS, head_dim: HEAD_DIM, window: None });
    let normed = b.norm("attn_norm", 0);
    let q = b.linear("attn_q", normed, HEADS * HEAD_DIM, HIDDEN);
    let k = b.linear("attn_k", normed, KV_HEADS * HEAD_DIM, HIDDEN);
    let v = b.linear("attn_v", normed, KV_HEADS * HEAD_DIM, HIDDEN);
    let rope = Rope {
        pairing: RopePairing::Halves,
        rotary_dim: HEAD_DIM,
        inv_freq: vec![1.0; HEAD_DIM / 2],
        magnitude: 1.0,
        long: None,
    };
    let q = b.node(Op::Rope { heads: HEADS, head_dim: HEAD_DIM, rope: rope.clone() }, &[q], HEADS * HEAD_DIM);
    let k = b.node(Op::Rope { heads: KV_HEADS, head_dim: HEAD_DIM, rope }, &[k], KV_HEADS * HEAD_DIM);
    b.block.nodes.push(Node { op: Op::KvAppend { state: 0 }, inputs: vec![k, v], output: None });
    let attention = Attention { scale: 0.088_388_35, window: None, softcap: None };
    let y = b.node(Op::Attention { state: 0, heads: HEADS, attention }, &[q], HEADS * HEAD_DIM);
    let y = b.linear("attn_output", y, HIDDEN, HEADS * HEAD_DIM);
    let x = b.node(Op::Add, &[0, y], HIDDEN);
    let normed = b.norm("ffn_norm", x);
    let gate = b.linear("ffn_gate", normed, FFN, HIDDEN);
    let up = b.linear("ffn_up", normed, FFN, HIDDEN);
    let act = b.node(Op::GatedActivation { activation: Activation::Silu }, &[gate, up], FFN);
    let down = b.linear("ffn_down", act, HIDDEN, FFN);
    b.node(Op::Add, &[x, down], HIDDEN);
    b.block
}

fn graph(format: Format, layers: usize) -> Graph {
    let mut weights = Vec::new();
    let mut fill = |block: &Block, layer: Option<usize>| -> Vec<WeightId> {
        block
            .slots
            .iter()
            .map(|slot| {
                let (rows, cols) = (slot.rows, slot.cols);
                weights.push(Weight {
                    tensor: slot.role.clone(),
                    role: slot.role.clone(),
                    layer,
                    rows,
                    cols,
                    format: if rows == 1 { Format::F32 } else { format },
                    source: Source::Rows(FileRange { file: 0, range: 0..0 }),
                    offset: 0.0,
                    factor: 1.0,
                    max_abs: (rows == 1).then_some(1.0),
                });
                weights.len() - 1
            })
            .collect()
    };
    let mut embed = Builder::new("embed");
    let table = embed.slot("token_embd", VOCAB, HIDDEN);
    embed.node(Op::Embedding { table, scale: 1.0 }, &[], HIDDEN);
    let mut head = Builder::new("head");
    let normed = head.norm("output_norm", 0);
    head.linear("output", normed, VOCAB, HIDDEN);
    let block = layer_block();
    let embed = Stage { weights: fill(&embed.block, None), block: embed.block };
    let list = (0..layers).map(|i| Layer { block: 0, weights: fill(&block, Some(i)), states: vec![i] }).collect();
    let head = Stage { weights: fill(&head.block, None), block: head.block };
    Graph {
        config: ModelConfig {
            architecture: "llama".into(),
            name: "llama-3-8b".into(),
            hidden_size: HIDDEN,
            intermediate_size: FFN,
            num_layers: layers,
            num_heads: HEADS,
            num_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            vocab_size: VOCAB,
            trained_context: 131_072,
        },
        weights,
        states: (0..layers).map(|_| State { spec: block.state_slots[0] }).collect(),
        embed,
        blocks: vec![block],
        layers: list,
        head,
    }
}

fn llama(format: Format) -> Plan {
    plan(&graph(format, 32), &PlanOptions::default()).expect("a dense model has a plan")
}

#[test]
fn decode_traffic_stays_near_the_lower_bound() {
    for format in [Format::Q8_0, Format::Q4_0, Format::F16] {
        let plan = llama(format);
        for (position, bound) in [(0, 1.02), (8191, 1.05)] {
            let cost = costs::decode(&plan, position);
            let ratio = cost.bytes() as f64 / cost.lower_bound as f64;
            println!("{format} at context {}: {ratio:.4} of the lower bound", position + 1);
            assert!((1.0..=bound).contains(&ratio), "{format} at {position}: {ratio}");
        }
        let input = costs::decode(&plan, 0).input_per_weight_byte();
        println!("{format}: {input:.2} requested input bytes per weight byte");
        assert!(input <= 3.0, "{format}: {input}");
    }
}

/// Programs evaluate formulas; they give what the plan counts, at sizes that the coefficients were not taken from.
#[test]
fn formulas_are_exact() {
    let plan = llama(Format::Q4_0);
    let (mut prefill, mut decode) = (0, 0);
    for (schedule, rows) in [(&plan.decode, &[1][..]), (&plan.prefill, &[1, 3, 64, 200][..])] {
        let stages = [&schedule.embed, &schedule.head, &schedule.sample];
        for step in stages.into_iter().chain(&schedule.blocks).flatten() {
            let Choice::Fixed(id) = step.kernel else { panic!("one format has no tables") };
            let windows: &[Option<usize>] = match plan.kernels[id].family {
                forge_plan::Family::Embed(_) | forge_plan::Family::Gemv(_) | forge_plan::Family::Gemm(_) => &[None],
                _ => &[None, Some(1), Some(100), Some(1024)],
            };
            for &window in windows {
                let mut kernel = plan.kernels[id].clone();
                set_window(&mut kernel.family, window);
                let formula = Formula::of(&kernel, &step.grid);
                for &rows in rows {
                    for position in [0, 1, 7, 99, 100, 255, 256, 1023, 1024, 5000] {
                        let size = StepSize { rows, position };
                        let cost = costs::dispatch(&kernel, &step.grid, size);
                        let seen = |position: usize| (position + 1).min(window.unwrap_or(usize::MAX));
                        let parts = attention::parts(seen(position));
                        let tiles = step.grid.iter().find_map(|dim| match dim {
                            Dim::RowTiles(tile) => Some(rows.div_ceil(*tile)),
                            _ => None,
                        });
                        let pairs = (position..position + rows).map(seen).sum();
                        let value = |l: Linear, positions: usize| {
                            let rows = [(l.per_row, rows), (l.per_tile, tiles.unwrap_or(0))];
                            let variable = rows.into_iter().chain([(l.per_position, positions), (l.per_part, parts)]);
                            l.fixed + variable.map(|(factor, count)| factor * count as u64).sum::<u64>()
                        };
                        let bytes = value(formula.bytes, rows - 1 + seen(position));
                        let name = &kernel.name;
                        assert_eq!(bytes, cost.read() + cost.written(), "{name}, window {window:?}: {size:?}");
                        assert_eq!(value(formula.flops, pairs), cost.flops, "{name}, window {window:?}: {size:?}");
                        if rows > 1 { prefill += 1 } else { decode += 1 }
                    }
                }
            }
        }
    }
    assert!(prefill > 300 && decode > 300, "{prefill} and {decode} comparisons");
}

fn set_window(family: &mut forge_plan::Family, window: Option<usize>) {
    use forge_plan::Family as F;
    if let F::AttentionTile(a) | F::AttentionDecode(a) | F::AttentionPart(a) | F::AttentionCombine(a) = family {
        a.attention.window = window;
    }
}

#[test]
fn a_dense_layer_is_at_most_six_dispatches() {
    let plan = llama(Format::Q4_0);
    let outside = plan.decode.embed.len() + plan.decode.head.len() + plan.decode.sample.len();
    for (position, most) in [(0, 6), (8191, 7)] {
        let cost = costs::decode(&plan, position);
        let layers = (cost.dispatches() as usize - outside) / plan.layers.len();
        println!("context {}: {} dispatches, {} barriers a token", position + 1, cost.dispatches(), cost.barriers());
        assert!(layers <= most, "{layers} dispatches a layer at {position}");
    }
}

/// Weights that a norm may blow up beyond the half range keep float tiles.
#[test]
fn large_activations_keep_float_tiles() {
    let half_tiles = |gamma: f32| {
        let mut graph = graph(Format::Q8_0, 1);
        graph.weights.iter_mut().filter(|w| w.rows == 1).for_each(|w| w.max_abs = Some(gamma));
        let plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
        let tiles = |kernel: &forge_plan::Kernel| match &kernel.family {
            forge_plan::Family::Gemm(gemm) => Some((kernel.name.clone(), gemm.half_tiles)),
            _ => None,
        };
        plan.kernels.iter().filter_map(tiles).filter(|(_, half)| *half).map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(half_tiles(1.0), ["qkv_proj_tile", "gate_up_proj_tile", "lm_head_tile"]);
    assert!(half_tiles(1000.0).is_empty(), "64 times 1000 is the end of the half range");
}
