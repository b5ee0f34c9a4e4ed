//! A power of two for each row.

use super::super::compare::Comparison;
use super::super::run::{Case, Input, Run};
use super::super::table::Role;
use super::Reference;

/// See [`Operation::RowScale`](super::Operation::RowScale).
pub(super) struct RowScale {
    pub width: usize,
    pub each: usize,
}

impl Reference for RowScale {
    fn describe(&self) -> String {
        match self.each {
            1 => format!("[{}]", self.width),
            each => format!("[{each}, {}]", self.width),
        }
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Input, Input::Sizes(self.width))]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (input, found) = (run.given(Role::Input), run.left(Role::InputScales));
        for (row, values) in input.chunks_exact(self.width).enumerate() {
            let largest = values.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max);
            out.number(Role::InputScales, row, found[row].into(), (14.0 - largest.log2().floor()).exp2(), 0.0);
        }
    }
}
