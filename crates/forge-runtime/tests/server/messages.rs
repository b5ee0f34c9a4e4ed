//! Anthropic's Messages over real sockets.

use std::time::Duration;

use crate::{common, dialects, http};
use common::{HashModel, Written};
use dialects::{ANSWER, TEMPLATE, answering, chat_prompt, hashing, message_of, named_events, scripted, text_of, with};
use forge_runtime::server::{ApiKeys, Limits, Log, Options};
use http::{Reply, Server};
use serde_json::{Value, json};

const URL: &str = "/v1/messages";

fn weather() -> Value {
    json!({ "name": "get_weather", "description": "Weather of a city", "input_schema": { "type": "object", "properties": { "city": { "type": "string" } } } })
}

fn hello(fields: Value) -> Value {
    with(
        json!({ "model": "claude", "max_tokens": 1024, "messages": [{ "role": "user", "content": "Weather in Oslo?" }] }),
        fields,
    )
}

#[test]
fn a_message() {
    let server = answering("Hello, world!");
    let reply = server.post(URL, &hello(json!({})));
    assert_eq!(reply.status, 200);
    let body = reply.json();
    let id = body["id"].as_str().expect("an id");
    assert!(id.starts_with("msg_"));
    assert_eq!(reply.header("request-id"), reply.header("x-request-id"));
    let tokens = body["usage"]["input_tokens"].as_u64().expect("a count");
    let usage = json!({ "input_tokens": tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 5 });
    let expected = json!({
        "id": id, "type": "message", "role": "assistant", "model": "hash-model",
        "content": [{ "type": "text", "text": "Hello, world!" }],
        "stop_reason": "end_turn", "stop_sequence": null, "usage": usage,
    });
    assert_eq!(body, expected);
    // The same once more is reused, and counted apart.
    let usage = &server.post("/messages/", &hello(json!({}))).json()["usage"];
    let reused = usage["cache_read_input_tokens"].as_u64().expect("a count");
    assert!(reused > 0 && usage["input_tokens"] == tokens - reused, "{usage}");
}

#[test]
fn thoughts_texts_and_calls_are_blocks() {
    let body = answering(ANSWER).post(URL, &hello(json!({ "tools": [weather()] }))).json();
    assert_eq!(body["stop_reason"], "tool_use");
    let mut content = body["content"].as_array().expect("blocks").clone();
    let ids: Vec<Value> = content[2..].iter_mut().map(|block| block["id"].take()).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.as_str().is_some_and(|id| id.starts_with("call_"))));
    let call = |city| json!({ "type": "tool_use", "id": null, "name": "get_weather", "input": { "city": city } });
    let thought = json!({ "type": "thinking", "thinking": "A call, so.", "signature": "" });
    let text = json!({ "type": "text", "text": "Let me look." });
    assert_eq!(content, [thought, text, call("Oslo"), call("Rome")]);
    // One call alone where no more are wanted.
    let choice = json!({ "type": "auto", "disable_parallel_tool_use": true });
    let body = answering(ANSWER).post(URL, &hello(json!({ "tools": [weather()], "tool_choice": choice }))).json();
    assert_eq!(body["content"].as_array().map(Vec::len), Some(3));
}

#[test]
fn streams_make_the_whole() {
    for fields in [
        json!({}),
        json!({ "tools": [weather()] }),
        json!({ "stop_sequences": ["look"] }),
        json!({ "max_tokens": 4 }),
        json!({ "max_tokens": 0 }),
    ] {
        let mut whole = answering(ANSWER).post(URL, &hello(fields.clone())).json();
        let events = named_events(&answering(ANSWER).post(URL, &with(hello(fields), json!({ "stream": true }))));
        let start = &events[0].1["message"];
        assert_eq!((&start["stop_reason"], &start["usage"]["output_tokens"]), (&Value::Null, &json!(0)));
        assert_eq!(start["usage"]["input_tokens"], whole["usage"]["input_tokens"]);
        let streamed = message_of(&events);
        whole["id"] = streamed["id"].clone();
        for (index, block) in streamed["content"].as_array().expect("blocks").iter().enumerate() {
            if block["type"] == "tool_use" {
                whole["content"][index]["id"] = block["id"].clone();
            }
        }
        assert_eq!(streamed, whole);
    }
}

#[test]
fn reasons_to_stop() {
    let server = answering("Hello, world!");
    let reasons = |fields: Value| {
        let body = server.post(URL, &hello(fields)).json();
        (body["content"][0]["text"].clone(), body["stop_reason"].clone(), body["stop_sequence"].clone())
    };
    let stop = json!({ "stop_sequences": ["zzz", " world"] });
    assert_eq!(reasons(stop), (json!("Hello,"), json!("stop_sequence"), json!(" world")));
    assert_eq!(reasons(json!({ "max_tokens": 2 })), (json!("Hello,"), json!("max_tokens"), Value::Null));
    // At the very end, where nothing tells it from the beginning of a longer one.
    let stop = json!({ "stop_sequences": ["!!", "!"] });
    assert_eq!(reasons(stop), (json!("Hello, world"), json!("stop_sequence"), json!("!")));
}

