//! One request on its way: what of it is run next, and what has come of it.

use std::time::{Duration, Instant};

use super::super::Result;
use super::super::assets::Text;
use super::super::batch::{Row, Slot, Token, Wants};
use super::super::sampler::{Sampler, Sampling, StepSampling};
use super::super::slots::{Miss, Place, Tier};
use super::super::tokenizer::Tokenizer;
use super::output::{Flow, Output};
use super::speculation::{Alike, Costs, Grams, Record, Speculation};
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
    /// Whether tokens are guessed from what it had before, and whether runs of tokens that its form forces are run together.
    speculates: Speculates,
    grams: Grams,
    /// Where what was heard so far was had before.
    alike: Option<Alike>,
    record: Record,
    chooser: Option<Chooser>,
    /// Tokens were chosen that its slot does not know of.
    unobserved: bool,
    /// Tokens that its form forces: what the last row that was run chooses, and what comes after it.
    certain: Vec<u32>,
    /// Tokens that were run beside others because they were forced.
    forced: usize,
}

/// What of a sequence is run before it has been chosen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Speculates {
    /// Tokens that may come.
    pub(super) guesses: bool,
    /// Tokens that do.
    pub(super) forced: bool,
}

/// Chooses where guesses are, as the sequence's slot would.
struct Chooser {
    sampler: Sampler,
    /// Tokens of the sequence that it knows of.
    known: usize,
}

/// What a sequence may go on with.
pub(super) struct Guess(Vec<u32>);

impl Guess {
    /// The token that is guessed after so many.
    pub(super) fn token(&self, index: usize) -> Option<u32> {
        self.0.get(index).copied()
    }
}

