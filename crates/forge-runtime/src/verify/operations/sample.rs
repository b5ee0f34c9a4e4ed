//! The sampling kernels: their inputs, which one step makes consistent, and what they should choose.
//!
//! Choices are compared by their scores, so that two tokens that rounding cannot tell apart are both right.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::philox::philox;
use super::super::super::sampler::{LEAST_TOP_P, Sampling, StepSampling};
use super::super::compare::Comparison;
use super::super::error::ROUNDING;
use super::super::random::Random;
use super::super::run::{Case, Input, Run};
use super::super::table::{Role, Vocabulary};
use super::Reference;

/// See [`Operation::SampleBest`](super::Operation::SampleBest).
pub(super) struct Best(pub Vocabulary);

/// See [`Operation::SampleCollect`](super::Operation::SampleCollect).
pub(super) struct Collect(pub Vocabulary);

/// See [`Operation::SampleDraw`](super::Operation::SampleDraw).
pub(super) struct Choice(pub Vocabulary);

/// Weight of the best token, and the unit of shares.
const ONE: f64 = 16_777_216.0;
/// Draws that are looked at for a telling one.
const DRAWS_TRIED: usize = 64;
/// No token.
const NONE: u32 = u32::MAX;

/// One choice of a token: parameters and logits.
#[derive(Debug, Clone)]
pub(in super::super) struct Draw {
    pub step: StepSampling,
    logits: Vec<f32>,
    /// One bit per token.
    seen: Vec<u32>,
    /// Added to logits where the step says so.
    bias: Vec<f32>,
    /// How often each token was chosen.
    times: Vec<u32>,
    /// One bit per token, which count where the step says so.
    allowed: Vec<u32>,
    /// Key and id of each share's best.
    best: Vec<u32>,
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    key: u32,
    id: u32,
    weight: u32,
}

impl Draw {
    /// Draws with and without each filter, at the ends of the parameters' ranges, and of logits none of which is finite.
    pub fn all(vocabulary: &Vocabulary) -> Vec<Self> {
        let base = Sampling { temperature: 1.0, seed: 0x0123_4567_89AB_CDEF, ..Sampling::default() };
        let settings = [
            Sampling { temperature: 0.0, ..base.clone() },
            Sampling { temperature: 0.0, repeat_penalty: 1.3, ..base.clone() },
            base.clone(),
            Sampling { temperature: 0.7, top_k: 40, ..base.clone() },
            Sampling { top_p: 0.9, repeat_penalty: 1.1, ..base.clone() },
            Sampling { min_p: 0.05, temperature: 1.4, ..base.clone() },
            Sampling { top_k: 100, top_p: 0.8, min_p: 0.01, ..base.clone() },
            Sampling { top_p: LEAST_TOP_P, repeat_penalty: 0.01, ..base.clone() },
            Sampling { temperature: f32::MIN_POSITIVE, repeat_penalty: 100.0, ..base.clone() },
            Sampling { temperature: 100.0, top_k: 1, ..base.clone() },
            Sampling { temperature: 100.0, min_p: 1.0, ..base.clone() },
        ];
        // What the slot adds to each logit is made below.
        let biased = Sampling { logit_bias: vec![(0, 0.0)], ..base.clone() };
        let wishes = [
            Sampling { temperature: 0.0, ..biased.clone() },
            Sampling { repeat_penalty: 1.2, frequency_penalty: 0.4, ..biased },
            Sampling { temperature: 0.0, frequency_penalty: -1.5, ..base.clone() },
            Sampling { presence_penalty: 2.0, top_k: 30, ..base.clone() },
        ];
        let plain = settings.into_iter().map(|sampling| (sampling, false));
        let greedy = Sampling { temperature: 0.0, ..base.clone() };
        let masked = [greedy.clone(), base.clone()].map(|sampling| (sampling, true));
        let settings = plain.chain(wishes.map(|sampling| (sampling, false))).chain(masked);
        let draws = (0..).zip(settings).map(|(number, (sampling, masked))| {
            let step = StepSampling { masked, ..StepSampling::new(&sampling) };
            Self::new(vocabulary, step, number, 3)
        });
        let hopeless = [base, greedy].map(|sampling| StepSampling::new(&sampling));
        draws.chain(hopeless.map(|step| Self::new(vocabulary, step, 0, vocabulary.tokens))).collect()
    }

