//! Attention over latents: the append, queries over the cache, attention, values; keys and values of heads, queries over those.

use super::super::super::spec::Weight;
use super::super::cache::store;
use super::super::compare::{Comparison, spread};
use super::super::error::{Approximate, FEW, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{
    HeadMatrix, LatentAppend, LatentAttention, LatentExpand, LatentQueries, LatentRotate, LatentSizes, LatentValues,
    Matrix, Role,
};
use super::Reference;
use super::attention::{Weighted, combine, product};
use super::project::dot;
use super::rope_append::Rotation;

/// Heads that are compared at most.
const SAMPLED_HEADS: usize = 5;
/// Rows of a head's matrix that are compared at most.
const SAMPLED_ROWS: usize = 64;
/// Rows of a step whose attention is compared.
const SAMPLED_TOKENS: usize = 16;
/// Positions whose keys or values are compared.
const SAMPLED_POSITIONS: usize = 40;

/// Elements by the root of the mean of their squares, times gamma.
fn normed(values: &[f32], gamma: &[f32], eps: f32) -> Vec<Approximate> {
    let mean = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / values.len() as f64;
    let scale = (mean + f64::from(eps)).sqrt().recip();
    let error = sum_error(values.len()) + FEW;
    let one = |(&x, &gamma): (&f32, &f32)| Approximate::exact(x.into()).times(scale * f64::from(gamma), error);
    values.iter().zip(gamma).map(one).collect()
}

fn exact(values: &[f32]) -> Vec<Approximate> {
    values.iter().map(|&value| Approximate::exact(value.into())).collect()
}

impl Reference for LatentAppend<'_> {
    fn describe(&self) -> String {
        format!("{} + {} after {}", self.latent, self.rope, self.before)
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::at_positions(rows, None, None, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Input, Input::UNIT), (Role::Latents, Input::Cache(self.cache))]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Self { before, latent, rope, eps, inv_freq, interleaved, magnitude, cache, .. } = *self;
        let rotation = Rotation { inv_freq, interleaved, magnitude };
        let (input, gamma) = (run.given(Role::Input), run.given(Role::Gamma));
        let found = run.cache_left(Role::Latents, cache);
        let found_scales = run.cache_scales_left(Role::Latents, cache);
        let mut untouched = vec![true; found.len()];
        for (row, values) in input.chunks_exact(before + latent + rope).enumerate() {
            let position = run.case.place(row).1;
            let (first, own) = values.split_at(before);
            let (latents, key) = own.split_at(latent);
            let mut expected = normed(latents, &gamma, eps);
            expected.extend(rotation.of(position, &exact(key)));
            let start = run.case.cached(row, position, None) * (latent + rope);
            for (scale, block) in store(cache, &mut expected).into_iter().zip(start / cache.block()..) {
                out.number(Role::Latents, block * cache.block(), found_scales[block], scale.value, scale.bound);
            }
            for (expected, at) in expected.into_iter().zip(start..) {
                out.number(Role::Latents, at, found[at], expected.value, expected.bound);
                untouched[at] = false;
            }
            if self.norms_queries {
                let (gamma, found) = (run.given(Role::QGamma), run.left(Role::Y));
                for (expected, at) in normed(first, &gamma, eps).into_iter().zip(row * before..) {
                    out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
                }
            }
        }
        // What a row does not own stays as it was.
        let given = run.cache_given(Role::Latents, cache);
        for at in (0..found.len()).filter(|&at| untouched[at] && found[at] != given[at]) {
            out.number(Role::Latents, at, found[at], given[at], 0.0);
        }
    }
}