/// What the rows of other sequences leave to guess with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Rows that others have.
    pub(super) others: usize,
    /// Rows that are left.
    pub(super) spare: usize,
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
    pub(super) fn new(request: &Request, text: &Text, context: usize, speculates: Speculates) -> Result<Self> {
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
            // A slot counts what it chose itself, step by step; it is not told in the midst of steps.
            speculates: Speculates {
                forced: speculates.forced && !request.sampling.has_penalties() && request.top_logprobs.is_none(),
                ..speculates
            },
            grams: Grams::default(),
            alike: None,
            record: Record::default(),
            chooser: None,
            unobserved: false,
            certain: Vec::new(),
            forced: 0,
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
        let Some(constraint) = &mut self.constraint else {
            allowed.fill(u32::MAX);
            return Ok(());
        };
        if self.speculates.forced {
            self.certain.clear();
            self.certain.extend_from_slice(constraint.forced());
        }
        constraint.allow(allowed)
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
            let known = position < self.tokens.len();
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

    /// Takes the rows of tokens that are forced, as many as there is room for: the one that was chosen last, which need not have been
    /// heard, and those after it, of which nothing is wanted but what follows the last. Gives those after the first; none where these
    /// rows would be those of [`Sequence::take_rows`].
    pub(super) fn take_forced(&mut self, room: usize, context: usize, rows: &mut Vec<Row>) -> Option<Vec<u32>> {
        let place = self.place.as_mut()?;
        let certain = std::mem::take(&mut self.certain);
        let count = certain.len().min(room).min(self.limit - place.asked).min(context - place.at);
        if count < 2 {
            return None;
        }
        for (index, &token) in certain[..count].iter().enumerate() {
            let wants = if index + 1 < count { Wants::Nothing } else { Wants::Choice(self.step.clone()) };
            self.step.advance();
            rows.push(Row { token: Token::Known(token), slot: place.slot, position: place.at + index, wants });
        }
        place.at += count;
        place.asked += count;
        Some(certain[1..count].to_vec())
    }

    /// Hears a token that was forced and run with others; see [`Sequence::hear`].
    pub(super) fn hear_forced(&mut self, token: u32, listener: &mut dyn Listener) -> Result<Option<Finish>> {
        self.forced += 1;
        // A form says itself where it ends: no end token is among them.
        self.hear(token, false, listener)
    }

    /// Whether its next token follows from its own last one, and more may follow.
    fn is_decoding(&self) -> bool {
        let is_decoding = |place: &Placed| place.at + 1 >= self.prompt_tokens && place.asked + 1 < self.limit;
        self.speculates.guesses && self.place.as_ref().is_some_and(is_decoding)
    }

    /// Whether it is worth waiting for the token that is being chosen, since something may be guessed after it.
    pub(super) fn is_worth_waiting(&self, speculation: Speculation, room: Room, costs: &mut Costs) -> bool {
        let Some(alike) = self.alike.filter(|_| self.is_decoding() && self.certain.len() < 2) else { return false };
        match speculation {
            Speculation::Off => false,
            Speculation::Depth(_) => true,
            Speculation::Auto => self.record.is_worth_waiting(alike, room.spare, room.others, costs),
        }
    }

    /// Guesses tokens, where all that was chosen has been heard.
    pub(super) fn guess(
        &mut self,
        speculation: Speculation,
        room: Room,
        context: usize,
        costs: &mut Costs,
    ) -> Option<Guess> {
        let place = self.place.as_ref().filter(|_| self.is_decoding())?;
        if place.at + 1 != self.tokens.len() || place.asked != self.heard {
            return None;
        }
        // Neither past what is asked for nor past the context's last position.
        let most = room.spare.min(self.limit - self.heard - 1).min(context - 1 - place.at);
        let alike = self.alike.filter(|_| most > 0)?;
        let depth = match speculation {
            Speculation::Off => 0,
            Speculation::Depth(depth) => depth.min(most),
            Speculation::Auto => self.record.depth(alike, most, room.others, costs),
        };
        (depth > 0).then(|| Guess(alike.guess(&self.tokens, depth)))
    }

    /// Takes the rows of a step that looks whether a guess is right: that of its last token, and one of each that is guessed.
    pub(super) fn take_guess(&mut self, guess: &Guess, rows: &mut Vec<Row>) -> usize {
        let Some(place) = &mut self.place else { return 0 };
        let tokens = self.tokens[place.at..].iter().chain(&guess.0);
        let row =
            |(position, &token)| Row { token: Token::Known(token), slot: place.slot, position, wants: Wants::Logits };
        rows.extend((place.at..).zip(tokens).map(row));
        place.at += 1 + guess.0.len();
        1 + guess.0.len()
    }

    /// Position after the last that was run.
    pub(super) fn reached(&self) -> usize {
        self.place.as_ref().map_or(0, |place| place.at)
    }

    /// Chooses from a row of logits, as its slot would have, after what was heard; `allowed` is to work with, `[vocab / 32]`, rounded up.
    pub(super) fn choose(&mut self, logits: &mut [f32], allowed: &mut [u32]) -> Result<Option<u32>> {
        let is_held = self.constraint.is_some();
        if is_held {
            self.allow(allowed)?;
        }
        let chooser = self.chooser.get_or_insert_with(|| {
            let mut sampler = Sampler::at(self.step.clone(), &self.sampling.logit_bias);
            self.tokens[..self.prompt_tokens].iter().for_each(|&token| sampler.observe(token));
            Chooser { sampler, known: self.prompt_tokens }
        });
        // It knows what it chose itself.
        self.tokens[chooser.known..].iter().for_each(|&token| chooser.sampler.chose(token));
        chooser.known = self.tokens.len() + 1;
        chooser.sampler.seek(self.heard as u64);
        self.unobserved = self.sampling.has_penalties();
        Ok(chooser.sampler.sample_among(logits, is_held.then_some(&*allowed)))
    }

    /// Of a guess `right` tokens were. Goes on with the last one that was heard, which was not run, unless it has ended.
    pub(super) fn verified(&mut self, guess: &Guess, right: usize, ended: bool) {
        self.record.verified(guess.0.len(), right);
        if let Some(place) = &mut self.place {
            place.at = self.tokens.len() - usize::from(!ended);
            place.asked = self.heard;
            self.step.draw = self.heard as u64;
        }
    }

    /// The tokens of its prompt, and those since, if its slot does not know of the last ones.
    pub(super) fn take_unobserved(&mut self) -> Option<(&[u32], &[u32], &Sampling)> {
        let (prompt, chosen) = self.tokens.split_at(self.prompt_tokens);
        std::mem::take(&mut self.unobserved).then_some((prompt, chosen, &self.sampling))
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
        if let Some(alike) = self.alike {
            self.record.came(alike, alike.guess(&self.tokens, 1) == [token]);
        }
        self.tokens.push(token);
        if self.speculates.guesses {
            self.alike = self.grams.find(&self.tokens);
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
            forced_tokens: self.forced,
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
