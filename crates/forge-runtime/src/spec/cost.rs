//! What a dispatch moves and computes, as a function of the step's size.

/// Bytes that one dispatch reads and writes, each once, and its multiplications and additions: fixed, per row of the
/// step, per tile of rows, per position of the cache that is read (of operations: per pair of a row and a position it
/// sees), per part of a split context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes.
    pub bytes: [u64; 5],
    /// Operations.
    pub flops: [u64; 5],
}
