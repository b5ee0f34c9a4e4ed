//! Conversations with systems, turns, tools, parts and thoughts through chat templates of every form, against what
//! transformers renders (`tests/python/chat_goldens.py`). `FORGE_TEMPLATES` may name another folder that the script has been
//! run on.

use std::path::{Path, PathBuf};

use forge_runtime::chat_templates::{ChatTemplates, Ending};
use serde_json::Value;

/// What is not as expected in a folder; how many renderings were compared.
fn compare(folder: &Path) -> (Vec<String>, usize) {
    let goldens = std::fs::read(folder.join("goldens.json")).expect("goldens.json");
    let goldens: Value = serde_json::from_slice(&goldens).expect("JSON");
    let tokens = goldens["tokens"].as_object().expect("tokens");
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (name, rendered) in goldens["rendered"].as_object().expect("templates") {
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).expect("a template");
        let templates = ChatTemplates::new([("default", source.as_str())], tokens);
        for (conversation, expected) in rendered.as_object().expect("conversations") {
            let mut fields = goldens["conversations"][conversation].as_object().expect("fields").clone();
            let messages = fields.remove("messages").expect("messages");
            let ending = Ending::of(&fields, &messages, false).expect("one way to end");
            let found = templates.render(&messages, ending, &fields);
            compared += 1;
            match (expected.as_str(), found) {
                (Some(expected), Ok(found)) if found == expected => {}
                (None, Err(_)) => {}
                (expected, found) => {
                    wrong.push(format!("{name}, {conversation}:\n  expected {expected:?}\n  found    {found:?}"))
                }
            }
        }
    }
    (wrong, compared)
}

#[test]
fn conversations_render_as_transformers_renders_them() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let others = std::env::var_os("FORGE_TEMPLATES").map(PathBuf::from);
    for (folder, least) in [(fixtures.join("chat"), 100), (fixtures.join("chat_forms"), 500)]
        .into_iter()
        .chain(others.map(|folder| (folder, 1)))
    {
        let (wrong, compared) = compare(&folder);
        assert!(compared >= least, "{compared}");
        assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    }
}
