//! Every layer's own input: the normed projection of the embedding plus the layer's part of a table's row.

use super::super::super::spec::Weight;
use super::super::compare::Comparison;
use super::super::error::{Approximate, FEW, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{Matrix, Role};
use super::Reference;
use super::norms::rms_scale;

/// See [`Operation::LayerInputs`](super::Operation::LayerInputs).
pub(super) struct LayerInputs {
    pub table: Matrix,
    pub layers: usize,
    pub eps: f32,
    pub scale: f32,
    pub factor: f32,
}

impl Reference for LayerInputs {
    fn describe(&self) -> String {
        self.table.describe()
    }

    fn cases(&self, rows: usize, _: usize) -> Vec<Case> {
        vec![Case::at(rows, 0, None).with_tokens(self.table.rows)]
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::NextToken, Input::Tokens(self.table.rows)), (Role::Projected, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (table, layers) = (&self.table, self.layers);
        let [eps, scale, factor] = [self.eps, self.scale, self.factor].map(f64::from);
        let packed = run.matrix(Role::Table, table);
        let (tokens, projected) = (run.tokens(), run.given(Role::Projected));
        let (gamma, found) = (run.given(Role::Gamma), run.left(Role::Y));
        let width = table.cols / layers;
        let mut row = vec![Weight::default(); table.cols];
        for (token, values) in projected.chunks_exact(table.cols).enumerate() {
            packed.row(tokens[token] as usize, &mut row);
            for (layer, (part, looked_up)) in values.chunks_exact(width).zip(row.chunks_exact(width)).enumerate() {
                let norm = rms_scale(part, eps);
                for (i, ((&value, &gamma), weight)) in part.iter().zip(&gamma).zip(looked_up).enumerate() {
                    let at = (layer * tokens.len() + token) * width + i;
                    let value = Approximate::exact(f64::from(value) * f64::from(gamma));
                    let mut sum = value.times(norm, sum_error(width) + FEW).plus(scale * weight.value);
                    sum.bound += FEW * (scale * weight.magnitude).abs();
                    let expected = sum.times(factor, FEW);
                    out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
                }
            }
        }
    }
}
