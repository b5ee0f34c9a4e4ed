//! Mixtures of experts: how a token's experts are chosen, and what the kernels that run them compute.

use super::operation::{Activation, Matrix};

/// How the experts of a token are chosen and weighted, from the router's `experts` logits: scores; the `chosen` best of
/// them, a selection bias added to the scores for the choice alone, of equal ones that of the lower index; their
/// weights, which are the scores without that bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// Experts there are.
    pub experts: usize,
    /// Experts that a token takes.
    pub chosen: usize,
    /// What the scores are.
    pub scores: Scores,
    /// The experts are chosen from the best groups alone.
    pub groups: Option<Groups>,
    /// The weights are divided by their sum plus this.
    pub normalised: Option<f32>,
    /// Factor on the weights, after that.
    pub scale: f32,
}

impl Routing {
    /// Most experts: a simdgroup holds their scores in registers, and `sort_experts` counts of each in threadgroup memory.
    pub const MOST_EXPERTS: usize = 1024;
    /// Most experts that a token takes: one a lane.
    pub const MOST_CHOSEN: usize = 32;
    /// Most groups of experts: a bit each, and a lane.
    pub const MOST_GROUPS: usize = 31;
}

/// What the router's logits become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Softmax over all experts.
    Softmax,
    /// Softmax over the chosen experts: the same as [`Scores::Softmax`], normalised.
    SoftmaxOfChosen,
    /// `1 / (1 + exp(-x))` of each.
    Sigmoid,
}

/// Experts in groups of neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Groups; divides the experts.
    pub count: usize,
    /// Groups that experts are chosen from.
    pub chosen: usize,
    /// What a group is judged by.
    pub judged_by: GroupScore,
}

/// What a group of experts is judged by, of scores with the selection bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best (DeepSeek V2).
    Best,
    /// The sum of its two best (DeepSeek V3).
    BestTwo,
}

/// An expert that every row takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedExpert {
    /// Gate rows and up rows, in one stack.
    pub matrix: Matrix,
    /// What its result is multiplied by.
    pub weight: SharedWeight,
}

/// The weight of an expert that every row takes; it comes after those of the chosen ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedWeight {
    /// 1.
    One,
    /// A sigmoid of the logit that comes after those of the experts.
    Gate,
}

/// Whose experts a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExpertsOf {
    /// Each row's, which the kernel chooses from the argument `router_logits`; it leaves which, and their weights.
    Rows(Routing),
    /// The arguments `pairs` and `tiles` say which rows an expert has; a tile is so many pairs at most.
    Tiles(usize),
}

/// What becomes of the experts' results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExpertResults {
    /// Their weighted sum is added to the residual stream, or stored where the kernel has the argument `y`.
    Summed {
        /// Factor on the sum.
        factor: f32,
    },
    /// Each is stored, as [`ExpertsOf::Tiles`] has them.
    Tiles(usize),
}

/// Gate and up projections of experts, and their activation: `activation(gate x) * up x`; the argument `bias`, `[2, experts,
/// width]`, is added to both where there is one, the shared expert's apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsUp<'a> {
    /// Rows of gate and of up of all experts, expert by expert: both in one stack, all gate rows first, or each in its own.
    pub matrices: &'a [Matrix],
    /// Experts.
    pub experts: usize,
    /// Experts of a row.
    pub chosen: usize,
    /// Width of an expert.
    pub width: usize,
    /// Whose experts.
    pub of: ExpertsOf,
    /// One that every row takes, after the chosen ones: the argument `shared_weights`.
    pub shared: Option<SharedExpert>,
    /// The gate's non-linearity.
    pub activation: Activation,
    /// Added to the mean of squares where the input's norm is applied to the result.
    pub norm_eps: Option<f32>,
    /// Operands of the multiplication are rounded to half.
    pub half_operands: bool,
}

/// Down projections of experts; the argument `bias`, `[experts, rows]`, is added to each result where there is one, the shared
/// expert's apart. Where there is an argument `input_scales`, operands are rounded to half, inputs times it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsDown {
    /// Rows of all experts, expert by expert.
    pub matrix: Matrix,
    /// Experts.
    pub experts: usize,
    /// Experts of a row.
    pub chosen: usize,
    /// Rows of one that every row takes, after the chosen ones: the argument `shared_weights`.
    pub shared: Option<Matrix>,
    /// What becomes of the results.
    pub results: ExpertResults,
}

/// Pairs of a row and one of its experts, in order of the experts, cut into tiles of one expert each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortExperts {
    /// Experts.
    pub experts: usize,
    /// Experts of a row.
    pub chosen: usize,
    /// Most pairs in a tile.
    pub tile: usize,
    /// Threadgroups along the first axis of the two grids that run over the tiles.
    pub columns: [usize; 2],
}
