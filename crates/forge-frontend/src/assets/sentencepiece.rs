//! `tokenizer.model` files: SentencePiece's `ModelProto` (sentencepiece_model.proto), as far as BPE models need it.
//!
//! Texts are tokenized as SentencePiece does; what it calls control symbols, and the tokens of tokenizer_config.json, are
//! found in a text first, as transformers does.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::charsmap;
use super::processor::Affixes;
use super::spm::{self, SPACE, Surroundings};
use super::vocabulary::{Token, TokenType};
use crate::{FrontendError, Refusal};

/// `TrainerSpec.ModelType.BPE`.
const BPE: u64 = 2;
/// More spaces than a text has.
const ALL_SPACES: usize = u32::MAX as usize;

/// A `tokenizer.model` as a tokenizer.json.
pub(super) struct Imported {
    /// The post-processor is left to the caller.
    pub json: Map<String, Value>,
    /// Text and id of the pieces that are found in a text before others, but are no added tokens.
    pub user_defined: Vec<(String, u32)>,
}

/// The tokenizer.json of a SentencePiece BPE model. `config` is tokenizer_config.json.
///
/// # Errors
/// A damaged file, or a model that is not BPE.
pub(super) fn tokenizer_json(bytes: &[u8], file: &str, config: &Map<String, Value>) -> Result<Imported, FrontendError> {
    let error = |refusal: Refusal, key: &str, reason: &str| FrontendError::Tokenizer {
        refusal,
        file: file.to_owned(),
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    let damaged =
        || error(Refusal::SentencePiece, "ModelProto", "expected a SentencePiece model, found damaged protobuf data");
    let mut tokens = Vec::new();
    let mut spec = NormalizerSpec::default();
    // The proto's default: a unigram model.
    let mut model_type = 1;
    for field in fields(bytes) {
        match field.ok_or_else(damaged)? {
            (1, Wire::Bytes(piece)) => tokens.push(token(piece).ok_or_else(damaged)?),
            (2, Wire::Bytes(trainer)) => {
                model_type = varint(trainer, 3).ok_or_else(damaged)?.unwrap_or(model_type);
                let suffix = varint(trainer, 24).ok_or_else(damaged)?;
                spec.treat_whitespace_as_suffix = suffix.map_or(spec.treat_whitespace_as_suffix, |flag| flag != 0);
            }
            (3, Wire::Bytes(normalizer)) => {
                let charsmap = spec.read(normalizer).ok_or_else(damaged)?;
                if !charsmap.is_empty() {
                    let key = "normalizer_spec.precompiled_charsmap";
                    let damaged = || error(Refusal::SentencePieceMap, key, "expected a trie of strings");
                    spec.map = charsmap::entries(charsmap).ok_or_else(damaged)?;
                }
            }
            _ => {}
        }
    }
    if model_type != BPE {
        return Err(error(
            Refusal::SentencePieceKind,
            "trainer_spec.model_type",
            "only BPE models are converted; a tokenizer.json beside it would be used as it is",
        ));
    }
    let said = |key: &str| config.get(key).and_then(Value::as_bool);
    spec.add_dummy_prefix = said("add_prefix_space").unwrap_or(spec.add_dummy_prefix);
    // transformers' "legacy" behaviour, the default for years: a space of its own after each added token too.
    let first_only = said("legacy") == Some(false);
    let is_user_defined = |(_, token): &(usize, &Token)| token.kind == TokenType::UserDefined && !token.text.is_empty();
    let user_defined: Vec<(String, u32)> =
        tokens.iter().enumerate().filter(is_user_defined).map(|(id, token)| (token.text.clone(), id as u32)).collect();
    let surroundings = spec.surroundings(&user_defined, first_only);
    match spm::sentencepiece_bpe(&tokens, surroundings, &Affixes::default())
        .map_err(|reason| error(Refusal::SentencePiecePieces, "pieces", &reason))?
    {
        Value::Object(json) => Ok(Imported { json, user_defined }),
        _ => Err(damaged()),
    }
}

/// What SentencePiece does to a text before it is cut: `NormalizerSpec`, and a field of `TrainerSpec`.
struct NormalizerSpec {
    map: BTreeMap<String, String>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    treat_whitespace_as_suffix: bool,
}

impl Default for NormalizerSpec {
    /// The proto's defaults.
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            treat_whitespace_as_suffix: false,
        }
    }
}

