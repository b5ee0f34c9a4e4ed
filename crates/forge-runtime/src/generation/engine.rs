//! The one owner of a model: sequences side by side, a turn at a time.
//!
//! A turn starts a step or runs a tile, whichever [`Policy`] says. The step that was started before is heard while the new one runs, so that the
//! device never waits for the host: a row's token is then what its slot chose, which the host does not know yet. What may not happen while
//! a step is on its way (copies between slots, a sequence that begins) waits for its end.
//!
//! A sequence whose tokens are held to a form has its rows started like any other. Only the choice of the next token waits: the step is left open
//! until the one before has been heard, and which tokens may come is found out while the device is at work on the logits. Others in the same
//! step wait with it, and come to the same tokens. Where that form forces a run of tokens, the step after is started with all of them.
//!
//! Tokens may be guessed from what a sequence had before ([`speculation`](super::speculation)). Then the step before is waited for, and so is the one with
//! the guess, from whose logits the host chooses as the slot would have.

mod guessing;
mod keeping;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::assets::Text;
use super::super::batch::{self, Outcome, Slot, Step};
use super::super::prefix::Prefixes;
use super::super::slots::Slots;
use super::super::snapshots::Snapshots;
use super::super::{Error, LanguageModel, Result};
use super::policy::{Bounds, Id, Policy, Turn};
use super::sequence::{Guess, Room, Sequence, Speculates};
use super::speculation::{Costs, Speculation};
use super::{Finish, Listener, Request, Scored, Summary, check_prompt};

/// Who hears the text of which request.
pub trait Audience {
    /// The listener of a request that was taken and has not ended.
    fn listener(&mut self, id: Id) -> &mut dyn Listener;
}

/// A model, its text side, and the sequences that its slots hold.
pub struct Engine<M> {
    model: M,
    text: Arc<Text>,
    slots: Slots,
    prefixes: Prefixes,
    snapshots: Option<Snapshots>,
    speculation: Speculation,
    speculates: Speculates,
    costs: Costs,
    /// When the step before ended, if nothing but steps came since.
    landed: Option<Instant>,
    policy: Policy,
    sequences: BTreeMap<Id, Sequence>,
    /// Whom a slot is being looked for.
    settling: Option<Id>,
    flight: Option<Flight>,
    next: Id,
    began: Instant,
}

/// A step on its way, and whose rows it has.
struct Flight {
    step: Step,
    shares: Vec<Share>,
    /// Whether all that was chosen before had been heard when it was started.
    heard: bool,
}

/// Rows of a step that follow one another and are of one sequence.
struct Share {
    id: Id,
    slot: Slot,
    /// Position of the first.
    position: usize,
    rows: usize,
    /// Whether it chooses among tokens that are allowed.
    masked: bool,
    /// What the rows after the first are a guess of.
    guess: Option<Guess>,
    /// Tokens of the rows after the first that are forced, and have not been heard.
    forced: Vec<u32>,
}

/// What one slot is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The request that runs in it.
    pub request: Option<Id>,
    /// Tokens that it holds.
    pub tokens: usize,
    /// Tokens that the request was given so far.
    pub completion_tokens: usize,
}

/// What became of requests.
type Ended = Vec<(Id, Result<Summary>)>;

