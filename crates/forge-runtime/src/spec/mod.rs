//! What a plan, the sources rendered from it and a generated program have to agree on: operations with their sizes, grids,
//! arguments, costs, the parameters of a step.
//!
//! Forge compiles these files as a crate of their own (`forge-spec`), and a generated program has them as part of its
//! runtime; so they refer to nothing but one another.

mod cost;
mod dispatch;
mod format;
pub mod grids;
mod latent;
mod mixture;
mod operation;
mod params;
mod scheme;
mod weight;

pub use cost::Cost;
pub use dispatch::{Argument, Data, Dim, Role};
pub use format::Format;
pub use latent::{
    HeadMatrix, LatentAppend, LatentAttention, LatentExpand, LatentQueries, LatentRotate, LatentSizes, LatentValues,
};
pub use mixture::{
    ExpertResults, ExpertsDown, ExpertsOf, ExpertsUp, GroupScore, Groups, Routing, Scores, SharedExpert, SharedWeight,
    SortExperts,
};
pub use operation::{
    Activation, Attention, CacheType, Epilogue, GatedDelta, Gates, HeadNorm, Matrix, Operation, PositionScale,
    Projection, RopeAppend, Split, Vocabulary,
};
pub use params::{Param, StepParams};
pub use scheme::{Plane, Scheme, TILE};
pub use weight::{Fields, Weight, half};
