//! The tokenizer of a Hugging Face folder: tokenizer.json, or one made from tokenizer.model, with the tokens that other files
//! of the folder list.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::processor::{self, Affixes};
use super::sentencepiece;
use crate::source::{TOKENIZER, read_file, read_json};
use crate::{FrontendError, Refusal};

/// Keys of tokenizer_config.json and special_tokens_map.json that name one special token each.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Keys that list several.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// An entry of `added_tokens` with every field that the format has.
fn added_token(id: u64, token: &Map<String, Value>) -> Map<String, Value> {
    let flag = |key: &str, default: bool| Value::from(token.get(key).and_then(Value::as_bool).unwrap_or(default));
    let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
    let fields = [
        ("id", Value::from(id)),
        ("content", token.get("content").cloned().unwrap_or_default()),
        ("single_word", flag("single_word", false)),
        ("lstrip", flag("lstrip", false)),
        ("rstrip", flag("rstrip", false)),
        ("normalized", flag("normalized", !special)),
        ("special", Value::from(special)),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A tokenizer.json, and its bytes as long as nothing has changed in it.
pub(super) struct Tokenizer {
    json: Map<String, Value>,
    bytes: Vec<u8>,
    changed: bool,
    /// Whether it is a tokenizer.model's.
    imported: bool,
    /// Text and id of tokens that are found in a text first without being added tokens.
    user_defined: Vec<(String, u32)>,
}

impl Tokenizer {
    /// Reads the folder's tokenizer. `config` is tokenizer_config.json.
    ///
    /// # Errors
    /// No tokenizer, or a file that is none.
    pub fn read(folder: &Path, config: &Map<String, Value>) -> Result<Self, FrontendError> {
        if let (Some(json), Some(bytes)) = (read_json(folder, TOKENIZER)?, read_file(folder, TOKENIZER)?) {
            // What is embedded has to be a tokenizer, wherever a link may have led.
            let vocab = json.get("model").and_then(|model| model.get("vocab"));
            if !vocab.is_some_and(|vocab| vocab.is_object() || vocab.is_array()) {
                return Err(FrontendError::MissingKey {
                    refusal: Refusal::NoVocabulary,
                    file: TOKENIZER.to_owned(),
                    key: "model.vocab".to_owned(),
                });
            }
            return Ok(Self { json, bytes, changed: false, imported: false, user_defined: Vec::new() });
        }
        const MODEL: &str = "tokenizer.model";
        let Some(bytes) = read_file(folder, MODEL)? else {
            return Err(FrontendError::NotACheckpoint {
                refusal: Refusal::NoTokenizer,
                path: folder.to_owned(),
                expected: "tokenizer.json or tokenizer.model",
                found: "neither".to_owned(),
            });
        };
        let sentencepiece::Imported { json, user_defined } = sentencepiece::tokenizer_json(&bytes, MODEL, config)?;
        Ok(Self { json, bytes: Vec::new(), changed: true, imported: true, user_defined })
    }

    /// Text and id of each added token.
    fn added(&self) -> impl Iterator<Item = (&str, u32)> {
        let items = self.json.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
        items.filter_map(|token| {
            let id = u32::try_from(token.get("id")?.as_u64()?).ok()?;
            Some((token.get("content")?.as_str()?, id))
        })
    }

    /// Text and id of each token that is found in a text before others.
    pub fn found_first(&self) -> impl Iterator<Item = (&str, u32)> {
        self.added().chain(self.user_defined.iter().map(|(text, id)| (text.as_str(), *id)))
    }

    /// Whether it was made from a tokenizer.model.
    pub fn is_imported(&self) -> bool {
        self.imported
    }

    /// Whether nothing is said about tokens around a text.
    pub fn has_no_post_processor(&self) -> bool {
        self.json.get("post_processor").is_none_or(Value::is_null)
    }

    /// Replaces the post-processor.
    pub fn set_post_processor(&mut self, processor: Value) {
        self.json.insert("post_processor".to_owned(), processor);
        self.changed = true;
    }

    /// The id of an added token or a token of the vocabulary.
    pub fn id(&self, text: &str) -> Option<u32> {
        let added = self.added().find(|(known, _)| *known == text).map(|(_, id)| id);
        added.or_else(|| self.vocabulary_id(text))
    }

    fn vocabulary_len(&self) -> u64 {
        let len = match self.json.get("model").and_then(|model| model.get("vocab")) {
            Some(Value::Array(pieces)) => pieces.len(),
            Some(Value::Object(vocab)) => vocab.len(),
            _ => 0,
        };
        len as u64
    }

    fn vocabulary_id(&self, text: &str) -> Option<u32> {
        match self.json.get("model")?.get("vocab")? {
            // A unigram model lists its pieces with their scores.
            Value::Array(pieces) => {
                let id = pieces.iter().position(|piece| piece.get(0).and_then(Value::as_str) == Some(text))?;
                u32::try_from(id).ok()
            }
            vocab => u32::try_from(vocab.get(text)?.as_u64()?).ok(),
        }
    }

    /// Which of the two tokens the post-processor adds.
    pub fn affixes(&self, bos: &Option<(String, u32)>, eos: &Option<(String, u32)>) -> Affixes {
        let (before, after) = processor::added(self.json.get("post_processor").unwrap_or(&Value::Null));
        let there =
            |token: &Option<(String, u32)>, texts: &[String]| token.clone().filter(|(text, _)| texts.contains(text));
        Affixes { bos: there(bos, &before), eos: there(eos, &after) }
    }

    /// Takes over the added tokens that other files list, as transformers does: those of tokenizer_config.json, with flags
    /// that differ; where it has no such list, those of added_tokens.json that are missing; and special tokens that are
    /// named without being added tokens. They have the ids that their files say; a special token that is nowhere else
    /// has the next one, if the model's `vocab_size` has room for it.
    ///
    /// # Errors
    /// An added_tokens.json that is not a JSON object.
    pub fn take_over_tokens(
        &mut self,
        folder: &Path,
        config: &Map<String, Value>,
        special_tokens: &Map<String, Value>,
        vocab_size: u64,
    ) -> Result<(), FrontendError> {
        let special = special_texts(config, special_tokens);
        let mut added =
            Added::new(self.json.get("added_tokens").and_then(Value::as_array).cloned().unwrap_or_default());
        if let Some(Value::Object(listed)) = config.get("added_tokens_decoder") {
            for (id, token) in listed {
                let (Ok(id), Some(token)) = (id.parse::<u64>(), token.as_object()) else { continue };
                added.update(added_token(id, token));
            }
        } else {
            for (text, id) in read_json(folder, "added_tokens.json")?.unwrap_or_default() {
                let Some(id) = id.as_u64() else { continue };
                let is_special = special.iter().any(|(known, _)| *known == text);
                let token = [("content", Value::from(text)), ("special", Value::from(is_special))];
                let token = token.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                added.insert(added_token(id, &token));
            }
        }
        for (text, token) in special {
            if added.places.contains_key(&text) {
                continue;
            }
            let next = || Some(self.vocabulary_len().max(added.end())).filter(|id| *id < vocab_size);
            if let Some(id) = self.vocabulary_id(&text).map(u64::from).or_else(next) {
                added.insert(added_token(id, &token));
            }
        }
        let Added { mut tokens, fresh, changed, .. } = added;
        if !changed && !self.changed {
            return Ok(());
        }
        self.changed = true;
        // A normalizer that puts something before a text would do so before the token too, and find it nowhere else.
        if self.imported || self.json.get("normalizer").is_some_and(prepends) {
            let is_fresh = |token: &Value| self.imported || text_of(token).is_some_and(|text| fresh.contains(text));
            for token in tokens.iter_mut().filter(|token| is_fresh(token)) {
                token["normalized"] = Value::from(false);
            }
        }
        tokens.sort_by_key(|token| token.get("id").and_then(Value::as_u64));
        self.keep_ids(&tokens, &fresh);
        self.json.insert("added_tokens".to_owned(), Value::Array(tokens));
        Ok(())
    }

    /// The `tokenizers` crate counts added tokens on from the end of the vocabulary, whatever their ids. Where that gives a
    /// fresh one another id than its file, those that the vocabulary lacks get a place in it.
    fn keep_ids(&mut self, added: &[Value], fresh: &HashSet<String>) {
        let Some(vocab) = self.json.get_mut("model").and_then(|model| model.get_mut("vocab")) else { return };
        let Some(vocab) = vocab.as_object_mut() else { return };
        let id_of = |token: &Value| token.get("id").and_then(Value::as_u64);
        let missing: Vec<(&str, u64)> = added
            .iter()
            .filter_map(|token| Some((text_of(token)?, id_of(token)?)))
            .filter(|(text, _)| !vocab.contains_key(*text))
            .collect();
        let as_counted = (vocab.len() as u64..).zip(&missing).all(|(next, (_, id))| next == *id);
        if as_counted || !missing.iter().any(|(text, _)| fresh.contains(*text)) {
            return;
        }
        let mut used: HashSet<u64> = vocab.values().filter_map(Value::as_u64).collect();
        for (text, id) in missing {
            if used.insert(id) {
                vocab.insert(text.to_owned(), Value::from(id));
            }
        }
    }

    /// The tokenizer.json; the folder's own bytes where nothing was changed.
    pub fn into_bytes(self) -> Vec<u8> {
        if self.changed { super::to_json(&Value::Object(self.json)) } else { self.bytes }
    }
}

/// The `added_tokens` of a tokenizer.json while others are taken over.
struct Added {
    tokens: Vec<Value>,
    /// Where in `tokens` a text is.
    places: HashMap<String, usize>,
    /// Texts that were not there.
    fresh: HashSet<String>,
    changed: bool,
}

impl Added {
    fn new(tokens: Vec<Value>) -> Self {
        let mut places = HashMap::new();
        for (place, token) in tokens.iter().enumerate() {
            if let Some(text) = text_of(token) {
                places.entry(text.to_owned()).or_insert(place);
            }
        }
        Self { tokens, places, fresh: HashSet::new(), changed: false }
    }

    /// The id after the last.
    fn end(&self) -> u64 {
        self.tokens.iter().filter_map(|token| token.get("id")?.as_u64()).max().map_or(0, |last| last.saturating_add(1))
    }

    /// Adds a token whose text is not there yet.
    fn insert(&mut self, token: Map<String, Value>) {
        let Some(text) = token.get("content").and_then(Value::as_str).map(str::to_owned) else { return };
        if self.places.contains_key(&text) {
            return;
        }
        self.places.insert(text.clone(), self.tokens.len());
        self.fresh.insert(text);
        self.tokens.push(Value::Object(token));
        self.changed = true;
    }

    /// Adds a token, or gives the one with its text its flags.
    fn update(&mut self, token: Map<String, Value>) {
        let place = token.get("content").and_then(Value::as_str).and_then(|text| self.places.get(text)).copied();
        let Some(Value::Object(known)) = place.and_then(|place| self.tokens.get_mut(place)) else {
            return self.insert(token);
        };
        for (key, value) in token.into_iter().filter(|(key, _)| key != "id") {
            if known.get(&key) != Some(&value) {
                known.insert(key, value);
                self.changed = true;
            }
        }
    }
}

fn text_of(token: &Value) -> Option<&str> {
    token.get("content").and_then(Value::as_str)
}

/// The special tokens that the two files name, as text and flags; one that both name has special_tokens_map.json's first.
fn special_texts(
    config: &Map<String, Value>,
    special_tokens: &Map<String, Value>,
) -> Vec<(String, Map<String, Value>)> {
    let files = [special_tokens, config];
    let named = NAMED.iter().flat_map(|key| files.iter().filter_map(move |map| map.get(*key)));
    let listed = LISTS.iter().flat_map(|key| files.iter().filter_map(move |map| map.get(*key)?.as_array())).flatten();
    named
        .chain(listed)
        .filter_map(|token| {
            let (text, mut flags) = match token {
                Value::String(text) => (text.clone(), Map::new()),
                Value::Object(token) => (token.get("content")?.as_str()?.to_owned(), token.clone()),
                _ => return None,
            };
            flags.insert("content".to_owned(), Value::from(text.clone()));
            flags.insert("special".to_owned(), Value::from(true));
            Some((text, flags))
        })
        .collect()
}

/// Whether a normalizer puts something before a text.
fn prepends(normalizer: &Value) -> bool {
    let nested = normalizer.get("normalizers").and_then(Value::as_array).into_iter().flatten();
    let is_prepend = |normalizer: &Value| normalizer.get("type").is_some_and(|kind| kind == "Prepend");
    is_prepend(normalizer) || nested.into_iter().any(prepends)
}
