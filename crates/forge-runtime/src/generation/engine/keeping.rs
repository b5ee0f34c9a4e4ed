//! What an engine knows of prompts: where it is brought from, and what becomes of what slots lose.

use std::ops::Range;
use std::time::Instant;

use super::super::super::batch::Slot;
use super::super::super::prefix::{BLOCK, InSlot, Kept, State};
use super::super::super::slots::{Miss, Tier};
use super::super::super::snapshots::{Folder, Snapshots};
use super::super::super::{LanguageModel, Result, state};
use super::super::sequence::{Sequence, Settled};
use super::{Engine, Flight};

/// Tokens that are worth being kept when a slot is about to lose them.
const WORTH_KEEPING: usize = 16;

/// Tokens of a prompt that are worth waiting for where another sequence is about to run them.
const WORTH_WAITING: usize = 32;

/// Tokens of a prompt that are written to a file as soon as they have been run: whoever stops the program then loses no more than
/// [`STORED_EVERY`] of them.
const LONG_PROMPT: usize = 256;

/// Tokens of a long prompt from file to file.
const STORED_EVERY: usize = 2048;

/// Marks of a prompt among its first special tokens, and as many among its last.
const MARKS: usize = 4;

/// Tokens from mark to mark of a long prompt.
const MARK_EVERY: usize = 2048;

impl<M: LanguageModel> Engine<M> {
    /// Keeps up to so many bytes of what slots held, beside the slots.
    pub fn keep_in_memory(&mut self, bytes: usize) {
        self.prefixes.shrink(bytes);
        self.store_lost();
    }

    /// Keeps in files what memory has no room for, and finds what is there already. What is to be said of them is among
    /// [`Engine::take_notices`].
    ///
    /// # Errors
    /// Those of [`Snapshots::open`].
    pub fn keep_on_disk(&mut self, folder: &Folder) -> Result<()> {
        let (info, context) = (self.model.info(), self.model.context());
        let layout = format!(
            "{} with a context of {context} in tiles of {} on {}: {}",
            info.weights_header_sha256,
            info.prefill_tile,
            self.model.gpu().map_or("no device", |gpu| &gpu.limits().name),
            state::layout(&self.model.states()),
        );
        self.snapshots = Some(Snapshots::open(folder, &layout, context, info.rewind.is_some())?);
        self.prefixes.hand_on();
        Ok(())
    }

    /// Bytes that are kept in files.
    pub fn bytes_on_disk(&self) -> u64 {
        self.snapshots.as_ref().map_or(0, Snapshots::bytes)
    }

    /// What the log should have, since it was last asked for.
    pub fn take_notices(&mut self) -> Vec<String> {
        self.snapshots.as_mut().map(Snapshots::take_notices).unwrap_or_default()
    }

    /// Keeps in files what slots and memory hold, as far as that is done by a time.
    pub fn store_all(&mut self, until: Instant) {
        if self.snapshots.is_none() {
            return;
        }
        for slot in 0..self.slots.count() {
            if self.slots.tokens(slot).is_empty() || self.slots.is_busy(slot) {
                continue;
            }
            if self.is_marked() {
                self.save(slot, 0);
            } else {
                self.store(slot, Some(until));
            }
        }
        let all = self.prefixes.all();
        if let Some(snapshots) = &mut self.snapshots {
            for kept in all {
                if snapshots.wait_for_room(kept.bytes(), until) {
                    snapshots.save(kept);
                }
            }
            snapshots.finish(until);
        }
    }

    /// Bytes that are kept beside the slots.
    pub fn kept_bytes(&self) -> usize {
        self.prefixes.bytes()
    }

    /// Whether sequences can be gone on with from marks alone.
    fn is_marked(&self) -> bool {
        self.model.info().rewind.is_some()
    }

    /// Tokens of a waiting sequence's prompt that would have to be run now.
    pub(super) fn uncached(&self, sequence: &Sequence) -> usize {
        let prompt = sequence.prompt();
        prompt.len() - if sequence.scores_prompt() { 0 } else { self.cached(prompt) }
    }

    /// Tokens of a prompt that are known.
    fn cached(&self, prompt: &[u32]) -> usize {
        let on_disk = self.snapshots.as_ref().map_or(0, |snapshots| snapshots.find(prompt).positions);
        self.slots.reusable(prompt).max(self.prefixes.find(prompt).positions).max(on_disk)
    }

