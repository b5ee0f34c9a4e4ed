//! Norms of whole rows: RMS norm, the norm that subtracts the mean, and the norm between a projection and the residual stream.

use super::super::compare::Comparison;
use super::super::error::{Approximate, FEW, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::Role;
use super::{Reference, next_norm};

/// See [`Operation::RmsNorm`](super::Operation::RmsNorm).
pub(super) struct RmsNorm {
    pub width: usize,
    pub eps: f32,
}

/// See [`Operation::LayerNorm`](super::Operation::LayerNorm).
pub(super) struct LayerNorm {
    pub width: usize,
    pub eps: f32,
}

/// See [`Operation::PostNorm`](super::Operation::PostNorm).
pub(super) struct PostNorm {
    pub width: usize,
    pub eps: f32,
    pub factor: f32,
}

/// 1 / rms of values.
pub(super) fn rms_scale(values: &[f32], eps: f64) -> f64 {
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    (squares / values.len() as f64 + eps).sqrt().recip()
}

impl Reference for RmsNorm {
    fn describe(&self) -> String {
        format!("[{}]", self.width)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::X, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let width = self.width;
        let (x, gamma, found) = (run.given(Role::X), run.given(Role::Gamma), run.left(Role::Y));
        for (row, values) in x.chunks_exact(width).enumerate() {
            let scale = rms_scale(values, self.eps.into());
            for (i, (&value, &gamma)) in values.iter().zip(&gamma).enumerate() {
                let expected = f64::from(value) * scale * f64::from(gamma);
                let at = row * width + i;
                out.number(Role::Y, at, found[at].into(), expected, expected.abs() * (sum_error(width) + FEW));
            }
        }
    }
}

impl Reference for LayerNorm {
    fn describe(&self) -> String {
        format!("[{}]", self.width)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::X, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (width, eps) = (self.width, f64::from(self.eps));
        let (x, gamma, found) = (run.given(Role::X), run.given(Role::Gamma), run.left(Role::Y));
        let beta = if run.has(Role::Beta) { run.given(Role::Beta) } else { vec![0.0; width] };
        for (row, values) in x.chunks_exact(width).enumerate() {
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / width as f64;
            let largest = values.iter().map(|&value| f64::from(value).abs()).fold(0.0, f64::max);
            let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / width as f64;
            let scale = (variance + eps).sqrt().recip();
            for (i, ((&value, &gamma), &beta)) in values.iter().zip(&gamma).zip(&beta).enumerate() {
                let at = row * width + i;
                // The mean is off by the rounding of a sum, and so is what is left of the element.
                let centred = Approximate { value: f64::from(value) - mean, bound: (sum_error(width) + FEW) * largest };
                let normed = centred.times(scale * f64::from(gamma), 2.0 * sum_error(width) + FEW).plus(beta.into());
                out.number(Role::Y, at, found[at].into(), normed.value, normed.bound);
            }
        }
    }
}

impl Reference for PostNorm {
    fn describe(&self) -> String {
        format!("[{}]", self.width)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Y, Input::UNIT), (Role::X, Input::UNIT), (Role::ResultSums, Input::Squares(self.width))]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (width, eps, factor) = (self.width, f64::from(self.eps), f64::from(self.factor));
        let (y, x) = (run.given(Role::Y), run.given(Role::X));
        let (gamma, found) = (run.given(Role::PostGamma), run.left(Role::X));
        let layer_scale = if run.has(Role::Scale) { run.given(Role::Scale)[0].into() } else { 1.0 };
        for (row, values) in y.chunks_exact(width).enumerate() {
            let scale = if run.has(Role::ResultSums) {
                let sums = run.given(Role::ResultSums);
                let sums = sums.chunks_exact(sums.len() / run.case.rows).nth(row).unwrap_or_default();
                let sum: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
                (sum / width as f64 + eps).sqrt().recip()
            } else {
                rms_scale(values, eps)
            };
            for (i, (&value, &gamma)) in values.iter().zip(&gamma).enumerate() {
                let at = row * width + i;
                let normed = Approximate::exact(f64::from(value) * f64::from(gamma));
                let sum = normed.times(scale * factor, sum_error(width) + FEW).plus(x[at].into());
                let expected = sum.times(layer_scale, 0.0);
                out.number(Role::X, at, found[at].into(), expected.value, expected.bound);
            }
        }
        next_norm::check(run, out);
    }
}
