//! Which tokens the state of each of a model's slots stands for, and which slot a prompt goes to.

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

    /// Finds the slot in which the most of a prompt need not be run again. A sequence that goes on stays where it is; one that
    /// parts from what a slot holds gets a copy of what they share in the slot that was not used for longest, so that both stay,
    /// or is cut back where that is the same slot. Until [`Slots::keep`] nothing is known of the slot any more.
    ///
    /// The last token of a prompt is always run: its logits are wanted.
    pub fn place(&mut self, prompt: &[u32]) -> Place {
        self.clock += 1;
        let limit = prompt.len().saturating_sub(1);
        let shared = |held: &Held| held.tokens.iter().zip(&prompt[..limit]).take_while(|(a, b)| a == b).count();
        let usable = |held: &Held| {
            let shared = shared(held);
            let whole = self.rewind.is_none_or(|rewind| held.reached - shared <= rewind);
            if whole { shared } else { 0 }
        };
        let reused: Vec<usize> = self.held.iter().map(usable).collect();
        // Of equals the one that was used last.
        let best = (0..self.held.len()).max_by_key(|&slot| (reused[slot], self.held[slot].used)).unwrap_or(0);
        let oldest = (0..self.held.len()).min_by_key(|&slot| (self.held[slot].used, slot)).unwrap_or(0);
        let goes_on = reused[best] > 0 && reused[best] == self.held[best].tokens.len();
        let place = match (reused[best], goes_on || best == oldest) {
            (0, _) => Place { slot: oldest, reused: 0, copied_from: None },
            (reused, true) => Place { slot: best, reused, copied_from: None },
            (reused, false) => Place { slot: oldest, reused, copied_from: Some(best) },
        };
        let reached = match place {
            Place { reused: 0, .. } => 0,
            Place { slot, copied_from, .. } => self.held[copied_from.unwrap_or(slot)].reached,
        };
        self.held[place.slot] = Held { tokens: Vec::new(), reached, used: self.clock };
        place
    }

    /// Says what a slot holds now.
    pub fn keep(&mut self, slot: Slot, tokens: Vec<u32>) {
        let held = &mut self.held[slot];
        held.reached = held.reached.max(tokens.len());
        held.tokens = tokens;
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
