//! Norms: what one row's steps leave for the next one, a tile's own dispatch, and norms of projections.

use forge_frontend::graph::SlotId;
use forge_spec::Role;

use super::weights::Owners;
use super::{Lowering, Path};
use crate::PlanError;
use crate::families::{LayerNorm, PostNorm, RmsNorm};
use crate::fuse::{FusedBlock, Next, Norm, NormKind};
use crate::plan::{Arg, Choice, FieldId, Place, Step};

/// A norm of a projection before it is added to the residual stream.
pub(super) struct PostNormStep {
    pub norm: Norm,
    /// Factor on the normed value.
    pub factor: f32,
    /// `[1]`: factor on the sum.
    pub scale: Option<SlotId>,
    /// Slots of the projection's partial sums, where it has some.
    pub partials: Option<usize>,
    pub next: Next,
}

impl Lowering<'_> {
    /// What a step that writes the residual stream of one row leaves for norm `next`.
    pub(super) fn next_args(&mut self, owner: &Owners<'_>, next: Next, path: Path) -> Vec<(Role, Arg)> {
        if !self.fuses_norms(path) {
            return Vec::new();
        }
        let gamma = match next {
            Next::Norm(norm) => self.vector(owner, norm.gamma),
            Next::AfterBlock => Arg::NextGamma,
        };
        let scaled = self.buffer(path, Place::Scaled, self.graph.config.hidden_size);
        let sums = self.buffer(path, Place::Sums, self.partials);
        vec![(Role::Gamma, gamma), (Role::Scaled, scaled), (Role::Sums, sums)]
    }

    /// The norm of rows as a step of its own.
    pub(super) fn row_norm(&mut self, owner: &Owners<'_>, norm: Norm, path: Path) -> Step {
        self.norm_of(owner, norm, Place::Stream, path)
    }

    /// The same of what is in `place`.
    pub(super) fn norm_of(&mut self, owner: &Owners<'_>, norm: Norm, place: Place, path: Path) -> Step {
        let (width, eps) = (self.graph.config.hidden_size, norm.eps);
        let (kernel, beta) = match norm.kind {
            NormKind::Rms => {
                let name = if self.fused_norms { "rms_norm_tile" } else { "rms_norm" };
                (self.kernels.add(name, RmsNorm { width, eps }), None)
            }
            NormKind::Layer { beta } => {
                (self.kernels.add("layer_norm", LayerNorm { width, eps, beta: beta.is_some() }), beta)
            }
        };
        Step::new(Choice::Fixed(kernel))
            .bind(Role::X, self.buffer(path, place, width))
            .bind(Role::Gamma, self.vector(owner, norm.gamma))
            .bind_all(beta.map(|beta| (Role::Beta, self.vector(owner, beta))))
            .bind(Role::Y, self.buffer(path, Place::Normed, width))
    }

    /// The norm of what is in one place, added to what is in another.
    pub(super) fn norm_onto(&mut self, owner: &Owners<'_>, norm: Norm, [of, onto]: [Place; 2], path: Path) -> Step {
        let width = self.graph.config.hidden_size;
        let family = PostNorm { width, eps: norm.eps, factor: 1.0, scaled: false, partials: None, next: None };
        let kernel = self.kernels.add("norm_onto", family);
        Step::new(Choice::Fixed(kernel))
            .bind(Role::Y, self.buffer(path, of, width))
            .bind(Role::PostGamma, self.vector(owner, norm.gamma))
            .bind(Role::X, self.buffer(path, onto, width))
    }

    /// The norm of what is in `place`, added to the residual stream.
    pub(super) fn post_norm(&mut self, owner: &Owners<'_>, step: &PostNormStep, place: Place, path: Path) -> Step {
        let PostNormStep { norm, factor, scale, partials, next } = *step;
        let width = self.graph.config.hidden_size;
        let family =
            PostNorm { width, eps: norm.eps, factor, scaled: scale.is_some(), partials, next: self.next(path) };
        let name = if self.fused_norms && path == Path::Tile { "post_norm_tile" } else { "post_norm" };
        let kernel = self.kernels.add(name, family);
        let sums = partials.map(|count| (Role::ResultSums, self.buffer(path, Place::ProjectedSums, count)));
        Step::new(Choice::Fixed(kernel))
            .bind(Role::Y, self.buffer(path, place, width))
            .bind_all(sums)
            .bind(Role::PostGamma, self.vector(owner, norm.gamma))
            .bind_all(scale.map(|scale| (Role::Scale, self.vector(owner, scale))))
            .bind(Role::X, self.buffer(path, Place::Stream, width))
            .bind_all(self.next_args(owner, next, path))
    }

    /// The field of the norm that a block starts with; the same for all blocks, or none in any.
    pub(super) fn first_norm(
        &mut self,
        blocks: &[FusedBlock],
        owners: &[Owners<'_>],
    ) -> Result<Option<FieldId>, PlanError> {
        let mut fields = Vec::new();
        for (block, owner) in blocks.iter().zip(owners) {
            fields.push(block.leading_norm().map(|slot| self.vector(owner, slot)));
        }
        fields.dedup();
        match fields[..] {
            [None] => Ok(None),
            [Some(Arg::Layer(field))] => Ok(Some(field)),
            _ => Err(PlanError::Unsupported {
                block: "layers".into(),
                what: "blocks that start with different norms".into(),
            }),
        }
    }

    /// The field of the norm that the head starts with.
    pub(super) fn final_norm(&mut self, head: &FusedBlock) -> Result<FieldId, PlanError> {
        let owner = Owners::Stage(&self.graph.head);
        match head.leading_norm().map(|slot| self.vector(&owner, slot)) {
            Some(Arg::Model(field)) => Ok(field),
            _ => Err(PlanError::Unsupported { block: head.name.clone(), what: "a head without a norm".into() }),
        }
    }
}