impl Reference for LatentQueries<'_> {
    fn describe(&self) -> String {
        format!("{} heads, {}", self.sizes.heads, self.keys.describe())
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::at_positions(rows, None, None, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Input, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Self { sizes, width, inv_freq, interleaved, magnitude, .. } = *self;
        let rotation = Rotation { inv_freq, interleaved, magnitude };
        let (input, found) = (run.given(Role::Input), run.left(Role::Q));
        for (i, &value) in found.iter().enumerate() {
            out.written(Role::Q, i, value);
        }
        let own = sizes.nope + sizes.rope;
        let query = |row: usize, head: usize| &input[row * width + head * own..][..own];
        let start = |row: usize, head: usize| (row * sizes.heads + head) * (sizes.latent + sizes.rope);
        for head in spread(sizes.heads, SAMPLED_HEADS) {
            let lines = self.lines(run, head);
            for row in 0..run.case.rows {
                let q = query(row, head);
                for (line, weights) in &lines {
                    let (at, expected) = (start(row, head) + line, dot(weights, &q[..sizes.nope], None));
                    out.number(Role::Q, at, found[at].into(), expected.value, expected.bound);
                }
                let rotated = rotation.of(run.case.place(row).1, &exact(&q[sizes.nope..]));
                for (expected, at) in rotated.into_iter().zip(start(row, head) + sizes.latent..) {
                    out.number(Role::Q, at, found[at].into(), expected.value, expected.bound);
                }
            }
        }
    }
}

/// Some rows of a head's matrix, `rows` by `cols`; `turned`: it is stored as `cols` rows of the others.
fn lines(
    run: &Run<'_>,
    matrix: &Matrix,
    head: usize,
    [rows, cols]: [usize; 2],
    turned: bool,
) -> Vec<(usize, Vec<Weight>)> {
    let packed = run.matrix(Role::Weights, matrix);
    let read = |row: usize, width: usize| {
        let mut weights = vec![Weight::default(); width];
        packed.row(row, &mut weights);
        weights
    };
    let sampled = spread(rows, SAMPLED_ROWS);
    if !turned {
        return sampled.into_iter().map(|line| (line, read(head * rows + line, cols))).collect();
    }
    let stored: Vec<Vec<Weight>> = (0..cols).map(|col| read(head * cols + col, rows)).collect();
    sampled.into_iter().map(|line| (line, stored.iter().map(|row| row[line]).collect())).collect()
}

impl LatentQueries<'_> {
    /// Some elements of a head's result, each with what multiplies its query.
    fn lines(&self, run: &Run<'_>, head: usize) -> Vec<(usize, Vec<Weight>)> {
        lines(run, &self.keys, head, [self.sizes.latent, self.sizes.nope], self.by_key)
    }
}