/// A Messages request comes to the same prompt as a chat.
#[track_caller]
fn assert_same_prompt(server: &Server, message: Value, chat: Value) {
    let message = with(json!({ "temperature": 0, "max_tokens": 6 }), message);
    let reply = server.post(URL, &message);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (reply, usage) = (reply.json(), reply.json()["usage"].clone());
    let tokens = ["input_tokens", "cache_read_input_tokens"].map(|name| usage[name].as_u64().expect("a count"));
    let found = (json!(tokens[0] + tokens[1]), reply["content"][0]["text"].clone());
    assert_eq!(found, chat_prompt(server, chat));
    let counted = server.post("/v1/messages/count_tokens", &message).json();
    assert_eq!(counted, json!({ "input_tokens": found.0 }));
}

#[test]
fn prompts_are_those_of_chats() {
    let server = hashing(TEMPLATE, Limits::default());
    let user = |content: Value| json!({ "role": "user", "content": content });
    let text = |text: &str| json!({ "type": "text", "text": text });
    assert_same_prompt(
        &server,
        json!({ "system": "Be brief.", "messages": [user(json!("Hi"))] }),
        json!({ "messages": [{ "role": "system", "content": "Be brief." }, user(json!("Hi"))] }),
    );
    // What changes with every request is left out, and marks for a cache are.
    let billing = "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;";
    let marked = json!({ "type": "text", "text": "Be brief.", "cache_control": { "type": "ephemeral" } });
    assert_same_prompt(
        &server,
        json!({ "system": [text(billing), marked], "messages": [user(json!([text("Hi")]))] }),
        json!({ "messages": [{ "role": "system", "content": "Be brief." }, user(json!("Hi"))] }),
    );
    // A whole turn of tools.
    let history = json!([
        user(json!([text("One"), text("Two")])),
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "Hm.", "signature": "x" }, { "type": "redacted_thinking", "data": "x" }, text("I look."),
            { "type": "tool_use", "id": "call_1", "name": "get_weather", "input": { "city": "Oslo" } },
            { "type": "tool_use", "id": "call_2", "name": "get_weather", "input": {} },
        ] },
        user(json!([
            { "type": "tool_result", "tool_use_id": "call_1", "content": "Rain" },
            { "type": "tool_result", "tool_use_id": "call_2", "content": [text("Sun"), text("Wind")], "is_error": true },
            { "type": "tool_result", "tool_use_id": "call_2" },
            text("And now?"),
        ])),
        { "role": "system", "content": "9 tokens left" },
    ]);
    let call = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": "get_weather", "arguments": arguments } });
    let tool = |id: &str, content: Value| json!({ "role": "tool", "tool_call_id": id, "content": content });
    let chat = json!([
        user(json!([text("One"), text("Two")])),
        { "role": "assistant", "reasoning_content": "Hm.", "content": "I look.",
          "tool_calls": [call("call_1", "{\"city\":\"Oslo\"}"), call("call_2", "{}")] },
        tool("call_1", json!("Rain")), tool("call_2", json!([text("Sun"), text("Wind")])), tool("call_2", json!("")),
        user(json!("And now?")),
        { "role": "system", "content": "9 tokens left" },
    ]);
    let function =
        json!({ "name": "get_weather", "description": "Weather of a city", "parameters": weather()["input_schema"] });
    let tools = json!([{ "type": "function", "function": function }]);
    assert_same_prompt(
        &server,
        json!({ "messages": history, "tools": [weather()] }),
        json!({ "messages": chat, "tools": tools }),
    );
    for choice in ["none", "any"] {
        let said = if choice == "any" { "required" } else { choice };
        assert_same_prompt(
            &server,
            json!({ "messages": history, "tools": [weather()], "tool_choice": { "type": choice } }),
            json!({ "messages": chat, "tools": tools, "tool_choice": said }),
        );
    }
    // An answer that was begun is gone on with; thoughts are asked for.
    let begun = json!([user(json!("Hi")), { "role": "assistant", "content": "Well" }]);
    assert_same_prompt(
        &server,
        json!({ "messages": begun, "thinking": { "type": "enabled", "budget_tokens": 1024 }, "output_config": { "effort": "high" } }),
        json!({ "messages": begun, "enable_thinking": true, "reasoning_effort": "high" }),
    );
    assert_same_prompt(
        &server,
        json!({ "messages": [user(json!("Hi"))], "thinking": { "type": "disabled" }, "metadata": { "user_id": "x" } }),
        json!({ "messages": [user(json!("Hi"))], "enable_thinking": false }),
    );
}

#[test]
fn system_messages_stand_where_the_template_has_a_place_for_them() {
    let template = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}{% endif %}\
        <|user|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}<|assistant|>";
    let server = hashing(template, Limits::default());
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    let messages = [message("user", "Q"), message("system", "S"), message("assistant", "A"), message("system", "T")];
    assert_same_prompt(
        &server,
        json!({ "system": "First", "messages": messages }),
        json!({ "messages": [message("system", "First"), message("user", "Q\nS"), message("assistant", "A"), message("user", "T")] }),
    );
}

