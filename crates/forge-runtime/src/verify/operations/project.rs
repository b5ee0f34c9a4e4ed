//! Matrices over one input, and what happens to the result.

use super::super::super::spec::Weight;
use super::super::compare::{Comparison, spread};
use super::super::error::{Approximate, DEVIATIONS, FEW, half_variance, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{Activation, Epilogue, Matrix, Projection, Role};
use super::{Reference, next_norm};

/// Output rows of a matrix that are compared.
const SAMPLED_ROWS: usize = 256;

impl Reference for Projection<'_> {
    fn describe(&self) -> String {
        let matrices: Vec<String> = self.matrices.iter().map(Matrix::describe).collect();
        matrices.join(" + ")
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![
            (Role::Input, Input::UNIT),
            (Role::InputSums, Input::Squares(self.matrices[0].cols)),
            (Role::InputScales, Input::scales()),
            (Role::X, Input::UNIT),
            (Role::Multiplier, Input::UNIT),
            (Role::Activation, Input::UNIT),
        ]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let matrices = self.matrices;
        let (cols, rows) = (matrices[0].cols, matrices.iter().map(|matrix| matrix.rows).sum::<usize>());
        let gated = matches!(self.epilogue, Epilogue::Gated(_));
        let outputs = if gated { rows / 2 } else { rows };
        let input = run.given(Role::Input);
        let given = |role| if run.has(role) { run.given(role) } else { Vec::new() };
        let scales = given(Role::InputScales);
        let (bias, multiplier) = (given(Role::Bias), given(Role::Multiplier));
        let numbers = given(Role::Activation);
        let residual = matches!(self.epilogue, Epilogue::Residual { .. });
        let role = if residual { Role::X } else { Role::Y };
        let stream = if residual { run.given(Role::X) } else { Vec::new() };
        let found = run.left(role);
        for (i, &value) in found.iter().enumerate() {
            out.written(role, i, value);
        }
        // The norm of each row of the input, as one factor.
        let norms: Vec<(f64, f64)> = self.norm_eps.map_or_else(Vec::new, |eps| {
            let sums = run.given(Role::InputSums);
            let factor = |sums: &[f32]| {
                let mean = sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() / cols as f64;
                ((mean + f64::from(eps)).sqrt().recip(), sum_error(sums.len()) + FEW)
            };
            sums.chunks_exact(sums.len() / run.case.rows).map(factor).collect()
        });
        let mut weights = vec![Weight::default(); cols];
        let mut results: Vec<Vec<Approximate>> = vec![Vec::new(); 2];
        for row in spread(outputs, SAMPLED_ROWS) {
            let halves: &[usize] = if gated { &[row, row + outputs] } else { &[row] };
            for (&row, results) in halves.iter().zip(&mut results) {
                read_row(matrices, row, run, &mut weights);
                results.clear();
                results.extend(input.chunks_exact(cols).enumerate().map(|(token, input)| {
                    let rounding = self.half_operands.then(|| scales.get(token).copied().unwrap_or(1.0));
                    let mut result = dot(&weights, input, rounding);
                    if let Some(&(scale, error)) = norms.get(token) {
                        result = result.times(scale, error);
                    }
                    bias.get(row).map_or(result, |&bias| result.plus(bias.into()))
                }));
            }
            for (token, &result) in results[0].iter().enumerate() {
                let at = token * outputs + row;
                let expected = match self.epilogue {
                    Epilogue::Store { softcap } => result.softcap(softcap),
                    Epilogue::Residual { factor } => result.times(factor.into(), 0.0).plus(stream[at].into()),
                    Epilogue::Activated(activation) => gate(activation, &numbers, result, Approximate::exact(1.0)),
                    Epilogue::Gated(activation) => gate(activation, &numbers, result, results[1][token]),
                    Epilogue::GatedBy(activation) => {
                        gate(activation, &numbers, result, Approximate::exact(multiplier[at].into()))
                    }
                };
                out.number(role, at, found[at].into(), expected.value, expected.bound);
            }
        }
        if run.has(Role::ResultSums) {
            next_norm::sums_of_squares(Role::ResultSums, &found, run, out);
        }
        next_norm::check(run, out);
    }
}

