//! Memory of a generated program, beside its weights file.

use crate::families::FEW_TOKENS;
use crate::plan::{BufferPlan, Plan, StatePlan};

/// Words of a candidate for the choice of a token.
const CANDIDATE: usize = 3;

/// Bytes of a cache with room for `positions` positions.
fn cache_bytes(plan: &Plan, state: &StatePlan, positions: usize) -> u64 {
    (plan.slots * 2 * plan.kv.stride(state.width())) as u64 * positions as u64
}

/// Bytes of all KV caches of a program with room for `context` tokens; windowed caches have room for their window at most.
pub fn kv_bytes(plan: &Plan, context: usize) -> u64 {
    let positions = |state: &StatePlan| state.capacity.unwrap_or(context).min(context);
    plan.states.iter().map(|state| cache_bytes(plan, state, positions(state))).sum()
}

/// Bytes of cache that one more token of context costs; windowed caches cost none.
pub fn kv_bytes_per_token(plan: &Plan) -> u64 {
    plan.states.iter().filter(|state| state.capacity.is_none()).map(|state| cache_bytes(plan, state, 1)).sum()
}

/// Bytes of the caches that have a window.
pub fn windowed_bytes(plan: &Plan) -> u64 {
    plan.states.iter().filter_map(|state| Some(cache_bytes(plan, state, state.capacity?))).sum()
}

/// Positions by which a sequence can be cut back and gone on with: what windowed caches keep beyond their window; any number
/// where nothing is windowed.
pub fn rewind(plan: &Plan) -> Option<usize> {
    plan.states.iter().filter_map(|state| Some(state.capacity? - state.window?)).min()
}

/// Bytes of activations of both paths, logits and the sampler's buffers.
pub fn activation_bytes(plan: &Plan) -> u64 {
    let widths = |buffers: &[BufferPlan]| buffers.iter().map(|buffer| buffer.width as u64).sum::<u64>();
    let step = widths(&plan.decode_buffers) * FEW_TOKENS as u64;
    let tile = widths(&plan.prefill_buffers) * plan.prefill_tile as u64;
    // Logits of a step's rows, and each slot's candidates.
    let vocabulary = (FEW_TOKENS + CANDIDATE * plan.slots) * plan.config.vocab_size;
    4 * (step + tile + vocabulary as u64)
}
