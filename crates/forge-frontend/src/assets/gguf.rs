//! The assets inside a GGUF: `tokenizer.*` and `general.sampling.*` metadata.

use std::collections::BTreeSet;

use super::chat_template::Templates;
use super::pre_tokenizers::pre_tokenizer;
use super::processor::Affixes;
use super::vocabulary::{Token, TokenType};
use super::{Assets, GenerationConfig, SpecialTokens, bpe, end_tokens, spm};
use crate::FrontendError;
use crate::checkpoint::{GgufFile, MetaArray, MetaValue};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";

/// See [`Assets::from_gguf`].
pub(super) fn from_gguf(gguf: &GgufFile) -> Result<Assets, FrontendError> {
    let reader = Reader { gguf, file: gguf.files()[0].name() };
    let tokens = reader.tokens()?;
    let model = reader.text(MODEL)?.ok_or_else(|| reader.missing(MODEL))?;
    let pre = match model {
        "llama" | "gemma4" => None,
        "gpt2" => {
            let name = reader.text(PRE)?.ok_or_else(|| reader.missing(PRE))?;
            let known = pre_tokenizer(name)
                .ok_or_else(|| reader.error(PRE, format!("the pre-tokenizer {name:?} is not supported")))?;
            Some(known)
        }
        other => {
            return Err(reader
                .error(MODEL, format!("the tokenizer {other:?} is not supported; supported: gemma4, gpt2, llama")));
        }
    };
    let special = |key: &str| reader.token_id(key, tokens.len());
    let bos = special("tokenizer.ggml.bos_token_id")?;
    let eos = special("tokenizer.ggml.eos_token_id")?;
    let with_text = |id: Option<u32>| id.map(|id| (tokens[id as usize].text.clone(), id));
    let add_bos = reader.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(pre.is_none_or(|pre| pre.add_bos));
    let add_eos = reader.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let affixes = Affixes { bos: with_text(bos).filter(|_| add_bos), eos: with_text(eos).filter(|_| add_eos) };
    let tokenizer = match pre {
        Some(pre) => bpe::byte_level_bpe(&tokens, &reader.merges()?, &pre, &affixes),
        None if model == "gemma4" => {
            let add_space = reader.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(false);
            spm::with_merges(&tokens, &reader.merges()?, add_space, &affixes)
        }
        None => {
            let add_space = reader.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            spm::sentencepiece_bpe(&tokens, add_space, &affixes).map_err(|reason| reader.error(TOKENS, reason))?
        }
    };

    let mut end_tokens: BTreeSet<u32> = eos.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        end_tokens.extend(special(key)?);
    }
    // Some converters mark end-of-turn tokens as user-defined.
    let added = |token: &Token| matches!(token.kind, TokenType::Control | TokenType::UserDefined);
    let added = tokens.iter().enumerate().filter(|(_, token)| added(token));
    end_tokens.extend(added.filter(|(_, token)| end_tokens::ends_turn(&token.text)).map(|(id, _)| id as u32));

    let templates = reader.templates()?;
    let text = |key: &str| Ok::<_, FrontendError>(with_text(special(key)?).map(|(text, _)| text));
    Ok(Assets {
        tokenizer_json: super::to_json(&tokenizer),
        chat_template: templates.default,
        other_templates: templates.others.keys().cloned().collect(),
        generation: GenerationConfig {
            bos_token: with_text(bos).map(|(text, _)| text),
            eos_token: with_text(eos).map(|(text, _)| text),
            bos_token_id: bos,
            add_bos: affixes.bos.is_some(),
            end_token_ids: end_tokens.into_iter().collect(),
            temperature: reader.number("general.sampling.temp")?,
            top_k: reader.integer("general.sampling.top_k")?,
            top_p: reader.number("general.sampling.top_p")?,
            min_p: reader.number("general.sampling.min_p")?,
            repeat_penalty: reader.number("general.sampling.penalty_repeat")?,
            do_sample: None,
            special: SpecialTokens {
                unk_token: text("tokenizer.ggml.unknown_token_id")?,
                pad_token: text("tokenizer.ggml.padding_token_id")?,
            },
            chat_templates: templates.others,
        },
    })
}

/// Typed access to the metadata.
struct Reader<'a> {
    gguf: &'a GgufFile,
    file: String,
}

impl<'a> Reader<'a> {
    fn error(&self, key: &str, reason: String) -> FrontendError {
        FrontendError::Tokenizer { file: self.file.clone(), key: key.to_owned(), reason }
    }

    fn missing(&self, key: &str) -> FrontendError {
        FrontendError::MissingKey { file: self.file.clone(), key: key.to_owned() }
    }