/// Row `row` of stacked matrices.
pub(super) fn read_row(matrices: &[Matrix], mut row: usize, run: &Run<'_>, weights: &mut [Weight]) {
    for (matrix, role) in matrices.iter().zip([Role::Weights, Role::Weights1, Role::Weights2]) {
        if row < matrix.rows {
            return run.matrix(role, matrix).row(row, weights);
        }
        row -= matrix.rows;
    }
}

/// Sum of products and its bound. `rounding`: both factors are rounded to half, the input times this.
pub(super) fn dot(weights: &[Weight], input: &[f32], rounding: Option<f32>) -> Approximate {
    let (mut value, mut squares, mut variance) = (0.0, 0.0, 0.0);
    for (weight, &x) in weights.iter().zip(input) {
        let x = f64::from(x);
        value += weight.value * x;
        squares += (weight.magnitude * x).powi(2);
        if let Some(scale) = rounding.map(f64::from) {
            variance += half_variance(weight.value, x * scale) / scale.powi(2);
        }
    }
    Approximate { value, bound: sum_error(weights.len()) * squares.sqrt() + DEVIATIONS * variance.sqrt() }
}

/// `activation(gate) * up`, with the numbers that the activation takes.
pub(super) fn gate(activation: Activation, numbers: &[f32], gate: Approximate, up: Approximate) -> Approximate {
    let x = gate.value;
    // No activation is steeper than 1.2 but those with a square.
    let (activated, slope) = match activation {
        Activation::Silu => (x / (1.0 + (-x).exp()), 1.2),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            (0.5 * x * (1.0 + inner.tanh()), 1.2)
        }
        Activation::ReluSquared => (x.max(0.0).powi(2), 2.0 * (x.abs() + gate.bound)),
        Activation::Xielu => {
            let [alpha_p, alpha_n, beta, eps] = [0, 1, 2, 3].map(|i| f64::from(numbers[i]));
            let value = match x > 0.0 {
                true => alpha_p * x * x + beta * x,
                false => alpha_n * (x.min(eps).exp_m1() - x) + beta * x,
            };
            // The slope of the square, and of the sum of a slope from -1 to 0 and a line; the two meet at 0.
            (value, 2.0 * alpha_p.abs() * (x.abs() + gate.bound) + alpha_n.abs() + beta.abs())
        }
        Activation::ClampedSwiglu { alpha, limit } => {
            let x = x.min(limit as f64 / 1000.0);
            (x / (1.0 + (-(alpha as f64 / 1000.0) * x).exp()), 1.2)
        }
    };
    let up = match activation {
        Activation::ClampedSwiglu { limit, .. } => {
            let limit = limit as f64 / 1000.0;
            let value = up.value.clamp(-limit, limit) + 1.0;
            Approximate { value, bound: up.bound + FEW * (value.abs() + 1.0) }
        }
        Activation::Silu | Activation::GeluTanh | Activation::ReluSquared | Activation::Xielu => up,
    };
    // What is taken apart and put together again is off by its largest part.
    let parts = match activation {
        Activation::Silu | Activation::GeluTanh | Activation::ReluSquared | Activation::ClampedSwiglu { .. } => {
            x.abs().min(1.0)
        }
        Activation::Xielu => x.abs() * numbers.iter().map(|number| f64::from(number.abs())).sum::<f64>(),
    };
    let error = slope * gate.bound + FEW * (activated.abs() + parts);
    let value = activated * up.value;
    Approximate { value, bound: error * (up.value.abs() + up.bound) + activated.abs() * up.bound + FEW * value.abs() }
}
