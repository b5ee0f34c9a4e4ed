//! The experts of rows: gate, up and activation; down; the weighted sum.

use super::super::super::spec::Weight;
use super::super::compare::{Comparison, spread};
use super::super::error::{Approximate, FEW, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{ExpertResults, ExpertsDown, ExpertsOf, ExpertsUp, Matrix, Role};
use super::project::{dot, gate, read_row};
use super::route::{self, in_order, some_experts, tiles};
use super::{Reference, next_norm};

/// Output rows of an expert that are compared.
const SAMPLED_ROWS: usize = 32;

/// What is added to results of the chosen experts' rows, in the order of the rows; none where the kernel has no such argument.
fn biases(run: &Run<'_>) -> Vec<f32> {
    if run.has(Role::Bias) { run.given(Role::Bias) } else { Vec::new() }
}

/// What says which rows an expert has.
fn order(case: &Case, experts: usize, chosen: usize, tile: usize) -> Vec<(Role, Input)> {
    let ids = some_experts(case.rows, experts, chosen);
    let pairs = in_order(&ids);
    let mut tiles = tiles(&ids, &pairs, tile);
    // Beyond them tiles of no pairs: the grid is the largest there may be.
    tiles.resize(3 * ids.len(), 0);
    vec![(Role::Pairs, Input::Words(pairs)), (Role::Tiles, Input::Words(tiles))]
}

impl Reference for ExpertsUp<'_> {
    fn describe(&self) -> String {
        let matrices: Vec<String> = self.matrices.iter().map(Matrix::describe).collect();
        format!("{} of {} experts, {}", self.chosen, self.experts, matrices.join(" + "))
    }

    fn inputs(&self, case: &Case) -> Vec<(Role, Input)> {
        let mut list = match self.of {
            ExpertsOf::Rows(_) => vec![route::LOGITS],
            ExpertsOf::Tiles(tile) => order(case, self.experts, self.chosen, tile),
        };
        let cols = self.matrices[0].cols;
        list.extend([(Role::Input, Input::UNIT), (Role::InputSums, Input::Squares(cols))]);
        list
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (cols, width, chosen, rows) = (self.matrices[0].cols, self.width, self.chosen, run.case.rows);
        let ids = match self.of {
            ExpertsOf::Rows(routing) => route::check(&routing, self.shared.map(|shared| shared.weight), run, out),
            ExpertsOf::Tiles(_) => some_experts(rows, self.experts, chosen),
        };
        let (input, found) = (run.given(Role::Input), run.left(Role::Y));
        let biases = biases(run);
        for (at, &value) in found.iter().enumerate() {
            out.written(Role::Y, at, value);
        }
        // The norm of each row, as one factor.
        let norms: Vec<Option<(f64, f64)>> = (0..rows)
            .map(|row| {
                self.norm_eps.map(|eps| {
                    let sums = run.given(Role::InputSums);
                    let own = &sums[row * (sums.len() / rows)..][..sums.len() / rows];
                    let mean = own.iter().map(|&sum| f64::from(sum)).sum::<f64>() / cols as f64;
                    ((mean + f64::from(eps)).sqrt().recip(), sum_error(own.len()) + FEW)
                })
            })
            .collect();
        let mut weights = vec![Weight::default(); cols];
        let of_all = self.shared.map_or(0, |shared| shared.matrix.rows / 2);
        let results = chosen * width + of_all;
        // Each row's chosen experts, then the one that every row takes.
        for (row, place) in (0..rows).flat_map(|row| (0..=chosen).map(move |place| (row, place))) {
            let expert = ids.get(row * chosen + place).filter(|_| place < chosen).map(|&expert| expert as usize);
            let (first, second, lines) = match expert {
                Some(expert) if expert < self.experts => (expert * width, (self.experts + expert) * width, width),
                Some(_) => continue,
                None => (0, of_all, of_all),
            };
            let input = &input[row * cols..][..cols];
            for line in spread(lines, SAMPLED_ROWS) {
                let [gated, up] = [first, second].map(|first| {
                    match self.shared.filter(|_| place == chosen) {
                        Some(shared) => {
                            run.matrix(Role::SharedWeights, &shared.matrix).row(first + line, &mut weights);
                        }
                        None => read_row(self.matrices, first + line, run, &mut weights),
                    }
                    let result = dot(&weights, input, self.half_operands.then_some(1.0));
                    let result = norms[row].map_or(result, |(scale, error)| result.times(scale, error));
                    let bias = biases.get(first + line).filter(|_| place < chosen);
                    bias.map_or(result, |&bias| result.plus(bias.into()))
                });
                let expected = gate(self.activation, &[], gated, up);
                let at = row * results + place * width + line;
                out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
            }
        }
    }
}

impl Reference for ExpertsDown {
    fn describe(&self) -> String {
        format!("{} of {} experts, {}", self.chosen, self.experts, self.matrix.describe())
    }

