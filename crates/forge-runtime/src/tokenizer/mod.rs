//! Text to token ids and back, through the `tokenizers` crate and the checkpoint's `tokenizer.json`.
//!
//! Whether a beginning-of-sequence token is added is the business of the file's post-processor, as in transformers. The
//! [`Detokenizer`] turns a stream of ids into a stream of text that never ends inside a UTF-8 character, and whose pieces
//! together are exactly what decoding all ids at once gives.

mod decoding;
mod detokenizer;
mod normalizer;
mod shield;

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use tokenizers::{
    AddedToken, DecoderWrapper, Model, ModelWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use super::{Error, Result};
use decoding::Decoding;
use normalizer::Normalization;
use shield::Shield;

pub use detokenizer::Detokenizer;

/// A tokenizer of the `tokenizers` crate with one normalizer more.
type Inner = TokenizerImpl<ModelWrapper, Normalization, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Longest run of white space that is tokenized. The regular expressions of byte-level tokenizers try every length of a run, and
/// their engine gives up in silence after a million steps.
const MAX_BLANK_RUN: usize = 400_000;

/// The checkpoint's tokenizer.
pub struct Tokenizer {
    inner: Inner,
    special: HashSet<u32>,
    shield: Shield,
    /// Where each stream of ids begins.
    decoding: Decoding,
    /// Bytes of the longest token's text: no token stands for more.
    longest: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Truncation and padding that it may ask for are turned off, as transformers does.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let mut inner = Inner::from_bytes(json).map_err(tokenizer_error)?;
        inner.with_truncation(None).map_err(tokenizer_error)?;
        inner.with_padding(None);
        let special =
            inner.get_added_tokens_decoder().iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let added = inner.get_added_tokens_decoder();
        let shield = Shield::new(added.into_values().filter(controls).map(|token| token.content));
        let Own { normalizer } = serde_json::from_slice(json).map_err(|error| Error::Tokenizer(error.to_string()))?;
        inner.with_normalizer(Some(Normalization::shielded(normalizer, &shield))).map_err(tokenizer_error)?;
        let decoding = Decoding::new(inner.get_decoder());
        let longest = inner.get_vocab(true).keys().map(String::len).max().unwrap_or(1);
        Ok(Self { inner, special, shield, decoding, longest })
    }

    /// A text that is encoded as it is, whatever special tokens are written out in it.
    pub fn shield<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.shield.shield(text)
    }

    /// Ids of `text`. `special` adds what the post-processor adds (usually a beginning-of-sequence token); special tokens
    /// written out in the text are recognised either way.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_BLANK_RUN && text.split(|c: char| !c.is_whitespace()).any(|run| run.len() > MAX_BLANK_RUN) {
            return Err(Error::Tokenizer(format!("a run of more than {MAX_BLANK_RUN} blanks cannot be tokenized")));
        }
        // A normaliser or regex that gives up in the middle of a hostile text may panic; the caller gets an error instead.
        let encoded = caught("the text could not be tokenized", || self.inner.encode_fast(text, special))?;
        Ok(encoded.map_err(tokenizer_error)?.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode`], but a text that cannot fit `context` tokens whatever they are is refused before it is tokenized.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] and [`Error::Tokenizer`].
    pub fn encode_within(&self, text: &str, special: bool, context: usize) -> Result<Vec<u32>> {
        // Normalisers may shorten a text, composing at most a handful of bytes into fewer; 4 is generous.
        let at_least = text.len() / (self.longest.saturating_mul(4)).max(1);
        if at_least >= context.max(1) {
            return Err(Error::PromptTooLong { tokens: at_least, context });
        }
        self.encode(text, special)
    }

    /// Text of `ids`; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let token = |id: &u32| self.inner.id_to_token(*id).is_some_and(|_| !(skip_special && self.is_special(*id)));
        // Some decoders cannot take a text without tokens.
        if !ids.iter().any(token) {
            return Ok(String::new());
        }
        caught("the tokens could not be decoded", || self.inner.decode(ids, skip_special))?.map_err(tokenizer_error)
    }

    /// The string that the decoder gets for `id`; none for special tokens and ids that the tokenizer does not know.
    fn decoded_token(&self, id: u32) -> Option<String> {
        let added = self.inner.get_added_vocabulary();
        let token = added.simple_id_to_token(id).or_else(|| self.inner.get_model().id_to_token(id))?;
        (!added.is_special_token(&token)).then_some(token)
    }

    /// What a token adds to a text that has begun, which may be a part of a character; none for special tokens and ids that the tokenizer does
    /// not know.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.decoding.bytes(self.decoded_token(id)?)
    }

    /// What a token adds to a text that has begun, or the name of one that adds nothing.
    pub fn bytes_or_name(&self, id: u32) -> Vec<u8> {
        self.bytes(id).unwrap_or_else(|| self.token(id).unwrap_or_default().into_bytes())
    }

    /// Whether `id` is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The string of a token as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Ids the tokenizer knows, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

/// What of a `tokenizer.json` is changed.
#[derive(Deserialize)]
struct Own {
    normalizer: Option<Normalization>,
}

/// Whether a token means more than its text: special ones, and tags that are marked as no more than added.
fn controls(token: &AddedToken) -> bool {
    let text = token.content.as_str();
    let tag = |open, close| text.len() > 2 && text.starts_with(open) && text.ends_with(close);
    token.special || tag('<', '>') || tag('[', ']')
}

/// The result of `work`, or an error saying `what` where it panics: decoders and normalisers of the `tokenizers` crate do on
/// some inputs.
fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|_| Error::Tokenizer(what.into()))
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}
