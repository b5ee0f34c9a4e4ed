//! What fusion refuses rather than computes wrongly.

mod common;

use common::{Sizes, llama};
use forge_formats::Format;
use forge_frontend::graph::Op;
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
