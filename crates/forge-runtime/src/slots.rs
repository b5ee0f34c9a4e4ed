//! Which tokens the state of each of a model's slots stands for, and which slot a prompt goes to.

use std::fmt;

use super::batch::Slot;

/// The tokens that slots hold.
#[derive(Debug)]
pub struct Slots {
    held: Vec<Held>,
    /// Positions by which a sequence can be cut back; any number if none.
    rewind: Option<usize>,
    /// Prompts so far.
    clock: u64,
}

/// What one slot holds.
#[derive(Debug, Clone, Default)]
struct Held {
    tokens: Vec<u32>,
    /// Most positions that the slot held since its sequence began: a windowed cache has forgotten what lies far before.
    reached: usize,
    /// The prompt that it was last used for.
    used: u64,
    /// A sequence is running in it.
    busy: bool,
    /// Its first tokens whose state was copied to memory ahead of their loss.
    copied: usize,
}

/// Where a prompt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: Slot,
    /// Tokens of the prompt that its state stands for, once copied.
    pub reused: usize,
    /// The slot that the state has to be copied from first.
    pub copied_from: Option<Slot>,
    /// Why no more is reused.
    pub miss: Option<Miss>,
}

/// Where what was reused of a prompt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// It was in the slot that the prompt goes to.
    Slot,
    /// It was copied from another.
    Copy,
    /// It was kept in memory.
    Memory,
    /// It was kept in files.
    Disk,
}

impl Tier {
    /// All of them, the nearest first.
    pub const ALL: [Self; 4] = [Self::Slot, Self::Copy, Self::Memory, Self::Disk];

    /// Its name in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Copy => "copy",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// Why a prompt was not reused to where it parts from nothing that is held, or is wholly new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// Nothing that is held begins as it does.
    New,
    /// What is held of it goes another way after so many tokens.
    Parted {
        /// Tokens in common.
        at: usize,
    },
    /// More of it is held, but that state can be gone on with from its end alone, or from not far before it.
    State {
        /// Tokens in common.
        at: usize,
    },
    /// More of it is in files that could not be read, or are not what was written.
    Unread {
        /// Tokens that they were to have.
        at: usize,
    },
}

impl fmt::Display for Miss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => formatter.write_str("new"),
            Self::Parted { at } => write!(formatter, "parted@{at}"),
            Self::State { at } => write!(formatter, "state@{at}"),
            Self::Unread { at } => write!(formatter, "unread@{at}"),
        }
    }
}

