//! How a text is changed before it is cut into tokens: the normalizers of the `tokenizers` crate, and SentencePiece's own.
//!
//! SentencePiece replaces the longest match of its character map at each place; the crate's `Precompiled` goes by grapheme
//! clusters and takes the shortest. So an imported `tokenizer.model` with such a map has a normalizer of type
//! `SentencePiece` in its `tokenizer.json`, with the fields of `NormalizerSpec` (sentencepiece_model.proto).

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

/// The normalizer of a `tokenizer.json`.
pub(super) enum Normalization {
    SentencePiece(SentencePiece),
    Other(NormalizerWrapper),
}

impl<'de> Deserialize<'de> for Normalization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let json = serde_json::Value::deserialize(deserializer)?;
        if json.get("type").is_some_and(|kind| kind == "SentencePiece") {
            let mut normalizer = SentencePiece::deserialize(json).map_err(D::Error::custom)?;
            normalizer.index();
            return Ok(Self::SentencePiece(normalizer));
        }
        NormalizerWrapper::deserialize(json).map(Self::Other).map_err(D::Error::custom)
    }
}

impl Normalizer for Normalization {
    fn normalize(&self, normalized: &mut NormalizedString) -> tokenizers::Result<()> {
        match self {
            Self::SentencePiece(normalizer) => {
                let begins = normalized.offsets_original().0 == 0;
                let text = normalizer.normalize(normalized.get(), begins);
                replace(normalized, &text);
                Ok(())
            }
            Self::Other(normalizer) => normalizer.normalize(normalized),
        }
    }
}

/// Puts `text` in place of all there is. Which character came from which matters to nobody here; they are counted off.
fn replace(normalized: &mut NormalizedString, text: &str) {
    let before = normalized.get().chars().count();
    let after = text.chars().count();
    let change = |index: usize| match index {
        _ if index >= before => 1,
        _ if index + 1 == after => after as isize - before.max(after) as isize,
        _ => 0,
    };
    let dropped = if after == 0 { before } else { 0 };
    normalized.transform(text.chars().enumerate().map(|(index, c)| (c, change(index))), dropped);
}

/// `NormalizerSpec`, with what it takes from `TrainerSpec`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SentencePiece {
    /// What each string of the character map becomes.
    map: HashMap<String, String>,
    /// Characters of the longest string of the map that begins with a character.
    #[serde(skip)]
    longest: HashMap<char, usize>,
    /// Strings that are left as they are, longest first.
    user_defined: Vec<String>,
    /// A text begins with a space of its own.
    add_dummy_prefix: bool,
    /// Only where nothing is before it, not after each added token.
    prefix_first_only: bool,
    /// Spaces at the beginning and the end go, several become one.
    remove_extra_whitespaces: bool,
    /// Spaces become U+2581.
    escape_whitespaces: bool,
    /// The space of its own comes at the end.
    treat_whitespace_as_suffix: bool,
}

impl SentencePiece {
    /// To be called once before [`Self::normalize`].
    fn index(&mut self) {
        for from in self.map.keys() {
            if let Some(first) = from.chars().next() {
                let longest = self.longest.entry(first).or_default();
                *longest = (*longest).max(from.chars().count());
            }
        }
        self.user_defined.sort_by_key(|text| std::cmp::Reverse(text.len()));
    }

    /// `Normalizer::Normalize` of SentencePiece's normalizer.cc. `begins`: nothing comes before the text.
    fn normalize(&self, text: &str, begins: bool) -> String {
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while !rest.is_empty() {
                let (to, used) = self.next(rest);
                if to != " " {
                    break;
                }
                rest = &rest[used..];
            }
        }
        if rest.is_empty() {
            return String::new();
        }
        let space = if self.escape_whitespaces { SPACE } else { ' ' };
        let dummy = self.add_dummy_prefix && (begins || !self.prefix_first_only);
        let mut normalized = String::with_capacity(rest.len() + SPACE.len_utf8());
        if dummy && !self.treat_whitespace_as_suffix {
            normalized.push(space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (mut to, used) = self.next(rest);
            if after_space {
                to = to.trim_start_matches(' ');
            }
            if !to.is_empty() {
                normalized.extend(to.chars().map(|c| if c == ' ' { space } else { c }));
                after_space = self.remove_extra_whitespaces && to.ends_with(' ');
            }
            rest = &rest[used..];
        }
        if self.remove_extra_whitespaces {
            normalized.truncate(normalized.trim_end_matches(space).len());
        }
        if dummy && self.treat_whitespace_as_suffix {
            normalized.push(space);
        }
        normalized
    }

    /// What the beginning of a text, which is not empty, becomes, and the bytes of that beginning.
    fn next<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if let Some(kept) = self.user_defined.iter().find(|kept| text.starts_with(kept.as_str())) {
            return (&text[..kept.len()], kept.len());
        }
        let first = text.chars().next().map_or(0, char::len_utf8);
        let longest = text.chars().next().and_then(|c| self.longest.get(&c)).copied().unwrap_or(0);
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8()).take(longest).collect::<Vec<_>>();
        let found = ends.iter().rev().find_map(|end| Some((self.map.get(&text[..*end])?.as_str(), *end)));
        found.unwrap_or((&text[..first], first))
    }
}
