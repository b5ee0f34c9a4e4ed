//! Byte-level BPE (GGUF's `gpt2` tokenizers) as a tokenizer.json.

use serde_json::{Value, json};

use super::pre_tokenizers::PreTokenizer;
use super::processor::{Affixes, template_processing};
use super::vocabulary::{Token, TokenType, added_tokens, vocab_object};

/// The tokenizer.json of a byte-level BPE vocabulary; merges are pairs in order of priority.
pub(super) fn byte_level_bpe(
    tokens: &[Token],
    merges: &[(&str, &str)],
    pre: &PreTokenizer,
    affixes: &Affixes,
) -> Value {
    let is_added =
        |token: &Token| matches!(token.kind, TokenType::Control | TokenType::UserDefined | TokenType::Unknown);
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokens, is_added),
        "normalizer": pre.normalizer(),
        "pre_tokenizer": pre.pre_tokenizer(),
        "post_processor": template_processing(affixes),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignore_merges,
            "vocab": vocab_object(tokens),
            "merges": merges,
        },
    })
}
