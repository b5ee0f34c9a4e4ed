//! How a mixture chooses the experts of a token.

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
