//! The gated delta rule: convolution, norms and gates, the recurrence of each value head, and the gated norm of its result.
//!
//! Bounds are those of Euclidean norms: with a key of length 1 and a write of at most 1 the recurrence lengthens no error, so a
//! row of the state is as wrong as the roundings since the sequence's beginning, kept as the row is.

use super::super::compare::{Comparison, spread};
use super::super::error::{Approximate, FEW, ROUNDING, sum_error};
use super::super::run::{Carried, Case, Input, Run};
use super::super::table::{GatedDelta, Role};
use super::Reference;

/// Added to the sum of squares that queries and keys are divided by the root of.
const L2_EPS: f64 = 1e-6;
/// Heads that are compared at most.
const HEADS: usize = 6;

/// What is convolved for one head, before and after: q, k, v of a row.
struct Mixed {
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<Approximate>,
    /// Error of q and of k, relative to their length.
    error: f64,
}

fn sigmoid(x: f64) -> f64 {
    (1.0 + (-x).exp()).recip()
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

impl GatedDelta {
    /// Columns of a head's q, k and v in a row.
    fn columns(&self, head: usize) -> Vec<usize> {
        let group = self.value_heads / self.key_heads;
        let key_head = if self.tiled_heads { head % self.key_heads } else { head / group };
        let keys = self.key_heads * self.key_dim;
        let q = key_head * self.key_dim;
        let v = 2 * keys + head * self.value_dim;
        (q..q + self.key_dim).chain(keys + q..keys + q + self.key_dim).chain(v..v + self.value_dim).collect()
    }

    /// Convolution, SiLU and norms of one row; `rows` are the last `taps` of its channels, the oldest first.
    fn mixed(&self, rows: &[Vec<f64>], taps: &[f32], columns: &[usize]) -> Mixed {
        let channel = |(i, &column): (usize, &usize)| {
            let terms = (0..self.taps).map(|tap| rows[tap][i] * f64::from(taps[column * self.taps + tap]));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            let bound = size * sum_error(self.taps);
            let value = sum * sigmoid(sum);
            // The slope of SiLU is 1.1 at most.
            Approximate { value, bound: 1.1 * bound + FEW * value.abs() }
        };
        let all: Vec<Approximate> = columns.iter().enumerate().map(channel).collect();
        let unit = |part: &[Approximate], factor: f64| -> (Vec<f64>, f64) {
            let root = (part.iter().map(|x| x.value * x.value).sum::<f64>() + L2_EPS).sqrt();
            let error = length(part.iter().map(|x| x.bound)) / root;
            (part.iter().map(|x| x.value / root * factor).collect(), 2.0 * error + sum_error(part.len()) + FEW)
        };
        let dim = self.key_dim;
        let (q, q_error) = unit(&all[..dim], (dim as f64).sqrt().recip());
        let (k, k_error) = unit(&all[dim..2 * dim], 1.0);
        Mixed { q, k, v: all[2 * dim..].to_vec(), error: q_error.max(k_error) }
    }

    /// Compares one head's results and state, of one sequence.
    fn check_head(&self, head: usize, carried: &Carried, given: &Given<'_>, out: &mut Comparison) {
        let Self { key_heads, value_heads, key_dim, value_dim, taps, .. } = *self;
        let columns = self.columns(head);
        let channels = columns.len();
        let row_width = 2 * key_heads * key_dim + 2 * value_heads * value_dim + 2 * value_heads;
        let gates = 2 * key_heads * key_dim + value_heads * value_dim;
        let (held, width) = (value_dim * key_dim, value_dim * key_dim + (taps - 1) * channels);
        let own = carried.before.as_ref().map(|state| &state[head * width..][..width]);
        let before = |at: usize| own.map_or(0.0, |state| f64::from(state[at]));
        let mut rows: Vec<Vec<f64>> =
            (0..taps - 1).map(|tap| (0..channels).map(|i| before(held + tap * channels + i)).collect()).collect();
        let mut state: Vec<Vec<f64>> =
            (0..value_dim).map(|value| (0..key_dim).map(|key| before(value * key_dim + key)).collect()).collect();
        let mut errors = vec![0.0; value_dim];
        for (index, &row) in carried.rows.iter().enumerate() {
            let values = &given.input[row * row_width..][..row_width];
            rows.push(columns.iter().map(|&column| values[column].into()).collect());
            let Mixed { q, k, v, error } = self.mixed(&rows[index..], given.taps, &columns);
            let number = |at: usize| f64::from(values[gates + value_heads * value_dim + at]);
            let write = sigmoid(number(head));
            let time = number(value_heads + head) + f64::from(given.time_bias[head]);
            let exponent = f64::from(given.decay[head]) * (time.max(0.0) + (-time.abs()).exp().ln_1p());
            let keep = exponent.exp();
            // The logarithm is good to a few roundings of 1.
            let keep_error = FEW * (1.0 + exponent.abs() + f64::from(given.decay[head]).abs());
            let mut results = Vec::with_capacity(value_dim);
            for ((line, error_of_line), v) in state.iter_mut().zip(&mut errors).zip(&v) {
                line.iter_mut().for_each(|s| *s *= keep);
                let size = length(line.iter().copied());
                let lost = *error_of_line * keep + size * (keep_error + ROUNDING);
                let held: f64 = line.iter().zip(&k).map(|(s, k)| s * k).sum();
                let held_error = size * (sum_error(key_dim) + error);
                let change = write * (v.value - held);
                let change_error = write * (v.bound + held_error) + FEW * change.abs();
                line.iter_mut().zip(&k).for_each(|(s, k)| *s += change * k);
                let size = length(line.iter().copied());
                *error_of_line = lost + change_error + change.abs() * error + 2.0 * ROUNDING * size;
                let value: f64 = line.iter().zip(&q).map(|(s, q)| s * q).sum();
                let q_length = length(q.iter().copied());
                let bound = q_length * (*error_of_line + size * (sum_error(key_dim) + error));
                results.push(Approximate { value, bound });
            }
            let squares: f64 = results.iter().map(|result| result.value * result.value).sum();
            let scale = (squares / value_dim as f64 + f64::from(self.eps)).sqrt().recip();
            let wrong = length(results.iter().map(|result| result.bound)) * scale / (value_dim as f64).sqrt();
            for (value, result) in results.iter().enumerate() {
                let gate = f64::from(values[gates + head * value_dim + value]);
                let factor = scale * f64::from(given.gamma[value]) * gate * sigmoid(gate);
                let expected = result.times(factor, 2.0 * wrong + sum_error(value_dim) + FEW);
                let at = (row * value_heads + head) * value_dim + value;
                out.number(Role::Y, at, given.found[at].into(), expected.value, expected.bound);
            }
        }
        let start = carried.start + head * width;
        for (value, (line, &error)) in state.iter().zip(&errors).enumerate() {
            for (key, &expected) in line.iter().enumerate() {
                let at = start + value * key_dim + key;
                out.number(Role::State, at, given.left[at].into(), expected, error);
            }
        }
        for (tap, row) in rows[rows.len() + 1 - taps..].iter().enumerate() {
            for (i, &expected) in row.iter().enumerate() {
                let at = start + held + tap * channels + i;
                out.number(Role::State, at, given.left[at].into(), expected, 0.0);
            }
        }
    }
}

/// What a run was given and left, as numbers.
struct Given<'a> {
    input: &'a [f32],
    taps: &'a [f32],
    decay: &'a [f32],
    time_bias: &'a [f32],
    gamma: &'a [f32],
    found: &'a [f32],
    left: &'a [f32],
}

