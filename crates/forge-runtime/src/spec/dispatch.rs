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
    /// The positions that the last row of a tile sees, that many at once.
    PositionTiles(usize),
    /// Parts of the context.
    Parts,
    /// As many as three words of a buffer say, one for each axis, which an earlier dispatch wrote anew: at most `per_row`
    /// for each row of the step, and at most `most`. A grid with such an axis has all of its axes from there.
    Indirect {
        /// Most threadgroups for each row of the step.
        per_row: usize,
        /// Most threadgroups.
        most: usize,
    },
}

impl Dim {
    /// Whether a buffer says how many.
    pub const fn is_indirect(self) -> bool {
        matches!(self, Self::Indirect { .. })
    }
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
    /// So many f32 or u32 per sequence that the program holds.
    Slots(usize),
    /// A KV cache with so many elements per position, for each of those sequences.
    Cache(usize),
    /// So many elements of the same type per position of the step's one sequence.
    Positions(usize),
    /// A recurrent state of so many f32 for each of those sequences, in two copies: after position p it lies in copy p % 2.
    State(usize),
    /// The step's `StepParams`, one record a row.
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
    /// A projection's input.
    Input,
    /// Partial sums of the input's squares, for its norm.
    InputSums,
    /// A power of two for each row of the input, which takes it into the range of halves.
    InputScales,
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
    /// The weights of an expert that every row takes.
    SharedWeights,
    /// The router's logits of a row.
    RouterLogits,
    /// Added to a router's scores for the choice.
    SelectionBias,
    /// Factors on the weights of experts, one for each.
    ExpertFactors,
    /// A row's experts.
    Experts,
    /// Their weights.
    ExpertWeights,
    /// Rows and experts, in order of the experts: row times experts of a row, plus which of them.
    Pairs,
    /// Tiles of those: expert, first pair, pairs.
    Tiles,
    /// Threadgroups of the grids over the tiles.
    Threadgroups,
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
    /// The cache of latents.
    Latents,
    /// A score of each query head for which there is no key and a value of 0 (gpt-oss); neither scaled nor capped.
    Sinks,
    /// The recurrent state.
    State,
    /// Taps of a convolution.
    Taps,
    /// Rate of decay of each head, below 0.
    Decay,
    /// Added to what a head's decay is made of.
    TimeBias,
    /// Gamma of the query heads' norm.
    QGamma,
    /// Gamma of the key heads' norm.
    KGamma,
    /// Gamma of the value heads' norm.
    VGamma,
    /// The step's parameters.
    Step,
    /// Logits.
    Logits,
    /// One bit per token that occurred.
    Seen,
    /// What is added to each token's logit.
    LogitBias,
    /// How often each token was chosen.
    Times,
    /// One bit per token that may be chosen.
    Allowed,
    /// Key and id of the best token of each share of the vocabulary.
    Best,
    /// How many candidates there are.
    Count,
    /// Tokens that may be drawn: key, id, weight.
    Candidates,
    /// The token that each slot chose last, for its next step.
    NextToken,
    /// The tokens that rows chose, for the host.
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
            Self::Input => "input",
            Self::InputSums => "input_sums",
            Self::InputScales => "input_scales",
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
            Self::SharedWeights => "shared_weights",
            Self::RouterLogits => "router_logits",
            Self::SelectionBias => "selection_bias",
            Self::ExpertFactors => "expert_factors",
            Self::Experts => "experts",
            Self::ExpertWeights => "expert_weights",
            Self::Pairs => "pairs",
            Self::Tiles => "tiles",
            Self::Threadgroups => "threadgroups",
            Self::Projected => "projected",
            Self::Qkv => "qkv",
            Self::Q => "q",
            Self::Parts => "parts",
            Self::Keys => "keys",
            Self::Values => "values",
            Self::Latents => "latents",
            Self::Sinks => "sinks",
            Self::State => "state",
            Self::Taps => "taps",
            Self::Decay => "decay",
            Self::TimeBias => "time_bias",
            Self::QGamma => "q_gamma",
            Self::KGamma => "k_gamma",
            Self::VGamma => "v_gamma",
            Self::Step => "step",
            Self::Logits => "logits",
            Self::Seen => "seen",
            Self::LogitBias => "logit_bias",
            Self::Times => "times",
            Self::Allowed => "allowed",
            Self::Best => "best",
            Self::Count => "count",
            Self::Candidates => "candidates",
            Self::NextToken => "next_token",
            Self::Chosen => "chosen",
        }
    }
}
