//! The least-squares search behind the asymmetric quantisers: `weight = scale * code + offset`.

/// How many ranges are tried; the largest weight falls on code `levels - 1` for the first and beyond the last for others.
const CANDIDATES: u16 = 12;
/// Levels added to the widest range per candidate: from `levels - 1` up to nearly `levels + 2`.
const STEP: f32 = 0.25;

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

    /// Sum of squared errors when every weight takes its nearest code.
    pub(super) fn error(self, weights: &[f32], levels: f32) -> f32 {
        let id = inverse(self.scale);
        let mut sum = 0.0;
        for &w in weights {
            let code = nearest((w - self.offset) * id, levels);
            let difference = self.scale * code + self.offset - w;
            sum += difference * difference;
        }
        sum
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn nearest(position: f32, levels: f32) -> f32 {
    position.round_ties_even().clamp(0.0, levels)
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
    let [mut sum_q, mut sum_qq, mut sum_w, mut sum_qw] = [0.0f32; 4];
    for &w in weights {
        let q = code(w);
        sum_q += q;
        sum_qq += q * q;
        sum_w += w;
        sum_qw += q * w;
    }
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
