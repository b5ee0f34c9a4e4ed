//! Every operation once more, in f64 and simple loops, with the error that the kernel's arithmetic may make.
//!
//! Nothing here is shared with the kernels. A bound is made of the roundings that the kernel has to make, as [`sum_error`]
//! counts them, and where operands are rounded to half, of those. What does not fit it is a fault.

use super::compare::{Comparison, DEVIATIONS, HALF_ROUNDING, ROUNDING, SMALLEST_HALF, spread, sum_error};
use super::packed::Weight;
use super::run::Run;
use super::table::{
    Activation, Attention, CacheType, Epilogue, HeadNorm, Matrix, Operation, Projection, Role, RopeAppend,
};

/// Output rows of a matrix that are compared.
const SAMPLED_ROWS: usize = 256;
/// Rows of a step whose attention is compared.
const SAMPLED_TOKENS: usize = 16;
/// Roundings of a product, a division or a function that is given to a few units in the last place.
const FEW: f64 = 8.0 * ROUNDING;

/// A number and how far the kernel's may be from it.
#[derive(Debug, Clone, Copy)]
struct Approximate {
    value: f64,
    bound: f64,
}

impl Approximate {
    /// Times a factor that is itself off by `error`, relatively.
    fn times(self, factor: f64, error: f64) -> Self {
        let value = self.value * factor;
        Self { value, bound: self.bound * factor.abs() + value.abs() * (error + ROUNDING) }
    }

    /// Plus a number.
    fn plus(self, term: f64) -> Self {
        let rounding = 2.0 * ROUNDING * (self.value.abs() + term.abs());
        Self { value: self.value + term, bound: self.bound + rounding }
    }

    fn softcap(self, cap: Option<f32>) -> Self {
        let Some(cap) = cap.map(f64::from) else { return self };
        let value = cap * (self.value / cap).tanh();
        // The slope is 1 at most.
        Self { value, bound: self.bound + 2.0 * FEW * self.value.abs().min(cap) }
    }
}

/// Compares what the kernel left with the operation's result.
pub(super) fn check(operation: &Operation, run: &Run<'_>, out: &mut Comparison) {
    match operation {
        Operation::Embed { table, scale } => embed(table, (*scale).into(), run, out),
        Operation::LayerInputs { table, layers, eps, scale, factor } => {
            layer_inputs(table, *layers, [*eps, *scale, *factor].map(f64::from), run, out);
        }
        Operation::Project(projection) => project(projection, run, out),
        Operation::RopeAppend(rope) => rope_append(rope, run, out),
        Operation::Attention(attention) => attend(attention, run, out),
        Operation::AttentionCombine { heads, head_dim, split } => {
            let parts = split.parts(run.case.position);
            let (given, found) = (run.given(Role::Parts), run.left(Role::Y));
            for (i, expected) in combine(&given, *heads, *head_dim, parts).into_iter().enumerate() {
                out.number(Role::Y, i, found[i].into(), expected.value, expected.bound);
            }
        }
        Operation::RmsNorm { width, eps } => rms_norm(*width, (*eps).into(), run, out),
        Operation::LayerNorm { width, eps } => layer_norm(*width, (*eps).into(), run, out),
        Operation::PostNorm { width, eps, factor } => post_norm(*width, (*eps).into(), (*factor).into(), run, out),
        Operation::SampleBest(vocabulary) => super::sampling::best(vocabulary, run, out),
        Operation::SampleCollect(vocabulary) => super::sampling::collect(vocabulary, run, out),
        Operation::SampleDraw(_) => super::sampling::draw(run, out),
    }
}

fn embed(table: &Matrix, scale: f64, run: &Run<'_>, out: &mut Comparison) {
    let packed = run.matrix(Role::Table, table);
    let (tokens, found) = (run.words_given(Role::Tokens), run.left(Role::X));
    let mut row = vec![Weight::default(); table.cols];
    for (i, &token) in tokens.iter().enumerate() {
        packed.row(token as usize, &mut row);
        for (col, weight) in row.iter().enumerate() {
            let at = i * table.cols + col;
            out.number(Role::X, at, found[at].into(), scale * weight.value, FEW * (scale * weight.magnitude).abs());
        }
    }
    next_norm(run, out);
}

