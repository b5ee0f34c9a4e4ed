//! What producers of the residual stream leave for the next projection: the stream times its norm's gamma, and sums of squares.

use super::super::compare::Comparison;
use super::super::error::{ROUNDING, sum_error};
use super::super::run::Run;
use super::super::table::Role;

/// Compares it where the kernel leaves it; judged by the stream it left itself.
pub(super) fn check(run: &Run<'_>, out: &mut Comparison) {
    if !run.has(Role::Scaled) {
        return;
    }
    let (x, gamma, scaled) = (run.left(Role::X), run.given(Role::Gamma), run.left(Role::Scaled));
    let width = x.len() / run.case.rows;
    for (i, &x) in x.iter().enumerate() {
        let expected = f64::from(x) * f64::from(gamma[i % width]);
        out.number(Role::Scaled, i, scaled[i].into(), expected, 2.0 * ROUNDING * expected.abs());
    }
    sums_of_squares(Role::Sums, &x, run, out);
}

/// The partial sums in `role`, which may be cut in any way, add up to the sum of squares of each row.
pub(super) fn sums_of_squares(role: Role, values: &[f32], run: &Run<'_>, out: &mut Comparison) {
    let (sums, rows) = (run.left(role), run.case.rows);
    let pairs = values.chunks_exact(values.len() / rows).zip(sums.chunks_exact(sums.len() / rows));
    for (row, (values, sums)) in pairs.enumerate() {
        let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let found: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
        out.number(role, row, found, expected, expected * sum_error(values.len()));
    }
}
