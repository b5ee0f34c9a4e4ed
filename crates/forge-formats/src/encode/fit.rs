//! The least-squares search behind the asymmetric quantisers: `weight = scale * code + offset`.

/// How many ranges are tried: they put the largest weight at code `levels - 1`, then in steps up to beyond `levels`,
/// where it is cut off. Half as many again lower the error by less than 0.5%.
const CANDIDATES: u16 = 8;
/// Levels between one range and the next.
const STEP: f32 = 0.25;

/// Partial sums kept side by side, so that the sums vectorise; every group and sub-block is a multiple of it.
const LANES: usize = 8;

/// A scale and an offset, both in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) scale: f32,
    pub(super) offset: f32,
}

impl Line {
    /// The nearest code of `weight`, in `0..=levels`.
    pub(super) fn code(self, weight: f32, levels: f32) -> f32 {
        nearest((weight - self.offset) * inverse(self.scale), levels)
    }

    /// Sum of squared errors when every weight takes its nearest code. `weights` are a multiple of [`LANES`].
    pub(super) fn error(self, weights: &[f32], levels: f32) -> f32 {
        let id = inverse(self.scale);
        let mut sum = [0.0; LANES];
        for lanes in weights.as_chunks::<LANES>().0 {
            for (sum, &w) in sum.iter_mut().zip(lanes) {
                let code = nearest((w - self.offset) * id, levels);
                let difference = self.scale * code + self.offset - w;
                *sum += difference * difference;
            }
        }
        sum.iter().sum()
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The whole number nearest to `position` within `0..=levels`, ties to even. Adding and taking away 2^23 rounds in two
/// operations that vectorise everywhere, unlike the library's rounding. NaN, from scales that underflow, becomes 0.
fn nearest(position: f32, levels: f32) -> f32 {
    const ROUNDER: f32 = 8_388_608.0;
    position.max(0.0).min(levels) + ROUNDER - ROUNDER
}

/// The best of several lines for codes `0..=levels`, each adjusted by `store` (rounding to what the format can hold)
/// before it is judged. `low` and `high` bound the weights. The offset is at most `max_offset`.
pub(super) fn best_line(
    weights: &[f32],
    (low, high): (f32, f32),
    levels: f32,
    max_offset: f32,
    store: impl Fn(Line) -> Line,
) -> Line {
    let mut best = store(Line { scale: (high - low) / levels, offset: low });
    let mut best_error = best.error(weights, levels);
    for candidate in 0..CANDIDATES {
        let id = (levels - 1.0 + STEP * f32::from(candidate)) * inverse(high - low);
        let line = store(least_squares(weights, |w| nearest((w - low) * id, levels), max_offset));
        let error = line.error(weights, levels);
        if error < best_error {
            (best, best_error) = (line, error);
        }
    }
    best
}

/// The line of least squared error for the codes that `code` assigns.
fn least_squares(weights: &[f32], code: impl Fn(f32) -> f32, max_offset: f32) -> Line {
    let n = weights.len() as f32;
    let [mut sums_q, mut sums_qq, mut sums_w, mut sums_qw] = [[0.0; LANES]; 4];
    for lanes in weights.as_chunks::<LANES>().0 {
        for (i, &w) in lanes.iter().enumerate() {
            let q = code(w);
            sums_q[i] += q;
            sums_qq[i] += q * q;
            sums_w[i] += w;
            sums_qw[i] += q * w;
        }
    }
    let [sum_q, sum_qq, sum_w, sum_qw] = [sums_q, sums_qq, sums_w, sums_qw].map(|sums| sums.iter().sum::<f32>());
    let determinant = n * sum_qq - sum_q * sum_q;
    if determinant <= 0.0 {
        return Line { scale: 0.0, offset: (sum_w / n).min(max_offset) };
    }
    let scale = (n * sum_qw - sum_q * sum_w) / determinant;
    let offset = (sum_w - scale * sum_q) / n;
    if offset <= max_offset {
        return Line { scale, offset };
    }
    Line { scale: (sum_qw - max_offset * sum_q) / sum_qq, offset: max_offset }
}

/// The whole number nearest to `weight / factor` within `-levels..levels`.
pub(super) fn signed_code(weight: f32, factor: f32, levels: f32) -> f32 {
    nearest(weight * inverse(factor) + levels, 2.0 * levels - 1.0) - levels
}

/// Sum of squared errors when every weight takes its nearest code times `factor`.
pub(super) fn factor_error(weights: &[f32], factor: f32, levels: f32) -> f32 {
    weights.iter().map(|&w| (factor * signed_code(w, factor, levels) - w).powi(2)).sum()
}

/// The best of several factors for codes `-levels..levels`: they put the weight of largest magnitude at `-levels`, or around it,
/// and each is adjusted to the codes that it gives.
pub(super) fn best_factor(weights: &[f32], levels: f32) -> f32 {
    let largest = weights.iter().fold(0.0, |most: f32, &w| if w.abs() > most.abs() { w } else { most });
    let mut best = -largest / levels;
    let mut best_error = factor_error(weights, best, levels);
    for candidate in 0..=2 * CANDIDATES {
        let first = -largest * inverse(levels + STEP * (f32::from(candidate) - f32::from(CANDIDATES)));
        let (mut sum_qq, mut sum_qw) = (0.0, 0.0);
        for &w in weights {
            let q = signed_code(w, first, levels);
            sum_qq += q * q;
            sum_qw += q * w;
        }
        let factor = sum_qw * inverse(sum_qq);
        let error = factor_error(weights, factor, levels);
        if error < best_error {
            (best, best_error) = (factor, error);
        }
    }
    best
}