    /// The draw of this number, where so many of the logits are not finite.
    fn new(vocabulary: &Vocabulary, mut step: StepSampling, number: u64, not_finite: usize) -> Self {
        let tokens = vocabulary.tokens;
        let mut random = Random::new("logits", number);
        let mut logits: Vec<f32> = (0..tokens).map(|_| random.between(-8.0, 8.0)).collect();
        // What is not finite is never chosen.
        let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().cycle();
        for (at, value) in (5..).zip(values.take(not_finite)) {
            if let Some(logit) = logits.get_mut(at % tokens) {
                *logit = value;
            }
        }
        let mut seen = vec![0; tokens.div_ceil(32)];
        for id in (0..tokens).filter(|_| random.below(4) == 0) {
            seen[id / 32] |= 1 << (id % 32);
        }
        let bias = (0..tokens).map(|_| random.between(-3.0, 3.0)).collect();
        let times = (0..tokens).map(|_| random.below(5) as u32).collect();
        let mut allowed = vec![0; tokens.div_ceil(32)];
        for id in (0..tokens).filter(|_| random.below(3) == 0) {
            allowed[id / 32] |= 1 << (id % 32);
        }
        (0..number).for_each(|_| step.advance());
        let mut draw = Self { step, logits, seen, bias, times, allowed, best: Vec::new(), candidates: Vec::new() };
        let share = tokens.div_ceil(vocabulary.groups);
        for group in 0..vocabulary.groups {
            let ids = (group * share).min(tokens)..((group + 1) * share).min(tokens);
            let best = ids.filter_map(|id| Some((key(draw.adjusted(id)?), id))).max_by_key(|&(key, id)| (key, !id));
            draw.best.extend(best.map_or([0, NONE], |(key, id)| [key, id as u32]));
        }
        let drawn = draw.step.inverse_temperature != 0.0;
        draw.candidates = (0..if drawn { tokens } else { 0 })
            .filter_map(|id| {
                let (logit, weight) = (draw.adjusted(id)?, draw.weight(id)? as u32);
                (weight > 0).then(|| Candidate { key: key(logit), id: id as u32, weight })
            })
            .collect();
        draw.narrow();
        draw
    }

    /// Goes on to a draw that the first token beyond the filters would win, if there is one soon: a filter that keeps one token
    /// too many shows then.
    fn narrow(&mut self) {
        let kept = self.kept();
        let low = kept.iter().map(|candidate| candidate.key).min().unwrap_or(0);
        let beyond = self.candidates.iter().filter(|candidate| candidate.key < low);
        let Some(beyond) = beyond.max_by_key(|candidate| candidate.key).copied() else { return };
        let first = self.step.clone();
        for _ in 0..DRAWS_TRIED {
            let score = self.score(&beyond);
            if kept.iter().all(|candidate| self.score(candidate) < score) {
                return;
            }
            self.step.advance();
        }
        self.step = first;
    }

    /// One case for each draw.
    fn cases(vocabulary: &Vocabulary, rows: usize) -> Vec<Case> {
        let draws = Self::all(vocabulary).into_iter();
        draws.map(|draw| Case { draw: Some(draw), ..Case::at(rows, 0, None) }).collect()
    }

    /// The logits.
    fn logits(&self) -> (Role, Input) {
        (Role::Logits, Input::Words(self.logits.iter().map(|logit| logit.to_bits()).collect()))
    }

    /// The tokens that occurred.
    fn seen(&self) -> (Role, Input) {
        (Role::Seen, Input::Words(self.seen.clone()))
    }

