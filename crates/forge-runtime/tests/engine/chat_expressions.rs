//! Small templates, a feature or a few each, against what Jinja2 renders as transformers sets it up
//! (`tests/python/chat_expressions.py`). `FORGE_EXPRESSIONS` may name another file that the script has written.

use std::path::{Path, PathBuf};

use forge_runtime::chat::ChatTemplate;
use serde_json::{Map, Value};

#[test]
fn expressions_give_what_jinja2_gives() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_expressions.json");
    let other = std::env::var_os("FORGE_EXPRESSIONS").map(PathBuf::from);
    for file in [own].into_iter().chain(other) {
        let cases: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
        let variables = cases["variables"].as_object().expect("variables");
        let rendered = cases["rendered"].as_object().expect("templates");
        assert!(rendered.len() >= 1000, "{}", rendered.len());
        let mut wrong = Vec::new();
        for (source, expected) in rendered {
            let found =
                ChatTemplate::new(source, &Map::new()).and_then(|template| template.render(&[], false, variables));
            if found.as_ref().ok().map(String::as_str) != expected.as_str() {
                wrong.push(format!("{source:?}\n  expected {expected}\n  found    {found:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rendered.len(), wrong.join("\n"));
    }
}
