//! From a row of logits to a token.
//!
//! The order is that of Hugging Face transformers, because a checkpoint's `generation_config.json` is written for it, and of
//! vLLM where that has more: tokens that are not allowed are out, then bias, repeat penalty, frequency and presence penalty, temperature, top-k,
//! top-p, min-p, draw. (llama.cpp applies the temperature last.) Each filter works on
//! the probabilities renormalised over what the filters before it left, and always leaves the most probable token; tokens
//! equal to the last one kept stay too.
//!
//! The sampling kernels of a generated program do the same on the GPU, and everything that decides is exact in any order:
//! a token's weight is its probability relative to the best token's in units of 2^-24, rounded down (weight 0 is never
//! drawn), sums are integers, and the draw is the maximum of log-probability plus Gumbel noise of (seed, draw, token), so
//! that no running sum depends on the order of its terms. Among equals the lowest id wins; temperature 0 is greedy.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::philox::gumbel;
use super::spec::StepParams;
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
    /// Taken from the logits of tokens that the answer has already; 0 changes nothing.
    pub presence_penalty: f32,
    /// Taken from them for each time that the answer has them; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Added to logits: tokens, each once, and how much.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
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
            ("repeat_penalty", self.repeat_penalty, PENALTIES.contains(&self.repeat_penalty), "from 0.01 to 100"),
            ("presence_penalty", self.presence_penalty, COUNTED.contains(&self.presence_penalty), "from -2 to 2"),
            ("frequency_penalty", self.frequency_penalty, COUNTED.contains(&self.frequency_penalty), "from -2 to 2"),
        ];
        let biases = self.logit_bias.iter().map(|&(_, bias)| bias);
        let biases =
            biases.map(|bias| ("logit_bias", bias, BIASES.contains(&bias) || bias == BANNED, "from -100 to 100"));
        for (name, value, good, range) in checks.into_iter().chain(biases) {
            if !good {
                return Err(Error::Sampling { name, value, range });
            }
        }
        Ok(())
    }

    /// Whether it matters which tokens occurred, or how often.
    pub fn has_penalties(&self) -> bool {
        self.repeat_penalty != 1.0 || self.counts_tokens()
    }

    /// Whether it matters how often a token was chosen.
    pub fn counts_tokens(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

/// Presence and frequency penalties that are taken, as in OpenAI's API.
const COUNTED: RangeInclusive<f32> = -2.0..=2.0;

/// Biases that are taken, as in OpenAI's API.
const BIASES: RangeInclusive<f32> = -100.0..=100.0;

/// A bias besides: of a token that is not wanted in any case. Below every logit, and finite times every penalty.
pub const BANNED: f32 = -1e30;

/// Repeat penalties that are taken. Further ones would make infinities of logits, which fast math on the GPU knows nothing of.
const PENALTIES: RangeInclusive<f32> = 0.01..=100.0;

/// [`Sampling`] as the sampling kernels read it, for one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepSampling {
    /// `1 / temperature`; 0 is greedy.
    pub inverse_temperature: f32,
    /// See [`Sampling::repeat_penalty`].
    pub repeat_penalty: f32,
    /// See [`Sampling::top_k`].
    pub top_k: u32,
    /// [`Sampling::top_p`] in units of 2^-24; at least one, which the most probable token has.
    pub top_p: u32,
    /// [`Sampling::min_p`] in units of 2^-24.
    pub min_p: u32,
    /// See [`Sampling::seed`].
    pub seed: u64,
    /// See [`Sampling::presence_penalty`].
    pub presence_penalty: f32,
    /// See [`Sampling::frequency_penalty`].
    pub frequency_penalty: f32,
    /// Whether the slot has biases.
    pub biased: bool,
    /// Whether the choice is among tokens that the slot is told of.
    pub masked: bool,
    /// Whether the host is to have the logits.
    pub scored: bool,
    /// Draws made before this step.
    pub draw: u64,
}

/// Weight of the most probable token: weights are in units of its inverse.
const ONE: f32 = 16_777_216.0;

/// The smallest [`Sampling::top_p`] that means something: every positive one below it is this.
pub const LEAST_TOP_P: f32 = 1.0 / ONE;

/// Highest inverse of a temperature. Times a difference of logits it is still a finite number, and beside it nothing but equals of
/// the highest logit has a weight.
const HIGHEST_INVERSE: f32 = 1e30;

impl StepSampling {
    /// The first step's.
    pub fn new(sampling: &Sampling) -> Self {
        Self {
            inverse_temperature: if sampling.temperature > 0.0 {
                (1.0 / sampling.temperature).min(HIGHEST_INVERSE)
            } else {
                0.0
            },
            repeat_penalty: sampling.repeat_penalty.clamp(*PENALTIES.start(), *PENALTIES.end()),
            top_k: u32::try_from(sampling.top_k).unwrap_or(0),
            top_p: ((sampling.top_p * ONE) as u32).max(1),
            min_p: (sampling.min_p * ONE) as u32,
            seed: sampling.seed,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            biased: !sampling.logit_bias.is_empty(),
            masked: false,
            scored: false,
            draw: 0,
        }
    }

    /// Goes on to the next step.
    pub fn advance(&mut self) {
        self.draw += 1;
    }

