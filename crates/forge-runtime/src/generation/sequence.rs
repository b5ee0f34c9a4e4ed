//! One request on its way: what of it is run next, and what has come of it.

use std::time::{Duration, Instant};

use super::super::Result;
use super::super::assets::Text;
use super::super::batch::{Row, Slot, Token, Wants};
use super::super::sampler::{Sampler, Sampling, StepSampling};
use super::super::slots::{Miss, Place, Tier};
use super::output::{Flow, Output};
use super::speculation::{Alike, Costs, Grams, Record, Speculation};
use super::{Finish, Listener, Request, Summary};

/// A request, from its coming to its end.
pub(super) struct Sequence {
    /// The prompt's tokens, and those chosen since that the sequence goes on with.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// Most tokens to choose.
    limit: usize,
    sampling: Sampling,
    step: StepSampling,
    output: Output,
    came: Instant,
    /// Once it has one.
    place: Option<Placed>,
    /// Tokens chosen and heard, an end token included.
    heard: usize,
    first: Option<Instant>,
    grams: Grams,
    record: Record,
    /// Chooses where guesses are, once there was one.
    sampler: Option<Sampler>,
    /// Tokens were chosen that its slot does not know of.
    unobserved: bool,
}

/// What a sequence may go on with.
pub(super) struct Guess {
    alike: Alike,
    tokens: Vec<u32>,
}

impl Guess {
    /// The token that is guessed after so many.
    pub(super) fn token(&self, index: usize) -> Option<u32> {
        self.tokens.get(index).copied()
    }
}

/// Where a prompt goes, and where what is known of it comes from.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    pub(super) place: Place,
    pub(super) tier: Option<Tier>,
}

/// A sequence in its slot.
struct Placed {
    slot: Slot,
    reused: usize,
    tier: Option<Tier>,
    miss: Option<Miss>,
    since: Instant,
    /// Position of the next row to be run.
    at: usize,
    /// Positions before it are run in tiles.
    tiles_end: usize,
    /// Tokens that were asked for.
    asked: usize,
    /// Positions at which tiles end, those furthest on first.
    marks: Vec<usize>,
}

