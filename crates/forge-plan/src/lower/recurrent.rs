//! What mixes tokens through a recurrent state: one dispatch between two projections.

use forge_spec::Role;

use super::weights::Owners;
use super::{Lowering, Path};
use crate::families::{GatedDelta, ShortConv};
use crate::fuse::{GatedDeltaStep, ShortConvStep};
use crate::plan::{Arg, Choice, Place, Step};

impl Lowering<'_> {
    pub(super) fn short_conv(&mut self, owner: &Owners<'_>, step: &ShortConvStep, path: Path) -> Step {
        let ShortConvStep { channels, taps, bias, .. } = *step;
        let tile = path == Path::Tile;
        let family = ShortConv { channels, taps, bias: bias.is_some(), slots: self.slots(), tile };
        let kernel = self.kernels.add(if tile { "short_conv_tile" } else { "short_conv" }, family);
        let bias = bias.map(|bias| (Role::Bias, self.vector(owner, bias)));
        Step::new(Choice::Fixed(kernel))
            .bind(Role::Input, self.buffer(path, Place::MixerInput, 3 * channels))
            .bind(Role::Taps, self.vector(owner, step.weight))
            .bind_all(bias)
            .bind(Role::State, Arg::State(step.state))
            .bind(Role::Y, self.buffer(path, Place::Mixed, channels))
            .bind(Role::Step, Arg::Params)
    }

    pub(super) fn gated_delta(&mut self, owner: &Owners<'_>, step: &GatedDeltaStep, path: Path) -> Step {
        let (sizes, tile) = (step.delta, path == Path::Tile);
        let family = GatedDelta { sizes, slots: self.slots(), tile };
        let kernel = self.kernels.add(if tile { "delta_rule_tile" } else { "delta_rule" }, family);
        Step::new(Choice::Fixed(kernel))
            .bind(Role::Input, self.buffer(path, Place::MixerInput, sizes.row_width()))
            .bind(Role::Taps, self.vector(owner, step.conv))
            .bind(Role::Decay, self.vector(owner, step.decay))
            .bind(Role::TimeBias, self.vector(owner, step.time_bias))
            .bind(Role::Gamma, self.vector(owner, step.gamma))
            .bind(Role::State, Arg::State(step.state))
            .bind(Role::Y, self.buffer(path, Place::Mixed, sizes.value_heads * sizes.value_dim))
            .bind(Role::Step, Arg::Params)
    }
}