impl<M: LanguageModel> Engine<M> {
    /// An engine with no sequence yet.
    pub fn new(model: M, text: Arc<Text>) -> Self {
        let info = model.info();
        Self {
            slots: Slots::new(info.slots, info.rewind),
            prefixes: Prefixes::new(0, info.rewind.is_some()),
            snapshots: None,
            speculation: Speculation::Off,
            speculates: Speculates::default(),
            costs: Costs::default(),
            landed: None,
            policy: Policy::new(Bounds::new(info.few_rows, info.prefill_tile)),
            model,
            text,
            sequences: BTreeMap::new(),
            settling: None,
            flight: None,
            next: 0,
            began: Instant::now(),
        }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The text side.
    pub fn text(&self) -> &Arc<Text> {
        &self.text
    }

    /// Takes a request; turns bring it to its end.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`] and [`Error::TokenOutOfRange`] for prompts that do not fit, and
    /// [`Error::Tokenizer`].
    pub fn take(&mut self, request: &Request) -> Result<Id> {
        check_prompt(&request.prompt, self.model.info().vocab_size, self.model.context())?;
        let sequence = Sequence::new(request, &self.text, self.model.context(), self.speculates)?;
        let id = self.next;
        self.next += 1;
        let uncached = self.uncached(&sequence);
        self.policy.arrive(id, uncached, self.began.elapsed());
        self.sequences.insert(id, sequence);
        Ok(id)
    }

    /// Whether no request is waiting or running.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty() && self.flight.is_none()
    }

    /// Requests that have no slot yet.
    pub fn waiting(&self) -> usize {
        self.policy.waiting().count()
    }

    /// What each slot is at.
    pub fn status(&self) -> Vec<Status> {
        let in_slot = |slot| self.sequences.iter().find(|(_, sequence)| sequence.slot() == Some(slot));
        let status = |slot| Status {
            request: in_slot(slot).map(|(&id, _)| id),
            tokens: self.slots.tokens(slot).len(),
            completion_tokens: in_slot(slot).map_or(0, |(_, sequence)| sequence.heard()),
        };
        (0..self.slots.count()).map(status).collect()
    }

    /// Gives up all sequences that have slots, the one for which one was being looked for, and what slots hold; needed after a panic
    /// inside of [`Engine::turn`] only.
    pub fn reset(&mut self) -> Vec<Id> {
        self.landed = None;
        if let Some(Flight { step, .. }) = self.flight.take() {
            // Its rows must not be written into what comes next.
            let _ = self.model.finish(step);
        }
        self.slots.clear();
        let settling = self.settling.take();
        let lost =
            |(&id, sequence): (&Id, &Sequence)| (sequence.slot().is_some() || settling == Some(id)).then_some(id);
        let lost: Vec<Id> = self.sequences.iter().filter_map(lost).collect();
        for id in &lost {
            self.sequences.remove(id);
            self.policy.leave(*id);
        }
        lost
    }

    /// Does the next piece of work, and says which requests have ended, and how. Being cancelled is no error but a [`Finish`]
    /// for a request that has begun; one that has not is [`Error::Cancelled`].
    pub fn turn(&mut self, audience: &mut dyn Audience) -> Vec<(Id, Result<Summary>)> {
        let mut ended = Vec::new();
        self.let_go(audience, &mut ended);
        if self.slots.any_free() && self.policy.waiting().next().is_some() {
            self.land(audience, &mut ended);
            self.admit(audience, &mut ended);
        }
        match self.policy.next() {
            Turn::Step(mut ids) => {
                if self.waits_for_tokens(&ids) {
                    self.land(audience, &mut ended);
                    // Some may have ended.
                    match self.policy.next() {
                        Turn::Step(left) => ids = left,
                        Turn::Tile { .. } | Turn::Idle => return ended,
                    }
                }
                let next = self.start(&ids, audience, &mut ended);
                self.copy_ahead(next.as_ref());
                self.land(audience, &mut ended);
                self.flight = next.and_then(|flight| self.close(flight, audience, &mut ended));
            }
            Turn::Tile { id, tokens } => {
                // What others chose is heard before they wait for the tile.
                self.land(audience, &mut ended);
                self.tile(id, tokens, audience, &mut ended);
            }
            Turn::Idle => {
                self.land(audience, &mut ended);
                self.landed = None;
            }
        }
        ended
    }

