//! Servers whose model thinks and calls functions, and what clients hear of it.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::sync::Arc;

use forge_runtime::Assets;
use forge_runtime::assets::Text;
use forge_runtime::server::{Limits, Options};
use serde_json::{Value, json};

use crate::common::{HashModel, assets};
use crate::http::{Reply, Server};

/// A template that writes calls as Hermes does, and knows of thoughts.
pub const TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}\
    {{ reasoning_effort }}{% for m in messages %}<|user|>{{ m.role }}: {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>\
    {% endif %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \
    \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% endif %}";

/// A thought, a text and two calls.
pub const ANSWER: &str = "<think>\nA call, so.\n</think>\n\nLet me look.\n<tool_call>\n{\"name\": \"get_weather\", \
    \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"get_weather\", \
    \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";

pub fn text_of(template: &str) -> Arc<Text> {
    let template = Some(template.to_owned().leak() as &str);
    Arc::new(Text::load(&Assets { chat_template: template, ..assets("demo") }).expect("loads"))
}

/// A model that gives this answer.
pub fn scripted(answer: &str) -> HashModel {
    let mut script = text_of(TEMPLATE).tokenizer.encode(answer, false).expect("encodes");
    script.push(2047);
    HashModel { context: 1024, ..HashModel::scripted(&script) }
}

/// A server whose model gives this answer.
pub fn answering(answer: &str) -> Server {
    Server::with_text(scripted(answer), text_of(TEMPLATE), Limits::default())
}

/// A server whose model's answers tell all prompts apart.
pub fn hashing(template: &str, options: impl Into<Options>) -> Server {
    Server::with_text(HashModel { context: 1024, ..HashModel::new() }, text_of(template), options)
}

/// Fields put over those of a body.
pub fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
    body
}

/// What a chat with these fields is answered by a server that tells prompts apart: number of tokens, and text.
pub fn chat_prompt(server: &Server, fields: Value) -> (Value, Value) {
    let body = with(json!({ "temperature": 0, "max_tokens": 6 }), fields);
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = reply.json();
    (reply["usage"]["prompt_tokens"].clone(), reply["choices"][0]["message"]["content"].clone())
}

/// The named events of a stream, each with its data, which says the name again.
pub fn named_events(reply: &Reply) -> Vec<(String, Value)> {
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")), "{}", reply.text());
    let events = reply.text().split("\n\n").filter(|event| !event.is_empty());
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').expect("two lines");
        let name = name.strip_prefix("event: ").expect("a name").to_owned();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(data["type"], name);
        (name, data)
    };
    events.map(event).collect()
}