impl Reference for GatedDelta {
    fn describe(&self) -> String {
        let Self { key_heads, value_heads, key_dim, value_dim, .. } = self;
        format!("{value_heads} heads of {value_dim} over {key_heads} of {key_dim}")
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::of_state(rows, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Input, Input::UNIT), (Role::State, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let [input, taps, decay] = [Role::Input, Role::Taps, Role::Decay].map(|role| run.given(role));
        let [time_bias, gamma, state] = [Role::TimeBias, Role::Gamma, Role::State].map(|role| run.given(role));
        let (found, left) = (run.left(Role::Y), run.left(Role::State));
        let given = Given {
            input: &input,
            taps: &taps,
            decay: &decay,
            time_bias: &time_bias,
            gamma: &gamma,
            found: &found,
            left: &left,
        };
        let mut untouched = vec![true; left.len()];
        let width = self.state_width();
        for carried in run.carried(width) {
            for head in spread(self.value_heads, HEADS) {
                self.check_head(head, &carried, &given, out);
            }
            untouched[carried.start..carried.start + width].fill(false);
        }
        found.iter().enumerate().for_each(|(at, &value)| out.written(Role::Y, at, value));
        // The other copy stays as it was, and so do other sequences.
        for at in (0..left.len()).filter(|&at| untouched[at] && left[at].to_bits() != state[at].to_bits()) {
            out.exact(Role::State, at, left[at].to_bits(), state[at].to_bits());
        }
    }
}
