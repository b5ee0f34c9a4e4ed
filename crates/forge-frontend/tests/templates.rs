//! Chat templates of checkpoints: where they stand, by which names, and what is said of those that cannot be used.

#[path = "checkpoint/build.rs"]
#[expect(dead_code, reason = "shared with the tests of the containers")]
mod build;

use std::collections::BTreeMap;

use build::{Folder, Gguf, array, string};
use forge_frontend::Assets;
use forge_frontend::checkpoint::GgufFile;
use serde_json::{Value, json};

const TOKENIZER: &str =
    r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;

/// The default template and the others of a folder with these files.
fn folder(files: &[(&str, &str)]) -> (Option<String>, BTreeMap<String, String>) {
    let folder = Folder::new();
    folder.write("config.json", b"{\"model_type\": \"llama\"}");
    folder.write("tokenizer.json", TOKENIZER.as_bytes());
    for (name, text) in files {
        if let Some((inner, _)) = name.split_once('/') {
            std::fs::create_dir_all(folder.path().join(inner)).expect("a folder");
        }
        folder.write(name, text.as_bytes());
    }
    let assets = Assets::from_folder(folder.path()).expect("assets");
    let names: Vec<String> = assets.generation.chat_templates.keys().cloned().collect();
    assert_eq!(assets.other_templates, names);
    (assets.chat_template, assets.generation.chat_templates)
}

fn named(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn config(chat_template: &Value) -> String {
    json!({ "chat_template": chat_template }).to_string()
}

#[test]
fn folders_have_them_in_many_places() {
    let list = config(&json!([{ "name": "default", "template": "D" }, { "name": "tool_use", "template": "T" }]));
    let all = (Some("D".to_owned()), named(&[("tool_use", "T")]));
    let one = (Some("D".to_owned()), named(&[]));
    assert_eq!(folder(&[]), (None, named(&[])));
    assert_eq!(folder(&[("tokenizer_config.json", &config(&json!("D")))]), one);
    assert_eq!(folder(&[("tokenizer_config.json", &list)]), all);
    assert_eq!(folder(&[("tokenizer_config.json", &config(&json!({ "default": "D", "tool_use": "T" })))]), all);
    assert_eq!(folder(&[("chat_template.json", &config(&json!("D")))]), one);
    assert_eq!(folder(&[("chat_template.jinja", "D")]), one);
    for place in [
        "chat_templates/tool_use.jinja",
        "additional_chat_templates/tool_use.jinja",
        "chat_template_tool_use.jinja",
        "chat_template.tool_use.jinja",
        "chat_template-tool_use.jinja",
    ] {
        assert_eq!(folder(&[("chat_template.jinja", "D"), (place, "T")]), all, "{place}");
        assert_eq!(folder(&[("tokenizer_config.json", &config(&json!("D"))), (place, "T")]), all, "{place}");
    }
    // A file of its own comes before what the configuration lists, and that before what a processor had.
    let files = [
        ("chat_template.jinja", "D"),
        ("tokenizer_config.json", &*config(&json!("X"))),
        ("chat_template.json", "{\"chat_template\": \"Y\"}"),
    ];
    assert_eq!(folder(&files), one);
    assert_eq!(
        folder(&[
            ("tokenizer_config.json", &config(&json!(null))),
            ("chat_template.json", "{\"chat_template\": \"D\"}")
        ]),
        one
    );
    assert_eq!(
        folder(&[
            ("chat_templates/default.jinja", "D"),
            ("chat_templates/tool_use.jinja", "T"),
            ("chat_templates/notes.txt", "N")
        ]),
        all
    );
    // One that is alone is the default one, whatever its name.
    assert_eq!(folder(&[("tokenizer_config.json", &config(&json!([{ "name": "chat", "template": "D" }])))]), one);
    let none = config(&json!([{ "name": "rag", "template": "R" }, { "name": "tool_use", "template": "T" }]));
    assert_eq!(folder(&[("tokenizer_config.json", &none)]), (None, named(&[("rag", "R"), ("tool_use", "T")])));
}

#[test]
fn ggufs_have_them_by_key() {
    let tokens = [array(8, 2), string(b"a"), string(b"b")].concat();
    let gguf = Gguf::new()
        .entry(b"tokenizer.ggml.model", 8, &string(b"gpt2"))
        .entry(b"tokenizer.ggml.pre", 8, &string(b"qwen2"))
        .entry(b"tokenizer.ggml.tokens", 9, &tokens)
        .entry(b"tokenizer.ggml.merges", 9, &array(8, 0))
        .entry(b"tokenizer.chat_template", 8, &string(b"D"))
        .entry(b"tokenizer.chat_templates", 9, &[array(8, 1), string(b"tool_use")].concat())
        .entry(b"tokenizer.chat_template.tool_use", 8, &string(b"T"));
    let folder = Folder::new();
    let path = folder.write("vocabulary.gguf", &gguf.bytes());
    let assets = Assets::from_gguf(&GgufFile::open(&path).expect("a GGUF")).expect("assets");
    assert_eq!(assets.chat_template.as_deref(), Some("D"));
    assert_eq!(assets.generation.chat_templates, named(&[("tool_use", "T")]));
}

#[test]
fn templates_that_do_not_parse_are_named() {
    let problems = |default: &str, tools: &str| {
        let folder = Folder::new();
        folder.write("config.json", b"{\"model_type\": \"llama\"}");
        folder.write("tokenizer.json", TOKENIZER.as_bytes());
        folder.write("chat_template.jinja", default.as_bytes());
        folder.write("chat_template_tool_use.jinja", tools.as_bytes());
        Assets::from_folder(folder.path()).expect("assets").template_problems()
    };
    assert!(problems("{% generation %}{{ '%s' % 1 }}{% endgeneration %}", "{{ messages[::2] }}").is_empty());
    assert_eq!(
        problems("a\n{% trans %}b{% endtrans %}", "{{ x"),
        [
            (None, "syntax error: unknown statement trans (line 2)".to_owned()),
            (
                Some("tool_use".to_owned()),
                "syntax error: unexpected end of input, expected end of variable block (line 1)".to_owned()
            ),
        ]
    );
}