impl Slots {
    /// Empty slots of a model whose sequences can be cut back by `rewind` positions; by any number if none is given.
    pub fn new(slots: usize, rewind: Option<usize>) -> Self {
        Self { held: vec![Held::default(); slots.max(1)], rewind, clock: 0 }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// The tokens that a slot holds.
    pub fn tokens(&self, slot: Slot) -> &[u32] {
        &self.held[slot].tokens
    }

    /// Whether a sequence is running in a slot.
    pub fn is_busy(&self, slot: Slot) -> bool {
        self.held[slot].busy
    }

    /// Whether there is a slot for another sequence.
    pub fn any_free(&self) -> bool {
        self.held.iter().any(|held| !held.busy)
    }

    /// Tokens of a prompt that [`Slots::place`] would find now.
    pub fn reusable(&self, prompt: &[u32]) -> usize {
        (0..self.held.len()).map(|slot| self.usable(slot, prompt)).max().unwrap_or(0)
    }

    /// Tokens of a prompt that some slot holds, whether or not it can be gone on with from there.
    pub fn held_of(&self, prompt: &[u32]) -> usize {
        (0..self.held.len()).map(|slot| self.shared(slot, prompt)).max().unwrap_or(0)
    }

    /// Tokens of a prompt that a slot holds, but for its last.
    fn shared(&self, slot: Slot, prompt: &[u32]) -> usize {
        let limit = prompt.len().saturating_sub(1);
        self.held[slot].tokens.iter().zip(&prompt[..limit]).take_while(|(a, b)| a == b).count()
    }

    /// Those of them that it can be gone on from.
    fn usable(&self, slot: Slot, prompt: &[u32]) -> usize {
        let shared = self.shared(slot, prompt);
        let whole = self.rewind.is_none_or(|rewind| self.held[slot].reached - shared <= rewind);
        if whole { shared } else { 0 }
    }

    /// Finds the free slot in which the least of a prompt has to be run; none where all are busy. A sequence that goes on
    /// stays where it is, and so does one that leaves at most half of what it held. One that parts from more gets a copy of
    /// what they share in the slot that was not used for longest, so that both stay, or is cut back where that is the same slot.
    /// Busy ones are copied from too.
    ///
    /// The last token of a prompt is always run: its logits are wanted.
    pub fn choose(&self, prompt: &[u32]) -> Option<Place> {
        let oldest = self.oldest()?;
        let usable: Vec<usize> = (0..self.held.len()).map(|slot| self.usable(slot, prompt)).collect();
        // Of equals a free one, and of those the one that was used last.
        let best = (0..self.held.len())
            .max_by_key(|&slot| (usable[slot], !self.held[slot].busy, self.held[slot].used))
            .unwrap_or(oldest);
        let reused = usable[best];
        let held = &self.held[best];
        let stays = !held.busy && (best == oldest || held.tokens.len() - reused <= held.tokens.len() / 2);
        let miss = self.miss(prompt, reused);
        let place = match (reused, stays) {
            (0, _) => Place { slot: oldest, reused: 0, copied_from: None, miss },
            (reused, true) => Place { slot: best, reused, copied_from: None, miss },
            (reused, false) => Place { slot: oldest, reused, copied_from: Some(best), miss },
        };
        Some(place)
    }

    /// The free slot that was not used for longest, which is the next to lose what it holds.
    pub fn oldest(&self) -> Option<Slot> {
        let free = (0..self.held.len()).filter(|&slot| !self.held[slot].busy);
        free.min_by_key(|&slot| (self.held[slot].used, slot))
    }

    /// The place of a prompt whose first tokens come from elsewhere: the free slot that was not used for longest.
    pub fn choose_for(&self, prompt: &[u32], reused: usize, shared: usize) -> Option<Place> {
        let miss = if shared > reused {
            Some(Miss::State { at: shared })
        } else {
            (shared + 1 < prompt.len()).then_some(Miss::Parted { at: shared })
        };
        Some(Place { slot: self.oldest()?, reused, copied_from: None, miss })
    }

    /// The place of a prompt all of which is run, whatever is known of it: the free slot that was not used for longest.
    pub fn choose_anew(&self) -> Option<Place> {
        Some(Place { slot: self.oldest()?, reused: 0, copied_from: None, miss: None })
    }

    /// Takes the slot of a place that was chosen. The state of what is reused is copied there next.
    pub fn occupy(&mut self, prompt: &[u32], place: &Place) {
        self.clock += 1;
        let from = place.copied_from.unwrap_or(place.slot);
        let here = place.reused > 0 && self.shared(from, prompt) >= place.reused;
        let reached = if here { self.held[from].reached } else { place.reused };
        let tokens = prompt[..place.reused].to_vec();
        self.held[place.slot] = Held { tokens, reached, used: self.clock, busy: true, copied: 0 };
    }

    /// [`Slots::choose`] and [`Slots::occupy`].
    pub fn place(&mut self, prompt: &[u32]) -> Option<Place> {
        let place = self.choose(prompt)?;
        self.occupy(prompt, &place);
        Some(place)
    }

    /// Whether a slot's state is what its tokens have come to, with nothing after them.
    pub fn is_at_end(&self, slot: Slot) -> bool {
        let held = &self.held[slot];
        held.reached == held.tokens.len()
    }

    /// Why no more than `reused` tokens of a prompt are reused.
    fn miss(&self, prompt: &[u32], reused: usize) -> Option<Miss> {
        let shared = |slot: &Slot| self.shared(*slot, prompt);
        let at = (0..self.held.len()).map(|slot| shared(&slot)).max().unwrap_or(0);
        // Nothing is missed where a whole sequence, or all of the prompt, was reused.
        let whole = |slot: Slot| self.held[slot].tokens.len() == at && shared(&slot) == at;
        match at {
            0 => Some(Miss::New),
            _ if at > reused => Some(Miss::State { at }),
            _ if at + 1 == prompt.len() || (0..self.held.len()).any(whole) => None,
            _ => Some(Miss::Parted { at }),
        }
    }

    /// A slot's sequence has gone on by these tokens.
    pub fn push(&mut self, slot: Slot, tokens: &[u32]) {
        let held = &mut self.held[slot];
        held.tokens.extend_from_slice(tokens);
        held.reached = held.reached.max(held.tokens.len());
    }

    /// So many positions of a slot's sequence were run, though it may not hold as many: guesses were among them.
    pub fn reach(&mut self, slot: Slot, positions: usize) {
        let held = &mut self.held[slot];
        held.reached = held.reached.max(positions);
    }

    /// So many of a slot's first tokens have their state in memory too, as far as was seen to so far.
    pub fn copied(&self, slot: Slot) -> usize {
        self.held[slot].copied
    }

    /// Says so.
    pub fn set_copied(&mut self, slot: Slot, tokens: usize) {
        self.held[slot].copied = tokens;
    }

    /// A slot's sequence runs no more; what it holds stays.
    pub fn release(&mut self, slot: Slot) {
        self.held[slot].busy = false;
    }

    /// Says what a slot holds now; no sequence is running in it.
    pub fn keep(&mut self, slot: Slot, tokens: Vec<u32>) {
        let held = &mut self.held[slot];
        held.reached = held.reached.max(tokens.len());
        held.tokens = tokens;
        held.busy = false;
        held.copied = 0;
    }

    /// Cuts a slot's sequence back. `false` where its model cannot go on from there: the slot is empty then.
    pub fn truncate(&mut self, slot: Slot, positions: usize) -> bool {
        let held = &mut self.held[slot];
        let kept = positions.min(held.tokens.len());
        if self.rewind.is_some_and(|rewind| held.reached - kept > rewind) {
            *held = Held { used: held.used, ..Held::default() };
            return false;
        }
        held.tokens.truncate(positions);
        held.copied = held.copied.min(kept);
        true
    }

    /// Forgets what a slot holds.
    pub fn drop_slot(&mut self, slot: Slot) {
        self.held[slot] = Held::default();
    }

    /// Forgets what all slots hold.
    pub fn clear(&mut self) {
        self.held.fill(Held::default());
    }
}
