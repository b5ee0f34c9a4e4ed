//! What an engine runs before it was chosen: guesses, which are looked at when their step has ended, and tokens that a form forces.

use std::time::Instant;

use super::super::super::batch::Outcome;
use super::super::super::{Error, LanguageModel};
use super::super::policy::Id;
use super::super::sequence::{Guess, Room, Speculates};
use super::super::speculation::Speculation;
use super::super::{Audience, Finish, Scored};
use super::{Ended, Engine};

impl<M: LanguageModel> Engine<M> {
    /// Guesses tokens from now on, and runs together what a form forces. Texts are the same. Says why tokens are not guessed where this model
    /// does not allow it.
    ///
    /// # Errors
    /// The reason, in words; what a form forces is run together all the same, if steps have more than one row.
    pub fn speculate(&mut self, speculation: Speculation) -> Result<(), &'static str> {
        let info = self.model.info();
        // Rows that turn out wrong are cut back.
        let refusal = match info.rewind {
            _ if info.few_rows < 2 => Some("steps have one row"),
            Some(_) if info.recurrent_bytes > 0 => Some("a recurrent state cannot be cut back"),
            Some(rewind) if rewind < info.few_rows => Some("windows keep too little to be cut back"),
            _ => None,
        };
        let wanted = speculation != Speculation::Off;
        self.speculates = Speculates { guesses: wanted && refusal.is_none(), forced: wanted && info.few_rows > 1 };
        self.speculation = if self.speculates.guesses { speculation } else { Speculation::Off };
        refusal.filter(|_| wanted).map_or(Ok(()), Err)
    }

    /// Rows that a step of the next rows of these leaves.
    pub(super) fn room(&self, ids: &[Id]) -> Room {
        let few = self.model.info().few_rows;
        let rows = |id| self.sequences.get(id).map_or(0, |sequence| sequence.next_rows(few));
        let wanted = ids.iter().map(rows).sum::<usize>();
        Room { others: wanted.saturating_sub(1), spare: few.saturating_sub(wanted) }
    }

    /// Whether the step on its way has to be heard before one of these is started: because it has guesses, or because it is worth
    /// waiting to make some.
    pub(super) fn waits_for_tokens(&mut self, ids: &[Id]) -> bool {
        let Some(flight) = &self.flight else { return false };
        if flight.shares.iter().any(|share| share.guess.is_some()) {
            return true;
        }
        if !self.speculates.guesses {
            return false;
        }
        let room = self.room(ids);
        let (speculation, costs) = (self.speculation, &mut self.costs);
        let mut sequences = ids.iter().filter_map(|id| self.sequences.get(id));
        room.spare > 0 && sequences.any(|sequence| sequence.is_worth_waiting(speculation, room, costs))
    }

    /// A step of so many rows has ended, which was started once the one before had been heard, or before that.
    pub(super) fn time_step(&mut self, rows: usize, heard: bool) {
        let now = Instant::now();
        if let Some(before) = self.landed.replace(now) {
            self.costs.note(rows, heard, now - before);
        }
    }

    /// Has heard what the rows of a guess choose, as far as it is right, and the token after.
    pub(super) fn hear_guess(
        &mut self,
        id: Id,
        guess: &Guess,
        outcomes: Vec<Outcome>,
        audience: &mut dyn Audience,
        ended: &mut Ended,
    ) {
        let mut allowed = vec![0; self.model.info().vocab_size.div_ceil(32)];
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let Some(sequence) = self.sequences.get_mut(&id) else { return };
            let mut logits = if let Outcome::Logits(logits) = outcome { logits } else { Vec::new() };
            let top = sequence.top_logprobs();
            let scored = top.map(|top| (top, logits.clone()));
            let token = match sequence.choose(&mut logits, &mut allowed) {
                Ok(Some(token)) => token,
                Ok(None) => {
                    let position = sequence.position();
                    return self.fail(&[id], Error::NonFiniteLogits { position }, ended);
                }
                Err(error) => return self.fail(&[id], error, ended),
            };
            let listener = audience.listener(id);
            if index > 0 && !listener.keep_going() {
                sequence.verified(guess, index, true);
                return self.end(id, Finish::Cancelled, audience, ended);
            }
            let ends = self.text.defaults.end_token_ids.contains(&token);
            if let (Some((top, logits)), false) = (scored, ends) {
                let scored = Scored::new(&self.text.tokenizer, &logits, token, top);
                listener.scored(scored, sequence.text_bytes());
            }
            let is_right = guess.token(index) == Some(token);
            match sequence.hear(token, ends, listener) {
                Ok(None) if is_right => {}
                Ok(None) => {
                    sequence.verified(guess, index, false);
                    return self.hold(id);
                }
                Ok(Some(finish)) => {
                    sequence.verified(guess, index + usize::from(is_right), true);
                    return self.end(id, finish, audience, ended);
                }
                Err(error) => return self.fail(&[id], error, ended),
            }
        }
    }

    /// Has tokens heard that were forced, and that are run by a step whose choice comes after them.
    pub(super) fn hear_forced(&mut self, id: Id, forced: &[u32], audience: &mut dyn Audience, ended: &mut Ended) {
        for &token in forced {
            let Some(sequence) = self.sequences.get_mut(&id) else { return };
            let listener = audience.listener(id);
            if !listener.keep_going() {
                return self.end(id, Finish::Cancelled, audience, ended);
            }
            match sequence.hear_forced(token, listener) {
                Ok(None) => {}
                Ok(Some(finish)) => return self.end(id, finish, audience, ended),
                Err(error) => return self.fail(&[id], error, ended),
            }
        }
        self.hold(id);
    }
}
