//! Requantisation: a pass over the graph that gives float matrices another format.
//!
//! Decides which matrices are converted and why the others are not; the packer converts. Everything after this pass sees a
//! checkpoint that is stored in the new formats.

use std::fmt;

use forge_formats::Format;
use forge_frontend::Graph;
use forge_frontend::graph::{Layer, Node, Op, Source, ValueId, WeightId};

use crate::PlanError;

/// Why a matrix keeps its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It has been quantised already: a second time would add a second error to the first.
    Quantized,
    /// It chooses experts: an error there takes others.
    Router,
    /// A row is no whole number of blocks.
    Width {
        /// Weights per row.
        cols: usize,
        /// Weights per block.
        block: usize,
    },
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("chooses experts"),
            Self::Quantized => f.write_str("is quantised already"),
            Self::Width { cols, block } => {
                write!(f, "rows of {cols} weights are no whole number of blocks of {block}")
            }
        }
    }
}

/// Turns every F32, F16 and BF16 matrix of the graph into one that is stored in `target`. Vectors (norms, biases) keep
/// their format. Returns the matrices that do, too, each with the reason.
///
/// # Errors
/// No matrix to convert.
pub fn quantize(graph: &mut Graph, target: Format) -> Result<Vec<(WeightId, Kept)>, PlanError> {
    let mut kept = Vec::new();
    let mut converted = 0;
    let mut formats = Vec::new();
    let routers = routers(graph);
    for (id, weight) in graph.weights.iter_mut().enumerate().filter(|(_, weight)| weight.rows > 1) {
        let from = weight.format;
        if !formats.contains(&from) {
            formats.push(from);
        }
        let block = target.block_elements();
        let floats = from.is_float() && weight.source.pieces().iter().all(is_of_floats);
        if !floats {
            kept.push((id, Kept::Quantized));
        } else if routers.contains(&id) {
            kept.push((id, Kept::Router));
        } else if !weight.cols.is_multiple_of(block) {
            kept.push((id, Kept::Width { cols: weight.cols, block }));
        } else {
            let quantized = |piece: &Source| match piece {
                floats if is_of_floats(floats) => Source::Quantize { floats: Box::new(floats.clone()), from },
                other => other.clone(),
            };
            weight.source = match &weight.source {
                Source::Stack(pieces) => Source::Stack(pieces.iter().map(quantized).collect()),
                source => quantized(source),
            };
            weight.format = target;
            converted += 1;
        }
    }
    if converted == 0 {
        let formats: Vec<String> = formats.iter().map(Format::to_string).collect();
        return Err(PlanError::NothingToQuantize { target, formats: formats.join(", ") });
    }
    Ok(kept)
}

/// Whether rows of a float format are in the checkpoint.
fn is_of_floats(source: &Source) -> bool {
    matches!(source, Source::Rows(_) | Source::Strided { .. })
}

/// The matrices whose results choose experts.
fn routers(graph: &Graph) -> Vec<WeightId> {
    let of_layer = |layer: &Layer| {
        let nodes = &graph.blocks[layer.block].nodes;
        let logits = |node: &Node| matches!(node.op, Op::Route { .. }).then(|| node.inputs[0]);
        let logits: Vec<ValueId> = nodes.iter().filter_map(logits).collect();
        let router = |node: &Node| {
            let Op::Linear { weight, .. } = node.op else { return None };
            node.output.is_some_and(|value| logits.contains(&value)).then(|| layer.weights[weight])
        };
        nodes.iter().filter_map(router).collect::<Vec<_>>()
    };
    graph.layers.iter().flat_map(of_layer).collect()
}
