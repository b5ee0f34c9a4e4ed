//! Which tokens end a generation: the checkpoint's own list, and the end-of-turn tokens known by name.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::source::unsigned;

/// Added tokens that end a turn in one chat format or another, whatever the metadata says.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// Whether an added token of this text ends a turn.
pub(super) fn ends_turn(text: &str) -> bool {
    END_OF_TURN.contains(&text)
}

/// Adds a JSON id or list of ids.
pub(super) fn add_ids(ids: &mut BTreeSet<u32>, value: Option<&Value>) {
    match value {
        Some(Value::Array(items)) => ids.extend(items.iter().filter_map(unsigned)),
        Some(value) => ids.extend(unsigned(value)),
        None => {}
    }
}
