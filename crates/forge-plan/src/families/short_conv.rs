//! The short convolution between two gates, with the rows that it carries from step to step (LFM2).

use forge_spec::{Dim, Operation, Role};

use super::{Body, KernelFamily, Launch, ONE, Rows};
use crate::binding::{Binding, Element, Extent};
use crate::call::{Call, Constant, Position, Value};

/// Threads of a threadgroup: a channel each.
const CHANNELS: usize = 64;
/// Rows of a tile that one thread computes, at least as many as it reads before its first.
const ROWS: usize = 16;

/// Constants of the short convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShortConv {
    /// Channels.
    pub channels: usize,
    /// Rows that a result depends on, its own included.
    pub taps: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Sequences that the state is held for side by side.
    pub slots: usize,
    /// Whether its rows are a tile of one sequence; else they are of any, and few.
    pub tile: bool,
}

impl ShortConv {
    /// Most taps.
    pub const MAX_TAPS: usize = ROWS;
}

impl KernelFamily for ShortConv {
    fn bindings(&self) -> Vec<Binding> {
        let Self { channels, taps, bias, slots, .. } = *self;
        let vector = |role, shape| Binding::read(role, Element::F32, Extent::Fixed(shape));
        let mut list = vec![
            Binding::read(Role::Input, Element::F32, Extent::Rows(vec![3 * channels])),
            vector(Role::Taps, vec![channels, taps]),
        ];
        list.extend(bias.then(|| vector(Role::Bias, vec![channels])));
        let state = Extent::State { slots, shape: vec![taps - 1, channels] };
        list.push(Binding::update(Role::State, Element::F32, state));
        list.push(Binding::write(Role::Y, Element::F32, Extent::Rows(vec![channels])));
        list.push(Binding::params());
        list
    }

    fn launch(&self) -> Launch {
        let groups = self.channels.div_ceil(CHANNELS);
        let rows = if self.tile { Dim::RowTiles(ROWS) } else { Dim::Rows };
        Launch { threads: CHANNELS as u32, threadgroup_bytes: 0, grid: [Dim::Const(groups), rows, ONE] }
    }

    fn title(&self) -> String {
        format!("C * conv(B * x) of {} channels, {} taps", self.channels, self.taps)
    }

    fn body(&self) -> Body<'_> {
        let at = [Position::Group2, Position::Thread].map(Value::At);
        Body::Call(Call {
            function: match (self.tile, self.bias) {
                (false, false) => "conv_step",
                (false, true) => "conv_biased_step",
                (true, false) => "conv_tile",
                (true, true) => "conv_biased_tile",
            },
            constants: [self.channels, self.taps].map(Constant::Size).into(),
            arguments: self.bindings().into_iter().map(|binding| Value::Bound(binding.role)).chain(at).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["short_conv"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::ShortConv { channels: self.channels, taps: self.taps }
    }
    fn rows(&self) -> Rows {
        if self.tile { Rows::Any } else { Rows::Few }
    }
}
