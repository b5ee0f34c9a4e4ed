//! The decoders of a `tokenizer.json` one token at a time.
//!
//! A decoder may change what it made of earlier tokens when another comes: half a character becomes a whole one, ` .` becomes
//! `.`, a last word loses its suffix. So each decoder is a step that gives what no later token can change and keeps the rest.
//! Up to the first decoder that joins all tokens into one (`ByteLevel`, `Fuse`) the steps see tokens, after it the one
//! token's text in parts. The rules are those of the `tokenizers` crate; steps on single tokens call it.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tokenizers::{Decoder, DecoderWrapper};

use super::super::{Error, Result};

/// What WordPiece and CTC decoders tidy up, in their order (`cleanup` of the `tokenizers` crate).
const CLEANUP: [(&str, &str); 11] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// A decoder with what it holds back. The default is a text without decoder: tokens with spaces between them.
#[derive(Clone, Default)]
pub(super) struct Decoding {
    tokens: Vec<TokenStep>,
    join: Join,
    text: Vec<TextStep>,
}

/// How tokens become one text.
#[derive(Clone)]
enum Join {
    /// A space before each token but the first.
    Spaced { first: bool },
    /// One after the other.
    Fused,
    /// GPT-2's byte-level alphabet: each character of a token stands for one byte. Holds the bytes of half a character.
    ByteLevel(Vec<u8>),
}

impl Default for Join {
    fn default() -> Self {
        Self::Spaced { first: true }
    }
}

/// A decoder of tokens.
#[derive(Clone)]
enum TokenStep {
    /// Looks at each token alone.
    Each(Arc<DecoderWrapper>),
    /// Treats the first token differently.
    First { decoder: Arc<DecoderWrapper>, first: bool },
    /// Treats the last token differently.
    Last { decoder: Arc<DecoderWrapper>, held: Option<String> },
    /// Leaves out a token that is the one before it again.
    Distinct { decoder: Arc<DecoderWrapper>, before: Option<String> },
    /// Tokens `<0xXX>` stand for bytes; one bad byte spoils the whole run of them.
    Bytes { decoder: Arc<DecoderWrapper>, run: Vec<String> },
}

/// A decoder of one text that comes in parts.
#[derive(Clone)]
enum TextStep {
    /// Looks at each character alone.
    Each(Arc<DecoderWrapper>),
    /// One string for another.
    Replace { from: String, to: String, held: String },
    /// Drops up to `start` characters at the beginning and up to `stop` at the end, of which `held` may be.
    Strip { content: char, start: usize, stop: usize, held: usize },
    /// A text that is `<0xXX>` and nothing else stands for a byte.
    Byte { decoder: Arc<DecoderWrapper>, held: Option<String> },
    /// What the first characters become may depend on the last ones.
    Whole { decoder: Arc<DecoderWrapper>, held: String },
}

impl Decoding {
    /// The steps of a tokenizer's decoder.
    pub fn new(decoder: Option<&DecoderWrapper>) -> Self {
        let Some(decoder) = decoder else { return Self::default() };
        let mut decoding = Self { tokens: Vec::new(), join: Join::Fused, text: Vec::new() };
        let mut joined = false;
        decoding.add(decoder, &mut joined);
        decoding
    }

    fn add(&mut self, decoder: &DecoderWrapper, joined: &mut bool) {
        match decoder {
            DecoderWrapper::Sequence(sequence) => {
                for decoder in sequence.get_decoders() {
                    self.add(decoder, joined);
                }
            }
            DecoderWrapper::Fuse(_) => *joined = true,
            DecoderWrapper::ByteLevel(_) if !*joined => {
                self.join = Join::ByteLevel(Vec::new());
                *joined = true;
            }
            decoder if *joined => self.text.extend(text_steps(decoder)),
            decoder => self.tokens.push(token_step(decoder)),
        }
    }

    /// What a token adds between others, byte by byte; none where the decoder cannot take it.
    pub fn bytes(&self, token: String) -> Option<Vec<u8>> {
        if let Join::ByteLevel(_) = self.join {
            let bytes = token.chars().map(byte_of).collect::<Option<Vec<u8>>>();
            return Some(bytes.unwrap_or_else(|| token.into_bytes()));
        }
        let falls_back = self.tokens.iter().any(|step| matches!(step, TokenStep::Bytes { .. }));
        if falls_back && is_byte_token(&token) {
            return u8::from_str_radix(&token[3..5], 16).ok().map(|byte| vec![byte]);
        }
        let decode = |tokens: &[&str]| -> Result<String> {
            let mut decoding = self.clone();
            let mut text = String::new();
            for token in tokens {
                text += &decoding.push((*token).to_owned())?;
            }
            Ok(text + &decoding.finish()?)
        };
        let (first, last) = ("a", "b");
        let (without, with) = (decode(&[first, last]).ok()?, decode(&[first, &token, last]).ok()?);
        let middle = with.strip_prefix(first)?.strip_suffix(without.strip_prefix(first)?)?;
        Some(middle.as_bytes().to_vec())
    }

