//! Causal attention over the cache: the whole context in one kernel, a part of it, and parts put together.

use super::super::compare::{Comparison, spread};
use super::super::error::{Approximate, DEVIATIONS, FEW, half_variance, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{Attention, Role, Split};
use super::Reference;

/// Rows of a step whose attention is compared.
const SAMPLED_TOKENS: usize = 16;

/// See [`Operation::AttentionCombine`](super::Operation::AttentionCombine).
pub(super) struct Combine {
    pub heads: usize,
    pub head_dim: usize,
    pub split: Split,
}

impl Reference for Attention {
    fn describe(&self) -> String {
        let window = self.window.map_or_else(String::new, |window| format!(", window {window}"));
        format!("{} / {} heads of {}{window}", self.heads, self.kv_heads, self.head_dim)
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::at_positions(rows, self.wrap, self.split, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        let cache = Input::Cache(self.cache);
        // Scores far enough apart that one key too many shows.
        vec![(Role::Q, Input::Between(-4.0, 4.0)), (Role::Keys, cache.clone()), (Role::Values, cache)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Attention { heads, kv_heads, head_dim: dim, value_dim, .. } = *self;
        let q = run.given(Role::Q);
        let mut found = run.left(Role::Y);
        if let Some(split) = self.split {
            // Parts may be cut in any way; what they come to is compared.
            let rows = found.chunks_exact(found.len() / run.case.rows).enumerate();
            let whole =
                rows.flat_map(|(row, parts)| combine(parts, heads, value_dim, split.parts(run.case.place(row).1)));
            found = whole.map(|element| element.value as f32).collect();
        }
        let keys = run.cache_given(Role::Keys, self.cache);
        let values = run.cache_given(Role::Values, self.cache);
        let sinks = run.has(Role::Sinks).then(|| run.given(Role::Sinks));
        for (i, &value) in found.iter().enumerate() {
            out.written(Role::Y, i, value);
        }
        for row in spread(run.case.rows, SAMPLED_TOKENS) {
            let position = run.case.place(row).1;
            let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
            for head in 0..heads {
                let query = &q[(row * heads + head) * dim..][..dim];
                let start = (row * heads + head) * value_dim;
                let kv_head = head / (heads / kv_heads);
                let at = |role, position| run.cached(role, row, position, self.wrap) * kv_heads + kv_head;
                let key = |position: usize| &keys[at(Role::Keys, position) * dim..][..dim];
                let scores: Vec<Approximate> = (first..=position).map(|at| score(self, query, key(at))).collect();
                // Of no position, and so with no value.
                let sink = sinks.as_ref().map(|sinks| f64::from(sinks[head]));
                let weighted = Weighted::new(&scores, sink);
                for i in 0..value_dim {
                    let column = (first..=position).map(|position| values[at(Role::Values, position) * value_dim + i]);
                    let expected = weighted.sum(column, self.half_operands);
                    out.number(Role::Y, start + i, found[start + i].into(), expected.value, expected.bound);
                }
            }
        }
    }
}

impl Reference for Combine {
    fn describe(&self) -> String {
        format!("{} heads of {}, {} parts", self.heads, self.head_dim, self.split.most)
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::at_positions(rows, None, Some(self.split), context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        // Highest scores and weights come after the sums; all of them positive.
        vec![(Role::Parts, Input::Between(0.5, 4.0))]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (given, found) = (run.given(Role::Parts), run.left(Role::Y));
        for (row, parts) in given.chunks_exact(given.len() / run.case.rows).enumerate() {
            let count = self.split.parts(run.case.place(row).1);
            for (i, expected) in combine(parts, self.heads, self.head_dim, count).into_iter().enumerate() {
                let at = row * self.heads * self.head_dim + i;
                out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
            }
        }
    }
}

/// What scores make of values.
pub(super) struct Weighted {
    /// By the highest score.
    weights: Vec<f64>,
    /// Their sum.
    total: f64,
    /// Relative error of each.
    error: f64,
}

impl Weighted {
    /// Of these scores, and of one without a value.
    pub fn new(scores: &[Approximate], sink: Option<f64>) -> Self {
        let all = || scores.iter().map(|score| score.value).chain(sink);
        let highest = all().fold(f64::MIN, f64::max);
        let total: f64 = all().map(|score| (score - highest).exp()).sum();
        // A score's error is its weight's, relatively; so is that of the highest and of the exponent's argument.
        let spread_of_scores = all().map(|score| highest - score).fold(0.0, f64::max);
        let score_error = scores.iter().map(|score| score.bound).fold(0.0, f64::max);
        let error = 2.0 * score_error + FEW * (2.0 + highest.abs() + spread_of_scores) + 2.0 * sum_error(scores.len());
        Self { weights: scores.iter().map(|score| (score.value - highest).exp()).collect(), total, error }
    }

    /// The weighted sum of so many values; `half_operands`: weights and values are rounded to half.
    pub fn sum(&self, values: impl Iterator<Item = f64>, half_operands: bool) -> Approximate {
        let (mut value, mut magnitude, mut variance) = (0.0, 0.0, 0.0);
        for (&weight, of_position) in self.weights.iter().zip(values) {
            let share = weight / self.total;
            value += share * of_position;
            magnitude += share * of_position.abs();
            if half_operands {
                variance += half_variance(weight, of_position) / (self.total * self.total);
            }
        }
        Approximate { value, bound: self.error * magnitude + DEVIATIONS * variance.sqrt() }
    }
}

fn score(attention: &Attention, query: &[f32], key: &[f64]) -> Approximate {
    let product = product(query, key, attention.half_operands);
    product.times(attention.scale.into(), FEW).softcap(attention.softcap)
}

/// A query times a key; `half_operands`: both are rounded to half.
pub(super) fn product(query: &[f32], key: &[f64], half_operands: bool) -> Approximate {
    let (mut value, mut squares, mut variance) = (0.0, 0.0, 0.0);
    for (&q, &k) in query.iter().zip(key) {
        let product = f64::from(q) * k;
        value += product;
        squares += product * product;
        if half_operands {
            variance += half_variance(q.into(), k);
        }
    }
    Approximate { value, bound: sum_error(query.len()) * squares.sqrt() + DEVIATIONS * variance.sqrt() }
}

/// What the results of parts come to, `[heads, head_dim]`; see [`Attention::split`].
pub(super) fn combine(parts: &[f32], heads: usize, dim: usize, count: usize) -> Vec<Approximate> {
    let (sums, scales) = parts.split_at(count * heads * dim);
    let scale = |part: usize, head: usize| {
        let at = 2 * (part * heads + head);
        (f64::from(scales[at]), f64::from(scales[at + 1]))
    };
    let mut whole = Vec::with_capacity(heads * dim);
    for head in 0..heads {
        let highest = (0..count).map(|part| scale(part, head).0).fold(f64::MIN, f64::max);
        let factor = |part: usize| (scale(part, head).0 - highest).exp2();
        let total: f64 = (0..count).map(|part| scale(part, head).1 * factor(part)).sum();
        for i in 0..dim {
            let terms = (0..count).map(|part| f64::from(sums[(part * heads + head) * dim + i]) * factor(part) / total);
            let (value, magnitude) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            whole.push(Approximate { value, bound: magnitude * (2.0 * sum_error(count) + 4.0 * FEW) });
        }
    }
    whole
}