fn layer_inputs(table: &Matrix, layers: usize, [eps, scale, factor]: [f64; 3], run: &Run<'_>, out: &mut Comparison) {
    let packed = run.matrix(Role::Table, table);
    let (tokens, projected) = (run.words_given(Role::Tokens), run.given(Role::Projected));
    let (gamma, found) = (run.given(Role::Gamma), run.left(Role::Y));
    let width = table.cols / layers;
    let mut row = vec![Weight::default(); table.cols];
    for (token, values) in projected.chunks_exact(table.cols).enumerate() {
        packed.row(tokens[token] as usize, &mut row);
        for (layer, (part, looked_up)) in values.chunks_exact(width).zip(row.chunks_exact(width)).enumerate() {
            let norm = rms_scale(part, eps);
            for (i, ((&value, &gamma), weight)) in part.iter().zip(&gamma).zip(looked_up).enumerate() {
                let at = (layer * tokens.len() + token) * width + i;
                let value = Approximate { value: f64::from(value) * f64::from(gamma), bound: 0.0 };
                let mut sum = value.times(norm, sum_error(width) + FEW).plus(scale * weight.value);
                sum.bound += FEW * (scale * weight.magnitude).abs();
                let expected = sum.times(factor, FEW);
                out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
            }
        }
    }
}

/// What a producer of the residual stream leaves for the next projection; judged by the stream it left itself.
fn next_norm(run: &Run<'_>, out: &mut Comparison) {
    if !run.has(Role::Scaled) {
        return;
    }
    let (x, gamma, scaled) = (run.left(Role::X), run.given(Role::Gamma), run.left(Role::Scaled));
    for (i, (&x, &gamma)) in x.iter().zip(&gamma).enumerate() {
        let expected = f64::from(x) * f64::from(gamma);
        out.number(Role::Scaled, i, scaled[i].into(), expected, 2.0 * ROUNDING * expected.abs());
    }
    sum_of_squares(Role::Sums, &x, run, out);
}

/// The partial sums in `role`, which may be cut in any way, add up to the sum of squares.
fn sum_of_squares(role: Role, values: &[f32], run: &Run<'_>, out: &mut Comparison) {
    let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    let found: f64 = run.left(role).iter().map(|&sum| f64::from(sum)).sum();
    out.number(role, 0, found, expected, expected * sum_error(values.len()));
}

/// Sum of products and its bound.
fn dot(weights: &[Weight], input: &[f32], half_operands: bool) -> Approximate {
    let (mut value, mut squares, mut variance) = (0.0, 0.0, 0.0);
    for (weight, &x) in weights.iter().zip(input) {
        let x = f64::from(x);
        value += weight.value * x;
        squares += (weight.magnitude * x).powi(2);
        if half_operands {
            variance += half_variance(weight.value, x);
        }
    }
    Approximate { value, bound: sum_error(weights.len()) * squares.sqrt() + DEVIATIONS * variance.sqrt() }
}

/// Square of the error of a product whose factors are rounded to half.
fn half_variance(a: f64, b: f64) -> f64 {
    2.0 * (HALF_ROUNDING * a * b).powi(2) + SMALLEST_HALF.powi(2) * (a * a + b * b)
}

