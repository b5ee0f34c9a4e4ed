//! SentencePiece BPE (GGUF's `llama` tokenizers, `tokenizer.model` files) as a tokenizer.json.
//!
//! SentencePiece has no list of merges: it joins the neighbours whose joined piece scores highest, the leftmost where
//! several score the same. The merges reconstructed here rank every way to join two pieces into a third by that
//! third's score.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::processor::{Affixes, template_processing};
use super::vocabulary::{Token, TokenType, added_tokens, vocab_object};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// The tokenizer.json of a SentencePiece BPE vocabulary. `add_space_prefix`: a text begins with a space of its own.
pub(super) fn sentencepiece_bpe(tokens: &[Token], add_space_prefix: bool, affixes: &Affixes) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizer = if add_space_prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if add_space_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let byte_fallback = tokens.iter().any(|token| token.kind == TokenType::Byte);
    let unknown = tokens.iter().find(|token| token.kind == TokenType::Unknown);
    let unknown = unknown.or_else(|| tokens.iter().find(|token| token.text == "<unk>"));
    let is_added =
        |token: &Token| matches!(token.kind, TokenType::Control | TokenType::UserDefined | TokenType::Unknown);
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokens, is_added),
        "normalizer": normalizer,
        "pre_tokenizer": null,
        "post_processor": template_processing(affixes),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.map(|token| &token.text),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": byte_fallback,
            "ignore_merges": false,
            "vocab": vocab_object(tokens),
            "merges": merges(tokens),
        },
    })
}

/// Every way to join two pieces of the vocabulary into a third, best score first. Among equal scores the order of
/// transformers' converter: the longer left part first, else the order of the vocabulary.
fn merges(tokens: &[Token]) -> Vec<(&str, &str)> {
    let takes_part =
        |token: &&Token| matches!(token.kind, TokenType::Normal | TokenType::UserDefined | TokenType::Unused);
    let mut ids: HashMap<&str, usize> = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| takes_part(token)) {
        ids.entry(&token.text).or_insert(id);
    }
    let mut found: Vec<(&Token, &str, &str)> = Vec::new();
    for token in tokens.iter().filter(takes_part) {
        let cuts = token.text.char_indices().skip(1).map(|(at, _)| token.text.split_at(at));
        let mut pairs: Vec<_> =
            cuts.filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right)).collect();
        pairs.sort_by_key(|(left, right)| (ids[left], ids[right]));
        found.extend(pairs.into_iter().map(|(left, right)| (token, left, right)));
    }
    let chars = |text: &str| text.chars().count();
    found.sort_by(|a, b| {
        let by_score = b.0.score.total_cmp(&a.0.score);
        by_score.then_with(|| chars(b.1).cmp(&chars(a.1))).then_with(|| chars(b.2).cmp(&chars(a.2)))
    });
    found.into_iter().map(|(_, left, right)| (left, right)).collect()
}
