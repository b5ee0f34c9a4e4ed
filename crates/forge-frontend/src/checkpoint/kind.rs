//! Whether the bytes of a small file are of the kind that its name says. A link of a model folder may lead to any file of
//! whoever reads it; what is not recognised here is not read through such a link.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::source::lenient_json;

/// Keys of which each kind of file has one at least. An empty list: any will do.
const KEYS: [(&str, &[&str]); 6] = [
    ("config.json", &["model_type", "text_config"]),
    ("model.safetensors.index.json", &["weight_map"]),
    (
        "tokenizer_config.json",
        &[
            "tokenizer_class",
            "added_tokens_decoder",
            "model_max_length",
            "chat_template",
            "bos_token",
            "eos_token",
            "add_bos_token",
        ],
    ),
    (
        "generation_config.json",
        &[
            "transformers_version",
            "_from_model_config",
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "do_sample",
            "temperature",
            "top_k",
            "top_p",
            "max_length",
            "max_new_tokens",
        ],
    ),
    ("special_tokens_map.json", &["bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens"]),
    ("chat_template.json", &["chat_template"]),
];

/// Whether `bytes` may be a file of this name: a tokenizer with a model and a vocabulary, a JSON object with a key that such
/// files have, a template that renders messages, or a SentencePiece model, which its reader takes apart.
pub(super) fn is(name: &str, bytes: &[u8]) -> bool {
    let file = Path::new(name);
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("json") if name == "tokenizer.json" => lenient_json::<Tokenizer>(bytes).is_ok(),
        Some("json") => lenient_json::<HashMap<String, IgnoredAny>>(bytes).is_ok_and(|object| {
            match KEYS.iter().find(|(known, _)| *known == name) {
                Some((_, keys)) => keys.iter().any(|key| object.contains_key(*key)),
                None => !object.is_empty(),
            }
        }),
        Some("jinja") => str::from_utf8(bytes).is_ok_and(renders_messages),
        Some("model") => true,
        _ => false,
    }
}

/// As much of a tokenizer.json as tells it from other files.
#[derive(Deserialize)]
struct Tokenizer {
    #[serde(rename = "model")]
    _model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "vocab")]
    _vocab: IgnoredAny,
}

/// Whether a text is a chat template: some tag of it speaks of the messages.
fn renders_messages(text: &str) -> bool {
    let tags = |open: &str, close: &str| {
        text.split(open).skip(1).any(|rest| rest.split(close).next().is_some_and(|tag| tag.contains("messages")))
    };
    tags("{%", "%}") || tags("{{", "}}")
}

#[cfg(test)]
mod tests {
    use super::is;

    #[test]
    fn what_a_name_says() {
        for (name, text, expected) in [
            ("chat_template.jinja", "{% for message in messages %}{{ message.content }}{% endfor %}", true),
            ("chat_template.jinja", "{%- set messages = messages[1:] -%}", true),
            ("chat_template.jinja", "{{ messages[0].content }}", true),
            ("chat_template.jinja", "password=hunter2", false),
            ("chat_template.jinja", "messages {{ x }} messages", false),
            ("chat_template.jinja", "", false),
            ("tokenizer.json", r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}"#, true),
            ("tokenizer.json", r#"{"model": {"type": "BPE"}}"#, false),
            ("tokenizer.json", r#"{"model": "gpt"}"#, false),
            ("tokenizer.json", "{}", false),
            ("config.json", r#"{"model_type": "llama", "x": NaN}"#, true),
            ("config.json", r#"{"token": "secret"}"#, false),
            ("config.json", r#"["model_type"]"#, false),
            ("generation_config.json", r#"{"temperature": 0.5}"#, true),
            ("generation_config.json", r#"{"token": "secret"}"#, false),
            ("added_tokens.json", r#"{"<x>": 1}"#, true),
            ("added_tokens.json", "{}", false),
            ("README.md", "text", false),
        ] {
            assert_eq!(is(name, text.as_bytes()), expected, "{name}: {text}");
        }
        assert!(!is("chat_template.jinja", b"{{ messages }} \xff"));
    }
}