    /// What only some rows want.
    fn wishes(&self) -> [(Role, Input); 3] {
        [
            (Role::LogitBias, Input::Words(self.bias.iter().map(|bias| bias.to_bits()).collect())),
            (Role::Times, Input::Words(self.times.clone())),
            (Role::Allowed, Input::Words(self.allowed.clone())),
        ]
    }

    /// The best of the shares.
    fn best(&self) -> (Role, Input) {
        (Role::Best, Input::Words(self.best.clone()))
    }

    /// The candidates, with room for all tokens.
    fn candidates(&self) -> (Role, Input) {
        let mut words: Vec<u32> = self.candidates.iter().flat_map(|c| [c.key, c.id, c.weight]).collect();
        words.resize(3 * self.logits.len(), 0);
        (Role::Candidates, Input::Words(words))
    }

    /// The logit after bias and penalties; `None` where it is not finite, or the token not allowed.
    fn adjusted(&self, id: usize) -> Option<f32> {
        let step = &self.step;
        let has = |bits: &[u32]| bits[id / 32] >> (id % 32) & 1 == 1;
        let mut logit = *self.logits.get(id).filter(|logit| logit.is_finite())?;
        if step.masked && !has(&self.allowed) {
            return None;
        }
        logit += if step.biased { self.bias[id] } else { 0.0 };
        if has(&self.seen) {
            let factor = if logit > 0.0 { 1.0 / f64::from(step.repeat_penalty) } else { step.repeat_penalty.into() };
            logit = (f64::from(logit) * factor) as f32;
        }
        let times = self.times[id];
        let penalty = f64::from(step.presence_penalty) + f64::from(step.frequency_penalty) * f64::from(times);
        Some(if times > 0 { (f64::from(logit) - penalty) as f32 } else { logit })
    }

    /// How wrong that may be: divisions that fast math rounds as it likes, and sums of what may cancel.
    fn error(&self, id: usize) -> f64 {
        let Some(logit) = self.logits.get(id).filter(|logit| logit.is_finite()) else { return 0.0 };
        let bias = if self.step.biased { self.bias[id].abs() } else { 0.0 };
        let penalty = self.step.presence_penalty.abs() + self.step.frequency_penalty.abs() * self.times[id] as f32;
        8.0 * ROUNDING * f64::from((logit.abs() + bias) * self.step.repeat_penalty.max(1.0) + penalty)
    }

    /// The highest finite logit, if any is.
    fn highest(&self) -> Option<f64> {
        let logits = (0..self.logits.len()).filter_map(|id| self.adjusted(id));
        logits.map(f64::from).reduce(f64::max)
    }

    /// The probability relative to the best token's, in units of 2^-24.
    fn weight(&self, id: usize) -> Option<f64> {
        let highest = f64::from(from_key(self.best.chunks_exact(2).map(|best| best[0]).max()?));
        let below = f64::from(self.adjusted(id)?) - highest;
        Some((below * f64::from(self.step.inverse_temperature)).exp() * ONE)
    }

    /// Ids that the filters leave, with their scores.
    fn scores(&self) -> BTreeMap<u32, f64> {
        self.kept().iter().map(|candidate| (candidate.id, self.score(candidate))).collect()
    }

    /// Log-probability plus noise.
    fn score(&self, candidate: &Candidate) -> f64 {
        let step = &self.step;
        let counter = [step.draw as u32, (step.draw >> 32) as u32, candidate.id, 0];
        let [word, ..] = philox(counter, [step.seed as u32, (step.seed >> 32) as u32]);
        let uniform = (f64::from(word >> 9) + 0.5) / 8_388_608.0;
        f64::from(candidate.weight).ln() - (-uniform.ln()).ln()
    }