    /// The words of a row's record that are the sampling kernels'.
    pub fn params(&self) -> StepParams {
        StepParams {
            inverse_temperature: self.inverse_temperature,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            biased: self.biased.into(),
            masked: self.masked.into(),
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed_low: self.seed as u32,
            seed_high: (self.seed >> 32) as u32,
            draw_low: self.draw as u32,
            draw_high: (self.draw >> 32) as u32,
            ..StepParams::default()
        }
    }
}

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    step: StepSampling,
    seen: BTreeSet<u32>,
    /// How often tokens were chosen.
    times: BTreeMap<u32, u32>,
    bias: Vec<(u32, f32)>,
    candidates: Vec<Candidate>,
}

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Its logit as an integer of the same order.
    key: u32,
    id: u32,
    weight: u32,
}

impl Sampler {
    /// A sampler at its first draw.
    pub fn new(sampling: &Sampling) -> Self {
        Self::at(StepSampling::new(sampling), &sampling.logit_bias)
    }

    /// A sampler at this step's draw, with these biases.
    pub fn at(step: StepSampling, bias: &[(u32, f32)]) -> Self {
        Self { step, seen: BTreeSet::new(), times: BTreeMap::new(), bias: bias.to_vec(), candidates: Vec::new() }
    }

    /// The next draw is the one after so many.
    pub fn seek(&mut self, draw: u64) {
        self.step.draw = draw;
    }

    /// Tells the sampler of a token that occurred, for the repeat penalty. Tokens that it chose itself it knows.
    pub fn observe(&mut self, token: u32) {
        if self.step.repeat_penalty != 1.0 {
            self.seen.insert(token);
        }
    }

    /// Tells the sampler of a token that was chosen, for all penalties. Tokens that it chose itself it knows.
    pub fn chose(&mut self, token: u32) {
        self.observe(token);
        *self.times.entry(token).or_default() += 1;
    }

    /// Chooses the next token from `logits`, `[vocab]` f32; applies bias and penalties to them in place. `None` if none of
    /// them is finite. Each call is one draw.
    pub fn sample(&mut self, logits: &mut [f32]) -> Option<u32> {
        self.sample_among(logits, None)
    }

    /// The same among tokens that are `allowed`, a bit each, lowest first; among all if not given.
    pub fn sample_among(&mut self, logits: &mut [f32], allowed: Option<&[u32]>) -> Option<u32> {
        for (logit, id) in logits.iter_mut().zip(0_u32..) {
            let is_allowed = |words: &[u32]| words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
            if !allowed.is_none_or(is_allowed) {
                *logit = f32::NEG_INFINITY;
            }
        }
        self.adjust(logits);
        let token = if self.step.inverse_temperature == 0.0 { greedy(logits) } else { self.draw(logits) };
        self.step.advance();
        if let Some(token) = token {
            self.chose(token);
        }
        token
    }

    fn adjust(&self, logits: &mut [f32]) {
        let StepSampling { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.step;
        for &(token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        for &token in &self.seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / repeat_penalty } else { *logit * repeat_penalty };
            }
        }
        for (&token, &times) in &self.times {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= frequency_penalty.mul_add(times as f32, presence_penalty);
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        let StepSampling { inverse_temperature, top_k, top_p, min_p, seed, draw, .. } = self.step;
        let finite = || logits.iter().zip(0_u32..).filter(|(logit, _)| logit.is_finite());
        let highest = finite().map(|(logit, _)| *logit).reduce(f32::max)?;
        self.candidates.clear();
        self.candidates.extend(finite().filter_map(|(&logit, id)| {
            let weight = (((logit - highest) * inverse_temperature).exp() * ONE) as u32;
            (weight > 0).then_some(Candidate { key: ordered_bits(logit), id, weight })
        }));
        let mut low = 0;
        if top_k > 0 && (top_k as usize) < self.candidates.len() {
            low = self.lowest_kept(|_| 1, u64::from(top_k));
        }
        if top_p < ONE as u32 {
            let kept = self.candidates.iter().filter(|c| c.key >= low);
            let total: u64 = kept.map(|c| u64::from(c.weight)).sum();
            let wanted = (u128::from(total) * u128::from(top_p)).div_ceil(1 << 24) as u64;
            low = low.max(self.lowest_kept(|c| u64::from(c.weight), wanted));
        }
        let kept = self.candidates.iter().filter(|c| c.key >= low && c.weight >= min_p);
        kept.map(|c| (ordered_bits((c.weight as f32).ln() + gumbel(seed, draw, c.id)), c.id))
            .max_by_key(|&(score, id)| (score, u32::MAX - id))
            .map(|(_, id)| id)
    }

    /// The highest key such that the candidates from it on measure at least `wanted`; 0 if all together do not.
    fn lowest_kept(&mut self, measure: impl Fn(&Candidate) -> u64, wanted: u64) -> u32 {
        self.candidates.sort_unstable_by_key(|c| (u32::MAX - c.key, c.id));
        let mut sum = 0;
        for candidate in &self.candidates {
            sum += measure(candidate);
            if sum >= wanted {
                return candidate.key;
            }
        }
        0
    }
}

/// Orders as floats do.
fn ordered_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits & 0x8000_0000 == 0 { bits | 0x8000_0000 } else { !bits }
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
