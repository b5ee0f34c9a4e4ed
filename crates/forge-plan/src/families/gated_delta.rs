//! The gated delta rule between two projections: convolution, norms and gates, the recurrence, and the gated norm of its result
//! (Qwen 3.5).

use forge_spec::{Dim, Operation, Role};

use super::{Body, KernelFamily, Launch, ONE, Rows, SHARE_POSITIONS};
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

/// Threadgroup memory that a tile's rows may take: room for two heads on a core.
const TILE_BYTES: usize = 17 * 1024;

impl GatedDelta {
    /// Threads of a head. Eight lanes hold a row of its state, two rows where there are 128 values. With more threads, each of them
    /// loads as much of a row of the input for fewer products.
    fn threads(&self) -> usize {
        (4 * self.sizes.value_dim).clamp(256, 512).next_multiple_of(32)
    }

    /// Rows that a tile takes at a time, each of which a simdgroup prepares.
    fn chunk(&self) -> usize {
        if self.tile { [8, 4, 2].into_iter().find(|&rows| self.bytes(rows) <= TILE_BYTES).unwrap_or(1) } else { 1 }
    }

    /// Bytes of threadgroup memory: what is made of the q, k and v of each row, its results, and eight numbers for its factors.
    fn bytes(&self, rows: usize) -> usize {
        4 * rows * (2 * self.sizes.key_dim + 2 * self.sizes.value_dim + if self.tile { 8 } else { 0 })
    }
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
        let grid = [Dim::Const(self.sizes.value_heads), if self.tile { ONE } else { Dim::Rows }, ONE];
        Launch { threads: self.threads() as u32, threadgroup_bytes: self.bytes(self.chunk()) as u32, grid }
    }

    fn title(&self) -> String {
        let forge_spec::GatedDelta { key_heads, value_heads, key_dim, value_dim, .. } = self.sizes;
        format!("gated delta rule: {value_heads} value heads of {value_dim}, {key_heads} key heads of {key_dim}")
    }

    fn body(&self) -> Body<'_> {
        let forge_spec::GatedDelta { key_heads, value_heads, key_dim, value_dim, taps, tiled_heads, eps } = self.sizes;
        let way = if self.tile { [self.threads(), self.chunk()] } else { [(self.slots == 1).into(), self.threads()] };
        let sizes = [key_heads, value_heads, key_dim, value_dim, taps, tiled_heads.into()].into_iter().chain(way);
        let bound = self.bindings().into_iter().map(|binding| Value::Bound(binding.role));
        let rest = [Value::Shared, Value::Float(eps)];
        Body::Call(Call {
            function: if self.tile { "gated_delta_tile" } else { "gated_delta_step" },
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
