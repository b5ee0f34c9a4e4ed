//! One request on its way: what of it is run next, and what has come of it.

use std::time::{Duration, Instant};

use super::super::Result;
use super::super::assets::Text;
use super::super::batch::{Row, Slot, Token, Wants};
use super::super::sampler::{Sampling, StepSampling};
use super::super::slots::{Miss, Place, Tier};
use super::super::tokenizer::Tokenizer;
use super::output::{Flow, Output};
use super::{Constraint, Finish, Listener, Request, Scored, Summary};

/// Tokens of a tile all of whose logits come to the host: of a large vocabulary those of a token take a megabyte.
const SCORED_TILE: usize = 64;

/// A request, from its coming to its end.
pub(super) struct Sequence {
    /// The prompt's tokens, and those chosen since that the sequence goes on with.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// Most tokens to choose.
    limit: usize,
    sampling: Sampling,
    step: StepSampling,
    /// Where other prompts may part from this one.
    boundaries: Vec<usize>,
    constraint: Option<Box<dyn Constraint>>,
    top_logprobs: Option<usize>,
    /// Whether the log-probabilities of the prompt's tokens are wanted.
    prompt_logprobs: bool,
    output: Output,
    came: Instant,
    /// Once it has one.
    place: Option<Placed>,
    /// Tokens chosen and heard, an end token included.
    heard: usize,
    first: Option<Instant>,
}

/// Where a prompt goes, and where what is known of it comes from.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    pub(super) place: Place,
    pub(super) tier: Option<Tier>,
    /// Tokens of it that are known, whether or not it can be gone on with from there.
    pub(super) shared: usize,
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
            step: StepSampling {
                masked: request.constraint.is_some(),
                scored: request.top_logprobs.is_some(),
                ..StepSampling::new(&request.sampling)
            },
            boundaries: request.boundaries.clone(),
            constraint: request.constraint.clone(),
            top_logprobs: request.top_logprobs,
            prompt_logprobs: request.prompt_logprobs,
            sampling: request.sampling.clone(),
            came: Instant::now(),
            place: None,
            heard: 0,
            first: None,
        })
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_tokens]
    }

    /// Where other prompts may part from this one.
    pub(super) fn boundaries(&self) -> &[usize] {
        &self.boundaries
    }

    /// How its tokens are chosen.
    pub(super) fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The most probable tokens that are wanted with each token's log-probability, if that is.
    pub(super) fn top_logprobs(&self) -> Option<usize> {
        self.top_logprobs
    }

    /// Whether the log-probabilities of its prompt's tokens are wanted.
    pub(super) fn scores_prompt(&self) -> bool {
        self.prompt_logprobs
    }

    /// Has the prompt's token behind a position heard, of these `logits` of that position, `[vocab]` f32.
    pub(super) fn score_prompt(
        &self,
        position: usize,
        logits: &[f32],
        tokenizer: &Tokenizer,
        listener: &mut dyn Listener,
    ) {
        if let Some(&token) = self.prompt().get(position + 1) {
            listener.prompt_scored(Scored::new(tokenizer, logits, token, self.top_logprobs.unwrap_or(0)));
        }
    }

    /// Bytes of its text so far, what is held back among them.
    pub(super) fn text_bytes(&self) -> usize {
        self.output.bytes()
    }

    /// Says which tokens may come next, after those that were heard.
    pub(super) fn allow(&mut self, allowed: &mut [u32]) -> Result<()> {
        match &mut self.constraint {
            Some(constraint) => constraint.allow(allowed),
            None => {
                allowed.fill(u32::MAX);
                Ok(())
            }
        }
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        self.place.as_ref().map(|place| place.slot)
    }

    /// Position of its next row, once it has a slot.
    pub(super) fn at(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.at)
    }

    /// Tokens heard so far.
    pub(super) fn heard(&self) -> usize {
        self.heard
    }

    /// It has a slot. What is left of its prompt goes in tiles of up to `tile` tokens, but for the last token, and as many
    /// before it as are no full tile and fit into a step of `few` rows: which of both a token is run in does not depend on who else is there.
    /// At `marks` a tile ends, and so is the last tile's end one where there are any.
    pub(super) fn place(&mut self, place: Settled, tile: usize, few: usize, mut marks: Vec<usize>) {
        let Settled { place, tier, .. } = place;
        let left = self.prompt_tokens - 1 - place.reused;
        let rest = left % tile;
        let tiles_end = place.reused + if rest <= few { left - rest } else { left };
        let Place { slot, reused, miss, .. } = place;
        if !marks.is_empty() {
            // For who asks the same again.
            marks.push(tiles_end);
        }
        marks.retain(|&mark| (reused + 1..=tiles_end).contains(&mark));
        marks.sort_unstable_by_key(|&mark| usize::MAX - mark);
        marks.dedup();
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
        let tokens = if self.prompt_logprobs { tokens.min(SCORED_TILE) } else { tokens };
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
            let known = position < self.prompt_tokens;
            let token = if known { Token::Known(self.tokens[position]) } else { Token::Chosen };
            let wants = if position + 1 < self.prompt_tokens {
                if self.prompt_logprobs { Wants::Logits } else { Wants::Nothing }
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
        let whole = self.constraint.as_mut().map(|constraint| constraint.take(token)).transpose()?;
        if let Flow::Stop(finish) = self.output.push(token, listener)? {
            return Ok(Some(finish));
        }
        if whole == Some(true) {
            return Ok(Some(Finish::Stop));
        }
        if self.heard >= self.limit {
            return Ok(Some(Finish::Length));
        }
        self.tokens.push(token);
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
