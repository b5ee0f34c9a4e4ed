//! Every byte of answers in OpenAI's forms, but for ids, times and speeds.

use std::sync::Arc;

use crate::{common, http};
use common::{HashModel, assets, fixture};
use forge_runtime::Assets;
use forge_runtime::assets::Text;
use forge_runtime::server::Limits;
use http::Server;
use serde_json::{Value, json};

/// A template that writes calls as Hermes does.
const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|user|>{{ m.role }}: \
    {{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \
    \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% endif %}";

const ANSWER: &str = "<think>\nA call, so.\n</think>\n\nLet me look.\n<tool_call>\n{\"name\": \"get_weather\", \
    \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

fn server(answer: &str) -> Server {
    let text = Text::load(&Assets { chat_template: Some(TEMPLATE), ..assets("demo") }).expect("loads");
    let mut script = text.tokenizer.encode(answer, false).expect("encodes");
    script.push(2047);
    Server::with_text(HashModel::scripted(&script), Arc::new(text), Limits::default())
}

/// What differs from run to run, left out.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    let marks = ["\"id\":\"", "\"created\":", "_ms\":", "_per_second\":"];
    while let Some(at) = marks.iter().filter_map(|mark| Some(rest.find(mark)? + mark.len())).min() {
        masked += &rest[..at];
        masked.push('_');
        rest = rest[at..].trim_start_matches(|c| !['"', ',', '}'].contains(&c));
    }
    masked + rest
}

#[test]
fn answers_are_these_bytes() {
    let messages = json!([{ "role": "user", "content": "Weather in Oslo?" }]);
    let tools = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": {} } }]);
    let with = |fields: Value| {
        let mut body = json!({ "messages": messages, "temperature": 0 });
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        ("/v1/chat/completions", body)
    };
    let usage = json!({ "include_usage": true });
    let mut found = String::new();
    for (path, body) in [
        with(json!({})),
        with(json!({ "tools": tools })),
        with(json!({ "tools": tools, "stream": true })),
        with(json!({ "tools": tools, "stream": true, "stream_options": usage })),
        with(json!({ "stop": "look", "stream": true })),
        with(json!({ "max_tokens": 3 })),
        with(json!({ "messages": [] })),
        with(json!({ "messages": [{ "role": "user", "content": "word ".repeat(2000) }] })),
        ("/v1/completions", json!({ "prompt": "Once", "max_tokens": 7, "temperature": 0 })),
        ("/v1/completions", json!({ "prompt": "Once", "max_tokens": 7, "temperature": 0, "stream": true })),
        (
            "/v1/completions",
            json!({ "prompt": "Once", "max_tokens": 3, "temperature": 0, "stream": true, "stream_options": usage }),
        ),
        ("/v1/completions", json!({})),
        ("/v1/nothing", json!({})),
    ] {
        // Each at a server of its own, so that nothing is reused.
        let reply = server(ANSWER).post(path, &body);
        let content_type = reply.header("content-type").unwrap_or_default();
        let request: String = body.to_string().chars().take(300).collect();
        found += &format!("{path} {request}\n{} {content_type}\n{}\n\n", reply.status, masked(reply.text()).trim_end());
    }
    let path = fixture("wire", "openai.txt");
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if found != expected {
        let other = std::env::temp_dir().join("forge-wire-openai.txt");
        std::fs::write(&other, &found).expect("writes");
        panic!("{} is not {}", other.display(), path.display());
    }
}
