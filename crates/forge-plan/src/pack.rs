//! The weights file: which packed tensors it holds, in which order, from which weights.

use forge_formats::Format;
use forge_frontend::graph::WeightId;

use crate::plan::FieldId;

/// Everything `weights.safetensors` will hold, in file order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PackPlan {
    /// Packed tensors.
    pub tensors: Vec<PackedTensor>,
}

/// One tensor of the weights file: matrices of one format stacked by rows, in device layout, or a vector
/// in F32.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedTensor {
    /// `layers.0.qkv_proj`.
    pub name: String,
    /// The layer that it is of; `None` outside the layers.
    pub layer: Option<usize>,
    /// Its field of the layer, or of the model.
    pub field: FieldId,
    /// Device format; F32 for vectors.
    pub format: Format,
    /// Output rows of all parts; 1 for a vector.
    pub rows: usize,
    /// Input width, or the vector's length.
    pub cols: usize,
    /// What is stacked, first row first. For a vector: what is concatenated.
    pub parts: Vec<PackPart>,
}

/// One weight's place in a packed tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackPart {
    /// A weight of the graph.
    Weight(WeightId),
    /// That many zeros (a bias that only some of the stacked matrices have).
    Zeros(usize),
}

impl PackedTensor {
    /// Whether it is a vector, stored as F32 whatever the checkpoint's format.
    pub fn is_vector(&self) -> bool {
        self.rows == 1 && self.format == Format::F32
    }
}
