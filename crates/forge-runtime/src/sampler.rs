//! From a row of logits to a token.
//!
//! The order is that of Hugging Face transformers, because a checkpoint's `generation_config.json` is written for it:
//! repeat penalty, temperature, top-k, top-p, min-p, draw. (llama.cpp applies the temperature last.) Each filter works on the
//! probabilities renormalised over what the filters before it left, and always leaves the most probable token.
//!
//! Everything is deterministic. Tokens are ordered by logit, highest first, equal ones by id, lowest first; so greedy decoding
//! (temperature 0) takes the lowest id among equals. The draw walks that order until the running sum of probabilities exceeds
//! the step's uniform number of [`philox`](super::philox), which depends on the seed and the step alone.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::philox::uniform;
use super::{Error, Result};

/// Sampling parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy decoding.
    pub temperature: f32,
    /// Keep this many tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this many times as probable as the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits of tokens that occurred, in prompt or answer, and multiplies negative ones; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Refuses values that make no sense.
    ///
    /// # Errors
    /// [`Error::Sampling`] with the parameter's name and range.
    pub fn check(&self) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "from 0 to 100"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty <= 100.0,
                "above 0 and at most 100",
            ),
        ];
        for (name, value, good, range) in checks {
            if !good {
                return Err(Error::Sampling { name, value, range });
            }
        }
        Ok(())
    }
}

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    step: u64,
    seen: BTreeSet<u32>,
    ranked: Ranked,
}

impl Sampler {
    /// A sampler at step 0.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, step: 0, seen: BTreeSet::new(), ranked: Ranked::default() }
    }

    /// Tells the sampler of a token that occurred, for the repeat penalty.
    pub fn observe(&mut self, token: u32) {
        if self.sampling.repeat_penalty != 1.0 {
            self.seen.insert(token);
        }
    }

    /// Chooses the next token from `logits`, `[vocab]` f32; applies the repeat penalty to them in place. `None` if none of them is
    /// finite. Each call is one step.
    pub fn sample(&mut self, logits: &mut [f32]) -> Option<u32> {
        let step = self.step;
        self.step += 1;
        self.penalize(logits);
        if self.sampling.temperature <= 0.0 {
            return greedy(logits);
        }
        self.ranked.fill(logits, 1.0 / self.sampling.temperature);
        let (kept, mass) = self.filter();
        let target = uniform(self.sampling.seed, step) * mass;
        let mut sum = 0.0;
        let mut chosen = None;
        for rank in 0..kept {
            let (weight, id) = self.ranked.get(rank)?;
            chosen = Some(id);
            sum += weight;
            if sum > target {
                break;
            }
        }
        chosen
    }

    fn penalize(&self, logits: &mut [f32]) {
        let penalty = self.sampling.repeat_penalty;
        for &token in &self.seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// How many of the ranked tokens the filters keep, and the sum of their weights.
    fn filter(&mut self) -> (usize, f32) {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        let all = self.ranked.items.len();
        let (limit, total) = if top_k > 0 && top_k < all {
            (top_k, (0..top_k).filter_map(|rank| self.ranked.get(rank)).map(|(weight, _)| weight).sum())
        } else {
            (all, self.ranked.total())
        };
        if top_p >= 1.0 && min_p <= 0.0 {
            return (limit, total);
        }
        let mut sum = 0.0;
        for rank in 0..limit {
            // The first weight is exp(0) = 1, so that a weight is a probability relative to the highest.
            let Some((weight, _)) = self.ranked.get(rank) else { break };
            if rank > 0 && weight < min_p {
                return (rank, sum);
            }
            sum += weight;
            if sum >= top_p * total {
                return (rank + 1, sum);
            }
        }
        (limit, sum)
    }
}

/// Tokens in order of their logits, sorted no further than somebody asks: a vocabulary is long and its tail rarely wanted.
#[derive(Debug, Default)]
struct Ranked {
    /// (logit over temperature, id); in order up to `sorted`.
    items: Vec<(f32, u32)>,
    sorted: usize,
    max: f32,
}

impl Ranked {
    fn fill(&mut self, logits: &[f32], scale: f32) {
        let finite = logits.iter().zip(0u32..).filter(|(logit, _)| logit.is_finite());
        self.items.clear();
        self.items.extend(finite.map(|(logit, id)| (logit * scale, id)));
        self.sorted = 0;
        self.max = self.items.iter().map(|(logit, _)| *logit).fold(f32::MIN, f32::max);
    }

    /// Sum of all weights, in the order in which the items lie.
    fn total(&self) -> f32 {
        self.items.iter().map(|(logit, _)| (logit - self.max).exp()).sum()
    }

    /// Weight, `exp(logit - max)`, and id of the token at `rank`.
    fn get(&mut self, rank: usize) -> Option<(f32, u32)> {
        while rank >= self.sorted && self.sorted < self.items.len() {
            let end = (self.sorted * 8).max(64).min(self.items.len());
            let rest = &mut self.items[self.sorted..];
            let chunk = end - self.sorted;
            if chunk < rest.len() {
                rest.select_nth_unstable_by(chunk - 1, descending);
            }
            rest[..chunk].sort_unstable_by(descending);
            self.sorted = end;
        }
        self.items.get(rank).map(|&(logit, id)| ((logit - self.max).exp(), id))
    }
}

/// The id of the highest finite logit, the lowest among equals.
pub fn greedy(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(f32, u32)> = None;
    for (&logit, id) in logits.iter().zip(0u32..) {
        if logit.is_finite() && best.is_none_or(|(max, _)| logit > max) {
            best = Some((logit, id));
        }
    }
    best.map(|(_, id)| id)
}

fn descending(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}
