//! Head norms, rotation, and the append to the cache.

use super::super::cache;
use super::super::compare::Comparison;
use super::super::error::{Approximate, FEW, ROUNDING, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{HeadNorm, Role, RopeAppend};
use super::Reference;

/// One of the parts of a row before RoPE.
struct Part {
    first_head: usize,
    heads: usize,
    /// From one head to the next.
    stride: usize,
    norm: Option<HeadNorm>,
    gamma: Role,
    rotates: bool,
    target: Role,
}

impl Reference for RopeAppend<'_> {
    fn describe(&self) -> String {
        format!("{} + {} heads of {}", self.heads, self.kv_heads, self.head_dim)
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        let mut cases = Case::at_positions(rows, self.wrap, None, context);
        // Where the factor on the queries changes.
        let changes = self.query_scale.map(|scale| 2 * scale.original_context - 1);
        let last = context.saturating_sub(rows);
        cases.extend(changes.map(|position| Case::at(rows, position.min(last), self.wrap)));
        cases
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        let cache = Input::Cache(self.cache);
        vec![(Role::Qkv, Input::UNIT), (Role::Keys, cache.clone()), (Role::Values, cache)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let (q, kv, dim) = (self.heads, self.kv_heads, self.head_dim);
        let per_query = self.gates.query_stride();
        let width = self.gates.row(q, if self.keys_as_values { kv } else { 2 * kv }) * dim;
        let rotates = !self.inv_freq.is_empty();
        let [q_norm, k_norm, v_norm] = self.norms;
        let part = |first_head, heads, norm, gamma, rotates, target| Part {
            first_head,
            heads,
            stride: 1,
            norm,
            gamma,
            rotates,
            target,
        };
        let queries = part(0, q, q_norm, Role::QGamma, rotates, Role::Q);
        let mut parts = vec![Part { stride: per_query, ..queries }];
        let q = q * per_query;
        if kv > 0 {
            parts.push(part(q, kv, k_norm, Role::KGamma, rotates, Role::Keys));
            let values = if self.keys_as_values { q } else { q + kv };
            parts.push(part(values, kv, v_norm, Role::VGamma, false, Role::Values));
        }
        let (input, block) = (run.given(Role::Qkv), self.cache.block());
        for part in parts {
            let cached = part.target != Role::Q;
            let gamma = if run.has(part.gamma) { run.given(part.gamma) } else { Vec::new() };
            let found: Vec<f64> = if cached {
                run.cache_left(part.target, self.cache)
            } else {
                run.left(Role::Q).into_iter().map(f64::from).collect()
            };
            let found_scales = if cached { run.cache_scales_left(part.target, self.cache) } else { Vec::new() };
            // What a row does not own stays as it was.
            let mut untouched = vec![cached; found.len()];
            for (row, values) in input.chunks_exact(width).enumerate() {
                let position = run.case.place(row).1;
                let own = (0..part.heads).map(|head| (part.first_head + head * part.stride) * dim);
                let own: Vec<f32> = own.flat_map(|start| &values[start..start + dim]).copied().collect();
                for head in 0..part.heads {
                    let transformed = self.transform(&part, &gamma, &own, head, position);
                    let at = if cached { run.case.cached(row, position, self.wrap) } else { row };
                    let start = (at * part.heads + head) * dim;
                    let mut expected = transformed;
                    if cached {
                        let scales = cache::store(self.cache, &mut expected);
                        for (scale, at) in scales.into_iter().zip(start / block..) {
                            out.number(part.target, at * block, found_scales[at], scale.value, scale.bound);
                        }
                    }
                    for (expected, at) in expected.into_iter().zip(start..) {
                        out.number(part.target, at, found[at], expected.value, expected.bound);
                        untouched[at] = false;
                    }
                }
            }
            if cached {
                let before = run.cache_given(part.target, self.cache);
                for at in (0..found.len()).filter(|&at| untouched[at] && found[at] != before[at]) {
                    out.number(part.target, at, found[at], before[at], 0.0);
                }
            }
        }
    }
}

impl RopeAppend<'_> {
    /// Head `head` of a part of a row at `position`; `own` are all heads of the part.
    fn transform(&self, part: &Part, gamma: &[f32], own: &[f32], head: usize, position: usize) -> Vec<Approximate> {
        let exact = |values: &[f32]| values.iter().map(|&value| Approximate::exact(value.into())).collect::<Vec<_>>();
        let dim = self.head_dim;
        let Self { inv_freq, interleaved, magnitude, .. } = *self;
        let rotation = Rotation { inv_freq: if part.rotates { inv_freq } else { &[] }, interleaved, magnitude };
        let values = if self.norms_last && part.rotates {
            let rotated: Vec<Approximate> =
                exact(own).chunks_exact(dim).flat_map(|head| rotation.of(position, head)).collect();
            normalise(part, gamma, &rotated, head, dim)
        } else {
            rotation.of(position, &normalise(part, gamma, &exact(own), head, dim))
        };
        let Some(scale) = self.query_scale.filter(|_| part.target == Role::Q) else { return values };
        let times = (position as f64 / scale.original_context as f64).floor();
        let factor = 1.0 + f64::from(scale.beta) * (1.0 + times).ln();
        values.into_iter().map(|value| value.times(factor, FEW)).collect()
    }
}

/// A head after its norm; `own` are all heads of its part.
fn normalise(part: &Part, gamma: &[f32], own: &[Approximate], head: usize, dim: usize) -> Vec<Approximate> {
    let values = &own[head * dim..][..dim];
    let scale = part.norm.map(|norm| {
        let over = if norm.across_heads { own } else { values };
        let mean = over.iter().map(|value| value.value.powi(2)).sum::<f64>() / over.len() as f64;
        ((mean + f64::from(norm.eps)).sqrt().recip(), sum_error(over.len()) + FEW)
    });
    let first = if part.norm.is_some_and(|norm| norm.across_heads) { head * dim } else { 0 };
    let normed = values.iter().enumerate().map(|(i, &value)| {
        let Some((scale, error)) = scale else { return value };
        value.times(scale * gamma.get(first + i).map_or(1.0, |&gamma| gamma.into()), error)
    });
    normed.collect()
}

/// How the first elements of a head rotate.
pub(super) struct Rotation<'a> {
    /// Rotations per position of each pair; none where nothing rotates.
    pub inv_freq: &'a [f32],
    /// Pairs are (2i, 2i + 1) rather than (i, i + pairs).
    pub interleaved: bool,
    /// Factor on cos and sin.
    pub magnitude: f32,
}

impl Rotation<'_> {
    /// A head at `position`.
    pub fn of(&self, position: usize, head: &[Approximate]) -> Vec<Approximate> {
        let mut rotated = head.to_vec();
        let pairs = self.inv_freq.len();
        for (i, &frequency) in self.inv_freq.iter().enumerate() {
            let (a, b) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
            let angle = position as f64 * f64::from(frequency);
            let magnitude = f64::from(self.magnitude);
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
}
