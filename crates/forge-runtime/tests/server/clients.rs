//! Requests as agents and chat programs send them, each answered in its API over a real socket. The files were written by the
//! public forms of these programs' requests.

use crate::{common, dialects, http};
use common::{HashModel, read};
use dialects::{TEMPLATE, chat_of, message_of, named_events, response_of, scripted, text_of};
use forge_runtime::server::Limits;
use http::{Reply, Server};
use serde_json::{Value, json};

/// Sends what a client's file has, to a model that thinks, says something and calls what the file has as `call`.
fn replay(file: &str) -> Vec<(Value, Reply)> {
    let file: Value = serde_json::from_slice(read("clients", file)).expect("JSON");
    let call = &file["call"];
    let answer = format!("<think>\nA call, so.\n</think>\n\nLet me look.\n<tool_call>\n{call}\n</tool_call>");
    let model = HashModel { context: 8192, ..scripted(&answer) };
    let server = Server::with_text(model, text_of(TEMPLATE), Limits::default());
    let mut replies = Vec::new();
    for request in file["requests"].as_array().expect("requests") {
        let string = |name: &str| request[name].as_str().expect("a string");
        let headers = request["headers"].as_object().expect("headers");
        let mut lines: String =
            headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.as_str().expect("a string"))).collect();
        let body = match &request["body"] {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        lines += "content-type: application/json\r\n";
        let reply = server.send_with(string("method"), string("path"), &lines, body.as_bytes());
        assert!(reply.status == 200, "{}: {} {}", string("path"), reply.status, reply.text());
        replies.push((request["body"].clone(), reply));
    }
    replies
}

fn call_of(file: &str) -> Value {
    serde_json::from_slice::<Value>(read("clients", file)).expect("JSON")["call"].clone()
}

#[test]
fn codex() {
    let call = call_of("codex.json");
    let mut answered = 0;
    for (body, reply) in replay("codex.json") {
        if body.is_null() {
            assert_eq!(reply.json()["data"][0]["id"], "hash-model");
            continue;
        }
        let response = response_of(&named_events(&reply));
        let items = response["output"].as_array().expect("items");
        let kinds: Vec<&str> = items.iter().filter_map(|item| item["type"].as_str()).collect();
        assert_eq!(kinds, ["reasoning", "message", "function_call"]);
        let arguments: Value = serde_json::from_str(items[2]["arguments"].as_str().expect("text")).expect("JSON");
        assert_eq!((&items[2]["name"], &arguments), (&call["name"], &call["arguments"]));
        // What is left out is told.
        assert!(reply.header("x-forge-warning").is_some_and(|words| words.contains("web_search, namespace")));
        answered += 1;
    }
    assert_eq!(answered, 2);
}

#[test]
fn claude_code() {
    let call = call_of("claude_code.json");
    let mut replies = replay("claude_code.json").into_iter().map(|(_, reply)| reply);
    let mut next = || replies.next().expect("a reply");
    assert_eq!(next().text(), "");
    assert_eq!(next().json()["stop_reason"], "max_tokens");
    assert_eq!(message_of(&named_events(&next()))["stop_reason"], "end_turn");
    assert!(next().json()["input_tokens"].as_u64().is_some_and(|tokens| tokens > 100));
    for cached in [false, true] {
        let message = message_of(&named_events(&next()));
        assert_eq!(message["stop_reason"], "tool_use");
        let kinds: Vec<&Value> =
            message["content"].as_array().expect("blocks").iter().map(|block| &block["type"]).collect();
        assert_eq!(kinds, ["thinking", "text", "tool_use"]);
        let block = &message["content"][2];
        assert_eq!((&block["name"], &block["input"]), (&call["name"], &call["arguments"]));
        let reused = message["usage"]["cache_read_input_tokens"].as_u64().expect("a count");
        let all = reused + message["usage"]["input_tokens"].as_u64().expect("a count");
        // The second turn begins as the first did, although its billing header would have differed.
        assert!(!cached || reused > all / 2, "{reused} of {all}");
    }
}