impl Sequence {
    /// A request for a model with `context` positions.
    pub(super) fn new(request: &Request, text: &Text, context: usize) -> Result<Self> {
        // The last row is at the context's last position; what is chosen after it is not run.
        let room = context + 1 - request.prompt.len();
        Ok(Self {
            output: Output::new(text, request)?,
            tokens: request.prompt.clone(),
            prompt_tokens: request.prompt.len(),
            limit: request.max_tokens.unwrap_or(usize::MAX).min(room),
            step: StepSampling::new(&request.sampling),
            sampling: request.sampling.clone(),
            came: Instant::now(),
            place: None,
            heard: 0,
            first: None,
            grams: Grams::default(),
            record: Record::default(),
            sampler: None,
            unobserved: false,
        })
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_tokens]
    }

    /// How its tokens are chosen.
    pub(super) fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        self.place.as_ref().map(|place| place.slot)
    }

    /// Tokens heard so far.
    pub(super) fn heard(&self) -> usize {
        self.heard
    }

    /// It has a slot. What is left of its prompt goes in tiles of up to `tile` tokens, but for the last token, and as many
    /// before it as are no full tile and fit into a step of `few` rows: which of both a token is run in does not depend on who else is there.
    /// At `marks` a tile ends.
    pub(super) fn place(&mut self, place: Settled, tile: usize, few: usize, mut marks: Vec<usize>) {
        let Settled { place, tier } = place;
        let left = self.prompt_tokens - 1 - place.reused;
        let rest = left % tile;
        let tiles_end = place.reused + if rest <= few { left - rest } else { left };
        let Place { slot, reused, miss, .. } = place;
        marks.retain(|&mark| (reused + 1..=tiles_end).contains(&mark));
        marks.sort_unstable_by_key(|&mark| usize::MAX - mark);
        let since = Instant::now();
        self.place = Some(Placed { slot, reused, tier, miss, since, at: reused, tiles_end, asked: 0, marks });
    }

    /// Tokens of the prompt that it did not find.
    pub(super) fn fresh(&self) -> usize {
        self.place.as_ref().map_or(0, |place| self.prompt_tokens - place.reused)
    }

    /// Tokens of the prompt that are left for tiles.
    pub(super) fn left(&self) -> usize {
        self.place.as_ref().map_or(0, |place| place.tiles_end.saturating_sub(place.at))
    }

    /// Slot, position and tokens of the next tile, of up to `tokens`.
    pub(super) fn tile(&self, tokens: usize) -> Option<(Slot, usize, &[u32])> {
        let place = self.place.as_ref()?;
        let mark = place.marks.last().copied().unwrap_or(usize::MAX);
        let end = place.tiles_end.min(place.at + tokens).min(mark);
        Some((place.slot, place.at, &self.tokens[place.at..end]))
    }

    /// A tile of so many tokens was run. Says whether it ended at a mark.
    pub(super) fn tiled(&mut self, tokens: usize) -> bool {
        let Some(place) = &mut self.place else { return false };
        place.at += tokens;
        let at = place.at;
        place.marks.pop_if(|mark| *mark <= at).is_some()
    }

    /// Rows of its next step, of at most `few`; 0 where nothing is left to be run.
    pub(super) fn next_rows(&self, few: usize) -> usize {
        let Some(place) = &self.place else { return 0 };
        match self.prompt_tokens.checked_sub(place.at) {
            // The last token of the prompt is not run where nothing is to be chosen.
            Some(left @ 1..) => if self.limit == 0 { left - 1 } else { left }.min(few),
            _ => usize::from(place.asked < self.limit),
        }
    }

    /// Takes the rows of its next step.
    pub(super) fn take_rows(&mut self, few: usize, rows: &mut Vec<Row>) -> usize {
        let count = self.next_rows(few);
        let Some(place) = &mut self.place else { return 0 };
        for position in place.at..place.at + count {
            // Beyond what is known it is what the slot chose.
            let known = position < self.tokens.len();
            let token = if known { Token::Known(self.tokens[position]) } else { Token::Chosen };
            let wants = if position + 1 < self.prompt_tokens {
                Wants::Nothing
            } else {
                place.asked += 1;
                let wants = Wants::Choice(self.step.clone());
                self.step.advance();
                wants
            };
            rows.push(Row { token, slot: place.slot, position, wants });
        }
        place.at += count;
        count
    }

    /// Whether it might guess in its next step, which has so many rows of others. All that was chosen may not have been heard.
    pub(super) fn may_guess(&mut self, speculation: Speculation, others: usize, costs: &Costs) -> bool {
        let is_decoding =
            self.place.as_ref().is_some_and(|place| place.at + 1 >= self.prompt_tokens && place.asked < self.limit);
        if !is_decoding || !self.is_plain() {
            return false;
        }
        match speculation {
            Speculation::Off => false,
            Speculation::Depth(_) => self.grams.find(&self.tokens).is_some(),
            Speculation::Auto => {
                self.grams.find(&self.tokens).is_some_and(|alike| self.record.may_guess(alike, others, costs))
            }
        }
    }

    /// Whether the host can choose as its slot does without more ado: not where it matters how often a token was chosen, which are
    /// allowed, or what the logits were.
    fn is_plain(&self) -> bool {
        !self.sampling.counts_tokens() && !self.step.masked && !self.step.scored
    }

    /// Guesses up to `most` tokens, where all that was chosen has been heard.
    pub(super) fn guess(
        &mut self,
        speculation: Speculation,
        most: usize,
        others: usize,
        costs: &Costs,
        context: usize,
    ) -> Option<Guess> {
        let place = self.place.as_ref()?;
        if place.at + 1 != self.tokens.len() || place.asked != self.heard {
            return None;
        }
        // Neither past what is asked for nor past the context's last position.
        let most = most.min((self.limit - self.heard).saturating_sub(1)).min(context - 1 - place.at);
        if most == 0 || !self.is_plain() || speculation == Speculation::Off {
            return None;
        }
        let alike = self.grams.find(&self.tokens)?;
        let depth = match speculation {
            Speculation::Off => 0,
            Speculation::Depth(depth) => depth.min(most),
            Speculation::Auto => self.record.depth(alike, most, others, costs),
        };
        (depth > 0).then(|| Guess { alike, tokens: alike.guess(&self.tokens, depth) })
    }

    /// Takes the rows of a step that looks whether a guess is right: that of its last token, and one of each that is guessed.
    pub(super) fn take_guess(&mut self, guess: &Guess, rows: &mut Vec<Row>) -> usize {
        let Some(place) = &mut self.place else { return 0 };
        let tokens = self.tokens[place.at..].iter().chain(&guess.tokens);
        let row =
            |(position, &token)| Row { token: Token::Known(token), slot: place.slot, position, wants: Wants::Logits };
        rows.extend((place.at..).zip(tokens).map(row));
        place.at += 1 + guess.tokens.len();
        1 + guess.tokens.len()
    }

    /// Position after the last that was run.
    pub(super) fn reached(&self) -> usize {
        self.place.as_ref().map_or(0, |place| place.at)
    }

    /// Chooses from a row of logits, as its slot would have.
    pub(super) fn choose(&mut self, logits: &mut [f32]) -> Option<u32> {
        let sampler = self.sampler.get_or_insert_with(|| {
            let mut sampler = Sampler::at(self.step.clone(), &self.sampling.logit_bias);
            self.tokens.iter().for_each(|&token| sampler.observe(token));
            sampler
        });
        sampler.seek(self.heard as u64);
        self.unobserved = self.step.repeat_penalty != 1.0;
        sampler.sample(logits)
    }

    /// Of a guess `right` tokens were. Goes on with the last one that was heard, which was not run, unless it has ended.
    pub(super) fn verified(&mut self, guess: &Guess, right: usize, ended: bool) {
        self.record.verified(guess.alike, guess.tokens.len(), right);
        if let Some(place) = &mut self.place {
            place.at = self.tokens.len() - usize::from(!ended);
            place.asked = self.heard;
            self.step.draw = self.heard as u64;
        }
    }

    /// All its tokens, if its slot does not know of the last ones.
    pub(super) fn take_unobserved(&mut self) -> Option<(&[u32], &Sampling)> {
        std::mem::take(&mut self.unobserved).then_some((&self.tokens, &self.sampling))
    }

    /// Whether all that it asked for has been heard, and it has nothing left to ask for.
    pub(super) fn is_spent(&self) -> bool {
        self.place.as_ref().is_some_and(|place| self.next_rows(1) == 0 && place.asked == self.heard)
    }

    /// Tokens that its slot's state stands for, from `held` on, once all rows that were started have been run.
    pub(super) fn run_since(&self, held: usize) -> &[u32] {
        let end = self.place.as_ref().map_or(0, |place| place.at.min(self.tokens.len()));
        self.tokens.get(held..end).unwrap_or_default()
    }

    /// Hears the next token; says how the sequence ends, if it does. It is an end token if `ends`.
    pub(super) fn hear(&mut self, token: u32, ends: bool, listener: &mut dyn Listener) -> Result<Option<Finish>> {
        self.first.get_or_insert_with(Instant::now);
        self.heard += 1;
        if ends {
            return Ok(Some(Finish::Stop));
        }
        if let Flow::Stop(finish) = self.output.push(token, listener)? {
            return Ok(Some(finish));
        }
        if self.heard >= self.limit {
            return Ok(Some(Finish::Length));
        }
        self.tokens.push(token);
        if let Some(sampler) = &mut self.sampler {
            sampler.observe(token);
        }
        Ok(None)
    }

    /// Position after which the next token to be heard was chosen.
    pub(super) fn position(&self) -> usize {
        self.tokens.len() - 1
    }

    /// The end: what was held back goes to the listener.
    pub(super) fn end(self, finish: Finish, listener: &mut dyn Listener) -> Result<Summary> {
        let now = Instant::now();
        let began = self.place.as_ref().map_or(now, |place| place.since);
        let first = self.first.unwrap_or(now);
        let mut summary = Summary {
            prompt_tokens: self.prompt_tokens,
            reused_tokens: self.place.as_ref().map_or(0, |place| place.reused),
            tier: self.place.as_ref().and_then(|place| place.tier),
            completion_tokens: self.heard,
            guessed_tokens: self.record.guessed,
            right_tokens: self.record.right,
            miss: self.place.as_ref().and_then(|place| place.miss),
            finish,
            stop: None,
            queue_time: began - self.came,
            prompt_time: first.saturating_duration_since(began),
            decode_time: self.first.map_or(Duration::ZERO, |first| now - first),
        };
        summary.stop = self.output.finish(finish, listener)?;
        if summary.stop.is_some() {
            summary.finish = Finish::Stop;
        }
        Ok(summary)
    }
}