    /// Takes a token and gives the text that no later token changes.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a decoder that cannot take the token.
    pub fn push(&mut self, token: String) -> Result<String> {
        self.run(vec![token], 0)
    }

    /// The text that was held back.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a decoder that cannot take the last tokens.
    pub fn finish(mut self) -> Result<String> {
        let mut text = String::new();
        for at in 0..self.tokens.len() {
            let rest = self.tokens[at].finish()?;
            text += &self.run(rest, at + 1)?;
        }
        let rest = self.join.finish();
        text += &self.run_text(rest, 0)?;
        for at in 0..self.text.len() {
            let rest = self.text[at].finish()?;
            text += &self.run_text(rest, at + 1)?;
        }
        Ok(text)
    }

    /// Tokens through the steps from the one with index `from`.
    fn run(&mut self, mut tokens: Vec<String>, from: usize) -> Result<String> {
        for step in &mut self.tokens[from..] {
            let mut next = Vec::with_capacity(tokens.len());
            for token in tokens {
                next.extend(step.push(token)?);
            }
            tokens = next;
        }
        let text = tokens.iter().map(|token| self.join.push(token)).collect();
        self.run_text(text, 0)
    }

    /// A part of the text through the steps from the one with index `from`.
    fn run_text(&mut self, mut text: String, from: usize) -> Result<String> {
        for step in &mut self.text[from..] {
            if text.is_empty() {
                break;
            }
            text = step.push(text)?;
        }
        Ok(text)
    }
}

impl Join {
    fn push(&mut self, token: &str) -> String {
        match self {
            Self::Spaced { first: true } => {
                *self = Self::Spaced { first: false };
                token.to_owned()
            }
            Self::Spaced { first: false } => format!(" {token}"),
            Self::Fused => token.to_owned(),
            Self::ByteLevel(bytes) => {
                match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                    Some(decoded) => bytes.extend(decoded),
                    // Added tokens are written as they are, not in the byte-level alphabet.
                    None => bytes.extend(token.as_bytes()),
                }
                take_characters(bytes)
            }
        }
    }

    fn finish(&mut self) -> String {
        match self {
            Self::ByteLevel(bytes) => String::from_utf8_lossy(&std::mem::take(bytes)).into_owned(),
            Self::Spaced { .. } | Self::Fused => String::new(),
        }
    }
}

fn token_step(decoder: &DecoderWrapper) -> TokenStep {
    let shared = Arc::new(decoder.clone());
    match decoder {
        DecoderWrapper::Metaspace(_) | DecoderWrapper::WordPiece(_) => {
            TokenStep::First { decoder: shared, first: true }
        }
        DecoderWrapper::BPE(_) => TokenStep::Last { decoder: shared, held: None },
        DecoderWrapper::CTC(_) => TokenStep::Distinct { decoder: shared, before: None },
        DecoderWrapper::ByteFallback(_) => TokenStep::Bytes { decoder: shared, run: Vec::new() },
        _ => TokenStep::Each(shared),
    }
}

