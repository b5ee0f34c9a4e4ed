//! The assets of a Hugging Face folder: tokenizer.json or tokenizer.model, tokenizer_config.json, added_tokens.json,
//! special_tokens_map.json, generation_config.json and the chat template's own file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::chat_template::Templates;
use super::defaults::{Defaults, GENERATION, check_ids};
use super::folder_tokenizer::Tokenizer;
use super::processor::{self, Affixes};
use super::{Assets, GenerationConfig, SpecialTokens, end_tokens};
use crate::FrontendError;
use crate::source::{CONFIG, read_json, unsigned};

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// See [`Assets::from_folder`]. `config` holds the text model's keys of config.json.
pub(super) fn from_folder(folder: &Path, config: &Map<String, Value>) -> Result<Assets, FrontendError> {
    let tokenizer_config = read_json(folder, TOKENIZER_CONFIG)?.unwrap_or_default();
    let special_tokens = read_json(folder, "special_tokens_map.json")?.unwrap_or_default();
    let generation = read_json(folder, GENERATION)?.unwrap_or_default();
    check_ids(CONFIG, config)?;
    check_ids(GENERATION, &generation)?;
    let named = |key: &str| {
        let text = |map: &Map<String, Value>| match map.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        text(&tokenizer_config).or_else(|| text(&special_tokens))
    };

    let mut tokenizer = Tokenizer::read(folder, &tokenizer_config)?;
    let vocab_size = config.get("vocab_size").and_then(Value::as_u64).unwrap_or(0);
    tokenizer.take_over_tokens(folder, &tokenizer_config, &special_tokens, vocab_size)?;
    let with_id = |text: Option<String>| text.and_then(|text| tokenizer.id(&text).map(|id| (text, id)));
    let id_of = |key: &str| [&generation, config].into_iter().find_map(|values| first_id(values.get(key)?));
    let bos = with_id(named("bos_token"));
    let eos = with_id(named("eos_token"));
    let affixes = affixes(&tokenizer, &tokenizer_config, bos.clone(), eos.clone());
    if affixes != tokenizer.affixes(&bos, &eos) {
        tokenizer.set_post_processor(processor::template_processing(&affixes));
    }

    let mut end_ids: BTreeSet<u32> = eos.iter().map(|(_, id)| *id).collect();
    end_tokens::add_ids(&mut end_ids, config.get("eos_token_id"));
    end_tokens::add_ids(&mut end_ids, generation.get("eos_token_id"));
    end_ids.extend(end_tokens::of_turns(tokenizer.found_first()));

    let templates = Templates::from_folder(folder, &tokenizer_config)?;
    let defaults = Defaults(&generation);
    Ok(Assets {
        chat_template: templates.default,
        other_templates: templates.others.keys().cloned().collect(),
        generation: GenerationConfig {
            bos_token_id: bos.as_ref().map(|(_, id)| *id).or_else(|| id_of("bos_token_id")),
            bos_token: bos.map(|(text, _)| text).or_else(|| named("bos_token")),
            eos_token: eos.map(|(text, _)| text).or_else(|| named("eos_token")),
            add_bos: affixes.bos.is_some(),
            end_token_ids: end_ids.into_iter().collect(),
            temperature: defaults.number("temperature")?,
            top_k: defaults.count("top_k")?,
            top_p: defaults.number("top_p")?,
            min_p: defaults.number("min_p")?,
            repeat_penalty: defaults.number("repetition_penalty")?,
            do_sample: defaults.flag("do_sample")?,
            special: SpecialTokens { unk_token: named("unk_token"), pad_token: named("pad_token") },
            chat_templates: templates.others,
        },
        tokenizer_json: tokenizer.into_bytes(),
    })
}

/// What is added to every text. In a tokenizer.json the post-processor decides, as in transformers: there `add_bos_token` and
/// `add_eos_token` are often left over from loading with arguments that had no effect. Where it has none, classes that
/// once rebuilt it from the keys add BOS. Beside a tokenizer.model the keys decide. The Llama and Gemma classes add BOS
/// where no key says otherwise.
fn affixes(
    tokenizer: &Tokenizer,
    config: &Map<String, Value>,
    bos: Option<(String, u32)>,
    eos: Option<(String, u32)>,
) -> Affixes {
    let said = |key: &str| config.get(key).and_then(Value::as_bool);
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let of_class =
        ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"].iter().any(|known| class.starts_with(known));
    let bos_by_keys = bos.clone().filter(|_| said("add_bos_token").unwrap_or(of_class));
    if tokenizer.is_imported() {
        return Affixes { bos: bos_by_keys, eos: eos.filter(|_| said("add_eos_token") == Some(true)) };
    }
    let existing = tokenizer.affixes(&bos, &eos);
    let keys_count = !["PreTrainedTokenizerFast", "TokenizersBackend"].contains(&class);
    if keys_count && tokenizer.has_no_post_processor() { Affixes { bos: bos_by_keys, ..existing } } else { existing }
}

fn first_id(value: &Value) -> Option<u32> {
    let id = value.as_array().map_or(Some(value), |items| items.first())?;
    unsigned(id)
}
