//! The embedding, and the layers' own inputs.

use forge_frontend::graph::SlotId;
use forge_spec::Role;

use super::weights::Owners;
use super::{Lowering, Path};
use crate::families::{Embed, LayerInputs};
use crate::fuse::{LayerInputsStep, Next};
use crate::plan::{Arg, Choice, Place, SamplerBuffer, Step};
use crate::{PlanError, roles};

impl Lowering<'_> {
    pub(super) fn embed(
        &mut self,
        owner: &Owners<'_>,
        table: SlotId,
        (scale, norm_eps): (f32, Option<f32>),
        path: Path,
    ) -> Result<Step, PlanError> {
        let (weights, table) = self.table(owner, table, roles::EMBEDDING)?;
        let name = if self.fused_norms && path == Path::Tile { "embed_tile" } else { "embed" };
        let family = Embed { table, scale, norm_eps, slots: self.slots(), next: self.next(path) };
        let kernel = self.kernels.add(name, family);
        let x = self.buffer(path, Place::Stream, table.cols);
        Ok(Step::new(Choice::Fixed(kernel))
            .bind(Role::Table, weights)
            .bind(Role::NextToken, Arg::Sampler(SamplerBuffer::NextToken))
            .bind(Role::X, x)
            .bind_all(self.next_args(owner, Next::AfterBlock, path))
            .bind(Role::Step, Arg::Params))
    }

    pub(super) fn layer_inputs(
        &mut self,
        owner: &Owners<'_>,
        step: &LayerInputsStep,
        path: Path,
    ) -> Result<Step, PlanError> {
        let role = self.role(owner, step.table).to_owned();
        if !step.width.is_multiple_of(4) {
            return Err(PlanError::Width { role, cols: step.width, multiple: 4 });
        }
        let (weights, table) = self.table(owner, step.table, &role)?;
        let LayerInputsStep { layers, width, scale, factor, .. } = *step;
        let family = LayerInputs { table, slots: self.slots(), layers, width, eps: step.norm.eps, scale, factor };
        let kernel = self.kernels.add("layer_inputs", family);
        let projected = self.buffer(path, Place::LayerModel, layers * width);
        let gamma = self.vector(owner, step.norm.gamma);
        let inputs = self.buffer(path, Place::LayerInputs, layers * width);
        Ok(Step::new(Choice::Fixed(kernel))
            .bind(Role::Table, weights)
            .bind(Role::NextToken, Arg::Sampler(SamplerBuffer::NextToken))
            .bind(Role::Projected, projected)
            .bind(Role::Gamma, gamma)
            .bind(Role::Y, inputs)
            .bind(Role::Step, Arg::Params))
    }
}
