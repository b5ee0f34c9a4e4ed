//! The gated delta rule between two projections: convolution, norms and gates, the recurrence, and the gated norm of its result
//! (Qwen 3.5).

use forge_spec::{Dim, Operation, Role};

use super::{Body, KernelFamily, Launch, ONE, ROW_THREADS, Rows, SHARE_POSITIONS};
use crate::binding::{Binding, Element, Extent};
use crate::call::{Call, Constant, Value};
use crate::linear::Linear;

/// Constants of the gated delta rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedDelta {
    /// Sizes.
    pub sizes: forge_spec::GatedDelta,
    /// Sequences that the state is held for side by side.
    pub slots: usize,
    /// Whether its rows are a tile of one sequence; else they are of any, and few.
    pub tile: bool,
}

impl KernelFamily for GatedDelta {
    fn bindings(&self) -> Vec<Binding> {
        let vector = |role, shape| Binding::read(role, Element::F32, Extent::Fixed(shape));
        let forge_spec::GatedDelta { value_heads, value_dim, taps, .. } = self.sizes;
        let state = Extent::State { slots: self.slots, shape: vec![value_heads, self.sizes.head_state()] };
        vec![
            Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.sizes.row_width()])),
            vector(Role::Taps, vec![self.sizes.channels(), taps]),
            vector(Role::Decay, vec![value_heads]),
            vector(Role::TimeBias, vec![value_heads]),
            vector(Role::Gamma, vec![value_dim]),
            Binding::update(Role::State, Element::F32, state),
            Binding::write(Role::Y, Element::F32, Extent::Rows(vec![value_heads * value_dim])),
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        // Two rows' q, k and v, two results, and two factors of each.
        let shared = 2 * (2 * self.sizes.key_dim + self.sizes.value_dim) + 2 * self.sizes.value_dim + 4;
        let grid = [Dim::Const(self.sizes.value_heads), if self.tile { ONE } else { Dim::Rows }, ONE];
        Launch { threads: ROW_THREADS, threadgroup_bytes: 4 * shared as u32, grid }
    }

    fn title(&self) -> String {
        let forge_spec::GatedDelta { key_heads, value_heads, key_dim, value_dim, .. } = self.sizes;
        format!("gated delta rule: {value_heads} value heads of {value_dim}, {key_heads} key heads of {key_dim}")
    }

    fn body(&self) -> Body<'_> {
        let forge_spec::GatedDelta { key_heads, value_heads, key_dim, value_dim, taps, tiled_heads, eps } = self.sizes;
        let flags = [tiled_heads, self.tile || self.slots == 1].map(usize::from);
        let sizes = [key_heads, value_heads, key_dim, value_dim, taps].into_iter().chain(flags);
        let bound = self.bindings().into_iter().map(|binding| Value::Bound(binding.role));
        let rest = [Value::Shared, Value::Float(eps)];
        Body::Call(Call {
            function: "gated_delta",
            constants: sizes.map(Constant::Size).collect(),
            arguments: bound.chain(rest).chain(SHARE_POSITIONS).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["gated_delta"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::GatedDelta(self.sizes)
    }

    fn flops(&self) -> Linear {
        // What the state holds for the key, what is added to it, what it gives for the query.
        Linear::per_row((6 * self.sizes.value_heads * self.sizes.value_dim * self.sizes.key_dim) as u64)
    }
    fn rows(&self) -> Rows {
        if self.tile { Rows::Any } else { Rows::Few }
    }
}