impl TokenStep {
    fn push(&mut self, token: String) -> Result<Vec<String>> {
        match self {
            Self::Each(decoder) => chain(decoder, vec![token]),
            Self::First { decoder, first } => {
                if std::mem::take(first) {
                    return chain(decoder, vec![token]);
                }
                // Any token before it makes it not the first.
                Ok(chain(decoder, vec![String::new(), token])?.split_off(1))
            }
            Self::Last { decoder, held } => match held.replace(token) {
                Some(before) => {
                    let mut decoded = chain(decoder, vec![before, String::new()])?;
                    decoded.truncate(1);
                    Ok(decoded)
                }
                None => Ok(Vec::new()),
            },
            Self::Distinct { decoder, before } => {
                if before.as_ref() == Some(&token) {
                    return Ok(Vec::new());
                }
                *before = Some(token.clone());
                chain(decoder, vec![token])
            }
            Self::Bytes { decoder, run } => {
                let byte = is_byte_token(&token);
                run.push(token);
                if byte { Ok(Vec::new()) } else { chain(decoder, std::mem::take(run)) }
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<String>> {
        match self {
            Self::Last { decoder, held } => held.take().map_or(Ok(Vec::new()), |token| chain(decoder, vec![token])),
            Self::Bytes { decoder, run } => chain(decoder, std::mem::take(run)),
            Self::Each(_) | Self::First { .. } | Self::Distinct { .. } => Ok(Vec::new()),
        }
    }
}

/// What a decoder does with one text.
fn text_steps(decoder: &DecoderWrapper) -> Vec<TextStep> {
    let shared = Arc::new(decoder.clone());
    let replace = |from: &str, to: &str| TextStep::Replace { from: from.into(), to: to.into(), held: String::new() };
    let cleanup = || CLEANUP.iter().map(|(from, to)| replace(from, to));
    let steps: Vec<TextStep> = match decoder {
        DecoderWrapper::Metaspace(_) => vec![TextStep::Each(Arc::clone(&shared))],
        DecoderWrapper::ByteFallback(_) => {
            vec![TextStep::Byte { decoder: Arc::clone(&shared), held: Some(String::new()) }]
        }
        DecoderWrapper::Strip(strip) => {
            vec![TextStep::Strip { content: strip.content, start: strip.start, stop: strip.stop, held: 0 }]
        }
        DecoderWrapper::Replace(pattern) => replaced_string(decoder)
            .map(|from| vec![replace(&from, &pattern.content)])
            .unwrap_or_else(|| vec![TextStep::Whole { decoder: Arc::clone(&shared), held: String::new() }]),
        // The one token is first and last.
        DecoderWrapper::BPE(bpe) => vec![replace(&bpe.suffix, "")],
        DecoderWrapper::WordPiece(piece) if piece.cleanup => cleanup().collect(),
        DecoderWrapper::WordPiece(_) => Vec::new(),
        DecoderWrapper::CTC(ctc) => {
            let words = ctc.cleanup.then(|| cleanup().chain([replace(&ctc.word_delimiter_token, " ")]));
            [replace(&ctc.pad_token, "")].into_iter().chain(words.into_iter().flatten()).collect()
        }
        _ => vec![TextStep::Whole { decoder: Arc::clone(&shared), held: String::new() }],
    };
    // An empty string is found between any two characters.
    let empty = steps.iter().any(|step| matches!(step, TextStep::Replace { from, .. } if from.is_empty()));
    if empty { vec![TextStep::Whole { decoder: shared, held: String::new() }] } else { steps }
}

/// The string that a `Replace` looks for; none where it is an expression, whose matches may reach any length.
fn replaced_string(decoder: &DecoderWrapper) -> Option<String> {
    let json = serde_json::to_value(decoder).ok()?;
    json.pointer("/pattern/String").and_then(Value::as_str).map(str::to_owned)
}

impl TextStep {
    fn push(&mut self, text: String) -> Result<String> {
        match self {
            Self::Each(decoder) => Ok(chain(decoder, vec![text])?.concat()),
            Self::Replace { from, to, held } => {
                held.push_str(&text);
                let mut replaced = String::new();
                while let Some(at) = held.find(from.as_str()) {
                    replaced.push_str(&held[..at]);
                    replaced.push_str(to);
                    held.drain(..at + from.len());
                }
                let begins = |at: &usize| from.starts_with(&held[*at..]);
                let longest = held.len().saturating_sub(from.len().saturating_sub(1));
                let keep = (longest..held.len()).filter(|at| held.is_char_boundary(*at)).find(begins);
                let rest = held.split_off(keep.unwrap_or(held.len()));
                replaced.push_str(&std::mem::replace(held, rest));
                Ok(replaced)
            }
            Self::Strip { content, start, stop, held } => {
                let mut kept = String::with_capacity(text.len());
                for c in text.chars() {
                    if c != *content {
                        *start = 0;
                        kept.extend(std::iter::repeat_n(*content, std::mem::take(held)));
                        kept.push(c);
                    } else if *start > 0 {
                        *start -= 1;
                    } else if *held < *stop {
                        *held += 1;
                    } else {
                        kept.push(c);
                    }
                }
                Ok(kept)
            }
            Self::Byte { held, .. } => {
                let Some(mut all) = held.take() else { return Ok(text) };
                all.push_str(&text);
                if all.len() <= "<0xXX>".len() {
                    *held = Some(all);
                    return Ok(String::new());
                }
                Ok(all)
            }
            Self::Whole { held, .. } => {
                held.push_str(&text);
                Ok(String::new())
            }
        }
    }

    fn finish(&mut self) -> Result<String> {
        match self {
            Self::Replace { held, .. } => Ok(std::mem::take(held)),
            Self::Byte { decoder, held } => {
                held.take().map_or(Ok(String::new()), |text| Ok(chain(decoder, vec![text])?.concat()))
            }
            Self::Whole { decoder, held } => Ok(chain(decoder, vec![std::mem::take(held)])?.concat()),
            Self::Each(_) | Self::Strip { .. } => Ok(String::new()),
        }
    }
}

/// What the `tokenizers` crate makes of the tokens.
fn chain(decoder: &DecoderWrapper, tokens: Vec<String>) -> Result<Vec<String>> {
    super::caught("the tokens could not be decoded", || decoder.decode_chain(tokens))?
        .map_err(|error| Error::Tokenizer(error.to_string()))
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

/// The byte that a character of GPT-2's alphabet stands for.
fn byte_of(c: char) -> Option<u8> {
    static ALPHABET: LazyLock<Vec<Option<u8>>> = LazyLock::new(byte_level_alphabet);
    ALPHABET.get(c as usize).copied().flatten()
}

/// The inverse of GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the other bytes for U+0100 onwards.
fn byte_level_alphabet() -> Vec<Option<u8>> {
    let mut bytes = vec![None; 0x200];
    let mut spare = 0x100;
    for byte in 0..=255u8 {
        if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            bytes[usize::from(byte)] = Some(byte);
        } else {
            bytes[spare] = Some(byte);
            spare += 1;
        }
    }
    bytes
}
