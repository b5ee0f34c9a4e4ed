//! What the body of a kernel is: a call of one function of its family, as data.

use forge_spec::{Activation, Format, Role};

use crate::families::{Operands, Router};

/// A call with its template arguments and arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The function, in the family's source.
    pub function: &'static str,
    /// Template arguments.
    pub constants: Vec<Constant>,
    /// Arguments.
    pub arguments: Vec<Value>,
}

/// A template argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Constant {
    /// A number.
    Size(usize),
    /// How weights of a format are loaded.
    Weights(Format),
    /// How a matrix of a format is multiplied by a vector.
    Gemv(Format),
    /// A non-linearity.
    Activation(Activation),
    /// How experts are chosen.
    Router(Router),
    /// What tiles of products hold, as the type that says how it is stored.
    Operands(Operands),
    /// Operands are half rather than float.
    Half(bool),
    /// The same of the weights of attention of tiles.
    Weighing(bool),
    /// True or false.
    Flag(bool),
    /// How weights of heads' matrices are loaded that are stored turned: `[heads, cols, rows]`.
    Turned {
        /// Their format.
        format: Format,
        /// Heads.
        heads: usize,
        /// Results of a head.
        rows: usize,
        /// Elements of a head's part of a row.
        cols: usize,
    },
}

/// An argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// The buffer, or the step's parameters, bound under this name.
    Bound(Role),
    /// The first element of that buffer.
    First(Role),
    /// This table of RoPE frequencies.
    RopeTable(usize),
    /// Threadgroup memory.
    Shared,
    /// A number.
    Float(f32),
    /// A whole number.
    Size(usize),
    /// A word that the records of all rows of the step share.
    Param(Param),
    /// A word of the record of the row that is at this position of the grid.
    OfRow(Param, Position),
    /// All of that record.
    Row(Position),
    /// The position in the cache where that row's sequence begins, of sequences that each have so many positions; as many as
    /// the program's context where none are given.
    SlotStart(Option<usize>, Position),
    /// The same of a tile, whose rows are of one sequence.
    TileStart(Option<usize>),
    /// Where the thread is.
    At(Position),
}

/// Words of the records that calls pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Param {
    /// Position of the row.
    Position,
    /// Rows of the step.
    Rows,
}

/// Where a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// The threadgroup, of a grid of one axis.
    Group,
    /// The threadgroup, of a grid of two axes.
    Group2,
    /// The threadgroup, of a grid of three axes.
    Group3,
    /// The threadgroup along the first axis of two.
    GroupX,
    /// The threadgroup along the second axis of two.
    GroupY,
    /// The threadgroup along the third axis.
    GroupZ,
    /// The thread in its threadgroup.
    Thread,
    /// The simdgroup in its threadgroup.
    Simdgroup,
    /// The thread in its simdgroup.
    Lane,
}
