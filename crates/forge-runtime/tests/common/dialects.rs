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

/// What a client of Messages makes of a stream.
pub fn message_of(events: &[(String, Value)]) -> Value {
    let mut message = Value::Null;
    let mut open = None;
    let mut ended = false;
    for (name, data) in events {
        assert!(!ended, "nothing follows message_stop");
        match name.as_str() {
            "message_start" => {
                assert!(message.is_null());
                message = data["message"].clone();
                assert_eq!(message["content"], json!([]));
            }
            "content_block_start" => {
                assert!(open.is_none(), "blocks do not overlap");
                let blocks = message["content"].as_array_mut().expect("blocks");
                assert_eq!(data["index"], blocks.len());
                open = Some((blocks.len(), String::new()));
                blocks.push(data["content_block"].clone());
            }
            "content_block_delta" => {
                let (index, json) = open.as_mut().expect("a block");
                assert_eq!(data["index"], *index);
                let block = &mut message["content"][*index];
                let mut add = |field: &str, of: &str| {
                    let text = block[field].as_str().expect("text").to_owned();
                    block[field] = (text + data["delta"][of].as_str().expect("a piece")).into();
                };
                match data["delta"]["type"].as_str().expect("a type") {
                    "text_delta" => add("text", "text"),
                    "thinking_delta" => add("thinking", "thinking"),
                    "signature_delta" => add("signature", "signature"),
                    "input_json_delta" => json.push_str(data["delta"]["partial_json"].as_str().expect("a piece")),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                let (index, json) = open.take().expect("a block");
                assert_eq!(data["index"], index);
                if !json.is_empty() {
                    message["content"][index]["input"] = serde_json::from_str(&json).expect("JSON");
                }
            }
            "message_delta" => {
                for field in ["stop_reason", "stop_sequence"] {
                    message[field] = data["delta"][field].clone();
                }
                message["usage"] = data["usage"].clone();
            }
            "message_stop" => ended = true,
            "ping" => {}
            other => panic!("{other}"),
        }
    }
    assert!(ended && open.is_none());
    message
}

/// What a client of Responses makes of a stream, whose events must come in the order that clients rely on.
pub fn response_of(events: &[(String, Value)]) -> Value {
    let mut output: Vec<Value> = Vec::new();
    let (mut item, mut part, mut text) = (Value::Null, false, String::new());
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["sequence_number"], number);
        if data.get("output_index").is_some() {
            assert_eq!(data["output_index"], output.len(), "{data}");
        }
        if let Some(id) = data.get("item_id") {
            assert_eq!(*id, item["id"]);
        }
        match name.strip_prefix("response.").expect("a response's event") {
            "created" => assert_eq!(number, 0),
            "in_progress" => assert_eq!(data["response"]["status"], "in_progress"),
            "output_item.added" => {
                assert!(item.is_null());
                item = data["item"].clone();
                assert_eq!(item["status"], "in_progress");
                text.clear();
            }
            "content_part.added" => {
                assert!(!part && data["part"]["text"] == "" && data["content_index"] == 0);
                part = true;
            }
            "output_text.delta" | "reasoning_text.delta" => {
                assert!(part);
                text += data["delta"].as_str().expect("a piece");
            }
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                text += data["delta"].as_str().expect("a piece");
            }
            "output_text.done" | "reasoning_text.done" => assert_eq!(data["text"], text),
            "function_call_arguments.done" => assert_eq!(data["arguments"], text),
            "custom_tool_call_input.done" => assert_eq!(data["input"], text),
            "content_part.done" => {
                assert!(part && data["part"]["text"] == text);
                part = false;
            }
            "output_item.done" => {
                assert!(!part);
                assert_eq!((&data["item"]["id"], &data["item"]["type"]), (&item["id"], &item["type"]));
                item = Value::Null;
                output.push(data["item"].clone());
            }
            "completed" | "incomplete" => {
                assert_eq!(number + 1, events.len());
                let response = &data["response"];
                assert_eq!(format!("response.{}", response["status"].as_str().expect("a status")), *name);
                assert_eq!(response["output"], json!(output));
                assert_eq!(response["id"], events[0].1["response"]["id"]);
                return response.clone();
            }
            other => panic!("{other}"),
        }
    }
    panic!("no end");
}

/// What a client of chats makes of a stream: the message of its choice, with the reason to finish.
pub fn chat_of(reply: &Reply) -> Value {
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")), "{}", reply.text());
    let events = reply.events();
    let (done, events) = events.split_last().expect("events");
    assert_eq!(done, "[DONE]");
    let (mut content, mut calls, mut finish) = (String::new(), Vec::<Value>::new(), Value::Null);
    for event in events {
        let chunk: Value = serde_json::from_str(event).expect("JSON");
        let choice = &chunk["choices"][0];
        content += choice["delta"]["content"].as_str().unwrap_or_default();
        for delta in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = delta["index"].as_u64().expect("an index") as usize;
            if index == calls.len() {
                calls.push(delta["function"].clone());
                continue;
            }
            let arguments = calls[index]["arguments"].as_str().expect("text").to_owned();
            calls[index]["arguments"] = (arguments + delta["function"]["arguments"].as_str().expect("text")).into();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            finish = reason.into();
        }
    }
    json!({ "content": content, "calls": calls, "finish_reason": finish })
}
