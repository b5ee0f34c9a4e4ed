//! What can be wrong with the format of a weight.

use crate::Format;

/// A format that cannot be read or written, or bytes that do not fit it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A known GGML type that Forge does not read.
    #[error("{name} (GGML type {id}) is not supported")]
    UnsupportedGgmlType {
        /// GGML type id.
        id: u32,
        /// GGML's name of the type.
        name: &'static str,
    },
    /// A GGML type id that nothing known uses.
    #[error("GGML type {id} is unknown")]
    UnknownGgmlType {
        /// GGML type id.
        id: u32,
    },
    /// GGML type 42 is two formats, and the space given to the tensor fits neither or both.
    #[error("GGML type 42 is Q2_0 or TQ2_0_g128: {elements} weights in {span} bytes do not tell which")]
    AmbiguousGgmlType {
        /// Weights of the tensor.
        elements: u64,
        /// Bytes from the tensor's start to the next tensor's.
        span: u64,
    },
    /// A format name that is not one of ours.
    #[error("unknown weight format {name:?}")]
    UnknownName {
        /// The name as given.
        name: String,
    },
    /// A bit width or group size that MLX's affine quantisation does not have.
    #[error(
        "affine quantisation of {bits} bits in groups of {group} is not supported: bits are 2, 3, 4, 5, 6 or 8 and groups 32, 64 or 128"
    )]
    UnsupportedAffine {
        /// Bits per weight.
        bits: u32,
        /// Weights per scale.
        group: u32,
    },
    /// A scale of E4M3 values for a number of columns that no group divides.
    #[error("a scale for {cols} columns is not supported: 32 or a multiple of it are, or the whole row")]
    ScaleColumns {
        /// Columns that share a scale.
        cols: usize,
    },
    /// A row that is not a whole number of blocks.
    #[error("a row of {cols} weights is not a whole number of {format} blocks of {block}")]
    RowNotBlocks {
        /// The format.
        format: Format,
        /// Weights per row.
        cols: usize,
        /// Weights per block.
        block: usize,
    },
    /// Fewer or more bytes than the row needs.
    #[error("{what} of a {format} row: expected {expected} bytes, found {found}")]
    Length {
        /// The format.
        format: Format,
        /// Which bytes: "blocks", "codes", "scales" or "biases".
        what: &'static str,
        /// Bytes that the row needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Affine rows lie in three tensors and are not a sequence of blocks.
    #[error("{format} rows lie in three tensors and cannot be {action} as blocks")]
    NotBlocks {
        /// The format.
        format: Format,
        /// "decoded" or "encoded".
        action: &'static str,
    },
    /// Nothing writes this format.
    #[error("quantising to {format} is not supported: {} and affine are", Format::quantisers())]
    NoEncoder {
        /// The format.
        format: Format,
    },
    /// A format given where an affine one is needed.
    #[error("{format} is not an affine format")]
    NotAffine {
        /// The format.
        format: Format,
    },
    /// A format given where one is needed whose codes and scales may be in two tensors.
    #[error("{format} is not stored as codes and scales")]
    NotApart {
        /// The format.
        format: Format,
    },
    /// Rows with a factor each, in a format that has no place for them.
    #[error("{format} has no factors of rows")]
    NoRowFactors {
        /// The format.
        format: Format,
    },
    /// A format given where F32, F16 or BF16 is needed.
    #[error("{format} is not a float format")]
    NotFloat {
        /// The format.
        format: Format,
    },
    /// A number beside codes that is not finite.
    #[error("{what} {value} of {format} is not finite")]
    Companion {
        /// The format.
        format: Format,
        /// What it is: a scale, a bias.
        what: &'static str,
        /// The number.
        value: f32,
    },
    /// A weight that is not finite, or too large for the format's scale.
    #[error("weight {value} cannot be stored as {format}")]
    Unrepresentable {
        /// The format.
        format: Format,
        /// The weight.
        value: f32,
    },
}
