//! The assets of a Hugging Face folder: tokenizer.json or tokenizer.model, tokenizer_config.json,
//! generation_config.json and the chat template's own file.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value};

use super::chat_template::Templates;
use super::processor::{self, Affixes};
use super::{Assets, GenerationConfig, SpecialTokens, end_tokens, sentencepiece};
use crate::FrontendError;
use crate::source::{TOKENIZER, read_file, read_json};

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";

/// See [`Assets::from_folder`]. `config` holds the text model's keys of config.json.
pub(super) fn from_folder(folder: &Path, config: &Map<String, Value>) -> Result<Assets, FrontendError> {
    let tokenizer_config = read_json(folder, TOKENIZER_CONFIG)?.unwrap_or_default();
    let special_tokens = read_json(folder, "special_tokens_map.json")?.unwrap_or_default();
    let generation = read_json(folder, GENERATION)?.unwrap_or_default();
    let named = |key: &str| {
        let text = |map: &Map<String, Value>| match map.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        text(&tokenizer_config).or_else(|| text(&special_tokens))
    };

    let mut tokenizer = Tokenizer::read(folder, &tokenizer_config)?;
    tokenizer.take_over_tokens(&tokenizer_config);
    let with_id = |text: Option<String>| text.and_then(|text| tokenizer.id(&text).map(|id| (text, id)));
    let id_of = |key: &str| generation.get(key).or_else(|| config.get(key)).and_then(first_id);
    let bos = with_id(named("bos_token"));
    let eos = with_id(named("eos_token"));
    let affixes = affixes(&tokenizer, &tokenizer_config, bos.clone(), eos.clone());
    if affixes != tokenizer.affixes(&bos, &eos) {
        tokenizer.json.insert("post_processor".to_owned(), processor::template_processing(&affixes));
        tokenizer.changed = true;
    }

    let mut end_ids: BTreeSet<u32> = eos.iter().map(|(_, id)| *id).collect();
    end_tokens::add_ids(&mut end_ids, config.get("eos_token_id"));
    end_tokens::add_ids(&mut end_ids, generation.get("eos_token_id"));
    end_ids.extend(tokenizer.added().filter(|(text, _)| end_tokens::ends_turn(text)).map(|(_, id)| id));

    let templates = Templates::from_folder(folder, &tokenizer_config)?;
    let number = |key: &str| generation.get(key).and_then(Value::as_f64).map(|number| number as f32);
    Ok(Assets {
        chat_template: templates.default,
        other_templates: templates.others.keys().cloned().collect(),
        generation: GenerationConfig {
            bos_token_id: bos.as_ref().map(|(_, id)| *id).or_else(|| id_of("bos_token_id")),
            bos_token: bos.map(|(text, _)| text).or_else(|| named("bos_token")),
            eos_token: eos.map(|(text, _)| text).or_else(|| named("eos_token")),
            add_bos: affixes.bos.is_some(),
            end_token_ids: end_ids.into_iter().collect(),
            temperature: number("temperature"),
            top_k: generation.get("top_k").and_then(Value::as_u64).and_then(|k| u32::try_from(k).ok()),
            top_p: number("top_p"),
            min_p: number("min_p"),
            repeat_penalty: number("repetition_penalty"),
            do_sample: generation.get("do_sample").and_then(Value::as_bool),
            special: SpecialTokens { unk_token: named("unk_token"), pad_token: named("pad_token") },
            chat_templates: templates.others,
        },
        tokenizer_json: tokenizer.into_bytes(),
    })
}

/// What is added to every text: what tokenizer_config.json says, else what tokenizer.json does; the Llama and Gemma
/// classes add BOS where neither says otherwise.
fn affixes(
    tokenizer: &Tokenizer,
    config: &Map<String, Value>,
    bos: Option<(String, u32)>,
    eos: Option<(String, u32)>,
) -> Affixes {
    let existing = tokenizer.affixes(&bos, &eos);
    let said = |key: &str| config.get(key).and_then(Value::as_bool);
    let (add_bos, add_eos) = (said("add_bos_token"), said("add_eos_token"));
    if add_bos.is_some() || add_eos.is_some() {
        return Affixes { bos: bos.filter(|_| add_bos == Some(true)), eos: eos.filter(|_| add_eos == Some(true)) };
    }
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let adds_bos =
        ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"].iter().any(|known| class.starts_with(known));
    let silent = tokenizer.json.get("post_processor").is_none_or(Value::is_null);
    if adds_bos && silent { Affixes { bos, ..existing } } else { existing }
}