impl Reference for LatentExpand {
    fn describe(&self) -> String {
        let of = match self.heads {
            HeadMatrix::Keys { .. } => "keys",
            HeadMatrix::Values(_) => "values",
        };
        format!("{of} of {} heads, {}", self.sizes.heads, self.heads.matrix().describe())
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::at_positions(rows, None, None, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        let cache = Input::Cache(self.cache);
        vec![(Role::Latents, cache.clone()), (Role::Keys, cache.clone()), (Role::Values, cache)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let LatentSizes { heads, latent, rope, nope, value } = self.sizes;
        let (role, made, shared, turned) = match self.heads {
            HeadMatrix::Keys { by_key, .. } => (Role::Keys, nope, rope, !by_key),
            HeadMatrix::Values(_) => (Role::Values, value, 0, false),
        };
        let (cache, found) = (run.cache_given(Role::Latents, self.cache), run.cache_left(role, self.cache));
        for (i, &value) in found.iter().enumerate() {
            out.written(role, i, value as f32);
        }
        let last = run.case.rows - 1;
        for head in spread(heads, SAMPLED_HEADS) {
            let lines = lines(run, self.heads.matrix(), head, [made, latent], turned);
            for position in spread(run.case.position + run.case.rows, SAMPLED_POSITIONS) {
                let own = &cache[run.case.cached(last, position, None) * (latent + rope)..][..latent + rope];
                let start = (position * heads + head) * (made + shared);
                let input: Vec<f32> = own[..latent].iter().map(|&element| element as f32).collect();
                for (line, weights) in &lines {
                    let mut expected = [dot(weights, &input, self.half_operands.then_some(1.0))];
                    store(self.cache, &mut expected);
                    let [Approximate { value, bound }] = expected;
                    out.number(role, start + line, found[start + line], value, bound);
                }
                // The shared key is every head's as it is.
                for (at, &expected) in (start + made..).zip(&own[latent..latent + shared]) {
                    out.number(role, at, found[at], expected, 0.0);
                }
            }
        }
    }
}

impl Reference for LatentRotate<'_> {
    fn describe(&self) -> String {
        format!("{} heads of {} + {}", self.sizes.heads, self.sizes.nope, self.sizes.rope)
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::at_positions(rows, None, None, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Input, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Self { sizes, width, inv_freq, interleaved, magnitude } = *self;
        let rotation = Rotation { inv_freq, interleaved, magnitude };
        let (input, found) = (run.given(Role::Input), run.left(Role::Q));
        let own = sizes.nope + sizes.rope;
        for (row, values) in input.chunks_exact(width).enumerate() {
            for (head, query) in values[..sizes.queries()].chunks_exact(own).enumerate() {
                let (kept, rotated) = query.split_at(sizes.nope);
                let mut expected = exact(kept);
                expected.extend(rotation.of(run.case.place(row).1, &exact(rotated)));
                for (expected, at) in expected.into_iter().zip((row * sizes.heads + head) * own..) {
                    out.number(Role::Q, at, found[at].into(), expected.value, expected.bound);
                }
            }
        }
    }
}

impl Reference for LatentAttention {
    fn describe(&self) -> String {
        format!("{} heads over {} + {}", self.heads, self.latent, self.rope)
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::at_positions(rows, None, self.split, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        // Scores far enough apart that one position too many shows.
        vec![(Role::Q, Input::Between(-4.0, 4.0)), (Role::Latents, Input::Cache(self.cache))]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Self { heads, latent, rope, half_operands, .. } = *self;
        let width = latent + rope;
        let q = run.given(Role::Q);
        let mut found = run.left(Role::Y);
        if let Some(split) = self.split {
            // Parts may be cut in any way; what they come to is compared.
            let rows = found.chunks_exact(found.len() / run.case.rows).enumerate();
            let whole = rows.flat_map(|(row, parts)| combine(parts, heads, latent, split.parts(run.case.place(row).1)));
            found = whole.map(|element| element.value as f32).collect();
        }
        for (i, &value) in found.iter().enumerate() {
            out.written(Role::Y, i, value);
        }
        let cache = run.cache_given(Role::Latents, self.cache);
        for row in spread(run.case.rows, SAMPLED_TOKENS) {
            let position = run.case.place(row).1;
            let of = |at: usize| &cache[run.case.cached(row, at, None) * width..][..width];
            for head in spread(heads, SAMPLED_HEADS) {
                let query = &q[(row * heads + head) * width..][..width];
                let score = |at: usize| product(query, of(at), half_operands).times(self.scale.into(), FEW);
                let scores: Vec<Approximate> = (0..=position).map(score).collect();
                let weighted = Weighted::new(&scores, None);
                let start = (row * heads + head) * latent;
                for i in 0..latent {
                    let expected = weighted.sum((0..=position).map(|at| of(at)[i]), half_operands);
                    out.number(Role::Y, start + i, found[start + i].into(), expected.value, expected.bound);
                }
            }
        }
    }
}

impl Reference for LatentValues {
    fn describe(&self) -> String {
        format!("{} heads, {}", self.sizes.heads, self.values.describe())
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Input, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let sizes = self.sizes;
        let (matrix, input, found) =
            (run.matrix(Role::Weights, &self.values), run.given(Role::Input), run.left(Role::Y));
        for (i, &value) in found.iter().enumerate() {
            out.written(Role::Y, i, value);
        }
        let mut weights = vec![Weight::default(); sizes.latent];
        for head in spread(sizes.heads, SAMPLED_HEADS) {
            for value in spread(sizes.value, SAMPLED_ROWS) {
                matrix.row(head * sizes.value + value, &mut weights);
                for row in 0..run.case.rows {
                    let part = &input[(row * sizes.heads + head) * sizes.latent..][..sizes.latent];
                    let (at, expected) = ((row * sizes.heads + head) * sizes.value + value, dot(&weights, part, None));
                    out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
                }
            }
        }
    }
}