    /// Generates one text. What a prompt has in common with a sequence that a slot holds, as the next turn of a chat has, is not run
    /// again.
    ///
    /// # Errors
    /// Those of [`Engine::take`]; [`Error::NonFiniteLogits`]; and whatever the model reports. Being cancelled is no error but a
    /// [`Finish`], unless it has not begun.
    pub fn generate(&mut self, request: &Request, listener: &mut dyn Listener) -> Result<Summary> {
        struct One<'a>(&'a mut dyn Listener);
        impl Audience for One<'_> {
            fn listener(&mut self, _: Id) -> &mut dyn Listener {
                self.0
            }
        }
        let id = self.take(request)?;
        let mut audience = One(listener);
        loop {
            let ended = self.turn(&mut audience).into_iter().find(|(ended, _)| *ended == id);
            if let Some((_, result)) = ended {
                // What was started for a token more is not left on its way.
                self.land(&mut audience, &mut Vec::new());
                return result;
            }
        }
    }

    /// Ends what nobody listens to any more.
    fn let_go(&mut self, audience: &mut dyn Audience, ended: &mut Ended) {
        let gone: Vec<Id> = self.sequences.keys().copied().filter(|&id| !audience.listener(id).keep_going()).collect();
        for id in gone {
            if self.sequences[&id].slot().is_some() {
                self.end(id, Finish::Cancelled, audience, ended);
            } else {
                self.fail(&[id], Error::Cancelled, ended);
            }
        }
    }

    /// Gives free slots to those that wait. No step is on its way.
    fn admit(&mut self, audience: &mut dyn Audience, ended: &mut Ended) {
        self.snapshots.iter_mut().for_each(Snapshots::collect);
        while self.slots.any_free() {
            let waiting: Vec<Id> = self.policy.waiting().collect();
            for id in waiting {
                let uncached = self.uncached(&self.sequences[&id]);
                self.policy.estimate(id, uncached);
            }
            let ready = |id| !self.is_being_run(&self.sequences[&id]);
            let Some(id) = self.policy.next_for_slot(self.began.elapsed(), ready) else { return };
            let Some(sequence) = self.sequences.get(&id) else { return };
            let (prompt, anew) = (sequence.prompt().to_vec(), sequence.scores_prompt());
            self.settling = Some(id);
            let settled = match if anew { self.settle_anew(&prompt) } else { self.settle(&prompt) } {
                Ok(Some(settled)) => settled,
                Ok(None) => {
                    self.settling = None;
                    return;
                }
                Err(error) => {
                    self.settling = None;
                    self.fail(&[id], error, ended);
                    continue;
                }
            };
            let boundaries = [self.sequences[&id].boundaries(), &[settled.shared]].concat();
            let (info, marks) = (self.model.info(), self.marks(&prompt, &boundaries));
            self.landed = None;
            let Some(sequence) = self.sequences.get_mut(&id) else { return };
            self.model.observe(settled.place.slot, &prompt, &[], sequence.sampling());
            sequence.place(settled, info.prefill_tile, info.few_rows, marks);
            self.settling = None;
            let (left, rows) = (sequence.left(), sequence.next_rows(info.few_rows));
            self.policy.place(id, left, rows);
            if left == 0 && rows == 0 {
                // A prompt that is known, of which nothing is wanted.
                self.end(id, Finish::Length, audience, ended);
            }
        }
    }

    /// Starts a step of the next rows of these, and of what they go on with where that is known or guessed.
    fn start(&mut self, ids: &[Id], audience: &mut dyn Audience, ended: &mut Ended) -> Option<Flight> {
        let few = self.model.info().few_rows;
        let (mut rows, mut shares) = (Vec::with_capacity(few), Vec::with_capacity(ids.len()));
        let context = self.model.context();
        let (heard, mut room) = (self.flight.is_none(), self.room(ids));
        self.policy.stepped(ids);
        for &id in ids {
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            let Some(slot) = sequence.slot() else { continue };
            let first = rows.len();
            let forced = sequence.take_forced(room.spare + 1, context, &mut rows).unwrap_or_default();
            let mut guess = None;
            if forced.is_empty() && heard {
                guess = sequence.guess(self.speculation, room, context, &mut self.costs);
            }
            match &guess {
                Some(guess) => drop(sequence.take_guess(guess, &mut rows)),
                None if forced.is_empty() => {
                    if let Some((prompt, chosen, sampling)) = sequence.take_unobserved() {
                        self.model.observe(slot, prompt, chosen, sampling);
                    }
                    sequence.take_rows(few - first, &mut rows);
                }
                None => {}
            }
            let count = rows.len() - first;
            if guess.is_some() || !forced.is_empty() {
                room = Room { others: room.others + count - 1, spare: room.spare - (count - 1) };
                // Of these some may turn out not to be its own.
                self.slots.reach(slot, sequence.reached());
            }
            let (position, masked) = (rows.get(first).map_or(0, |row| row.position), batch::is_open(&rows[first..]));
            shares.push(Share { id, slot, position, rows: count, masked, guess, forced });
            if sequence.next_rows(few) == 0 {
                // Whatever comes of these, nothing more is run.
                self.policy.leave(id);
            }
            self.hold(id);
        }
        match self.model.step(&rows) {
            Ok(step) => Some(Flight { step, shares, heard }),
            Err(error) => {
                self.land(audience, ended);
                self.lose(&shares, error, ended);
                None
            }
        }
    }

    /// Has the tokens of an open step chosen. What was chosen before has been heard.
    fn close(&mut self, flight: Flight, audience: &mut dyn Audience, ended: &mut Ended) -> Option<Flight> {
        let Flight { step, shares, heard } = flight;
        if !step.is_open() {
            return Some(Flight { step, shares, heard });
        }
        let mut allowed = vec![u32::MAX; self.model.info().vocab_size.div_ceil(32)];
        for &Share { id, slot, ref forced, .. } in shares.iter().filter(|share| share.masked) {
            self.hear_forced(id, forced, audience, ended);
            match self.sequences.get_mut(&id).map(|sequence| sequence.allow(&mut allowed)) {
                Some(Ok(())) => {}
                // Of one that has ended meanwhile it does not matter.
                None => allowed.fill(u32::MAX),
                Some(Err(error)) => {
                    allowed.fill(u32::MAX);
                    self.fail(&[id], error, ended);
                }
            }
            self.model.allow(slot, &allowed);
        }
        match self.model.choose(step) {
            Ok(step) => Some(Flight { step, shares, heard }),
            Err(error) => {
                self.lose(&shares, error, ended);
                None
            }
        }
    }

    /// Waits for the step that is on its way, and has what was chosen heard.
    fn land(&mut self, audience: &mut dyn Audience, ended: &mut Ended) {
        let Some(Flight { step, shares, heard }) = self.flight.take() else { return };
        let mut outcomes = match self.model.finish(step) {
            Ok(outcomes) => outcomes.into_iter(),
            Err(error) => return self.lose(&shares, error, ended),
        };
        self.time_step(shares.iter().map(|share| share.rows).sum(), heard);
        for Share { id, position, rows, guess, .. } in shares {
            let outcomes: Vec<Outcome> = outcomes.by_ref().take(rows).collect();
            if let Some(guess) = guess {
                self.hear_guess(id, &guess, outcomes, audience, ended);
                continue;
            }
            // One that has ended meanwhile had a row for nothing.
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            for (position, outcome) in (position..).zip(&outcomes) {
                if let Outcome::Logits(logits) = outcome {
                    sequence.score_prompt(position, logits, &self.text.tokenizer, audience.listener(id));
                }
            }
            let last = outcomes.last();
            let token = match last.and_then(Outcome::choice) {
                Some(Some(token)) => token,
                Some(None) => {
                    let position = sequence.position();
                    self.fail(&[id], Error::NonFiniteLogits { position }, ended);
                    continue;
                }
                None => {
                    if sequence.is_spent() {
                        self.end(id, Finish::Length, audience, ended);
                    }
                    continue;
                }
            };
            let ends = self.text.defaults.end_token_ids.contains(&token);
            if let (Some(Outcome::Scored(_, logits)), Some(top), false) = (last, sequence.top_logprobs(), ends) {
                let scored = Scored::new(&self.text.tokenizer, logits, token, top);
                audience.listener(id).scored(scored, sequence.text_bytes());
            }
            match sequence.hear(token, ends, audience.listener(id)) {
                Ok(None) => self.hold(id),
                Ok(Some(finish)) => self.end(id, finish, audience, ended),
                Err(error) => self.fail(&[id], error, ended),
            }
        }
    }

    /// Runs a tile.
    fn tile(&mut self, id: Id, tokens: usize, audience: &mut dyn Audience, ended: &mut Ended) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let Some((slot, position, tile)) = sequence.tile(tokens) else { return };
        self.landed = None;
        let (start, count) = (Instant::now(), tile.len());
        let mut logits = Vec::new();
        let wanted = sequence.scores_prompt().then_some(&mut logits);
        if let Err(error) = self.model.tile(slot, position, tile, wanted) {
            return self.fail(&[id], error, ended);
        }
        for (position, logits) in (position..).zip(logits.chunks(self.model.info().vocab_size)) {
            sequence.score_prompt(position, logits, &self.text.tokenizer, audience.listener(id));
        }
        let at_mark = sequence.tiled(count);
        let rows = sequence.next_rows(self.model.info().few_rows);
        let (left, fresh) = (sequence.left(), sequence.fresh());
        let done = left == 0 && rows == 0;
        self.policy.tiled(id, count, start.elapsed(), rows);
        self.hold(id);
        if at_mark {
            self.save(slot, 0);
        }
        self.store_on_the_way(slot, position..position + count, left, fresh);
        if done {
            self.end(id, Finish::Length, audience, ended);
        }
    }

    /// Says to the slots what a sequence's state stands for by now.
    fn hold(&mut self, id: Id) {
        if let Some(sequence) = self.sequences.get(&id)
            && let Some(slot) = sequence.slot()
        {
            let held = self.slots.tokens(slot).len();
            self.slots.push(slot, sequence.run_since(held));
        }
    }

    /// A sequence ends in good order: its slot keeps what it holds.
    fn end(&mut self, id: Id, finish: Finish, audience: &mut dyn Audience, ended: &mut Ended) {
        self.hold(id);
        self.policy.leave(id);
        let Some(sequence) = self.sequences.remove(&id) else { return };
        if let Some(slot) = sequence.slot() {
            self.slots.release(slot);
        }
        ended.push((id, sequence.end(finish, audience.listener(id))));
    }

    /// A step came to nothing, and with it those that have a share in it. Nothing is known of its slots any more, also where their
    /// sequences have ended.
    fn lose(&mut self, shares: &[Share], error: Error, ended: &mut Ended) {
        let ids: Vec<Id> = shares.iter().map(|share| share.id).collect();
        self.fail(&ids, error, ended);
        shares.iter().for_each(|share| self.slots.drop_slot(share.slot));
    }

    /// Sequences come to nothing, and nothing is known of their slots' state.
    fn fail(&mut self, ids: &[Id], error: Error, ended: &mut Ended) {
        let error = Arc::new(error);
        let mut lost: Vec<Id> = Vec::new();
        for id in ids {
            self.policy.leave(*id);
            if let Some(sequence) = self.sequences.remove(id) {
                sequence.slot().into_iter().for_each(|slot: Slot| self.slots.drop_slot(slot));
                lost.push(*id);
            }
        }
        let mut error = Some(error);
        while let Some(id) = lost.pop() {
            let own = if lost.is_empty() { error.take() } else { error.clone() };
            let Some(own) = own else { return };
            ended.push((id, Err(Arc::try_unwrap(own).unwrap_or_else(Error::Together))));
        }
    }
}