#[test]
fn silence_is_pinged() {
    let limits = Limits { silence: Duration::from_millis(50), ..Limits::default() };
    let model = HashModel { pace: Duration::from_millis(300), ..scripted("Hello, world!") };
    let server = Server::with_text(model, text_of(TEMPLATE), limits);
    let events = named_events(&server.post(URL, &hello(json!({ "stream": true }))));
    assert!(events.iter().filter(|(name, _)| name == "ping").count() >= 3);
    assert_eq!(message_of(&events)["content"][0]["text"], "Hello, world!");
}

#[track_caller]
fn error(reply: &Reply, status: u16, kind: &str) -> String {
    let body = reply.json();
    assert_eq!(
        (reply.status, &body["type"], &body["error"]["type"]),
        (status, &json!("error"), &json!(kind)),
        "{body}"
    );
    assert_eq!(body["request_id"].as_str(), reply.header("request-id"));
    body["error"]["message"].as_str().expect("words").to_owned()
}

#[test]
fn errors_are_anthropics() {
    let server = answering("Hello, world!");
    let message = |content: Value| json!({ "messages": [{ "role": "user", "content": content }] });
    for (fields, words) in [
        (json!({ "messages": null }), "messages"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "tool", "content": "x" }] }), "messages[0].role"),
        (message(json!(3)), "messages[0].content"),
        (message(json!([{ "type": "image", "source": {} }])), "messages[0].content[0]"),
        (message(json!([{ "type": "tool_result" }])), "messages[0].content[0].tool_use_id"),
        (json!({ "system": 5 }), "system"),
        (json!({ "thinking": { "type": "deep" } }), "thinking.type"),
        (json!({ "tools": 5 }), "tools"),
        (json!({ "tools": [{ "input_schema": {} }] }), "tools[0]"),
        (json!({ "tool_choice": { "type": "any" } }), "tool_choice"),
        (json!({ "tools": [weather()], "tool_choice": { "type": "tool", "name": "other" } }), "tool_choice"),
        (json!({ "temperature": "warm" }), "temperature"),
        (json!({ "stop_sequences": 5 }), "stop_sequences"),
        (json!({ "mcp_servers": [{}] }), "mcp_servers"),
        (
            json!({ "output_config": { "format": { "type": "json_schema", "schema": { "not": {} } } } }),
            "output_config.format",
        ),
    ] {
        let reply = server.post(URL, &hello(fields.clone()));
        let said = error(&reply, 400, "invalid_request_error");
        assert!(said.starts_with(words), "{fields}: {said}");
    }
    error(&server.send("POST", URL, b"{"), 400, "invalid_request_error");
    error(&server.get(URL), 405, "invalid_request_error");
    error(&server.get("/v1/messages/batches"), 404, "not_found_error");
    // Agents shorten a chat on these words.
    let long = hello(message(json!("story ".repeat(2000))));
    let tokens = server.post("/v1/messages/count_tokens", &long).json()["input_tokens"].clone();
    let said = error(&server.post(URL, &long), 400, "invalid_request_error");
    assert_eq!(said, format!("prompt is too long: {tokens} tokens > 1023 maximum"));
    // OpenAI's clients are told in their own words.
    let long = server.post("/v1/chat/completions", &long).json();
    assert_eq!((&long["error"]["n_prompt_tokens"], &long["error"]["n_ctx"]), (&tokens, &json!(1024)));

    let keys: ApiKeys = ["secret".parse().expect("a key")].into_iter().collect();
    let server =
        Server::with_text(scripted("Hello, world!"), text_of(TEMPLATE), Options { keys, ..Options::default() });
    error(&server.post(URL, &hello(json!({}))), 401, "authentication_error");
    let body = hello(json!({})).to_string();
    assert_eq!(server.send_with("POST", URL, "x-api-key: secret\r\n", body.as_bytes()).status, 200);
}

#[test]
fn errors_in_mid_stream_are_events() {
    let model = HashModel { panic_on: Some(2046), ..scripted("Hello") };
    let server = Server::with_text(model, text_of(TEMPLATE), Limits::default());
    let events = named_events(&server.post(URL, &hello(json!({ "stream": true }))));
    let (name, data) = events.last().expect("events");
    assert_eq!((name.as_str(), &data["error"]["type"]), ("error", &json!("api_error")));
}

#[test]
fn tools_of_anthropics_servers_are_left_out() {
    let written = Written::default();
    let log = Log::to(written.clone()).expect("a log");
    let server = Server::with_text(scripted(ANSWER), text_of(TEMPLATE), Options { log, ..Options::default() });
    let tools = json!([{ "type": "web_search_20250305", "name": "web_search" }, weather()]);
    let reply = server.post(URL, &hello(json!({ "tools": tools })));
    assert_eq!(reply.json()["stop_reason"], "tool_use");
    let warning = reply.header("x-forge-warning").expect("a warning");
    assert!(warning.ends_with("web_search_20250305"), "{warning}");
    drop(server);
    let lines = written.text();
    assert!(
        lines.contains(" POST /v1/messages 200 ") && lines.contains(" skipped=\"web_search_20250305\" "),
        "{lines}"
    );
}