impl NormalizerSpec {
    /// Takes over a message's flags and gives its `precompiled_charsmap`; none for damaged data.
    fn read<'a>(&mut self, message: &'a [u8]) -> Option<&'a [u8]> {
        let mut charsmap: &[u8] = &[];
        for field in fields(message) {
            match field? {
                (2, Wire::Bytes(bytes)) => charsmap = bytes,
                (3, Wire::Varint(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Wire::Varint(flag)) => self.remove_extra_whitespaces = flag != 0,
                (5, Wire::Varint(flag)) => self.escape_whitespaces = flag != 0,
                _ => {}
            }
        }
        Some(charsmap)
    }

    /// `first_only`: only a text begins with a space of its own, not what follows an added token.
    fn surroundings(&self, user_defined: &[(String, u32)], first_only: bool) -> Surroundings {
        // A piece's own spaces are not its prefix.
        let strip = match (self.remove_extra_whitespaces, self.add_dummy_prefix) {
            _ if !self.escape_whitespaces => 0,
            (true, _) => ALL_SPACES,
            (false, add) => usize::from(add),
        };
        let mut pre_tokenizers = Vec::new();
        let plain = self.map.is_empty()
            && !self.remove_extra_whitespaces
            && self.escape_whitespaces
            && !(self.treat_whitespace_as_suffix && self.add_dummy_prefix);
        let normalizer = if plain && self.add_dummy_prefix && first_only {
            pre_tokenizers
                .push(json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false}));
            Value::Null
        } else if plain {
            Surroundings::of_llama_cpp(self.add_dummy_prefix).normalizer
        } else {
            let kept: Vec<&str> = user_defined.iter().map(|(text, _)| text.as_str()).collect();
            // The type that the runtime's tokenizer has beside those of the `tokenizers` crate.
            json!({
                "type": "SentencePiece",
                "map": self.map,
                "user_defined": kept,
                "add_dummy_prefix": self.add_dummy_prefix,
                "prefix_first_only": first_only,
                "remove_extra_whitespaces": self.remove_extra_whitespaces,
                "escape_whitespaces": self.escape_whitespaces,
                "treat_whitespace_as_suffix": self.treat_whitespace_as_suffix,
            })
        };
        if !user_defined.is_empty() {
            pre_tokenizers.push(isolated(user_defined));
        }
        let pre_tokenizer = match pre_tokenizers.len() {
            0 => Value::Null,
            1 => pre_tokenizers.remove(0),
            _ => json!({"type": "Sequence", "pretokenizers": pre_tokenizers}),
        };
        let decoders = spm::decoders(strip);
        Surroundings { normalizer, pre_tokenizer, decoders, user_defined_apart: !user_defined.is_empty() }
    }
}

/// A pre-tokenizer that makes each user-defined piece a part of its own, the longest that is there.
fn isolated(user_defined: &[(String, u32)]) -> Value {
    let mut texts: Vec<&str> = user_defined.iter().map(|(text, _)| text.as_str()).collect();
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    // Of ASCII's other characters some mean something only where they are escaped.
    let escaped = |c: char| [r"\.+*?()|[]{}^$#&-~".contains(c).then_some('\\'), Some(c)];
    let literal = |text: &&str| text.chars().flat_map(escaped).flatten().collect::<String>();
    let any = texts.iter().map(literal).collect::<Vec<_>>().join("|");
    json!({"type": "Split", "pattern": {"Regex": any}, "behavior": "Isolated", "invert": false})
}

/// A `SentencePiece` message: piece, score, type.
fn token(bytes: &[u8]) -> Option<Token> {
    let mut token = Token { text: String::new(), kind: TokenType::Normal, score: 0.0 };
    for field in fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => token.text = String::from_utf8(text.to_vec()).ok()?,
            (2, Wire::Fixed32(bits)) => token.score = f32::from_bits(bits),
            (3, Wire::Varint(kind)) => token.kind = TokenType::from_id(i64::try_from(kind).ok()?),
            _ => {}
        }
    }
    Some(token)
}

/// The last value of a varint field; the outer option is none for damaged data.
fn varint(message: &[u8], number: u64) -> Option<Option<u64>> {
    let mut found = None;
    for field in fields(message) {
        if let (n, Wire::Varint(value)) = field?
            && n == number
        {
            found = Some(value);
        }
    }
    Some(found)
}

/// A field's value on the wire (protobuf encoding).
enum Wire<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message with their numbers; `None` once where the data is damaged.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Wire<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let key = next_varint(rest)?;
    let wire = match key & 7 {
        0 => Wire::Varint(next_varint(rest)?),
        1 => {
            rest.split_off(..8)?;
            Wire::Fixed64
        }
        2 => {
            let len = usize::try_from(next_varint(rest)?).ok()?;
            Wire::Bytes(rest.split_off(..len)?)
        }
        5 => Wire::Fixed32(u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?)),
        _ => return None,
    };
    Some((key >> 3, wire))
}

fn next_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
