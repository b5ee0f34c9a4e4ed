//! What matrix-vector and matrix-matrix kernels have in common: matrices over one input, and what happens to the result.

use forge_spec::{Activation, Matrix, Operation, Projection, Role};

use crate::binding::{Binding, Element, Extent};
use crate::packed::describe;

/// Roles of the matrices of one projection.
const MATRICES: [Role; 3] = [Role::Weights, Role::Weights1, Role::Weights2];

/// What a residual epilogue prepares for the next projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextNorm {
    /// Slots in the partial-sums buffer that the next projection adds up.
    pub partials: usize,
}

/// What scales a projection's result: the norm of its input, applied as one scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormScale {
    /// Partial sums of squares to add up.
    pub partials: usize,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// What happens to a projection's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Epilogue {
    /// Stored; `softcap` on logits; `partials` sums of squares for a post-norm.
    Store {
        /// `cap * tanh(y / cap)`.
        softcap: Option<f32>,
        /// Partial sums of squares of the result, for a post-norm.
        partials: Option<usize>,
    },
    /// Added to the residual stream times `factor`; in steps the next norm is prepared too.
    Residual {
        /// Factor on the projection.
        factor: f32,
        /// In steps: what the next projection needs.
        next: Option<NextNorm>,
    },
    /// `activation(y)`.
    Activated(Activation),
    /// `activation(gate) * up`: rows are gate rows, then up rows.
    Gated(Activation),
    /// `activation(y) * multiplier`, which another buffer holds.
    GatedBy(Activation),
}

impl Epilogue {
    /// The same to a reference, which knows no partial sums.
    fn spec(self) -> forge_spec::Epilogue {
        match self {
            Self::Store { softcap, .. } => forge_spec::Epilogue::Store { softcap },
            Self::Residual { factor, .. } => forge_spec::Epilogue::Residual { factor },
            Self::Activated(activation) => forge_spec::Epilogue::Activated(activation),
            Self::Gated(activation) => forge_spec::Epilogue::Gated(activation),
            Self::GatedBy(activation) => forge_spec::Epilogue::GatedBy(activation),
        }
    }

    /// Whether result rows are pairs of a gate row and an up row.
    pub fn is_gated(self) -> bool {
        matches!(self, Self::Gated(_))
    }

    /// Slots of the partial sums of squares that it writes; 0 where it writes none.
    pub fn partials(self) -> usize {
        match self {
            Self::Store { partials, .. } => partials.unwrap_or(0),
            Self::Residual { next, .. } => next.map_or(0, |next| next.partials),
            Self::Activated(_) | Self::Gated(_) | Self::GatedBy(_) => 0,
        }
    }

    /// The same with room for at least so many partial sums, where it writes some.
    pub(crate) fn with_partials(self, least: usize) -> Self {
        match self {
            Self::Store { softcap, partials: Some(partials) } => {
                Self::Store { softcap, partials: Some(partials.max(least)) }
            }
            Self::Residual { factor, next: Some(next) } => {
                Self::Residual { factor, next: Some(NextNorm { partials: next.partials.max(least) }) }
            }
            Self::Store { partials: None, .. }
            | Self::Residual { next: None, .. }
            | Self::Activated(_)
            | Self::Gated(_)
            | Self::GatedBy(_) => self,
        }
    }
}

/// What a residual epilogue leaves for the next norm, of a stream of width `hidden`.
pub(super) fn next_bindings(next: Option<NextNorm>, hidden: usize) -> Vec<Binding> {
    next.map_or_else(Vec::new, |next| {
        vec![
            Binding::read(Role::Gamma, Element::F32, Extent::Fixed(vec![hidden])),
            Binding::write(Role::Scaled, Element::F32, Extent::Rows(vec![hidden])),
            Binding::write(Role::Sums, Element::F32, Extent::Rows(vec![next.partials])),
        ]
    })
}

/// The matrices, in the order of their output rows.
pub(super) fn matrix_bindings(matrices: &[Matrix]) -> impl Iterator<Item = Binding> {
    assert!(matrices.len() <= MATRICES.len(), "{matrices:?}");
    matrices.iter().zip(MATRICES).map(|(matrix, role)| Binding::matrix(role, matrix))
}

/// What the epilogue of a projection of `rows` output rows is bound to.
pub(super) fn result_bindings(epilogue: Epilogue, rows: usize) -> Vec<Binding> {
    let row = |width: usize| Extent::Rows(vec![width]);
    match epilogue {
        Epilogue::Store { partials, .. } => {
            let sums = partials.map(|count| Binding::write(Role::ResultSums, Element::F32, row(count)));
            std::iter::once(Binding::write(Role::Y, Element::F32, row(rows))).chain(sums).collect()
        }
        Epilogue::Residual { next, .. } => {
            let x = Binding::update(Role::X, Element::F32, row(rows));
            std::iter::once(x).chain(next_bindings(next, rows)).collect()
        }
        Epilogue::Activated(activation) => {
            let count = activation.parameters();
            let parameters = Binding::read(Role::Activation, Element::F32, Extent::Fixed(vec![count]));
            let y = Binding::write(Role::Y, Element::F32, row(rows));
            (count > 0).then_some(parameters).into_iter().chain([y]).collect()
        }
        Epilogue::Gated(_) => vec![Binding::write(Role::Y, Element::F32, row(rows / 2))],
        Epilogue::GatedBy(_) => vec![
            Binding::read(Role::Multiplier, Element::F32, row(rows)),
            Binding::write(Role::Y, Element::F32, row(rows)),
        ],
    }
}

/// `[4096, 4096] q8_0 and [1024, 4096] q6_k`.
pub(super) fn describe_all(matrices: &[Matrix]) -> String {
    matrices.iter().map(describe).collect::<Vec<_>>().join(" and ")
}

/// The product, to a reference.
pub(super) fn operation(
    matrices: &[Matrix],
    norm_eps: Option<f32>,
    half_operands: bool,
    epilogue: Epilogue,
) -> Operation<'_> {
    Operation::Project(Projection { matrices, norm_eps, half_operands, epilogue: epilogue.spec() })
}
