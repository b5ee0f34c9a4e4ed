//! Memory of a generated program, beside its weights file.

use crate::families::FEW_TOKENS;
use crate::plan::{BufferPlan, Plan, StatePlan};

/// Words of a candidate for the choice of a token.
const CANDIDATE: usize = 3;

/// Bytes of some of the states of all sequences.
fn bytes<'a>(plan: &Plan, states: impl Iterator<Item = &'a StatePlan>, context: usize) -> u64 {
    plan.slots as u64 * states.map(|state| state.bytes(plan.kv, context)).sum::<u64>()
}

/// Bytes of all caches of a program with room for `context` tokens; windowed caches have room for their window at most.
pub fn kv_bytes(plan: &Plan, context: usize) -> u64 {
    bytes(plan, plan.states.iter().filter(|state| !state.is_recurrent()), context)
}

/// Bytes of cache that one more token of context costs; windowed caches cost none.
pub fn kv_bytes_per_token(plan: &Plan) -> u64 {
    plan.slots as u64 * plan.states.iter().map(|state| state.bytes_per_token(plan.kv)).sum::<u64>()
}

/// Bytes of the caches that have a window.
pub fn windowed_bytes(plan: &Plan) -> u64 {
    let windowed = |state: &&StatePlan| state.kv().is_some_and(|cache| cache.capacity.is_some());
    bytes(plan, plan.states.iter().filter(windowed), plan.context)
}

/// Bytes of recurrent state.
pub fn recurrent_bytes(plan: &Plan) -> u64 {
    bytes(plan, plan.states.iter().filter(|state| state.is_recurrent()), plan.context)
}

/// Positions by which a sequence can be cut back and gone on with: none of one with a recurrent state, else what windowed caches
/// keep beyond their window, less the one that a step ahead of the host has written over; any number where nothing is windowed.
pub fn rewind(plan: &Plan) -> Option<usize> {
    let of = |state: &StatePlan| match state {
        StatePlan::Kv(cache) => Some((cache.capacity? - cache.window?).saturating_sub(1)),
        StatePlan::Latent(_) => None,
        StatePlan::Recurrent { .. } => Some(0),
    };
    plan.states.iter().filter_map(of).min()
}

/// Bytes of activations that one more token of context costs: what tiles make of its latent.
pub fn activation_bytes_per_token(plan: &Plan) -> u64 {
    let positions = plan.prefill_buffers.iter().filter(|buffer| buffer.place.holds_positions());
    positions.map(|buffer| plan.kv.bytes(buffer.width) as u64).sum()
}

/// Bytes of activations of both paths, logits and the sampler's buffers, whatever the context.
pub fn activation_bytes(plan: &Plan) -> u64 {
    let widths = |buffers: &[BufferPlan]| {
        let of_rows = buffers.iter().filter(|buffer| !buffer.place.holds_positions());
        of_rows.map(|buffer| buffer.width as u64).sum::<u64>()
    };
    let step = widths(&plan.decode_buffers) * FEW_TOKENS as u64;
    let tile = widths(&plan.prefill_buffers) * plan.prefill_tile as u64;
    // Logits of a step's rows, and each slot's candidates, biases and counts.
    let vocabulary = (FEW_TOKENS + (CANDIDATE + 2) * plan.slots) * plan.config.vocab_size;
    4 * (step + tile + vocabulary as u64)
}
