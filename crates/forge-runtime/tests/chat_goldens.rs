//! Conversations with systems, turns and tools through real chat templates, against what transformers renders
//! (`tests/python/chat_goldens.py`). `FORGE_TEMPLATES` may name another folder that the script has been run on.

use std::path::{Path, PathBuf};

use forge_runtime::chat::ChatTemplate;
use forge_runtime::messages::check_messages;
use serde_json::{Map, Value};

/// What is not as expected in a folder; how many renderings were compared.
fn compare(folder: &Path) -> (Vec<String>, usize) {
    let goldens = std::fs::read(folder.join("goldens.json")).expect("goldens.json");
    let goldens: Value = serde_json::from_slice(&goldens).expect("JSON");
    let tokens = goldens["tokens"].as_object().expect("tokens");
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (name, rendered) in goldens["rendered"].as_object().expect("templates") {
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).expect("a template");
        let template = match ChatTemplate::new(&source, tokens) {
            Ok(template) => template,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (conversation, expected) in rendered.as_object().expect("conversations") {
            let given = &goldens["conversations"][conversation];
            let messages = check_messages(&given["messages"]).expect("messages");
            let mut extra = Map::new();
            if !given["tools"].is_null() {
                extra.insert("tools".to_owned(), given["tools"].clone());
            }
            for (generation, expected) in [true, false].into_iter().zip(expected.as_array().expect("two texts")) {
                compared += 1;
                let found = template.render(&messages, generation, &extra);
                match (expected.as_str(), found) {
                    (Some(expected), Ok(found)) if found == expected => {}
                    (None, Err(_)) => {}
                    (expected, found) => wrong.push(format!(
                        "{name}, {conversation}, generation {generation}:\n  expected {expected:?}\n  found    {found:?}"
                    )),
                }
            }
        }
    }
    (wrong, compared)
}

#[test]
fn conversations_render_as_transformers_renders_them() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat");
    let others = std::env::var_os("FORGE_TEMPLATES").map(PathBuf::from);
    for folder in [own].into_iter().chain(others) {
        let (wrong, compared) = compare(&folder);
        assert!(compared >= 100, "{compared}");
        assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    }
}
