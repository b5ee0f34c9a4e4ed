//! What a kernel is bound to: each argument's elements, its extent and how much of it a dispatch touches. Bytes, sizes of
//! buffers and of checks, and the comments in `kernels.metal` all follow from these.

use forge_formats::Format as Stored;
use forge_spec::{CacheType, Format, Role};

use crate::linear::Linear;
use crate::packed::stored;

/// One buffer argument of a kernel; its index is that of `[[buffer(i)]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// What it is to the operation, and its name.
    pub role: Role,
    /// What it holds.
    pub element: Element,
    /// How many.
    pub extent: Extent,
    /// Whether the kernel reads and writes it.
    pub access: Access,
    /// How much of it one dispatch touches.
    pub touch: Touch,
}

/// Elements of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// `float`.
    F32,
    /// `uint`.
    U32,
    /// `atomic_uint`.
    AtomicU32,
    /// A token that may be drawn: key, id, weight.
    Candidate,
    /// Weights of a matrix.
    Packed(Format),
    /// Keys or values.
    Cache(CacheType),
    /// The step's parameters, a record for each row.
    Params,
}

/// How many elements an argument has. Shapes go from the outermost axis to the innermost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// So many; one where the shape is empty.
    Fixed(Vec<usize>),
    /// So many for each row of the step.
    Rows(Vec<usize>),
    /// So many for each position of a cache.
    Positions(Vec<usize>),
    /// So many for each sequence that the program holds; rows of the step are of different ones.
    Slots {
        /// Sequences.
        slots: usize,
        /// Elements of each.
        shape: Vec<usize>,
    },
    /// So many for each sequence that the program holds, in [`STATE_COPIES`](crate::state::STATE_COPIES) copies: of each sequence
    /// that rows of the step are of, it reads one copy, unless the first of these rows is the sequence's first, and writes one.
    State {
        /// Sequences.
        slots: usize,
        /// Elements of a copy.
        shape: Vec<usize>,
    },
    /// `[layers, rows, width]`.
    LayerRows {
        /// Layers.
        layers: usize,
        /// Elements of a layer's row.
        width: usize,
    },
    /// `[parts, heads, head_dim]` sums, then `[parts, heads, 2]` highest score and weight.
    Parts {
        /// Most parts.
        most: usize,
        /// Query heads.
        heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
}

/// How much of an argument one dispatch touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Touch {
    /// All of it.
    #[default]
    All,
    /// For each row of the step, one entry of the outermost axis: a row of a table, a position of a cache.
    PerRow,
    /// So many elements of each row of the step.
    Columns(usize),
    /// Every position, or part of the context, that the rows see.
    Seen,
    /// The same; of a row's positions so many threadgroups load each.
    SeenBy(usize),
    /// So many elements of every position that the rows see.
    SeenColumns(usize),
    /// All of it; threads load so many elements for each row of the step, some of them several times.
    Loads(usize),
    /// All of it; threads load so many elements for each row of the step, and so many for each tile of rows of the grid.
    TileLoads {
        /// For each row.
        row: usize,
        /// For each tile.
        tile: usize,
    },
    /// All of it at most.
    AtMost,
    /// Of `of` equal parts of the outermost axis, `each_row` for each row of the step: the experts that it takes. Rows that
    /// take the same ones touch fewer.
    Chosen {
        /// Parts.
        of: usize,
        /// Parts of a row.
        each_row: usize,
    },
    /// The same of so many rows that it is all of it at most.
    ChosenOfMany {
        /// Parts.
        of: usize,
        /// Parts of a row.
        each_row: usize,
    },
    /// One element.
    One,
    /// Nothing, when the host knows the tokens, and chooses greedily among finite logits.
    Never,
}

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written.
    Write,
    /// Read and written.
    ReadWrite,
}

impl Access {
    /// Whether the kernel reads it.
    pub fn reads(self) -> bool {
        self != Access::Write
    }
    /// Whether the kernel writes it.
    pub fn writes(self) -> bool {
        self != Access::Read
    }
}

impl Element {
    /// Bytes of `count` elements, of which `row` lie together.
    fn bytes(self, count: usize, row: usize) -> usize {
        match self {
            Self::F32 | Self::U32 | Self::AtomicU32 => 4 * count,
            Self::Candidate => 12 * count,
            // What packing pads is never read.
            Self::Packed(format) => format.scheme().row_bytes(row) * (count / row.max(1)),
            Self::Cache(cache) => cache.bytes(count),
            Self::Params => 0,
        }
    }
}

impl Extent {
    /// Sizes of the axes that are known at generation, outermost first.
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Fixed(shape)
            | Self::Rows(shape)
            | Self::Positions(shape)
            | Self::Slots { shape, .. }
            | Self::State { shape, .. } => shape.clone(),
            Self::LayerRows { layers, width } => vec![*layers, *width],
            Self::Parts { heads, head_dim, .. } => vec![heads * (head_dim + 2)],
        }
    }
}

impl Binding {
    /// One that is only read.
    pub(crate) fn read(role: Role, element: Element, extent: Extent) -> Self {
        Self { role, element, extent, access: Access::Read, touch: Touch::All }
    }

