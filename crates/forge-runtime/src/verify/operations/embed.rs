//! Rows of a table times a factor, through a norm where there is one.

use super::super::super::spec::Weight;
use super::super::compare::Comparison;
use super::super::error::{FEW, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{Matrix, Role};
use super::{Reference, next_norm};

/// See [`Operation::Embed`](super::Operation::Embed).
pub(super) struct Embed {
    pub table: Matrix,
    pub scale: f32,
    pub norm_eps: Option<f32>,
}

impl Reference for Embed {
    fn describe(&self) -> String {
        self.table.describe()
    }

    fn cases(&self, rows: usize, _: usize) -> Vec<Case> {
        vec![Case::at(rows, 0, None).with_tokens(self.table.rows)]
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::NextToken, Input::Tokens(self.table.rows))]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (table, scale) = (&self.table, f64::from(self.scale));
        let packed = run.matrix(Role::Table, table);
        let (tokens, found) = (run.tokens(), run.left(Role::X));
        let mut row = vec![Weight::default(); table.cols];
        for (i, &token) in tokens.iter().enumerate() {
            packed.row(token as usize, &mut row);
            // A norm's sum is of rounded squares, and its root is rounded.
            let squares: f64 = row.iter().map(|weight| (scale * weight.value).powi(2)).sum();
            let (scale, few) = match self.norm_eps {
                Some(eps) => {
                    let mean = squares / table.cols as f64 + f64::from(eps);
                    (scale / mean.sqrt(), FEW + 0.5 * sum_error(table.cols))
                }
                None => (scale, FEW),
            };
            for (col, weight) in row.iter().enumerate() {
                let at = i * table.cols + col;
                out.number(Role::X, at, found[at].into(), scale * weight.value, few * (scale * weight.magnitude).abs());
            }
        }
        next_norm::check(run, out);
    }
}
