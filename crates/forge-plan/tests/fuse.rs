//! What fusion refuses rather than computes wrongly.

mod common;

use common::{Sizes, llama};
use forge_formats::Format;
use forge_frontend::graph::{Activation, Block, Graph, Node, Op, PositionScale, Value};
use forge_plan::plan::{Choice, Step, When};
use forge_plan::{PlanError, PlanOptions, plan};

const SIZES: Sizes =
    Sizes { hidden: 64, ffn: 128, heads: 4, kv_heads: 2, head_dim: 16, vocab: 256, layers: 2, context: 512 };

/// A feed-forward beside attention, each behind a norm of its own: the second norm reads the stream as it was before
/// attention, so its scale is not that of the stream that the next projection would be given.
#[test]
fn a_parallel_block_is_not_compiled_as_a_sequential_one() {
    let mut graph = llama(SIZES, Format::F32);
    assert!(plan(&graph, &PlanOptions::default()).is_ok());
    let block = &mut graph.blocks[0];
    let norms: Vec<usize> =
        (0..block.nodes.len()).filter(|&node| matches!(block.nodes[node].op, Op::RmsNorm { .. })).collect();
    let [_, second] = norms[..] else { panic!("{norms:?}") };
    // Both norms come before the stream moves, as a front end may well write it.
    let mut norm = block.nodes.remove(second);
    norm.inputs = vec![0];
    block.nodes.insert(1, norm);
    let error = plan(&graph, &PlanOptions::default()).expect_err("the stream has moved");
    let PlanError::Unsupported { block, what } = &error else { panic!("{error}") };
    assert_eq!((block.as_str(), what.as_str()), ("layer", "a projection of an earlier residual stream"));
}

/// Both branches behind one norm, with all that reads the stream before either is added: one norm a layer, and no barrier
/// between the projections.
#[test]
fn branches_side_by_side_share_a_norm() {
    let mut graph = llama(SIZES, Format::F32);
    let block = &mut graph.blocks[0];
    let position = |block: &Block, op: fn(&Op) -> bool| block.nodes.iter().position(|node| op(&node.op)).expect("one");
    let gated = position(block, |op| matches!(op, Op::GatedActivation { .. }));
    // gate, up and their product, behind the first norm, in front of the rotation; the second norm goes.
    let feed_forward: Vec<_> = block.nodes.drain(gated - 3..=gated).skip(1).collect();
    let rope = position(block, |op| matches!(op, Op::Rope { .. }));
    let normed = block.nodes[0].output.expect("a norm");
    for (at, mut node) in feed_forward.into_iter().enumerate() {
        if matches!(node.op, Op::Linear { .. }) {
            node.inputs = vec![normed];
        }
        block.nodes.insert(rope + at, node);
    }
    for mean in [false, true] {
        if mean {
            for block in graph.blocks.iter_mut().chain([&mut graph.head.block]) {
                for node in &mut block.nodes {
                    if let Op::RmsNorm { gamma, eps } = node.op {
                        node.op = Op::LayerNorm { gamma, beta: None, eps };
                    }
                }
            }
        }
        let plan = plan(&graph, &PlanOptions::default()).expect("a plan");
        let step = |step: &Step| {
            let Choice::Fixed(kernel) = step.kernel else { panic!("one kernel for all layers") };
            (plan.kernels[kernel].name.as_str(), step.barrier)
        };
        let steps: Vec<_> = plan.decode.blocks()[0].iter().filter(|step| step.when != When::Split).map(step).collect();
        let projections =
            [("qkv_proj", true), ("gate_up_proj", false), ("rope_append", true), ("attention", true), ("o_proj", true)];
        let expected: Vec<_> = [("layer_norm", true)][..usize::from(mean)]
            .iter()
            .chain(&projections)
            .chain(&[("down_proj", true)])
            .copied()
            .collect();
        assert_eq!(steps, expected, "subtracting a mean: {mean}");
    }
}

/// A node after the one that `after` finds first in the layers' block; readers of that one's result read the new one's.
fn follow(graph: &mut Graph, mut after: impl FnMut(&Op) -> bool, op: Op) {
    let block = &mut graph.blocks[0];
    let at = block.nodes.iter().position(|node| after(&node.op)).expect("one");
    let value = block.nodes[at].output.expect("a result");
    block.values.push(Value { name: "more".into(), width: block.values[value].width });
    let result = block.values.len() - 1;
    for input in block.nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|input| **input == value) {
        *input = result;
    }
    block.nodes.insert(at + 1, Node { op, inputs: vec![value], output: Some(result) });
}

fn refusal(graph: &Graph) -> String {
    match plan(graph, &PlanOptions::default()).expect_err("a refusal") {
        PlanError::Unsupported { block, what } if block == "layer" => what,
        other => panic!("{other}"),
    }
}

const HEAD_NORM: Op = Op::HeadNorm { gamma: None, heads: SIZES.heads, head_dim: SIZES.head_dim, eps: 1e-5 };
const KEY_NORM: Op = Op::HeadNorm { gamma: None, heads: SIZES.kv_heads, head_dim: SIZES.head_dim, eps: 1e-5 };

fn turns(of: usize) -> impl Fn(&Op) -> bool {
    move |op| matches!(op, Op::Rope { heads, .. } if *heads == of)
}

/// Norms of rotated heads take the scale before the rotation, which has to keep it.
#[test]
fn norms_after_the_rotation() {
    let mut graph = llama(SIZES, Format::F32);
    follow(&mut graph, turns(SIZES.heads), HEAD_NORM);
    follow(&mut graph, turns(SIZES.kv_heads), KEY_NORM);
    assert!(plan(&graph, &PlanOptions::default()).is_ok());
    for node in &mut graph.blocks[0].nodes {
        if let Op::Rope { rope, .. } = &mut node.op {
            rope.magnitude = 1.25;
        }
    }
    assert_eq!(refusal(&graph), "a norm after a rotation that scales");

    // Of queries after it, of keys before it.
    let mut graph = llama(SIZES, Format::F32);
    follow(&mut graph, turns(SIZES.heads), HEAD_NORM);
    let block = &graph.blocks[0];
    let key = block.nodes.iter().find(|node| turns(SIZES.kv_heads)(&node.op)).expect("a rotation").inputs[0];
    let projection = block.nodes.iter().position(|node| node.output == Some(key)).expect("a projection");
    let mut nodes = 0..;
    follow(&mut graph, |_| nodes.next() == Some(projection), KEY_NORM);
    assert_eq!(refusal(&graph), "norms before and after the rotation");
}

#[test]
fn only_queries_are_scaled_by_their_position() {
    let op = Op::PositionScale { scale: PositionScale { beta: 0.1, original_context: 64 } };
    let mut graph = llama(SIZES, Format::F32);
    follow(&mut graph, turns(SIZES.heads), op.clone());
    assert!(plan(&graph, &PlanOptions::default()).is_ok());
    follow(&mut graph, turns(SIZES.kv_heads), op);
    assert_eq!(refusal(&graph), "keys or values that are scaled by their position");
}

#[test]
fn a_gate_has_no_numbers_of_the_layer() {
    let mut graph = llama(SIZES, Format::F32);
    for node in &mut graph.blocks[0].nodes {
        if let Op::GatedActivation { activation } = &mut node.op {
            *activation = Activation::Xielu;
        }
    }
    assert_eq!(refusal(&graph), "Xielu, which takes numbers of the layer, as a gate");
}