fn project(projection: &Projection, run: &Run<'_>, out: &mut Comparison) {
    let matrices = projection.matrices;
    let (cols, rows) = (matrices[0].cols, matrices.iter().map(|matrix| matrix.rows).sum::<usize>());
    let gated = matches!(projection.epilogue, Epilogue::Gated(_));
    let outputs = if gated { rows / 2 } else { rows };
    let input = run.given(Role::Input);
    let bias = if run.has(Role::Bias) { run.given(Role::Bias) } else { Vec::new() };
    let residual = matches!(projection.epilogue, Epilogue::Residual { .. });
    let role = if residual { Role::X } else { Role::Y };
    let stream = if residual { run.given(Role::X) } else { Vec::new() };
    let multiplier = if run.has(Role::Multiplier) { run.given(Role::Multiplier) } else { Vec::new() };
    let found = run.left(role);
    for (i, &value) in found.iter().enumerate() {
        out.written(role, i, value);
    }
    // The norm of the input, as one factor.
    let norm = projection.norm_eps.map(|eps| {
        let sums = run.given(Role::InputSums);
        let mean = sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() / cols as f64;
        ((mean + f64::from(eps)).sqrt().recip(), sum_error(sums.len()) + FEW)
    });
    let mut weights = vec![Weight::default(); cols];
    let mut results: Vec<Vec<Approximate>> = vec![Vec::new(); 2];
    for row in spread(outputs, SAMPLED_ROWS) {
        let halves: &[usize] = if gated { &[row, row + outputs] } else { &[row] };
        for (&row, results) in halves.iter().zip(&mut results) {
            read_row(matrices, row, run, &mut weights);
            results.clear();
            results.extend(input.chunks_exact(cols).map(|input| {
                let mut result = dot(&weights, input, projection.half_operands);
                if let Some((scale, error)) = norm {
                    result = result.times(scale, error);
                }
                bias.get(row).map_or(result, |&bias| result.plus(bias.into()))
            }));
        }
        for (token, &result) in results[0].iter().enumerate() {
            let at = token * outputs + row;
            let expected = match projection.epilogue {
                Epilogue::Store { softcap } => result.softcap(softcap),
                Epilogue::Residual { factor } => result.times(factor.into(), 0.0).plus(stream[at].into()),
                Epilogue::Activated(activation) => gate(activation, result, Approximate { value: 1.0, bound: 0.0 }),
                Epilogue::Gated(activation) => gate(activation, result, results[1][token]),
                Epilogue::GatedBy(activation) => {
                    gate(activation, result, Approximate { value: multiplier[at].into(), bound: 0.0 })
                }
            };
            out.number(role, at, found[at].into(), expected.value, expected.bound);
        }
    }
    if run.has(Role::ResultSums) {
        sum_of_squares(Role::ResultSums, &found, run, out);
    }
    next_norm(run, out);
}

/// Row `row` of stacked matrices.
fn read_row(matrices: &[Matrix], mut row: usize, run: &Run<'_>, weights: &mut [Weight]) {
    for (matrix, role) in matrices.iter().zip([Role::Weights, Role::Weights1, Role::Weights2]) {
        if row < matrix.rows {
            return run.matrix(role, matrix).row(row, weights);
        }
        row -= matrix.rows;
    }
}

/// `activation(gate) * up`. No activation is steeper than 1.2 but the square.
fn gate(activation: Activation, gate: Approximate, up: Approximate) -> Approximate {
    let x = gate.value;
    let activated = match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::ReluSquared => x.max(0.0).powi(2),
    };
    let slope = match activation {
        Activation::Silu | Activation::GeluTanh => 1.2,
        Activation::ReluSquared => 2.0 * (x.abs() + gate.bound),
    };
    let error = slope * gate.bound + FEW * (activated.abs() + x.abs().min(1.0));
    let value = activated * up.value;
    Approximate { value, bound: error * (up.value.abs() + up.bound) + activated.abs() * up.bound + FEW * value.abs() }
}

/// 1 / rms of values.
fn rms_scale(values: &[f32], eps: f64) -> f64 {
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    (squares / values.len() as f64 + eps).sqrt().recip()
}

fn rms_norm(width: usize, eps: f64, run: &Run<'_>, out: &mut Comparison) {
    let (x, gamma, found) = (run.given(Role::X), run.given(Role::Gamma), run.left(Role::Y));
    for (row, values) in x.chunks_exact(width).enumerate() {
        let scale = rms_scale(values, eps);
        for (i, (&value, &gamma)) in values.iter().zip(&gamma).enumerate() {
            let expected = f64::from(value) * scale * f64::from(gamma);
            let at = row * width + i;
            out.number(Role::Y, at, found[at].into(), expected, expected.abs() * (sum_error(width) + FEW));
        }
    }
}

