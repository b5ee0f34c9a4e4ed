//! Special tokens that a user wrote out, and that stay the text they are.
//!
//! A tokenizer finds special tokens wherever their text stands, which is right for what a chat template writes and wrong for
//! what people write. So the first character of each that stands in a message is replaced by a private one before the
//! template sees it; the tokenizer puts it back once it has looked for special tokens.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// The first of the private characters (Unicode, plane 16, private use).
const FIRST: u32 = 0x10_FE00;

/// Most characters that special tokens may begin with.
const MOST: u32 = 0x100;

/// The special tokens of a vocabulary.
#[derive(Debug, Clone, Default)]
pub(super) struct Shield {
    /// Their texts by their first characters.
    tokens: BTreeMap<char, Vec<String>>,
    /// What stands for these characters.
    stand_ins: Vec<(char, char)>,
}

impl Shield {
    /// Of these texts.
    pub(super) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let mut tokens: BTreeMap<char, Vec<String>> = BTreeMap::new();
        for text in texts {
            if let Some(first) = text.chars().next() {
                tokens.entry(first).or_default().push(text);
            }
        }
        let private = (FIRST..FIRST + MOST).filter_map(char::from_u32);
        let stand_ins = tokens.keys().copied().zip(private).collect();
        Self { tokens, stand_ins }
    }

    /// A text of which nothing is a special token.
    pub(super) fn shield<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut shielded = String::new();
        let mut copied = 0;
        for (at, c) in text.char_indices() {
            let rest = &text[at..];
            let is_token = self.tokens.get(&c).is_some_and(|tokens| tokens.iter().any(|token| rest.starts_with(token)));
            let stand_in = self.stand_ins.iter().find(|(first, _)| *first == c).filter(|_| is_token);
            if let Some((_, stand_in)) = stand_in {
                shielded.push_str(&text[copied..at]);
                shielded.push(*stand_in);
                copied = at + c.len_utf8();
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        shielded.push_str(&text[copied..]);
        Cow::Owned(shielded)
    }

    /// The characters that stand for others, and those.
    pub(super) fn stand_ins(&self) -> &[(char, char)] {
        &self.stand_ins
    }
}

/// Whether a character may stand for another.
pub(super) fn is_stand_in(c: char) -> bool {
    (FIRST..FIRST + MOST).contains(&u32::from(c))
}
