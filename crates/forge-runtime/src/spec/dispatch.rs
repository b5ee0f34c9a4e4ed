//! How a kernel is dispatched: its grid, and what is bound to it.

/// Threadgroups along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// So many.
    Const(usize),
    /// The step's rows.
    Rows,
    /// The step's rows, that many at once.
    RowTiles(usize),
    /// Parts of the context.
    Parts,
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument<'a> {
    /// What it is to the operation.
    pub role: Role,
    /// Whether the kernel reads it.
    pub reads: bool,
    /// Whether the kernel writes it.
    pub writes: bool,
    /// Where it comes from, or its size.
    pub data: Data<'a>,
}

impl<'a> Argument<'a> {
    /// One that the kernel only reads.
    pub const fn read(role: Role, data: Data<'a>) -> Self {
        Self { role, reads: true, writes: false, data }
    }

    /// One that the kernel only writes.
    pub const fn write(role: Role, data: Data<'a>) -> Self {
        Self { role, reads: false, writes: true, data }
    }

    /// One that the kernel reads and writes.
    pub const fn update(role: Role, data: Data<'a>) -> Self {
        Self { role, reads: true, writes: true, data }
    }
}

/// What an argument holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// This tensor of the weights file.
    Tensor(&'a str),
    /// So many f32 or u32 per row of the step.
    Words(usize),
    /// A KV cache with so many elements per position.
    Cache(usize),
    /// The step's `StepParams`.
    Params,
}

/// What an argument is to its kernel: the names of the parameters in `kernels.metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A projection's first matrix.
    Weights,
    /// A projection's second matrix.
    Weights1,
    /// A projection's third matrix.
    Weights2,
    /// The embedding table.
    Table,
    /// Token ids to look up.
    Tokens,
    /// A projection's input.
    Input,
    /// Partial sums of the input's squares, for its norm.
    InputSums,
    /// Added to a projection.
    Bias,
    /// Numbers of a projection's activation.
    Activation,
    /// Result, or what a post-norm works on.
    Y,
    /// Partial sums of the result's squares.
    ResultSums,
    /// The residual stream, or a norm's input.
    X,
    /// Gamma of a norm.
    Gamma,
    /// Added by a norm.
    Beta,
    /// The residual stream times the next norm's gamma.
    Scaled,
    /// Partial sums of the residual stream's squares.
    Sums,
    /// Gamma of a post-norm.
    PostGamma,
    /// Factor on the residual stream after a post-norm.
    Scale,
    /// What an activated projection is multiplied by.
    Multiplier,
    /// The embedding projected to all layers' own inputs.
    Projected,
    /// Queries, keys and values of a row.
    Qkv,
    /// Queries.
    Q,
    /// Results of the parts of a split context.
    Parts,
    /// The cache of keys.
    Keys,
    /// The cache of values.
    Values,
    /// Gamma of the query heads' norm.
    QGamma,
    /// Gamma of the key heads' norm.
    KGamma,
    /// Gamma of the value heads' norm.
    VGamma,
    /// The step's parameters.
    Step,
    /// A row of logits.
    Logits,
    /// One bit per token that occurred.
    Seen,
    /// Key and id of the best token of each share of the vocabulary.
    Best,
    /// How many candidates there are.
    Count,
    /// Tokens that may be drawn: key, id, weight.
    Candidates,
    /// The chosen token, for the next step.
    NextToken,
    /// The chosen token, for the host.
    Chosen,
}

impl Role {
    /// The parameter's name in MSL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Weights1 => "weights_1",
            Self::Weights2 => "weights_2",
            Self::Table => "table",
            Self::Tokens => "tokens",
            Self::Input => "input",
            Self::InputSums => "input_sums",
            Self::Bias => "bias",
            Self::Activation => "activation",
            Self::Y => "y",
            Self::ResultSums => "result_sums",
            Self::X => "x",
            Self::Gamma => "gamma",
            Self::Beta => "beta",
            Self::Scaled => "scaled",
            Self::Sums => "sums",
            Self::PostGamma => "post_gamma",
            Self::Scale => "scale",
            Self::Multiplier => "multiplier",
            Self::Projected => "projected",
            Self::Qkv => "qkv",
            Self::Q => "q",
            Self::Parts => "parts",
            Self::Keys => "keys",
            Self::Values => "values",
            Self::QGamma => "q_gamma",
            Self::KGamma => "k_gamma",
            Self::VGamma => "v_gamma",
            Self::Step => "step",
            Self::Logits => "logits",
            Self::Seen => "seen",
            Self::Best => "best",
            Self::Count => "count",
            Self::Candidates => "candidates",
            Self::NextToken => "next_token",
            Self::Chosen => "chosen",
        }
    }
}
