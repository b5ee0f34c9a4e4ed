//! `tokenizer.model` files: SentencePiece's `ModelProto` (sentencepiece_model.proto), as far as BPE models need it.

use serde_json::{Map, Value};

use super::processor::Affixes;
use super::spm;
use super::vocabulary::{Token, TokenType};
use crate::{FrontendError, Refusal};

/// `TrainerSpec.ModelType.BPE`.
const BPE: u64 = 2;

/// The tokenizer.json of a SentencePiece BPE model; the post-processor is left to the caller.
///
/// # Errors
/// A damaged file, or a model that is not BPE.
pub(super) fn tokenizer_json(
    bytes: &[u8],
    file: &str,
    config: &Map<String, Value>,
) -> Result<Map<String, Value>, FrontendError> {
    let error = |refusal: Refusal, key: &str, reason: &str| FrontendError::Tokenizer {
        refusal,
        file: file.to_owned(),
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    let damaged =
        || error(Refusal::SentencePiece, "ModelProto", "expected a SentencePiece model, found damaged protobuf data");
    let mut tokens = Vec::new();
    // Absent fields have the proto's defaults: a unigram model that adds a space prefix.
    let (mut model_type, mut add_dummy_prefix) = (1, true);
    for field in fields(bytes) {
        match field.ok_or_else(damaged)? {
            (1, Wire::Bytes(piece)) => tokens.push(token(piece).ok_or_else(damaged)?),
            (2, Wire::Bytes(trainer)) => model_type = varint(trainer, 3).ok_or_else(damaged)?.unwrap_or(model_type),
            (3, Wire::Bytes(normalizer)) => {
                let said = varint(normalizer, 3).ok_or_else(damaged)?;
                add_dummy_prefix = said.map_or(add_dummy_prefix, |flag| flag != 0);
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
    let add_space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(add_dummy_prefix);
    match spm::sentencepiece_bpe(&tokens, add_space, &Affixes::default())
        .map_err(|reason| error(Refusal::SentencePiecePieces, "pieces", &reason))?
    {
        Value::Object(json) => Ok(json),
        _ => Err(damaged()),
    }
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
