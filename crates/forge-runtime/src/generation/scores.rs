//! Log-probabilities of tokens: those of the model, before biases, penalties and filters.

use super::super::tokenizer::Tokenizer;

/// How probable a token was, and which were the most probable in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: Score,
    /// The most probable ones, the best first.
    pub top: Vec<Score>,
}

/// A token and its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Its id.
    pub id: u32,
    /// What it adds to a text that has begun, or a special token's name. Half a character is not UTF-8.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability; the lowest number there is where the model gave it none.
    pub logprob: f32,
}

impl Score {
    /// A token of which nothing is known, as at the beginning of a text.
    pub fn unknown(tokenizer: &Tokenizer, id: u32) -> Self {
        Self { id, bytes: tokenizer.bytes_or_name(id), logprob: 0.0 }
    }
}

impl Scored {
    /// Of a token that was chosen after these `logits`, `[vocab]` f32, with the `top` most probable ones; among equals the lowest id is first.
    pub fn new(tokenizer: &Tokenizer, logits: &[f32], token: u32, top: usize) -> Self {
        let finite = || logits.iter().zip(0_u32..).filter(|(logit, _)| logit.is_finite());
        let highest = finite().map(|(logit, _)| f64::from(*logit)).fold(f64::MIN, f64::max);
        let sum: f64 = finite().map(|(logit, _)| (f64::from(*logit) - highest).exp()).sum();
        let score = |id: u32| {
            let logit = logits.get(id as usize).copied().filter(|logit| logit.is_finite());
            let logprob = logit.map_or(f32::MIN, |logit| (f64::from(logit) - highest - sum.ln()) as f32);
            Score { logprob, ..Score::unknown(tokenizer, id) }
        };
        let mut best: Vec<(f32, u32)> = finite().map(|(&logit, id)| (logit, id)).collect();
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if top > 0 && top < best.len() {
            best.select_nth_unstable_by(top - 1, order);
        }
        best.truncate(top);
        best.sort_unstable_by(order);
        Self { token: score(token), top: best.into_iter().map(|(_, id)| score(id)).collect() }
    }
}