fn layer_norm(width: usize, eps: f64, run: &Run<'_>, out: &mut Comparison) {
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

fn post_norm(width: usize, eps: f64, factor: f64, run: &Run<'_>, out: &mut Comparison) {
    let (y, x) = (run.given(Role::Y), run.given(Role::X));
    let (gamma, found) = (run.given(Role::PostGamma), run.left(Role::X));
    let layer_scale = if run.has(Role::Scale) { run.given(Role::Scale)[0].into() } else { 1.0 };
    for (row, values) in y.chunks_exact(width).enumerate() {
        let scale = if run.has(Role::ResultSums) {
            let sum: f64 = run.given(Role::ResultSums).iter().map(|&sum| f64::from(sum)).sum();
            (sum / width as f64 + eps).sqrt().recip()
        } else {
            rms_scale(values, eps)
        };
        for (i, (&value, &gamma)) in values.iter().zip(&gamma).enumerate() {
            let at = row * width + i;
            let normed = Approximate { value: f64::from(value) * f64::from(gamma), bound: 0.0 };
            let sum = normed.times(scale * factor, sum_error(width) + FEW).plus(x[at].into());
            let expected = sum.times(layer_scale, 0.0);
            out.number(Role::X, at, found[at].into(), expected.value, expected.bound);
        }
    }
    next_norm(run, out);
}

/// One of the parts of a row before RoPE.
struct Part {
    first_head: usize,
    heads: usize,
    norm: Option<HeadNorm>,
    gamma: Role,
    rotates: bool,
    target: Role,
}

fn rope_append(rope: &RopeAppend, run: &Run<'_>, out: &mut Comparison) {
    let (q, kv, dim) = (rope.heads, rope.kv_heads, rope.head_dim);
    let width = (q + if rope.keys_as_values { kv } else { 2 * kv }) * dim;
    let rotates = !rope.inv_freq.is_empty();
    let [q_norm, k_norm, v_norm] = rope.norms;
    let part =
        |first_head, heads, norm, gamma, rotates, target| Part { first_head, heads, norm, gamma, rotates, target };
    let mut parts = vec![part(0, q, q_norm, Role::QGamma, rotates, Role::Q)];
    if kv > 0 {
        parts.push(part(q, kv, k_norm, Role::KGamma, rotates, Role::Keys));
        let values = if rope.keys_as_values { q } else { q + kv };
        parts.push(part(values, kv, v_norm, Role::VGamma, false, Role::Values));
    }
    let input = run.given(Role::Qkv);
    for part in parts {
        let cached = part.target != Role::Q;
        let gamma = if run.has(part.gamma) { run.given(part.gamma) } else { Vec::new() };
        let found: Vec<f64> = if cached {
            run.cache_left(part.target, rope.cache)
        } else {
            run.left(Role::Q).into_iter().map(f64::from).collect()
        };
        // What a row does not own stays as it was.
        let mut untouched = vec![cached; found.len()];
        for (row, values) in input.chunks_exact(width).enumerate() {
            let position = run.case.position + row;
            let own = &values[part.first_head * dim..][..part.heads * dim];
            for head in 0..part.heads {
                let head_values = &own[head * dim..][..dim];
                let normed = normalise(&part, &gamma, own, head, head_values);
                let slot = if cached { rope.wrap.map_or(position, |wrap| position % wrap) } else { row };
                let start = (slot * part.heads + head) * dim;
                for (i, expected) in rotate(rope, part.rotates, position, &normed).into_iter().enumerate() {
                    let mut bound = expected.bound;
                    if cached && rope.cache == CacheType::F16 {
                        bound += (expected.value.abs() + bound) * HALF_ROUNDING + SMALLEST_HALF;
                    }
                    out.number(part.target, start + i, found[start + i], expected.value, bound);
                    untouched[start + i] = false;
                }
            }
        }
        if cached {
            let before = run.cache_given(part.target, rope.cache);
            for at in (0..found.len()).filter(|&at| untouched[at] && found[at] != before[at]) {
                out.number(part.target, at, found[at], before[at], 0.0);
            }
        }
    }
}

/// A head after its norm; `own` are all heads of its part.
fn normalise(part: &Part, gamma: &[f32], own: &[f32], head: usize, values: &[f32]) -> Vec<Approximate> {
    let scale = part.norm.map(|norm| {
        let over = if norm.across_heads { own } else { values };
        (rms_scale(over, norm.eps.into()), sum_error(over.len()) + FEW)
    });
    let first = if part.norm.is_some_and(|norm| norm.across_heads) { head * values.len() } else { 0 };
    let normed = values.iter().enumerate().map(|(i, &value)| {
        let value = Approximate { value: value.into(), bound: 0.0 };
        let Some((scale, error)) = scale else { return value };
        value.times(scale * gamma.get(first + i).map_or(1.0, |&gamma| gamma.into()), error)
    });
    normed.collect()
}

fn rotate(rope: &RopeAppend, rotates: bool, position: usize, head: &[Approximate]) -> Vec<Approximate> {
    let mut rotated = head.to_vec();
    if !rotates {
        return rotated;
    }
    let pairs = rope.inv_freq.len();
    for (i, &frequency) in rope.inv_freq.iter().enumerate() {
        let (a, b) = if rope.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
        let angle = position as f64 * f64::from(frequency);
        let magnitude = f64::from(rope.magnitude);
        let (sin, cos) = (angle.sin() * magnitude, angle.cos() * magnitude);
        let (x, y) = (head[a], head[b]);
        // The angle is rounded too.
        let error = (x.value.abs() + y.value.abs()) * magnitude * (ROUNDING * angle + FEW);
        let bound = error + (x.bound + y.bound) * magnitude;
        rotated[a] = Approximate { value: x.value * cos - y.value * sin, bound };
        rotated[b] = Approximate { value: x.value * sin + y.value * cos, bound };
    }
    rotated
}

fn attend(attention: &Attention, run: &Run<'_>, out: &mut Comparison) {
    let Attention { heads, kv_heads, head_dim: dim, .. } = *attention;
    let q = run.given(Role::Q);
    let mut found = run.left(Role::Y);
    if let Some(split) = attention.split {
        // Parts may be cut in any way; what they come to is compared.
        let whole = combine(&found, heads, dim, split.parts(run.case.position));
        found = whole.into_iter().map(|element| element.value as f32).collect();
    }
    let keys = run.cache_given(Role::Keys, attention.cache);
    let values = run.cache_given(Role::Values, attention.cache);
    for (i, &value) in found.iter().enumerate() {
        out.written(Role::Y, i, value);
    }
    for row in spread(run.case.rows, SAMPLED_TOKENS) {
        let position = run.case.position + row;
        let first = attention.window.map_or(0, |window| (position + 1).saturating_sub(window));
        for head in 0..heads {
            let start = (row * heads + head) * dim;
            let kv_head = head / (heads / kv_heads);
            let cached = |cache, position: usize| -> &[f64] {
                let cache: &Vec<f64> = cache;
                let slot = attention.wrap.map_or(position, |wrap| position % wrap);
                &cache[(slot * kv_heads + kv_head) * dim..][..dim]
            };
            let scores: Vec<Approximate> =
                (first..=position).map(|at| score(attention, &q[start..start + dim], cached(&keys, at))).collect();
            let highest = scores.iter().map(|score| score.value).fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score.value - highest).exp()).collect();
            let total: f64 = weights.iter().sum();
            // A score's error is its weight's, relatively; so is that of the highest and of the exponent's argument.
            let spread_of_scores = scores.iter().map(|score| highest - score.value).fold(0.0, f64::max);
            let score_error = scores.iter().map(|score| score.bound).fold(0.0, f64::max);
            let error =
                2.0 * score_error + FEW * (2.0 + highest.abs() + spread_of_scores) + 2.0 * sum_error(weights.len());
            for i in 0..dim {
                let (mut sum, mut magnitude, mut variance) = (0.0, 0.0, 0.0);
                for (&weight, at) in weights.iter().zip(first..) {
                    let (share, value) = (weight / total, cached(&values, at)[i]);
                    sum += share * value;
                    magnitude += share * value.abs();
                    if attention.half_operands {
                        variance += (half_variance(weight, value)) / (total * total);
                    }
                }
                let bound = error * magnitude + DEVIATIONS * variance.sqrt();
                out.number(Role::Y, start + i, found[start + i].into(), sum, bound);
            }
        }
    }
}

fn score(attention: &Attention, query: &[f32], key: &[f64]) -> Approximate {
    let (mut value, mut squares, mut variance) = (0.0, 0.0, 0.0);
    for (&q, &k) in query.iter().zip(key) {
        let product = f64::from(q) * k;
        value += product;
        squares += product * product;
        if attention.half_operands {
            variance += half_variance(q.into(), k);
        }
    }
    let bound = sum_error(query.len()) * squares.sqrt() + DEVIATIONS * variance.sqrt();
    Approximate { value, bound }.times(attention.scale.into(), FEW).softcap(attention.softcap)
}

/// What the results of parts come to, `[heads, head_dim]`; see [`Attention::split`].
fn combine(parts: &[f32], heads: usize, dim: usize, count: usize) -> Vec<Approximate> {
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