    /// Whether another sequence is about to run much of what a waiting one's prompt begins with: who waits for that runs none of it, and
    /// finds it no later than where both ran it side by side.
    pub(super) fn is_being_run(&self, waiting: &Sequence) -> bool {
        if waiting.scores_prompt() {
            return false;
        }
        let prompt = &waiting.prompt()[..waiting.prompt().len() - 1];
        let shared = |running: &Sequence| {
            let at = running.at().filter(|at| *at < running.prompt().len())?;
            let shared = prompt.iter().zip(running.prompt()).take_while(|(a, b)| a == b).count();
            (shared > at).then_some(shared)
        };
        let coming = self.sequences.values().filter_map(shared).max().unwrap_or(0);
        coming >= WORTH_WAITING && coming > self.cached(waiting.prompt())
    }

    /// Takes a slot for a prompt, and brings there what is known of its beginning: of equals what lies in a slot, which is there already
    /// or copied fastest, then what is in memory.
    pub(super) fn settle(&mut self, prompt: &[u32]) -> Result<Option<Settled>> {
        let in_memory = self.prefixes.find(prompt);
        let on_disk = self.snapshots.as_ref().map(|snapshots| snapshots.find(prompt)).unwrap_or_default();
        let in_slots = self.slots.reusable(prompt);
        let (tier, positions) = if on_disk.positions > in_slots.max(in_memory.positions) {
            (Some(Tier::Disk), on_disk.positions)
        } else if in_memory.positions > in_slots {
            (Some(Tier::Memory), in_memory.positions)
        } else {
            (None, in_slots)
        };
        let shared = in_memory.shared.max(on_disk.shared);
        let place = match tier {
            Some(_) => self.slots.choose_for(prompt, positions, shared.max(self.slots.held_of(prompt))),
            None => self.slots.choose(prompt),
        };
        let Some(mut place) = place else { return Ok(None) };
        if tier.is_none() && shared > self.slots.held_of(prompt) {
            // It is kept, and cannot be gone on with from there.
            place.miss = Some(Miss::State { at: shared });
        }
        let tier = tier.or((place.reused > 0).then_some(match place.copied_from {
            Some(_) => Tier::Copy,
            None => Tier::Slot,
        }));
        // What is brought back is not what room is made of.
        let kept = (tier == Some(Tier::Memory)).then(|| self.prefixes.bring(&in_memory));
        self.save(place.slot, if tier == Some(Tier::Slot) { place.reused } else { 0 });
        let slot = place.slot;
        let brought = match (kept, tier, place.copied_from) {
            (Some(kept), _, _) => {
                self.slots.drop_slot(slot);
                kept.restore(&mut InSlot { model: &mut self.model, slot }).map(|()| place.reused)
            }
            (None, Some(Tier::Disk), _) => {
                self.slots.drop_slot(slot);
                let mut state = InSlot { model: &mut self.model, slot };
                let restored = self.snapshots.as_mut().map(|snapshots| snapshots.restore(&on_disk, &mut state));
                restored.unwrap_or(Ok(0))
            }
            (None, _, Some(from)) => self.model.copy_slot(from, slot, place.reused).map(|()| place.reused),
            (None, _, None) => Ok(place.reused),
        };
        let brought = brought.inspect_err(|_| self.slots.drop_slot(slot))?;
        if brought < place.reused {
            place.miss = Some(Miss::Unread { at: place.reused });
        }
        place.reused = brought;
        let shared = shared.max(self.slots.held_of(prompt));
        self.slots.occupy(prompt, &place);
        Ok(Some(Settled { place, tier: tier.filter(|_| brought > 0), shared }))
    }

    /// Takes a slot for a prompt all of which is to be run.
    pub(super) fn settle_anew(&mut self, prompt: &[u32]) -> Result<Option<Settled>> {
        let Some(place) = self.slots.choose_anew() else { return Ok(None) };
        self.save(place.slot, 0);
        self.slots.occupy(prompt, &place);
        Ok(Some(Settled { place, tier: None, shared: 0 }))
    }

    /// Keeps what a slot holds, all but its first `stays` tokens of which is about to be lost.
    pub(super) fn save(&mut self, slot: Slot, stays: usize) {
        let tokens = self.slots.tokens(slot);
        if tokens.len() - stays.min(tokens.len()) < WORTH_KEEPING {
            return;
        }
        let mut mark = None;
        if self.is_marked() {
            if !self.slots.is_at_end(slot) {
                return;
            }
            let mut bytes = Vec::new();
            if self.model.read_mark(slot, tokens.len(), &mut bytes).is_err() {
                return;
            }
            mark = Some(bytes);
        }
        // What cannot be kept has to be run again, no more.
        let _ = self.prefixes.keep(tokens, mark, &mut InSlot { model: &mut self.model, slot });
        self.store_lost();
    }

