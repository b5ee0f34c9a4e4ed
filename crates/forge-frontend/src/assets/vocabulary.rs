//! A vocabulary with the types of its tokens, as GGUF and SentencePiece files list it.

use serde_json::{Map, Value, json};

/// What a token is; the numbers of GGUF's `token_type` and SentencePiece's `Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenType {
    /// The type of a number; unknown ones count as normal, as llama.cpp has it.
    pub fn from_id(id: i64) -> Self {
        match id {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub text: String,
    pub kind: TokenType,
    /// Merge priority of SentencePiece vocabularies; 0 elsewhere.
    pub score: f32,
}

/// The `vocab` of a tokenizer.json: text to id. The first of equal texts counts; fillers for rows of the embedding
/// table that no token uses are left out.
pub(super) fn vocab_object(tokens: &[Token]) -> Map<String, Value> {
    let mut vocab = Map::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        let filler = token.kind == TokenType::Unused && token.text == format!("[PAD{id}]");
        if !filler && !vocab.contains_key(&token.text) {
            vocab.insert(token.text.clone(), json!(id));
        }
    }
    vocab
}

/// The `added_tokens` of a tokenizer.json: tokens that are found in a text before anything else.
pub(super) fn added_tokens(tokens: &[Token], is_added: impl Fn(&Token) -> bool) -> Vec<Value> {
    let added = |(id, token): (usize, &Token)| {
        json!({
            "id": id,
            "content": token.text,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": token.kind != TokenType::UserDefined,
        })
    };
    tokens.iter().enumerate().filter(|(_, token)| !token.text.is_empty() && is_added(token)).map(added).collect()
}
