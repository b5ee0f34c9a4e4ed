//! How a text is changed before it is cut into tokens: the normalizers of the `tokenizers` crate, and SentencePiece's own.
//!
//! SentencePiece replaces the longest match of its character map at each place; the crate's `Precompiled` goes by grapheme
//! clusters and takes the shortest. So an imported `tokenizer.model` with such a map has a normalizer of type
//! `SentencePiece` in its `tokenizer.json`, with the fields of `NormalizerSpec` (sentencepiece_model.proto).

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use super::shield::{Shield, is_stand_in};

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';
/// Longest string of a character map, in bytes: each place of a text is compared with strings of every length there is.
const LONGEST: usize = 256;

/// The normalizer of a `tokenizer.json`.
pub(super) enum Normalization {
    SentencePiece(SentencePiece),
    Other(NormalizerWrapper),
    /// Another, or none, after characters that stand for others have become those.
    Shielded(Option<Box<Self>>, Vec<(char, char)>),
}

impl Normalization {
    /// After what a shield's characters stand for is put in their place.
    pub(super) fn shielded(inner: Option<Self>, shield: &Shield) -> Self {
        Self::Shielded(inner.map(Box::new), shield.stand_ins().to_vec())
    }
}

impl<'de> Deserialize<'de> for Normalization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let json = serde_json::Value::deserialize(deserializer)?;
        if json.get("type").is_some_and(|kind| kind == "SentencePiece") {
            let mut normalizer = SentencePiece::deserialize(json).map_err(D::Error::custom)?;
            normalizer.index().map_err(D::Error::custom)?;
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
            Self::Shielded(inner, stand_ins) => {
                if normalized.get().contains(is_stand_in) {
                    for (character, stand_in) in stand_ins {
                        normalized.replace(*stand_in, character.encode_utf8(&mut [0; 4]))?;
                    }
                }
                inner.as_ref().map_or(Ok(()), |inner| inner.normalize(normalized))
            }
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
    /// By the first character: bytes of the map's strings, longest first, each length once.
    #[serde(skip)]
    lengths: HashMap<char, Vec<usize>>,
    /// Strings that are left as they are.
    user_defined: Vec<String>,
    /// The same by their first character, longest first.
    #[serde(skip)]
    kept: HashMap<char, Vec<String>>,
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
    /// To be called once before [`Self::normalize`]; an error for a map that is none of SentencePiece's making.
    fn index(&mut self) -> Result<(), String> {
        for from in self.map.keys() {
            if from.len() > LONGEST {
                return Err(format!(
                    "expected strings of at most {LONGEST} bytes in the map, found one of {}",
                    from.len()
                ));
            }
            if let Some(first) = from.chars().next() {
                self.lengths.entry(first).or_default().push(from.len());
            }
        }
        for lengths in self.lengths.values_mut() {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        for text in self.user_defined.drain(..) {
            if let Some(first) = text.chars().next() {
                self.kept.entry(first).or_default().push(text);
            }
        }
        self.kept.values_mut().for_each(|texts| texts.sort_by_key(|text| std::cmp::Reverse(text.len())));
        Ok(())
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

    /// What the beginning of a text becomes, and the bytes of that beginning; the text is not empty.
    fn next<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        let Some(first) = text.chars().next() else { return (text, 0) };
        let mut kept = self.kept.get(&first).into_iter().flatten();
        if let Some(kept) = kept.find(|kept| text.starts_with(kept.as_str())) {
            return (&text[..kept.len()], kept.len());
        }
        let mut lengths = self.lengths.get(&first).into_iter().flatten();
        let found = lengths.find_map(|&length| Some((self.map.get(text.get(..length)?)?.as_str(), length)));
        found.unwrap_or((&text[..first.len_utf8()], first.len_utf8()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalization(map: &str, kept: &str) -> serde_json::Result<Normalization> {
        serde_json::from_str(&format!(
            r#"{{"type": "SentencePiece", "map": {map}, "user_defined": {kept}, "add_dummy_prefix": true,
                "prefix_first_only": false, "remove_extra_whitespaces": true, "escape_whitespaces": true,
                "treat_whitespace_as_suffix": false}}"#
        ))
    }

    fn normalized(normalization: &Normalization, text: &str) -> String {
        let mut normalized = NormalizedString::from(text);
        normalization.normalize(&mut normalized).expect("normalizes");
        normalized.get().to_owned()
    }

    #[test]
    fn the_longest_match_wins_and_kept_strings_stay() {
        let normalization =
            normalization(r#"{"a": "x", "ab": "y", "c": "", "d": "long", "\t": "  "}"#, r#"["ba", "b", "a  a"]"#);
        let normalization = normalization.expect("a normalizer");
        for (text, expected) in [
            ("ab a ac", "▁y▁x▁x"),
            ("abab", "▁yy"),
            ("bab", "▁bab"),
            (" 	 dd 	", "▁longlong"),
            ("a  a", "▁a▁▁a"),
            ("ccc", ""),
            ("", ""),
            (" 	 ", ""),
        ] {
            assert_eq!(normalized(&normalization, text), expected, "{text:?}");
        }
    }

    #[test]
    fn maps_without_end_are_refused() {
        let refused = normalization(&format!(r#"{{"{}": ""}}"#, "a".repeat(LONGEST + 1)), "[]");
        assert!(refused.is_err_and(|error| error.to_string().contains("at most 256 bytes")));
    }
}