fn first_id(value: &Value) -> Option<u32> {
    let id = value.as_array().map_or(Some(value), |items| items.first())?;
    id.as_u64().and_then(|id| u32::try_from(id).ok())
}

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
struct Tokenizer {
    json: Map<String, Value>,
    bytes: Vec<u8>,
    changed: bool,
}

impl Tokenizer {
    fn read(folder: &Path, config: &Map<String, Value>) -> Result<Self, FrontendError> {
        if let (Some(json), Some(bytes)) = (read_json(folder, TOKENIZER)?, read_file(folder, TOKENIZER)?) {
            if !json.get("model").is_some_and(Value::is_object) {
                return Err(FrontendError::MissingKey { file: TOKENIZER.to_owned(), key: "model".to_owned() });
            }
            return Ok(Self { json, bytes, changed: false });
        }
        const MODEL: &str = "tokenizer.model";
        let Some(bytes) = read_file(folder, MODEL)? else {
            return Err(FrontendError::NotACheckpoint {
                path: folder.to_owned(),
                expected: "tokenizer.json or tokenizer.model",
                found: "neither".to_owned(),
            });
        };
        let json = sentencepiece::tokenizer_json(&bytes, MODEL, config)?;
        Ok(Self { json, bytes: Vec::new(), changed: true })
    }

    /// Text and id of each added token.
    fn added(&self) -> impl Iterator<Item = (&str, u32)> {
        let items = self.json.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
        items.filter_map(|token| {
            let id = u32::try_from(token.get("id")?.as_u64()?).ok()?;
            Some((token.get("content")?.as_str()?, id))
        })
    }

    fn id(&self, text: &str) -> Option<u32> {
        let added = self.added().find(|(known, _)| *known == text).map(|(_, id)| id);
        added.or_else(|| {
            match self.json.get("model")?.get("vocab")? {
                // A unigram model lists its pieces with their scores.
                Value::Array(pieces) => {
                    let id = pieces.iter().position(|piece| piece.get(0).and_then(Value::as_str) == Some(text))?;
                    u32::try_from(id).ok()
                }
                vocab => u32::try_from(vocab.get(text)?.as_u64()?).ok(),
            }
        })
    }

    /// Which of the two tokens the post-processor adds.
    fn affixes(&self, bos: &Option<(String, u32)>, eos: &Option<(String, u32)>) -> Affixes {
        let (before, after) = processor::added(self.json.get("post_processor").unwrap_or(&Value::Null));
        let there =
            |token: &Option<(String, u32)>, texts: &[String]| token.clone().filter(|(text, _)| texts.contains(text));
        Affixes { bos: there(bos, &before), eos: there(eos, &after) }
    }

    /// Takes over the added tokens of tokenizer_config.json: those that are missing, and flags that differ.
    fn take_over_tokens(&mut self, config: &Map<String, Value>) {
        let Some(Value::Object(listed)) = config.get("added_tokens_decoder") else { return };
        let mut added: Vec<Value> =
            self.json.get("added_tokens").and_then(Value::as_array).cloned().unwrap_or_default();
        let content = |token: &Value| token.get("content").and_then(Value::as_str).map(str::to_owned);
        let mut places: HashMap<String, usize> = HashMap::new();
        for (place, token) in added.iter().enumerate() {
            if let Some(text) = content(token) {
                places.entry(text).or_insert(place);
            }
        }
        for (id, token) in listed {
            let (Ok(id), Some(token)) = (id.parse::<u64>(), token.as_object()) else { continue };
            let Some(text) = token.get("content").and_then(Value::as_str) else { continue };
            let entry = added_token(id, token);
            match places.get(text).and_then(|&place| added.get_mut(place)) {
                Some(Value::Object(known)) => {
                    for (key, value) in entry.into_iter().filter(|(key, _)| key != "id") {
                        if known.get(&key) != Some(&value) {
                            known.insert(key, value);
                            self.changed = true;
                        }
                    }
                }
                Some(_) => {}
                None => {
                    places.insert(text.to_owned(), added.len());
                    added.push(Value::Object(entry));
                    self.changed = true;
                }
            }
        }
        if self.changed {
            added.sort_by_key(|token| token.get("id").and_then(Value::as_u64));
            self.json.insert("added_tokens".to_owned(), Value::Array(added));
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        if self.changed { super::to_json(&Value::Object(self.json)) } else { self.bytes }
    }
}