    /// Copies a block of a slot's state to memory while the device is at work on a step, so that who takes the slot next does not wait for
    /// all of it, and nobody else with them. It is the slot that will be lost next, or any where all are at work; and only where that
    /// leaves half of the room to what slots hold no more.
    pub(super) fn copy_ahead(&mut self, next: Option<&Flight>) {
        let held = |slot: Slot| self.slots.tokens(slot).len();
        if self.is_marked() || !self.prefixes.is_roomy_for((0..self.slots.count()).map(held).sum()) {
            return;
        }
        let on_their_way = || self.flight.iter().chain(next).flat_map(|flight| &flight.shares);
        // Blocks before what is being written.
        let end = |slot: Slot| {
            let first = on_their_way().filter(|share| share.slot == slot).map(|share| share.position).min();
            held(slot).min(first.unwrap_or(usize::MAX)) / BLOCK * BLOCK
        };
        let behind = |slot: Slot| end(slot).saturating_sub(self.slots.copied(slot));
        let slots = self.slots.oldest().map_or(0..self.slots.count(), |slot| slot..slot + 1);
        let Some(slot) = slots.max_by_key(|&slot| behind(slot)).filter(|&slot| behind(slot) > 0) else { return };
        let end = end(slot);
        let before = match self.slots.copied(slot) {
            0 => self.prefixes.whole_blocks(&self.slots.tokens(slot)[..end]),
            copied => copied,
        };
        let upto = end.min(before / BLOCK * BLOCK + BLOCK);
        if upto > before {
            let mut state = InSlot { model: &mut self.model, slot };
            // What cannot be copied is tried again when it is about to be lost.
            let _ = self.prefixes.keep(&self.slots.tokens(slot)[..upto], None, &mut state);
            self.store_lost();
        }
        self.slots.set_copied(slot, upto);
    }

    /// Has what memory had no room for written to files.
    fn store_lost(&mut self) {
        let lost = self.prefixes.take_lost();
        if let Some(snapshots) = &mut self.snapshots {
            lost.into_iter().for_each(|kept| snapshots.save(kept));
        }
    }

    /// Has what a slot holds written to files, as far as it is in none: what of it may wait to be written now, or, by some time, all.
    fn store(&mut self, slot: Slot, until: Option<Instant>) {
        let Some(snapshots) = &mut self.snapshots else { return };
        let tokens = self.slots.tokens(slot);
        if self.model.info().rewind.is_some() {
            // Its marks are in memory.
            self.prefixes.kept(tokens).into_iter().for_each(|kept| snapshots.save(kept));
            return;
        }
        let mut state = InSlot { model: &mut self.model, slot };
        while let Some(from) = snapshots.missing(tokens, &[]) {
            let (mut kept, mut end) = (Kept { from, ..Kept::default() }, from);
            for range in Kept::ranges(tokens.len(), from) {
                let mut rows = Vec::new();
                // What cannot be read has to be run again, no more.
                if state.read_rows(range.clone(), &mut rows).is_err() || !snapshots.has_room(kept.bytes() + rows.len())
                {
                    break;
                }
                kept.blocks.push(rows.into());
                end = range.end;
            }
            kept.tokens = tokens[..end].to_vec();
            let (bytes, all) = (kept.bytes(), end == tokens.len());
            if end > from {
                snapshots.save(kept);
            }
            if all || !until.is_some_and(|until| snapshots.wait_for_room(bytes.max(1), until)) {
                return;
            }
        }
    }

    /// Where the state of a prompt is kept while it is run, for a model that can be gone on with from there alone: at its `boundaries`, which
    /// are the end of its instructions and where it parts from what is known, since a third prompt will often part there too; and before the
    /// first and the last of the tokens that messages begin and end with, so that edited messages find it.
    pub(super) fn marks(&self, prompt: &[u32], boundaries: &[usize]) -> Vec<usize> {
        if !self.is_marked() || !self.prefixes.is_in_use() {
            return Vec::new();
        }
        let special = |(_, token): &(usize, &u32)| self.text.tokenizer.is_special(**token);
        let mut at: Vec<usize> = prompt.iter().enumerate().filter(special).map(|(at, _)| at).collect();
        if at.len() > 2 * MARKS {
            at.drain(MARKS..at.len() - MARKS);
        }
        at.extend_from_slice(boundaries);
        at.extend((1..).map(|k| k * MARK_EVERY).take_while(|&mark| mark < prompt.len()));
        at
    }

    /// Has what was run of a prompt written to files, if it is long: at its end, and on the way there. These positions were run last, and so many tokens are
    /// left of those that had to be.
    pub(super) fn store_on_the_way(&mut self, slot: Slot, ran: Range<usize>, left: usize, fresh: usize) {
        let is_due = left == 0 || ran.start / STORED_EVERY != ran.end / STORED_EVERY;
        if is_due && fresh >= LONG_PROMPT {
            self.store(slot, None);
        }
    }
}
