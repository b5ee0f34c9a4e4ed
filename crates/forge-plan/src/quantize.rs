//! Requantisation: a pass over the graph that gives float matrices another format.
//!
//! Decides which matrices are converted and why the others are not; the packer converts. Everything after this pass sees a
//! checkpoint that is stored in the new formats.

use std::fmt;

use forge_formats::Format;
use forge_frontend::Graph;
use forge_frontend::graph::{Source, WeightId};

use crate::PlanError;

/// Why a matrix keeps its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It has been quantised already: a second time would add a second error to the first.
    Quantized,
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
    for (id, weight) in graph.weights.iter_mut().enumerate().filter(|(_, weight)| weight.rows > 1) {
        let from = weight.format;
        if !formats.contains(&from) {
            formats.push(from);
        }
        let block = target.block_elements();
        match &weight.source {
            Source::Rows(rows) if from.is_float() && weight.cols.is_multiple_of(block) => {
                weight.source = Source::Quantize { rows: rows.clone(), from };
                weight.format = target;
                converted += 1;
            }
            Source::Rows(_) if from.is_float() => kept.push((id, Kept::Width { cols: weight.cols, block })),
            _ => kept.push((id, Kept::Quantized)),
        }
    }
    if converted == 0 {
        let formats: Vec<String> = formats.iter().map(Format::to_string).collect();
        return Err(PlanError::NothingToQuantize { target, formats: formats.join(", ") });
    }
    Ok(kept)
}