    fn inputs(&self, case: &Case) -> Vec<(Role, Input)> {
        let mut list = match self.results {
            ExpertResults::Summed { .. } => {
                let ids = some_experts(case.rows, self.experts, self.chosen);
                vec![(Role::Experts, Input::Words(ids)), (Role::ExpertWeights, Input::Between(0.1, 1.0))]
            }
            ExpertResults::Tiles(tile) => order(case, self.experts, self.chosen, tile),
        };
        list.extend([(Role::Input, Input::UNIT), (Role::InputScales, Input::scales()), (Role::X, Input::UNIT)]);
        list
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (width, hidden) = (self.matrix.cols, self.matrix.rows / self.experts);
        let ids = some_experts(run.case.rows, self.experts, self.chosen);
        let input = run.given(Role::Input);
        let scales = if run.has(Role::InputScales) { run.given(Role::InputScales) } else { Vec::new() };
        let of_all = self.shared.map_or(0, |shared| shared.cols);
        let biases = biases(run);
        let cols = self.chosen * width + of_all;
        let mut weights = vec![Weight::default(); width.max(of_all)];
        // What the expert in a place makes of a row; the last place is that of the one that every row takes.
        let mut result = |row: usize, place: usize, line: usize| {
            let input = &input[row * cols + place * width..];
            let (matrix, role, at) = match self.shared.filter(|_| place == self.chosen) {
                Some(shared) => (shared, Role::SharedWeights, line),
                None => (self.matrix, Role::Weights, ids[row * self.chosen + place] as usize * hidden + line),
            };
            run.matrix(role, &matrix).row(at, &mut weights[..matrix.cols]);
            let rounding = scales.get(row * self.chosen + place).copied();
            let result = dot(&weights[..matrix.cols], &input[..matrix.cols], rounding);
            let bias = biases.get(at).filter(|_| role == Role::Weights);
            bias.map_or(result, |&bias| result.plus(bias.into()))
        };
        match self.results {
            ExpertResults::Tiles(_) => {
                let found = run.left(Role::Y);
                for (at, &value) in found.iter().enumerate() {
                    out.written(Role::Y, at, value);
                }
                for pair in 0..ids.len() {
                    for line in spread(hidden, SAMPLED_ROWS) {
                        let expected = result(pair / self.chosen, pair % self.chosen, line);
                        let at = pair * hidden + line;
                        out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
                    }
                }
            }
            ExpertResults::Summed { factor } => {
                let (role, found, stream) = summed(run);
                let shares = run.given(Role::ExpertWeights);
                let places = self.chosen + usize::from(self.shared.is_some());
                let lines = spread(hidden, 256);
                for (row, &line) in (0..run.case.rows).flat_map(|row| lines.iter().map(move |line| (row, line))) {
                    let results = (0..places)
                        .map(|place| result(row, place, line).times(shares[row * places + place].into(), 0.0));
                    let at = row * hidden + line;
                    let expected = sum(results).times(factor.into(), 0.0).plus(stream[at].into());
                    out.number(role, at, found[at].into(), expected.value, expected.bound);
                }
                next_norm::check(run, out);
            }
        }
    }
}

/// Where the weighted sum is, what a kernel left there, and what it is added to: zeros where it is stored.
fn summed(run: &Run<'_>) -> (Role, Vec<f32>, Vec<f32>) {
    if run.has(Role::Y) {
        let found = run.left(Role::Y);
        let zeros = vec![0.0; found.len()];
        return (Role::Y, found, zeros);
    }
    (Role::X, run.left(Role::X), run.given(Role::X))
}

/// A sum of a few terms.
fn sum(terms: impl Iterator<Item = Approximate>) -> Approximate {
    terms.fold(Approximate::exact(0.0), |sum, term| {
        let next = sum.plus(term.value);
        Approximate { bound: next.bound + term.bound, ..next }
    })
}

/// See [`Operation::ExpertsSum`](super::Operation::ExpertsSum).
pub(super) struct Sum {
    pub width: usize,
    pub chosen: usize,
    pub shared: bool,
    pub factor: f32,
}

impl Reference for Sum {
    fn describe(&self) -> String {
        format!("{} of [{}]", self.chosen, self.width)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        let weights = (Role::ExpertWeights, Input::Between(0.1, 1.0));
        vec![(Role::Input, Input::UNIT), (Role::Projected, Input::UNIT), weights, (Role::X, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (input, weights) = (run.given(Role::Input), run.given(Role::ExpertWeights));
        let of_all = if self.shared { run.given(Role::Projected) } else { Vec::new() };
        let (role, found, stream) = summed(run);
        for (at, &before) in stream.iter().enumerate() {
            let (row, line) = (at / self.width, at % self.width);
            let stride = self.chosen + usize::from(self.shared);
            let terms = (0..stride).map(|place| {
                let result = match place < self.chosen {
                    true => input[(row * self.chosen + place) * self.width + line],
                    false => of_all[at],
                };
                Approximate::exact(result.into()).times(weights[row * stride + place].into(), 0.0)
            });
            let expected = sum(terms).times(self.factor.into(), 0.0).plus(before.into());
            out.number(role, at, found[at].into(), expected.value, expected.bound);
        }
    }
}
