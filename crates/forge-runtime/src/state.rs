//! Where the state of sequences lies on the GPU, and how it is copied, read and written. No step that touches those bytes is on its way;
//! where they are only read from, none that writes them.

use std::ops::Range;

use super::batch::Slot;
use super::gpu::Slice;

/// A part of the state of all slots.
#[derive(Debug, Clone)]
pub enum SlotState {
    /// Keys or values of one layer: `[slots, positions, width]` bytes. Fewer positions than the context has are a window's:
    /// position p lies at p modulo them.
    Cache {
        /// That memory.
        all: Slice,
        /// Positions of each slot.
        positions: usize,
        /// Bytes of each.
        width: usize,
    },
    /// What a recurrent step has come to: `[slots, bytes]`.
    Recurrent {
        /// That memory.
        all: Slice,
        /// Bytes of each slot.
        bytes: usize,
    },
}

impl SlotState {
    /// The memory of a slot's first positions, as far as they have some of their own.
    fn first(&self, slot: Slot, count: usize) -> Slice {
        match self {
            Self::Cache { all, positions, width } => {
                all.slice((slot * positions * width) as u64, (count.min(*positions) * width) as u64)
            }
            Self::Recurrent { all, bytes } => all.slice((slot * bytes) as u64, *bytes as u64),
        }
    }

    /// The memory of positions of a slot, where a model with so much context keeps all of them.
    fn rows(&self, slot: Slot, range: &Range<usize>, context: usize) -> Option<Slice> {
        match self {
            Self::Cache { all, positions, width } if *positions >= context => {
                Some(all.slice(((slot * positions + range.start) * width) as u64, (range.len() * width) as u64))
            }
            Self::Cache { .. } | Self::Recurrent { .. } => None,
        }
    }
}

/// What the bytes of a slot's state mean, in a line.
pub fn layout(states: &[SlotState]) -> String {
    let words = states.iter().map(|state| match state {
        SlotState::Cache { positions, width, .. } => format!("{positions} of {width}"),
        SlotState::Recurrent { bytes, .. } => format!("{bytes}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Copies the state of a slot's first positions to another slot.
pub fn copy(states: &[SlotState], from: Slot, to: Slot, positions: usize) {
    for state in states {
        state.first(from, positions).copy_to(&state.first(to, positions));
    }
}

/// Appends the state that positions of a slot have of their own, part after part.
pub fn read_rows(states: &[SlotState], context: usize, slot: Slot, positions: &Range<usize>, rows: &mut Vec<u8>) {
    let parts = || states.iter().filter_map(|state| state.rows(slot, positions, context));
    // Some megabytes, which are not to be moved as they grow.
    rows.reserve_exact(parts().map(|part| part.bytes() as usize).sum());
    parts().for_each(|part| part.read(rows));
}

/// Writes the state of positions of a slot: the first of the `of` positions that `rows` has.
///
/// # Panics
/// If `rows` are of another model.
pub fn write_rows(states: &[SlotState], context: usize, slot: Slot, positions: &Range<usize>, rows: &[u8], of: usize) {
    let mut at = 0;
    for state in states {
        if let Some(part) = state.rows(slot, positions, context) {
            let bytes = part.bytes() as usize;
            part.write(&rows[at..at + bytes]);
            at += bytes / positions.len().max(1) * of;
        }
    }
}

/// The memory of a slot whose state is no position's own, after so many positions.
fn folded(states: &[SlotState], context: usize, slot: Slot, positions: usize) -> impl Iterator<Item = Slice> {
    let own = move |state: &&SlotState| state.rows(slot, &(0..0), context).is_none();
    states.iter().filter(own).map(move |state| state.first(slot, positions))
}

/// Appends what so many positions of a slot have come to: caches of windows, recurrent states.
pub fn read_mark(states: &[SlotState], context: usize, slot: Slot, positions: usize, mark: &mut Vec<u8>) {
    folded(states, context, slot, positions).for_each(|part| part.read(mark));
}

/// Writes what so many positions have come to.
///
/// # Panics
/// If the mark is of another model.
pub fn write_mark(states: &[SlotState], context: usize, slot: Slot, positions: usize, mark: &[u8]) {
    let mut at = 0;
    for part in folded(states, context, slot, positions) {
        let bytes = part.bytes() as usize;
        part.write(&mark[at..at + bytes]);
        at += bytes;
    }
}
