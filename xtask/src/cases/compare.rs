//! Logits against a reference: the largest difference, the top-1 tokens and the greedy continuation.

/// A row-major matrix of logits, `[rows, vocab]` f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// Elements, row after row.
    pub data: Vec<f32>,
    /// Columns.
    pub vocab: usize,
}

impl Logits {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.vocab
    }

    /// One row, `[vocab]`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.vocab..][..self.vocab]
    }
}

/// What an independent implementation computed for one set of weights.
#[derive(Debug)]
pub struct Reference {
    /// The prompt, T tokens.
    pub input_ids: Vec<u32>,
    /// `[T, vocab]`.
    pub logits: Logits,
    /// The greedy continuation.
    pub greedy_ids: Vec<u32>,
    /// At each greedy step, the top logit minus the second.
    pub greedy_margin: Vec<f32>,
}

impl Reference {
    /// The tokens to feed: the prompt and all of the continuation but its last token.
    pub fn fed_ids(&self) -> Vec<u32> {
        let continuation = self.greedy_ids.len().saturating_sub(1);
        let ids = self.input_ids.iter().chain(&self.greedy_ids[..continuation]);
        ids.copied().collect()
    }
}

/// How well logits agree with a reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Largest absolute difference over the prompt; infinite when a logit is not finite.
    pub max_abs: f32,
    /// Positions whose reference margin is large enough to require the same top token.
    pub top1_required: usize,
    /// Those of them with another top token.
    pub top1_wrong: usize,
    /// Greedy steps before the first small margin.
    pub greedy_required: usize,
    /// The first of them with another token.
    pub greedy_wrong: Option<usize>,
}

impl Agreement {
    /// True when nothing exceeds the bound.
    pub fn within(&self, bound: f32) -> bool {
        self.max_abs <= bound && self.top1_wrong == 0 && self.greedy_wrong.is_none()
    }
}

/// Compares `logits`, rows for [`Reference::fed_ids`], with the reference. A top token counts where the
/// reference's margin exceeds twice `bound`, greedy tokens up to the first margin below that.
pub fn compare(reference: &Reference, logits: &Logits, bound: f32) -> Agreement {
    let tokens = reference.input_ids.len();
    let mut agreement =
        Agreement { max_abs: 0.0, top1_required: 0, top1_wrong: 0, greedy_required: 0, greedy_wrong: None };
    for position in 0..tokens {
        let (expected, found) = (reference.logits.row(position), logits.row(position));
        for (expected, found) in expected.iter().zip(found) {
            let difference = (expected - found).abs();
            if difference.is_nan() {
                agreement.max_abs = f32::INFINITY;
            }
            agreement.max_abs = agreement.max_abs.max(difference);
        }
        let (top, margin) = top(expected);
        if margin > 2.0 * bound {
            agreement.top1_required += 1;
            agreement.top1_wrong += usize::from(self::top(found).0 != top);
        }
    }
    let steps = reference.greedy_ids.iter().zip(&reference.greedy_margin);
    for (step, (&id, &margin)) in steps.enumerate() {
        let row = (tokens + step).checked_sub(1);
        let Some(row) = row.filter(|row| margin >= 2.0 * bound && *row < logits.rows()) else {
            break;
        };
        agreement.greedy_required += 1;
        if top(logits.row(row)).0 != id as usize {
            agreement.greedy_wrong = Some(step);
            break;
        }
    }
    agreement
}

/// Index of the largest element (the first of equals) and its distance to the second largest.
fn top(row: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut second = f32::NEG_INFINITY;
    for (index, &value) in row.iter().enumerate() {
        if value > best.1 {
            second = best.1;
            best = (index, value);
        } else if value > second {
            second = value;
        }
    }
    (best.0, best.1 - second)
}

#[cfg(test)]
mod tests {
    use super::{Logits, Reference, compare};

    fn logits(rows: &[[f32; 3]]) -> Logits {
        Logits { data: rows.concat(), vocab: 3 }
    }

    fn reference() -> Reference {
        Reference {
            input_ids: vec![0, 1],
            logits: logits(&[[0.0, 1.0, 5.0], [0.0, 4.0, 4.01]]),
            greedy_ids: vec![2, 0, 1],
            greedy_margin: vec![1.0, 1.0, 0.01],
        }
    }

    #[test]
    fn fed_ids_are_the_prompt_and_the_continuation_but_its_last() {
        assert_eq!(reference().fed_ids(), [0, 1, 2, 0]);
    }

    #[test]
    fn equal_logits_agree() {
        let found = logits(&[[0.0, 1.0, 5.0], [0.0, 4.0, 4.01], [3.0, 0.0, 0.0], [0.0, 0.0, 9.0]]);
        let agreement = compare(&reference(), &found, 0.02);
        assert_eq!(agreement.max_abs, 0.0);
        assert_eq!((agreement.top1_required, agreement.greedy_required), (1, 2));
        assert!(agreement.within(0.02));
    }

    #[test]
    fn a_swap_within_a_small_margin_is_no_error() {
        let found = logits(&[[0.0, 1.0, 5.0], [0.0, 4.01, 4.0], [3.0, 0.0, 0.0], [0.0, 0.0, 9.0]]);
        let agreement = compare(&reference(), &found, 0.02);
        assert_eq!(agreement.top1_wrong, 0);
        // The greedy step there has a large margin of its own, so the swap counts in it.
        assert_eq!(agreement.greedy_wrong, Some(0));
    }

    #[test]
    fn a_large_difference_and_a_nan_are_errors() {
        let mut found = logits(&[[0.0, 1.5, 5.0], [0.0, 4.0, 4.01], [3.0, 0.0, 0.0], [0.0, 0.0, 9.0]]);
        assert!(!compare(&reference(), &found, 0.02).within(0.02));
        found.data[1] = f32::NAN;
        assert!(compare(&reference(), &found, 0.02).max_abs.is_infinite());
    }
}
