//! The assets inside a GGUF: `tokenizer.*` and `general.sampling.*` metadata.

use std::collections::BTreeSet;

use serde_json::Value;

use super::chat_template::Templates;
use super::pre_tokenizers::pre_tokenizer;
use super::processor::Affixes;
use super::spm::Surroundings;
use super::vocabulary::{Token, TokenType};
use super::{Assets, GenerationConfig, SpecialTokens, bpe, end_tokens, markers, spm};
use crate::checkpoint::{GgufFile, MetaArray, MetaValue};
use crate::{FrontendError, Refusal};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
const TEMPLATE: &str = "tokenizer.chat_template";

/// See [`Assets::from_gguf`].
pub(super) fn from_gguf(gguf: &GgufFile) -> Result<Assets, FrontendError> {
    let reader = Reader { gguf, file: gguf.files()[0].name() };
    let mut tokens = reader.tokens()?;
    let model = reader.text(MODEL)?.ok_or_else(|| reader.missing(Refusal::NoTokenizerName, MODEL))?;
    let pre = match model {
        "llama" | "gemma4" => None,
        "gpt2" => {
            let name = reader.text(PRE)?.ok_or_else(|| reader.missing(Refusal::NoPreTokenizer, PRE))?;
            let known = pre_tokenizer(name).ok_or_else(|| {
                reader.error(Refusal::PreTokenizer, PRE, format!("the pre-tokenizer {name:?} is not supported"))
            })?;
            Some(known)
        }
        other => {
            return Err(reader.error(
                Refusal::TokenizerName,
                MODEL,
                format!("the tokenizer {other:?} is not supported; supported: gemma4, gpt2, llama"),
            ));
        }
    };
    let merges = reader.merges_of(model)?;
    let templates = reader.templates()?;
    for (id, kind) in markers::mistyped(&tokens, merges.as_deref(), templates.texts()) {
        tokens[id].kind = kind;
    }
    let special = |key: &str| reader.token_id(key, tokens.len());
    let bos = special("tokenizer.ggml.bos_token_id")?;
    let eos = special("tokenizer.ggml.eos_token_id")?;
    let with_text = |id: Option<u32>| id.map(|id| (tokens[id as usize].text.clone(), id));
    let said = reader.flag("tokenizer.ggml.add_bos_token")?;
    // llama.cpp overrules the key for Gemma 4, whose first GGUFs had it wrong.
    let add_bos = model == "gemma4" || said.unwrap_or(pre.is_none_or(|pre| pre.add_bos));
    let add_eos = reader.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let affixes = Affixes { bos: with_text(bos).filter(|_| add_bos), eos: with_text(eos).filter(|_| add_eos) };
    let mut tokenizer = match (pre, &merges) {
        (Some(pre), merges) => bpe::byte_level_bpe(&tokens, merges.as_deref().unwrap_or_default(), &pre, &affixes),
        (None, Some(merges)) => {
            let add_space = reader.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(false);
            spm::with_merges(&tokens, merges, Surroundings::of_llama_cpp(add_space), &affixes)
        }
        (None, None) => {
            let add_space = reader.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            spm::sentencepiece_bpe(&tokens, Surroundings::of_llama_cpp(add_space), &affixes)
                .map_err(|reason| reader.error(Refusal::Pieces, TOKENS, reason))?
        }
    };

    if reader.role_tokens_strip(model)? {
        strip_after_role_tokens(&mut tokenizer);
    }

    let mut end_tokens: BTreeSet<u32> = eos.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        end_tokens.extend(special(key)?);
    }
    // Some converters mark end-of-turn tokens as user-defined.
    let added = |token: &Token| matches!(token.kind, TokenType::Control | TokenType::UserDefined);
    let added = tokens.iter().enumerate().filter(|(_, token)| added(token));
    end_tokens.extend(end_tokens::of_turns(added.map(|(id, token)| (token.text.as_str(), id as u32))));

    // No text becomes these: llama.cpp passes over ids that the vocabulary lacks.
    let text = |key: &str| {
        let token = reader.id(key)?.and_then(|id| tokens.get(id as usize));
        Ok::<_, FrontendError>(token.map(|token| token.text.clone()))
    };
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
            special: SpecialTokens { unk_token: text(UNKNOWN)?, pad_token: text(PADDING)? },
            chat_templates: templates.others,
        },
    })
}

/// Added tokens of Phi-3 that keep the white space after them.
const KEEP_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// Marks the added tokens that drop the white space after them, as Phi-3's tokenizer.json does and llama.cpp
/// (llama-vocab.cpp, "Handle per token attributes").
fn strip_after_role_tokens(tokenizer: &mut Value) {
    for token in tokenizer.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
        let keeps = token.get("content").and_then(Value::as_str).is_some_and(|text| KEEP_SPACE.contains(&text));
        if let Value::Object(token) = token {
            token.insert("rstrip".to_owned(), Value::from(!keeps));
        }
    }
}

/// Keys of ids that the vocabulary does not have, with those ids, where they are passed over.
pub(crate) fn unknown_ids(gguf: &GgufFile) -> Vec<(&'static str, u32)> {
    let reader = Reader { gguf, file: String::new() };
    let vocab = gguf.metadata(TOKENS).and_then(MetaValue::as_array).map_or(0, MetaArray::len);
    let id = |key| reader.id(key).ok().flatten().filter(|&id| id as usize >= vocab).map(|id| (key, id));
    [UNKNOWN, PADDING].into_iter().filter_map(id).collect()
}

