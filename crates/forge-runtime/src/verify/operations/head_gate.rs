//! Attention's result times the sigmoid of its gates.

use super::super::compare::Comparison;
use super::super::error::{Approximate, FEW};
use super::super::run::{Case, Input, Run};
use super::super::table::Role;
use super::Reference;

/// See [`Operation::HeadGate`](super::Operation::HeadGate).
pub(super) struct HeadGate {
    pub heads: usize,
    pub head_dim: usize,
    pub first: usize,
    pub stride: usize,
    pub width: usize,
}

impl Reference for HeadGate {
    fn describe(&self) -> String {
        format!("{} heads of {}", self.heads, self.head_dim)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Qkv, Input::Between(-4.0, 4.0)), (Role::Y, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Self { heads, head_dim, first, stride, width } = *self;
        let (qkv, before, found) = (run.given(Role::Qkv), run.given(Role::Y), run.left(Role::Y));
        for (row, values) in qkv.chunks_exact(width).enumerate() {
            for head in 0..heads {
                let gates = &values[first + head * stride..][..head_dim];
                for (i, &gate) in gates.iter().enumerate() {
                    let at = (row * heads + head) * head_dim + i;
                    let factor = (1.0 + (-f64::from(gate)).exp()).recip();
                    let expected = Approximate::exact(before[at].into()).times(factor, FEW);
                    out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
                }
            }
        }
    }
}
