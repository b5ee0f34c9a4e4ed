//! The `post_processor` of a tokenizer.json that puts BOS before and EOS after a text.

use serde_json::{Map, Value, json};

/// What a tokenizer adds to every text: a token's text and id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Affixes {
    pub bos: Option<(String, u32)>,
    pub eos: Option<(String, u32)>,
}

/// A `TemplateProcessing`, or null when nothing is added.
pub(super) fn template_processing(affixes: &Affixes) -> Value {
    if affixes.bos.is_none() && affixes.eos.is_none() {
        return Value::Null;
    }
    let special = |token: &Option<(String, u32)>, kind: u32| {
        token.iter().map(|(text, _)| json!({"SpecialToken": {"id": text, "type_id": kind}})).collect::<Vec<_>>()
    };
    let sequence = |name: &str, kind: u32| {
        let mut parts = special(&affixes.bos, kind);
        parts.push(json!({"Sequence": {"id": name, "type_id": kind}}));
        parts.extend(special(&affixes.eos, kind));
        parts
    };
    let single = sequence("A", 0);
    let mut pair = single.clone();
    pair.extend(sequence("B", 1));
    let mut tokens = Map::new();
    for (text, id) in affixes.bos.iter().chain(&affixes.eos) {
        tokens.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
    }
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
}

/// The texts of the special tokens that a post-processor puts before and after a text.
pub(super) fn added(processor: &Value) -> (Vec<String>, Vec<String>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let nested = processor.get("processors").and_then(Value::as_array).into_iter().flatten();
    for processor in nested.chain([processor]) {
        // BERT's and RoBERTa's processors name the two tokens.
        for (key, texts) in [("cls", &mut before), ("sep", &mut after)] {
            texts.extend(processor.pointer(&format!("/{key}/0")).and_then(Value::as_str).map(str::to_owned));
        }
        let mut seen_text = false;
        for part in processor.get("single").and_then(Value::as_array).into_iter().flatten() {
            if part.get("Sequence").is_some() {
                seen_text = true;
            } else if let Some(id) = part.pointer("/SpecialToken/id").and_then(Value::as_str) {
                if seen_text { after.push(id.to_owned()) } else { before.push(id.to_owned()) }
            }
        }
    }
    (before, after)
}