/// Texts of the tokens that are typed as normal text and taken as markers of a chat; see [`markers`].
pub(crate) fn mistyped_markers(gguf: &GgufFile) -> Vec<String> {
    let reader = Reader { gguf, file: String::new() };
    let read = || {
        let merges = reader.merges_of(reader.text(MODEL)?.unwrap_or_default())?;
        let tokens = reader.tokens()?;
        let found = markers::mistyped(&tokens, merges.as_deref(), reader.templates()?.texts());
        Ok::<_, FrontendError>(found.into_iter().map(|(id, _)| tokens[id].text.clone()).collect())
    };
    read().unwrap_or_default()
}

/// Typed access to the metadata.
struct Reader<'a> {
    gguf: &'a GgufFile,
    file: String,
}

impl<'a> Reader<'a> {
    fn error(&self, refusal: Refusal, key: &str, reason: String) -> FrontendError {
        FrontendError::Tokenizer { refusal, file: self.file.clone(), key: key.to_owned(), reason }
    }

    fn missing(&self, refusal: Refusal, key: &str) -> FrontendError {
        FrontendError::MissingKey { refusal, file: self.file.clone(), key: key.to_owned() }
    }

    fn wrong(&self, refusal: Refusal, key: &str, expected: &str) -> FrontendError {
        let found = self.gguf.metadata(key).map_or("nothing", MetaValue::type_name);
        self.error(refusal, key, format!("expected {expected}, found {found}"))
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a MetaValue) -> Option<T>,
    ) -> Result<Option<T>, FrontendError> {
        let Some(value) = self.gguf.metadata(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(Refusal::TokenizerValue, key, expected))
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

    /// An integer of any width, -1 (also as all ones) for none.
    fn id(&self, key: &str) -> Result<Option<u32>, FrontendError> {
        let none = |value: &&MetaValue| {
            value.as_i64() == Some(-1) || [u64::from(u32::MAX), u64::MAX].map(Some).contains(&value.as_u64())
        };
        if self.gguf.metadata(key).as_ref().is_some_and(none) {
            return Ok(None);
        }
        self.integer(key)
    }

    /// The id of a special token. An id beyond the vocabulary is an error.
    fn token_id(&self, key: &str, vocab: usize) -> Result<Option<u32>, FrontendError> {
        match self.id(key)? {
            None => Ok(None),
            Some(id) if (id as usize) < vocab => Ok(Some(id)),
            Some(id) => {
                Err(self.error(Refusal::SpecialToken, key, format!("expected an id below {vocab}, found {id}")))
            }
        }
    }

    fn strings(&self, key: &str) -> Result<Vec<&'a str>, FrontendError> {
        let items = match self.gguf.metadata(key) {
            None => return Err(self.missing(Refusal::NoStrings, key)),
            Some(MetaValue::Array(MetaArray::Strings(items))) => items,
            Some(_) => return Err(self.wrong(Refusal::Strings, key, "an array of strings")),
        };
        let text = |(index, item): (usize, &'a Vec<u8>)| {
            std::str::from_utf8(item).map_err(|_| {
                self.error(Refusal::StringText, key, format!("item {index} is not UTF-8: \"{}\"", item.escape_ascii()))
            })
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
        let items =
            value.as_array().and_then(read).ok_or_else(|| self.wrong(Refusal::Numbers, key, "an array of numbers"))?;
        if items.len() != vocab {
            return Err(self.error(
                Refusal::NumberCount,
                key,
                format!("expected {vocab} items, as many as tokens, found {}", items.len()),
            ));
        }
        Ok(Some(items))
    }

    fn tokens(&self) -> Result<Vec<Token>, FrontendError> {
        let texts = self.strings(TOKENS)?;
        let scores = self.parallel(SCORES, texts.len(), MetaArray::as_f64s)?;
        let kinds = self.parallel(TYPES, texts.len(), MetaArray::as_i64s)?;
        let token = |(id, text): (usize, &str)| Token {
            text: text.to_owned(),
            kind: kinds.as_ref().map_or(TokenType::Normal, |kinds| TokenType::from_id(kinds[id])),
            score: scores.as_ref().map_or(0.0, |scores| scores[id] as f32),
        };
        Ok(texts.into_iter().enumerate().map(token).collect())
    }

    /// The merges that a tokenizer of this kind lists; SentencePiece's are made of its scores.
    fn merges_of(&self, model: &str) -> Result<Option<Vec<(&'a str, &'a str)>>, FrontendError> {
        if matches!(model, "gpt2" | "gemma4") { self.merges().map(Some) } else { Ok(None) }
    }

    fn merges(&self) -> Result<Vec<(&'a str, &'a str)>, FrontendError> {
        let pair = |(index, merge): (usize, &'a str)| {
            merge.split_once(' ').ok_or_else(|| {
                self.error(Refusal::Merge, MERGES, format!("item {index}: expected two pieces, found {merge:?}"))
            })
        };
        self.strings(MERGES)?.into_iter().enumerate().map(pair).collect()
    }

    /// Whether tokens drop the white space after them. No key says so: llama.cpp goes by the model's name, which the
    /// publisher chose; the Phi-3 architecture with a SentencePiece vocabulary is Phi-3 or 3.5 by any name.
    fn role_tokens_strip(&self, model: &str) -> Result<bool, FrontendError> {
        let name = self.text("general.name")?.unwrap_or_default().to_ascii_lowercase();
        let architecture = self.text("general.architecture")?;
        Ok(name.contains("phi-3") || name.contains("phi3") || (architecture == Some("phi3") && model == "llama"))
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