    fn wrong(&self, key: &str, expected: &str) -> FrontendError {
        let found = self.gguf.metadata(key).map_or("nothing", MetaValue::type_name);
        self.error(key, format!("expected {expected}, found {found}"))
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a MetaValue) -> Option<T>,
    ) -> Result<Option<T>, FrontendError> {
        let Some(value) = self.gguf.metadata(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, expected))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, FrontendError> {
        self.typed(key, "a string", MetaValue::as_str)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, FrontendError> {
        self.typed(key, "a bool", MetaValue::as_bool)
    }

    fn number(&self, key: &str) -> Result<Option<f32>, FrontendError> {
        self.typed(key, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    fn integer(&self, key: &str) -> Result<Option<u32>, FrontendError> {
        self.typed(key, "a 32-bit integer", |value| value.as_u64().and_then(|number| u32::try_from(number).ok()))
    }

    /// The id of a special token. An id beyond the vocabulary is an error, but for the all-ones that mean none.
    fn token_id(&self, key: &str, vocab: usize) -> Result<Option<u32>, FrontendError> {
        match self.integer(key)? {
            None | Some(u32::MAX) => Ok(None),
            Some(id) if (id as usize) < vocab => Ok(Some(id)),
            Some(id) => Err(self.error(key, format!("expected an id below {vocab}, found {id}"))),
        }
    }

    fn strings(&self, key: &str) -> Result<Vec<&'a str>, FrontendError> {
        let items = match self.gguf.metadata(key) {
            None => return Err(self.missing(key)),
            Some(MetaValue::Array(MetaArray::Strings(items))) => items,
            Some(_) => return Err(self.wrong(key, "an array of strings")),
        };
        let text = |(index, item): (usize, &'a Vec<u8>)| {
            std::str::from_utf8(item)
                .map_err(|_| self.error(key, format!("item {index} is not UTF-8: \"{}\"", item.escape_ascii())))
        };
        items.iter().enumerate().map(text).collect()
    }

    /// An array as long as the vocabulary, where there is one.
    fn parallel<T>(
        &self,
        key: &str,
        vocab: usize,
        read: impl Fn(&MetaArray) -> Option<Vec<T>>,
    ) -> Result<Option<Vec<T>>, FrontendError> {
        let Some(value) = self.gguf.metadata(key) else { return Ok(None) };
        let items = value.as_array().and_then(read).ok_or_else(|| self.wrong(key, "an array of numbers"))?;
        if items.len() != vocab {
            return Err(self.error(key, format!("expected {vocab} items, as many as tokens, found {}", items.len())));
        }
        Ok(Some(items))
    }

    fn tokens(&self) -> Result<Vec<Token>, FrontendError> {
        let texts = self.strings(TOKENS)?;
        let scores = self.parallel(SCORES, texts.len(), |array| match array {
            MetaArray::F32(items) => Some(items.clone()),
            _ => None,
        })?;
        let kinds = self.parallel(TYPES, texts.len(), |array| match array {
            MetaArray::I32(items) => Some(items.clone()),
            MetaArray::U32(items) => Some(items.iter().map(|&kind| kind as i32).collect()),
            _ => None,
        })?;
        let token = |(id, text): (usize, &str)| Token {
            text: text.to_owned(),
            kind: kinds.as_ref().map_or(TokenType::Normal, |kinds| TokenType::from_id(kinds[id].into())),
            score: scores.as_ref().map_or(0.0, |scores| scores[id]),
        };
        Ok(texts.into_iter().enumerate().map(token).collect())
    }

    fn merges(&self) -> Result<Vec<(&'a str, &'a str)>, FrontendError> {
        let pair = |(index, merge): (usize, &'a str)| {
            merge
                .split_once(' ')
                .ok_or_else(|| self.error(MERGES, format!("item {index}: expected two pieces, found {merge:?}")))
        };
        self.strings(MERGES)?.into_iter().enumerate().map(pair).collect()
    }

    /// The default template, and those that have their name behind its key.
    fn templates(&self) -> Result<Templates, FrontendError> {
        let mut named = Vec::new();
        if let Some(default) = self.text(TEMPLATE)? {
            named.push(("default".to_owned(), default.to_owned()));
        }
        for key in self.gguf.entries().keys() {
            if let Some(name) = key.strip_prefix(TEMPLATE).and_then(|key| key.strip_prefix('.')) {
                named.extend(self.text(key)?.map(|text| (name.to_owned(), text.to_owned())));
            }
        }
        Ok(Templates::from_named(named.into_iter()))
    }
}