    /// What the filters leave.
    fn kept(&self) -> Vec<Candidate> {
        let step = &self.step;
        let mut kept = self.candidates.clone();
        kept.sort_by_key(|candidate| std::cmp::Reverse(candidate.key));
        // The lowest key that is kept is that of the first candidate at which the sum is reached; equal ones stay.
        let cut = |kept: &mut Vec<Candidate>, measure: fn(&Candidate) -> u128, wanted: u128| {
            let mut sum = 0;
            let last = kept.iter().position(|candidate| {
                sum += measure(candidate);
                sum >= wanted
            });
            if let Some(low) = last.map(|last| kept[last].key) {
                kept.retain(|candidate| candidate.key >= low);
            }
        };
        if step.top_k > 0 {
            cut(&mut kept, |_| 1, step.top_k.into());
        }
        if f64::from(step.top_p) < ONE {
            let total: u128 = kept.iter().map(|candidate| u128::from(candidate.weight)).sum();
            cut(&mut kept, |candidate| candidate.weight.into(), (total * u128::from(step.top_p)).div_ceil(1 << 24));
        }
        kept.retain(|candidate| candidate.weight >= step.min_p);
        kept
    }
}

/// An integer of the same order.
fn key(logit: f32) -> u32 {
    let bits = logit.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

impl Reference for Best {
    fn describe(&self) -> String {
        format!("[{}]", self.0.tokens)
    }

    fn cases(&self, rows: usize, _context: usize) -> Vec<Case> {
        Draw::cases(&self.0, rows)
    }

    fn inputs(&self, case: &Case) -> Vec<(Role, Input)> {
        let inputs = |draw: &Draw| [&[draw.logits(), draw.seen()], &draw.wishes()[..]].concat();
        case.draw.iter().flat_map(inputs).collect()
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Some(draw) = &run.case.draw else { return };
        for slot in slots(run) {
            self.check_slot(draw, run, slot, out);
        }
    }
}

/// Slots that choose a token.
fn slots(run: &Run<'_>) -> impl Iterator<Item = usize> {
    (0..run.case.rows).filter(|&row| run.case.chooses(row)).map(|row| run.case.place(row).0)
}

impl Best {
    fn check_slot(&self, draw: &Draw, run: &Run<'_>, slot: usize, out: &mut Comparison) {
        let found = run.part_left(Role::Best, slot, run.case.slots);
        let mut highest = f64::MIN;
        for group in 0..self.0.groups {
            let (key, id) = (found[2 * group], found[2 * group + 1]);
            if (key, id) == (0, NONE) {
                continue; // a share without a finite logit
            }
            let logit = from_key(key).into();
            let expected = draw.adjusted(id as usize).map_or(f64::NAN, f64::from);
            out.number(Role::Best, 2 * group, logit, expected, draw.error(id as usize));
            highest = highest.max(logit);
        }
        match draw.highest() {
            Some(expected) => {
                let error = (0..self.0.tokens).map(|id| draw.error(id)).fold(0.0, f64::max);
                out.number(Role::Best, 0, highest, expected, error);
            }
            None => {
                (0..self.0.groups).for_each(|group| out.exact(Role::Best, 2 * group + 1, found[2 * group + 1], NONE))
            }
        }
        out.exact(Role::Count, slot, run.words_left(Role::Count)[slot], 0);
    }
}

impl Reference for Collect {
    fn describe(&self) -> String {
        format!("[{}]", self.0.tokens)
    }

    fn cases(&self, rows: usize, _context: usize) -> Vec<Case> {
        Draw::cases(&self.0, rows)
    }

    fn inputs(&self, case: &Case) -> Vec<(Role, Input)> {
        // The kernel before has set the count to zero.
        let count = (Role::Count, Input::Words(vec![0]));
        let inputs =
            |draw: &Draw| [&[draw.logits(), draw.seen(), draw.best(), count.clone()], &draw.wishes()[..]].concat();
        case.draw.iter().flat_map(inputs).collect()
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Some(draw) = &run.case.draw else { return };
        for slot in slots(run) {
            self.check_slot(draw, run, slot, out);
        }
    }
}

impl Collect {
    fn check_slot(&self, draw: &Draw, run: &Run<'_>, slot: usize, out: &mut Comparison) {
        let count = run.words_left(Role::Count)[slot] as usize;
        let found = run.part_left(Role::Candidates, slot, run.case.slots);
        let mut ids = BTreeSet::new();
        for (i, candidate) in found.chunks_exact(3).take(count).enumerate() {
            let [key, id, weight] = [candidate[0], candidate[1], candidate[2]];
            let expected = draw.adjusted(id as usize).map_or(f64::NAN, f64::from);
            out.number(Role::Candidates, 3 * i, from_key(key).into(), expected, draw.error(id as usize));
            let expected = draw.weight(id as usize).filter(|_| ids.insert(id)).unwrap_or(f64::NAN);
            out.number(Role::Candidates, 3 * i + 2, weight.into(), expected, weight_error(expected));
        }
        // Those left out weigh nothing.
        let drawn = draw.step.inverse_temperature != 0.0;
        for id in (0..self.0.tokens).filter(|&id| drawn && !ids.contains(&(id as u32))) {
            if let Some(weight) = draw.weight(id) {
                out.number(Role::Candidates, 3 * id + 2, 0.0, weight, weight_error(weight));
            }
        }
        if !drawn {
            out.exact(Role::Count, slot, count as u32, 0);
        }
    }
}

/// A weight is rounded down, from an exponential whose argument is rounded.
fn weight_error(weight: f64) -> f64 {
    1.0 + weight * 8.0 * ROUNDING * (2.0 + (weight / ONE).max(1e-12).ln().abs())
}

impl Reference for Choice {
    fn describe(&self) -> String {
        format!("[{}]", self.0.tokens)
    }

    fn cases(&self, rows: usize, _context: usize) -> Vec<Case> {
        Draw::cases(&self.0, rows)
    }

    fn inputs(&self, case: &Case) -> Vec<(Role, Input)> {
        let count = |draw: &Draw| (Role::Count, Input::Words(vec![draw.candidates.len() as u32]));
        let times = |draw: &Draw| (Role::Times, Input::Words(draw.times.clone()));
        let inputs = |draw: &Draw| [draw.seen(), draw.best(), count(draw), draw.candidates(), times(draw)];
        case.draw.iter().flat_map(inputs).collect()
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Some(draw) = &run.case.draw else { return };
        for row in (0..run.case.rows).filter(|&row| run.case.chooses(row)) {
            self.check_row(draw, run, row, out);
        }
    }
}

impl Choice {
    fn check_row(&self, draw: &Draw, run: &Run<'_>, row: usize, out: &mut Comparison) {
        let (chosen, slot) = (run.words_left(Role::Chosen)[row], run.case.place(row).0);
        if draw.candidates.is_empty() {
            let best = draw.best.chunks_exact(2).max_by_key(|best| (best[0], !best[1]));
            out.exact(Role::Chosen, row, chosen, best.map_or(NONE, |best| best[1]));
        } else {
            let scores = draw.scores();
            let expected = scores.values().copied().fold(f64::MIN, f64::max);
            let found = scores.get(&chosen).copied().unwrap_or(f64::NAN);
            // Logarithms of a weight of 24 bits and of noise.
            out.number(Role::Chosen, row, found, expected, 16.0 * ROUNDING * 32.0);
        }
        // Without a token there is none to go on with.
        let next = if chosen == NONE { run.words_given(Role::NextToken)[slot] } else { chosen };
        out.exact(Role::NextToken, slot, run.words_left(Role::NextToken)[slot], next);
        let mut seen = draw.seen.clone();
        if let Some(word) = seen.get_mut(chosen as usize / 32) {
            *word |= 1 << (chosen % 32);
        }
        let mut times = draw.times.clone();
        let counted = draw.step.presence_penalty != 0.0 || draw.step.frequency_penalty != 0.0;
        if let Some(times) = times.get_mut(chosen as usize).filter(|_| counted) {
            *times += 1;
        }
        let found = run.part_left(Role::Times, slot, run.case.slots);
        for (i, (found, expected)) in found.into_iter().zip(times).enumerate() {
            out.exact(Role::Times, i, found, expected);
        }
        for (i, (found, expected)) in run.part_left(Role::Seen, slot, run.case.slots).into_iter().zip(seen).enumerate()
        {
            out.exact(Role::Seen, i, found, expected);
        }
    }
}
