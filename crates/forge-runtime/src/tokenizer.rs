//! Text to token ids and back, through the `tokenizers` crate and the checkpoint's `tokenizer.json`.
//!
//! Whether a beginning-of-sequence token is added is the business of the file's post-processor, as in transformers. The
//! [`Detokenizer`] turns a stream of ids into a stream of text that never ends inside a UTF-8 character, and whose pieces
//! together are exactly what decoding all ids at once gives.

use std::collections::{HashMap, HashSet};

use tokenizers::{DecoderWrapper, Tokenizer as Inner};

use super::{Error, Result};

/// Longest run of white space that is tokenized. The regular expressions of byte-level tokenizers try every length of a run, and
/// their engine gives up in silence after a million steps.
const MAX_BLANK_RUN: usize = 400_000;

/// The checkpoint's tokenizer.
pub struct Tokenizer {
    inner: Inner,
    special: HashSet<u32>,
    decoding: Decoding,
    /// Bytes of the longest token's text: no token stands for more.
    longest: usize,
}

/// How token strings become text.
enum Decoding {
    /// GPT-2's byte-level alphabet: each character of a token stands for one byte.
    ByteLevel(HashMap<char, u8>),
    /// Any other decoder; with `true`, tokens `<0xXX>` stand for bytes.
    Other(bool),
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
        let decoding = match inner.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => Decoding::ByteLevel(byte_level_alphabet()),
            decoder => Decoding::Other(decoder.is_some_and(has_byte_fallback)),
        };
        let longest = inner.get_vocab(true).keys().map(String::len).max().unwrap_or(1);
        Ok(Self { inner, special, decoding, longest })
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
        let encoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.inner.encode_fast(text, special)));
        match encoded {
            Ok(encoding) => Ok(encoding.map_err(tokenizer_error)?.get_ids().to_vec()),
            Err(_) => Err(Error::Tokenizer("the text could not be tokenized".into())),
        }
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
        self.inner.decode(ids, skip_special).map_err(tokenizer_error)
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

/// Text from a stream of ids, special tokens left out.
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    state: State,
}

enum State {
    /// Bytes that are not yet a whole character.
    Bytes(Vec<u8>),
    /// Ids whose text was given last, with that text, and ids whose text was not given yet.
    Ids { context: Vec<u32>, text: String, pending: Vec<u32> },
}

impl<'a> Detokenizer<'a> {
    /// A stream of its own: what it gives is what decoding its ids alone gives.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        let state = match tokenizer.decoding {
            Decoding::ByteLevel(_) => State::Bytes(Vec::new()),
            Decoding::Other(_) => State::Ids { context: Vec::new(), text: String::new(), pending: Vec::new() },
        };
        Self { tokenizer, state }
    }

    /// A stream that continues the text of `prompt`: SentencePiece drops the space before the first word of a text, and a
    /// continuation is not the first.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn after(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Result<Self> {
        let mut stream = Self::new(tokenizer);
        if let State::Ids { context, text, .. } = &mut stream.state {
            let words = prompt.iter().copied().filter(|id| !tokenizer.is_special(*id)).collect::<Vec<_>>();
            // A few tokens are enough to not be at the start.
            *context = words[words.len().saturating_sub(4)..].to_vec();
            *text = tokenizer.decode(context, true)?;
        }
        Ok(stream)
    }

    /// Takes an id and gives the text that is now certain, often that of this id, sometimes none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        let tokenizer = self.tokenizer;
        if tokenizer.is_special(id) {
            return Ok(String::new());
        }
        match (&mut self.state, &tokenizer.decoding) {
            (State::Bytes(bytes), Decoding::ByteLevel(alphabet)) => {
                let token = tokenizer.token(id).unwrap_or_default();
                match token.chars().map(|c| alphabet.get(&c).copied()).collect::<Option<Vec<u8>>>() {
                    Some(decoded) => bytes.extend(decoded),
                    // Added tokens are written as they are, not in the byte-level alphabet.
                    None => bytes.extend(token.as_bytes()),
                }
                Ok(take_characters(bytes))
            }
            (State::Ids { pending, .. }, decoding) => {
                pending.push(id);
                // Decoders look at a run of byte tokens as a whole: one bad byte spoils all of it.
                let byte = matches!(decoding, Decoding::Other(true))
                    && tokenizer.token(id).is_some_and(|token| is_byte_token(&token));
                if byte { Ok(String::new()) } else { self.take_pending() }
            }
            (State::Bytes(_), Decoding::Other(_)) => Ok(String::new()),
        }
    }

    /// The text that was still held back.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn finish(mut self) -> Result<String> {
        match &self.state {
            State::Bytes(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            State::Ids { .. } => self.take_pending(),
        }
    }

    fn take_pending(&mut self) -> Result<String> {
        let State::Ids { context, text, pending } = &mut self.state else { return Ok(String::new()) };
        let all: Vec<u32> = context.iter().chain(pending.iter()).copied().collect();
        let decoded = self.tokenizer.decode(&all, true)?;
        let fresh = decoded.strip_prefix(text.as_str()).unwrap_or_default().to_owned();
        // Ids without a text of their own stay, as a decoder that strips a leading space would strip it again after them.
        if !fresh.is_empty() {
            *context = std::mem::take(pending);
            *text = self.tokenizer.decode(context, true)?;
        }
        Ok(fresh)
    }
}

/// Takes the whole characters off the front of `bytes`, bad bytes as U+FFFD just as `String::from_utf8_lossy` has them.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut used = 0;
    loop {
        match std::str::from_utf8(&bytes[used..]) {
            Ok(rest) => {
                text.push_str(rest);
                used = bytes.len();
                break;
            }
            Err(error) => {
                let good = used + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[used..good]));
                used = good;
                let Some(bad) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                used += bad;
            }
        }
    }
    bytes.drain(..used);
    text
}

fn is_byte_token(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

fn has_byte_fallback(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(has_byte_fallback),
        _ => false,
    }
}

/// The inverse of GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the other bytes for U+0100 onwards.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let mut spare = 0x100;
    (0..=255u8)
        .map(|byte| {
            if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
                return (char::from(byte), byte);
            }
            let stand_in = char::from_u32(spare).unwrap_or(char::REPLACEMENT_CHARACTER);
            spare += 1;
            (stand_in, byte)
        })
        .collect()
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}
