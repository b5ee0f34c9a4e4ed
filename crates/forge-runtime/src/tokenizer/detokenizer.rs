//! A stream of ids as a stream of text: the pieces never end inside a UTF-8 character, and together they are exactly what
//! decoding all ids at once gives.

use std::ops::Deref;

use super::super::Result;
use super::Tokenizer;
use super::decoding::Decoding;

/// Text from a stream of ids, special tokens left out. `T` is a reference to a [`Tokenizer`], counted or not.
pub struct Detokenizer<T> {
    tokenizer: T,
    decoding: Decoding,
    /// What the end of the prompt alone would still have given; the stream's text begins with it unless ids change it.
    given: String,
}

impl<T: Deref<Target = Tokenizer>> Detokenizer<T> {
    /// A stream of its own: what it gives is what decoding its ids alone gives.
    pub fn new(tokenizer: T) -> Self {
        let decoding = tokenizer.decoding.clone();
        Self { tokenizer, decoding, given: String::new() }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &T {
        &self.tokenizer
    }

    /// A stream that continues the text of `prompt`: SentencePiece drops the space before the first word of a text, and a
    /// continuation is not the first.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](super::super::Error::Tokenizer).
    pub fn after(tokenizer: T, prompt: &[u32]) -> Result<Self> {
        let mut stream = Self::new(tokenizer);
        for id in prompt {
            let Some(token) = stream.tokenizer.decoded_token(*id) else { continue };
            stream.decoding.push(token)?;
        }
        stream.given = stream.decoding.clone().finish()?;
        Ok(stream)
    }

    /// Takes an id and gives the text that is now certain, often that of this id, sometimes none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](super::super::Error::Tokenizer).
    pub fn push(&mut self, id: u32) -> Result<String> {
        let Some(token) = self.tokenizer.decoded_token(id) else { return Ok(String::new()) };
        let text = self.decoding.push(token)?;
        Ok(self.beyond_prompt(text))
    }

    /// The text that was still held back.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](super::super::Error::Tokenizer).
    pub fn finish(mut self) -> Result<String> {
        let text = std::mem::take(&mut self.decoding).finish()?;
        Ok(self.beyond_prompt(text))
    }

    /// Takes off what the prompt's own text ended with.
    fn beyond_prompt(&mut self, mut text: String) -> String {
        if self.given.is_empty() {
            return text;
        }
        let pairs = self.given.chars().zip(text.chars());
        let same: usize = pairs.take_while(|(given, found)| given == found).map(|(given, _)| given.len_utf8()).sum();
        let fresh = text.split_off(same);
        if fresh.is_empty() {
            self.given.drain(..same);
        } else {
            self.given.clear();
        }
        fresh
    }
}