    /// One that is only written.
    pub(crate) fn write(role: Role, element: Element, extent: Extent) -> Self {
        Self { access: Access::Write, ..Self::read(role, element, extent) }
    }

    /// One that is read and written.
    pub(crate) fn update(role: Role, element: Element, extent: Extent) -> Self {
        Self { access: Access::ReadWrite, ..Self::read(role, element, extent) }
    }

    /// What the last step of each slot chose.
    pub(crate) fn next_token(slots: usize) -> Self {
        Self::read(Role::NextToken, Element::U32, Extent::Slots { slots, shape: Vec::new() }).touching(Touch::Never)
    }

    /// The step's parameters.
    pub(crate) fn params() -> Self {
        Self::read(Role::Step, Element::Params, Extent::Fixed(Vec::new()))
    }

    /// A matrix of the weights file.
    pub(crate) fn matrix(role: Role, matrix: &forge_spec::Matrix) -> Self {
        Self::read(role, Element::Packed(matrix.format), Extent::Fixed(vec![matrix.rows, matrix.cols]))
    }

    /// Touched otherwise than as a whole.
    pub(crate) fn touching(self, touch: Touch) -> Self {
        Self { touch, ..self }
    }

    /// Whether it is the step's parameters, which no thread writes, rather than a buffer.
    pub fn is_params(&self) -> bool {
        self.element == Element::Params
    }

    /// Whether it is a recurrent state, which is zeros before the first position.
    pub fn is_state(&self) -> bool {
        matches!(self.extent, Extent::State { .. })
    }

    /// 32-bit words for each row of the step, elements for each position of a cache, or elements of a state's copy.
    pub fn words(&self) -> usize {
        let count: usize = self.extent.shape().iter().product();
        match (&self.extent, self.element) {
            (Extent::Parts { most, .. }, _) => most * count,
            (_, Element::Candidate) => 3 * count,
            _ => count,
        }
    }

    /// Bytes that one dispatch touches, each once, as they grow with the step's size.
    pub fn bytes(&self) -> Linear {
        let shape = self.extent.shape();
        let row = shape.last().copied().unwrap_or(1);
        let all = self.element.bytes(shape.iter().product(), row) as u64;
        let entry = || {
            // A table's outermost axis is part of its shape, a cache's is not.
            let axes = if matches!(self.extent, Extent::Fixed(_)) { &shape[1..] } else { &shape[..] };
            self.element.bytes(axes.iter().product(), row) as u64
        };
        match (self.touch, &self.extent) {
            (Touch::Never, _) => Linear::default(),
            (Touch::One, _) => Linear::per_row(self.element.bytes(1, 1) as u64),
            (Touch::PerRow, _) => Linear::per_row(entry()),
            (Touch::Chosen { of, each_row }, _) => Linear::per_row(all / of as u64 * each_row as u64),
            (Touch::Columns(elements), _) => Linear::per_row(self.element.bytes(elements, elements) as u64),
            (Touch::Seen | Touch::SeenBy(_), Extent::Parts { .. }) => Linear { per_part: all, ..Linear::default() },
            (Touch::Seen | Touch::SeenBy(_), _) => Linear { per_position: all, ..Linear::default() },
            (Touch::SeenColumns(elements), _) => {
                Linear { per_position: self.element.bytes(elements, elements) as u64, ..Linear::default() }
            }
            (
                Touch::All | Touch::AtMost | Touch::ChosenOfMany { .. } | Touch::Loads(_) | Touch::TileLoads { .. },
                Extent::Rows(_) | Extent::LayerRows { .. } | Extent::Slots { .. },
            ) => Linear::per_row(all),
            // Of a state: for each sequence.
            (
                Touch::All | Touch::AtMost | Touch::ChosenOfMany { .. } | Touch::Loads(_) | Touch::TileLoads { .. },
                Extent::Fixed(_) | Extent::Positions(_) | Extent::State { .. } | Extent::Parts { .. },
            ) => Linear::fixed(all),
        }
    }

    /// Bytes that the threads of one dispatch load; where that is not counted, [`Binding::bytes`].
    pub fn loaded(&self) -> Linear {
        match self.touch {
            Touch::Loads(elements) => Linear::per_row(self.element.bytes(elements, elements) as u64),
            Touch::TileLoads { row, tile } => Linear {
                per_tile: self.element.bytes(tile, tile) as u64,
                ..Linear::per_row(self.element.bytes(row, row) as u64)
            },
            Touch::SeenBy(times) => self.bytes() * times as u64,
            Touch::All
            | Touch::AtMost
            | Touch::PerRow
            | Touch::Columns(_)
            | Touch::Chosen { .. }
            | Touch::ChosenOfMany { .. }
            | Touch::Seen
            | Touch::SeenColumns(_)
            | Touch::One
            | Touch::Never => self.bytes(),
        }
    }

    /// The checkpoint's format of a matrix.
    pub fn stored(&self) -> Option<Stored> {
        match self.element {
            Element::Packed(format) => Some(stored(format)),
            _ => None,
        }
    }
}
