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

/// Tokens of answers in channels (gpt-oss), of which a message's end is not the answer's: the second and third end it.
const CHANNELS: [&str; 3] = ["<|channel|>", "<|call|>", "<|return|>"];
const END_OF_MESSAGE: &str = "<|end|>";

/// Whether a token of this text ends a turn in some chat format.
pub(super) fn ends_turns(text: &str) -> bool {
    END_OF_TURN.contains(&text)
}

/// Ids of those added tokens that end a turn.
pub(super) fn of_turns<'a>(added: impl Iterator<Item = (&'a str, u32)>) -> BTreeSet<u32> {
    let added: Vec<_> = added.collect();
    let in_channels = CHANNELS.iter().all(|tag| added.iter().any(|(text, _)| text == tag));
    let ends = |text: &str| match text {
        END_OF_MESSAGE => !in_channels,
        _ => END_OF_TURN.contains(&text) || in_channels && CHANNELS[1..].contains(&text),
    };
    added.into_iter().filter(|(text, _)| ends(text)).map(|(_, id)| id).collect()
}

/// Adds a JSON id or list of ids.
pub(super) fn add_ids(ids: &mut BTreeSet<u32>, value: Option<&Value>) {
    match value {
        Some(Value::Array(items)) => ids.extend(items.iter().filter_map(unsigned)),
        Some(value) => ids.extend(unsigned(value)),
        None => {}
    }
}