/// Chats with and without tools.
#[track_caller]
fn assert_chats(file: &str, with_tools: usize) {
    let call = call_of(file);
    let mut called = 0;
    for (body, reply) in replay(file) {
        if body.is_null() {
            assert_eq!(reply.json()["object"], "list");
            continue;
        }
        let answer = match body["stream"].as_bool() {
            Some(true) => chat_of(&reply),
            _ => {
                let choice = reply.json()["choices"][0].clone();
                json!({ "content": choice["message"]["content"], "calls": [], "finish_reason": choice["finish_reason"] })
            }
        };
        assert!(answer["content"].as_str().is_some_and(|text| text.starts_with("Let me look.")), "{answer}");
        if body["tools"].is_array() {
            called += 1;
            assert_eq!(answer["finish_reason"], "tool_calls");
            let arguments: Value =
                serde_json::from_str(answer["calls"][0]["arguments"].as_str().expect("text")).expect("JSON");
            assert_eq!((&answer["calls"][0]["name"], &arguments), (&call["name"], &call["arguments"]));
        } else {
            assert_eq!((&answer["finish_reason"], &answer["calls"]), (&json!("stop"), &json!([])));
        }
    }
    assert_eq!(called, with_tools);
}

#[test]
fn opencode() {
    assert_chats("opencode.json", 2);
}

#[test]
fn cline() {
    assert_chats("cline.json", 2);
}

#[test]
fn open_webui() {
    assert_chats("open_webui.json", 1);
}

#[test]
fn models_say_how_long_contexts_are() {
    let server = Server::with_text(scripted("Hello"), text_of(TEMPLATE), Limits::default());
    let list = server.get("/v1/models").json();
    let model = &list["data"][0];
    assert_eq!((&model["context_length"], &model["max_model_len"]), (&json!(1024), &json!(1024)));
    assert_eq!(model["meta"]["n_ctx_train"], 512);
    // As Anthropic lists models.
    assert_eq!((&model["type"], &list["has_more"], &list["first_id"]), (&json!("model"), &json!(false), &model["id"]));
    let props = server.get("/props").json();
    assert_eq!((&props["default_generation_settings"]["n_ctx"], &props["total_slots"]), (&json!(1024), &json!(1)));
    assert_eq!((&props["chat_template"], &props["eos_token"]), (&json!(TEMPLATE), &json!("<|eos|>")));
    for path in ["/props/", "/v1/props", "/v1/slots", "/v1/health"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn texts_become_tokens_and_tokens_texts() {
    let server = Server::with_text(scripted("Hello"), text_of(TEMPLATE), Limits::default());
    let text = text_of(TEMPLATE);
    let tokens = |fields: Value| {
        let reply = server.post("/tokenize", &fields);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let reply = reply.json();
        assert_eq!(reply["count"], reply["tokens"].as_array().expect("tokens").len());
        reply["tokens"].clone()
    };
    let ids = |words: &str, special| json!(text.tokenizer.encode(words, special).expect("encodes"));
    // By llama.cpp's names, and by vLLM's.
    assert_eq!(tokens(json!({ "content": "Hello, world!" })), ids("Hello, world!", false));
    assert_eq!(tokens(json!({ "content": "Hello", "add_special": true })), ids("Hello", true));
    assert_eq!(tokens(json!({ "prompt": "Hello" })), ids("Hello", true));
    assert_eq!(tokens(json!({ "content": "<|end|>" })), json!([2047]));
    assert_ne!(tokens(json!({ "content": "<|end|>", "parse_special": false })), json!([2047]));
    let pieces = tokens(json!({ "content": "Hello, world!", "with_pieces": true }));
    let pieces: String =
        pieces.as_array().expect("tokens").iter().map(|token| token["piece"].as_str().expect("text")).collect();
    assert_eq!(pieces, "Hello, world!");
    // A chat's tokens are those that it would be run as.
    let chat = json!({ "messages": [{ "role": "user", "content": "Hi <|end|>" }] });
    let run = server.post("/v1/chat/completions", &dialects::with(chat.clone(), json!({ "max_tokens": 0 }))).json();
    assert_eq!(
        tokens(chat.clone()).as_array().map(Vec::len),
        run["usage"]["prompt_tokens"].as_u64().map(|count| count as usize)
    );
    let rendered = server.post("/apply-template", &chat).json();
    assert_eq!(rendered, json!({ "prompt": "<|user|>user: Hi <|end|><|end|>\n<|assistant|>" }));

    let back = server.post("/v1/detokenize", &json!({ "tokens": [2045, 1082, 2047] })).json();
    assert_eq!(back, json!({ "content": "<|user|>Hello<|end|>", "prompt": "<|user|>Hello<|end|>" }));
    for (path, body, param) in [
        ("/tokenize", json!({}), "content"),
        ("/tokenize", json!({ "content": 5 }), "content"),
        ("/tokenize", json!({ "messages": 5 }), "messages"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({ "tokens": ["a"] }), "tokens"),
        ("/detokenize", json!({ "tokens": [2048] }), "tokens"),
        ("/apply-template", json!({ "messages": [] }), "messages"),
    ] {
        let reply = server.post(path, &body);
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{path} {body}");
    }
}
