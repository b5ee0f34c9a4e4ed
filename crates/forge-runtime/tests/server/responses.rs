//! OpenAI's Responses over real sockets.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{common, dialects, http};
use common::HashModel;
use dialects::{ANSWER, TEMPLATE, answering, chat_prompt, hashing, named_events, response_of, scripted, text_of, with};
use forge_runtime::server::Limits;
use http::Server;
use serde_json::{Value, json};

const URL: &str = "/v1/responses";

fn weather() -> Value {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    json!({ "type": "function", "name": "get_weather", "description": "Weather of a city", "strict": false, "parameters": parameters })
}

fn hello(fields: Value) -> Value {
    with(json!({ "model": "gpt", "input": "Weather in Oslo?" }), fields)
}

/// Takes out what differs from run to run.
fn without_ids(mut response: Value) -> Value {
    for field in ["id", "created_at"] {
        assert!(!response[field].take().is_null());
    }
    let mut ids = BTreeSet::new();
    for item in response["output"].as_array_mut().expect("items") {
        for field in ["id", "call_id"] {
            if item.get(field).is_some() {
                assert!(ids.insert(item[field].take().as_str().expect("an id").to_owned()));
            }
        }
    }
    response
}

#[test]
fn a_response() {
    let server = answering("Hello, world!");
    let asked = json!({ "instructions": "Be brief.", "temperature": 0.5, "max_output_tokens": 50, "metadata": { "a": "b" }, "store": true });
    let reply = server.post(URL, &hello(asked));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    assert!(body["id"].as_str().is_some_and(|id| id.starts_with("resp_")));
    let tokens = body["usage"]["input_tokens"].as_u64().expect("a count");
    let part = json!({ "type": "output_text", "text": "Hello, world!", "annotations": [], "logprobs": [] });
    let item = json!({ "id": null, "type": "message", "status": "completed", "role": "assistant", "content": [part] });
    let expected = json!({
        "id": null, "created_at": null, "object": "response", "status": "completed", "error": null, "incomplete_details": null,
        "model": "hash-model", "output": [item],
        "usage": {
            "input_tokens": tokens, "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
            "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": tokens + 5,
        },
        "background": false, "store": false, "truncation": "disabled", "previous_response_id": null,
        "instructions": "Be brief.", "max_output_tokens": 50, "max_tool_calls": null, "metadata": { "a": "b" },
        "prompt_cache_key": null, "reasoning": { "effort": null, "summary": null }, "safety_identifier": null,
        "temperature": 0.5, "text": { "format": { "type": "text" } }, "tools": [], "tool_choice": "auto",
        "parallel_tool_calls": true, "top_logprobs": 0, "top_p": null, "user": null,
    });
    assert_eq!(without_ids(body), expected);
    // Once more, and cut off.
    let cut = server.post("/responses/", &hello(json!({ "instructions": "Be brief.", "max_output_tokens": 2 }))).json();
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]),
        (&json!("incomplete"), &json!({ "reason": "max_output_tokens" }))
    );
    assert_eq!(
        (&cut["output"][0]["status"], &cut["output"][0]["content"][0]["text"]),
        (&json!("incomplete"), &json!("Hello,"))
    );
    assert!(cut["usage"]["input_tokens_details"]["cached_tokens"].as_u64().is_some_and(|cached| cached > 0));
}

#[test]
fn thoughts_texts_and_calls_are_items() {
    let body = answering(ANSWER).post(URL, &hello(json!({ "tools": [weather()] }))).json();
    let reasoning = body["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().expect("a count");
    let words = text_of(TEMPLATE).tokenizer.encode("A call, so.", false).expect("encodes");
    assert_eq!(reasoning, words.len() as u64);
    let body = without_ids(body);
    let thought = json!({ "type": "reasoning_text", "text": "A call, so." });
    let text = json!({ "type": "output_text", "text": "Let me look.", "annotations": [], "logprobs": [] });
    let call = |city: &str| {
        let arguments = format!("{{\"city\": \"{city}\"}}");
        json!({ "id": null, "type": "function_call", "status": "completed", "call_id": null, "name": "get_weather", "arguments": arguments })
    };
    let items = json!([
        { "id": null, "type": "reasoning", "status": "completed", "summary": [], "content": [thought] },
        { "id": null, "type": "message", "status": "completed", "role": "assistant", "content": [text] },
        call("Oslo"),
        call("Rome"),
    ]);
    assert_eq!((&body["status"], &body["output"]), (&json!("completed"), &items));
    let one = answering(ANSWER).post(URL, &hello(json!({ "tools": [weather()], "parallel_tool_calls": false }))).json();
    assert_eq!(one["output"].as_array().map(Vec::len), Some(3));
}

#[test]
fn streams_make_the_whole() {
    for fields in [
        json!({}),
        json!({ "tools": [weather()] }),
        json!({ "max_output_tokens": 4 }),
        json!({ "max_output_tokens": 14 }),
        json!({ "max_output_tokens": 0 }),
    ] {
        let whole = answering(ANSWER).post(URL, &hello(fields.clone())).json();
        let events = named_events(&answering(ANSWER).post(URL, &with(hello(fields), json!({ "stream": true }))));
        assert_eq!((events[0].0.as_str(), events[1].0.as_str()), ("response.created", "response.in_progress"));
        assert_eq!(without_ids(response_of(&events)), without_ids(whole));
    }
    // Clients of this API expect no other mark of the end.
    let reply = answering("Hello").post(URL, &hello(json!({ "stream": true })));
    assert!(!reply.text().contains("[DONE]"));
}

/// Codex has such tools, for patches.
#[test]
fn tools_that_take_a_text() {
    let patch = "*** Begin Patch\n*** Delete File: \"a\"\n*** End Patch\n";
    let arguments = json!({ "input": patch }).to_string();
    let answer = format!("<tool_call>\n{{\"name\": \"apply_patch\", \"arguments\": {arguments}}}\n</tool_call>");
    let format = json!({ "type": "grammar", "syntax": "lark", "definition": "start: /.+/s" });
    let tool = json!({ "type": "custom", "name": "apply_patch", "description": "Edits files.", "format": format });
    let asked = hello(json!({ "tools": [tool, weather()], "stream": true }));
    let response = response_of(&named_events(&answering(&answer).post(URL, &asked)));
    let item = &response["output"][0];
    assert_eq!(
        (&item["type"], &item["name"], &item["input"]),
        (&json!("custom_tool_call"), &json!("apply_patch"), &json!(patch))
    );
    assert!(item["call_id"].as_str().is_some_and(|id| id.starts_with("call_")) && item["id"] != item["call_id"]);
    // To the model it is a function.
    let description = "Edits files.\n\nThe input is written by this grammar (lark):\nstart: /.+/s";
    let parameters =
        json!({ "type": "object", "properties": { "input": { "type": "string" } }, "required": ["input"] });
    let function = json!({ "name": "apply_patch", "description": description, "parameters": parameters });
    let call =
        json!({ "id": "call_1", "type": "function", "function": { "name": "apply_patch", "arguments": arguments } });
    let user = json!({ "role": "user", "content": "Hi" });
    assert_same_prompt(
        &hashing(TEMPLATE, Limits::default()),
        json!({ "tools": [tool], "input": [
            user,
            { "type": "custom_tool_call", "call_id": "call_1", "name": "apply_patch", "input": patch },
            { "type": "custom_tool_call_output", "call_id": "call_1", "output": "Done" },
        ] }),
        json!({ "tools": [{ "type": "function", "function": function }], "messages": [
            user, { "role": "assistant", "tool_calls": [call] }, { "role": "tool", "tool_call_id": "call_1", "content": "Done" },
        ] }),
    );
}

/// A request comes to the same prompt as a chat.
#[track_caller]
fn assert_same_prompt(server: &Server, asked: Value, chat: Value) {
    let asked = with(json!({ "temperature": 0, "max_output_tokens": 6 }), asked);
    let reply = server.post(URL, &asked);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = reply.json();
    let tokens = reply["usage"]["input_tokens"].clone();
    assert_eq!((tokens.clone(), reply["output"][0]["content"][0]["text"].clone()), chat_prompt(server, chat));
    let counted = server.post("/v1/responses/input_tokens", &asked).json();
    assert_eq!(counted, json!({ "object": "response.input_tokens", "input_tokens": tokens }));
}

#[test]
fn prompts_are_those_of_chats() {
    let server = hashing(TEMPLATE, Limits::default());
    let message = |role: &str, content: Value| json!({ "role": role, "content": content });
    let text = |kind: &str, text: &str| json!({ "type": kind, "text": text });
    assert_same_prompt(
        &server,
        json!({ "input": "Hi", "instructions": "Be brief." }),
        json!({ "messages": [message("system", json!("Be brief.")), message("user", json!("Hi"))] }),
    );
    // What a developer says first belongs to the instructions; what it says later stays there.
    let parts = json!([text("text", "Be brief."), text("text", "No network.")]);
    assert_same_prompt(
        &server,
        json!({ "instructions": "Be brief.", "input": [
            { "type": "message", "role": "developer", "content": [text("input_text", "No network.")] },
            { "type": "message", "role": "user", "content": [text("input_text", "Hi")] },
            { "type": "message", "role": "developer", "content": "Careful." },
            message("user", json!("Well?")),
        ] }),
        json!({ "messages": [
            message("system", parts), message("user", json!("Hi")), message("developer", json!("Careful.")), message("user", json!("Well?")),
        ] }),
    );
    // A turn of an assistant is several items.
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "get_weather", "arguments": "{\"city\": \"Oslo\"}" } });
    let tool = |id: &str, content: &str| json!({ "role": "tool", "tool_call_id": id, "content": content });
    let item = |id: &str| json!({ "type": "function_call", "id": "fc_1", "call_id": id, "name": "get_weather", "arguments": "{\"city\": \"Oslo\"}", "status": "completed" });
    let output = |id: &str, output: Value| json!({ "type": "function_call_output", "call_id": id, "output": output });
    let function =
        json!({ "name": "get_weather", "description": "Weather of a city", "parameters": weather()["parameters"] });
    let asked = json!({ "tools": [weather(), { "type": "web_search" }], "input": [
        message("user", json!("Hi")),
        { "type": "reasoning", "id": "rs_1", "summary": [], "content": [text("reasoning_text", "Hm.")], "encrypted_content": "x" },
        { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text("output_text", "I look.")] },
        item("call_1"),
        item("call_2"),
        { "type": "web_search_call", "id": "ws_1", "status": "completed" },
        output("call_1", json!("Rain")),
        output("call_2", json!([text("input_text", "Sun")])),
        { "type": "reasoning", "summary": [text("summary_text", "Again.")] },
        item("call_3"),
        output("call_3", json!("")),
        message("assistant", json!("Fine.")),
        message("assistant", json!("Really.")),
        message("user", json!("Thanks")),
    ] });
    let chat = json!({ "tools": [{ "type": "function", "function": function }], "messages": [
        message("user", json!("Hi")),
        { "role": "assistant", "reasoning_content": "Hm.", "content": "I look.", "tool_calls": [call("call_1"), call("call_2")] },
        tool("call_1", "Rain"), tool("call_2", "Sun"),
        { "role": "assistant", "reasoning_content": "Again.", "tool_calls": [call("call_3")] },
        tool("call_3", ""),
        message("assistant", json!("Fine.")), message("assistant", json!("Really.")), message("user", json!("Thanks")),
    ] });
    assert_same_prompt(&server, asked.clone(), chat.clone());
    let warning = server.post(URL, &asked);
    let warning = warning.header("x-forge-warning").expect("a warning");
    assert!(warning.ends_with("web_search, web_search_call"), "{warning}");
    for choice in [json!("none"), json!("required"), json!({ "type": "function", "name": "get_weather" })] {
        let said = if choice.is_string() {
            choice.clone()
        } else {
            json!({ "type": "function", "function": { "name": "get_weather" } })
        };
        assert_same_prompt(
            &server,
            with(asked.clone(), json!({ "tool_choice": choice })),
            with(chat.clone(), json!({ "tool_choice": said })),
        );
    }
    let user = json!({ "messages": [message("user", json!("Hi"))] });
    for (effort, variables) in
        [("high", json!({ "reasoning_effort": "high" })), ("none", json!({ "enable_thinking": false }))]
    {
        let asked = json!({ "input": "Hi", "reasoning": { "effort": effort, "summary": "auto" }, "include": ["reasoning.encrypted_content"] });
        assert_same_prompt(&server, asked, with(user.clone(), variables));
    }
}

#[test]
fn silence_is_broken_by_events() {
    let limits = Limits { silence: Duration::from_millis(50), ..Limits::default() };
    let model = HashModel { pace: Duration::from_millis(300), ..scripted("Hello, world!") };
    let server = Server::with_text(model, text_of(TEMPLATE), limits);
    let events = named_events(&server.post(URL, &hello(json!({ "stream": true }))));
    assert!(events.iter().filter(|(name, _)| name == "response.in_progress").count() >= 4);
    assert_eq!(response_of(&events)["output"][0]["content"][0]["text"], "Hello, world!");
}

#[test]
fn what_cannot_be_done_is_refused() {
    let server = answering("Hello, world!");
    for (fields, param) in [
        (json!({ "input": null }), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": [{ "content": "x" }] }), "input[0].role"),
        (json!({ "input": [{ "role": "user", "content": [{ "type": "input_image" }] }] }), "input[0].content[0]"),
        (json!({ "input": [{ "type": "item_reference", "id": "x" }] }), "input[0]"),
        (json!({ "input": [{ "type": "function_call", "name": "f", "arguments": "" }] }), "input[0].call_id"),
        (json!({ "input": [{ "type": "function_call_output", "call_id": "x" }] }), "input[0].output"),
        (json!({ "previous_response_id": "resp_1" }), "previous_response_id"),
        (json!({ "conversation": "conv_1" }), "conversation"),
        (json!({ "background": true }), "background"),
        (json!({ "prompt": { "id": "pmpt_1" } }), "prompt"),
        (
            json!({ "text": { "format": { "type": "json_schema", "name": "x", "schema": { "not": {} } } } }),
            "text.format",
        ),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0]"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "tool_choice": { "type": "web_search" } }), "tool_choice"),
        (json!({ "max_output_tokens": "9" }), "max_output_tokens"),
        (json!({ "stream": 1 }), "stream"),
    ] {
        let reply = server.post(URL, &hello(fields.clone()));
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{fields}: {}", reply.text());
    }
    let long = hello(json!({ "input": "story ".repeat(2000) }));
    let tokens = server.post("/v1/responses/input_tokens", &long).json()["input_tokens"].clone();
    let error = server.post(URL, &long).json()["error"].clone();
    assert_eq!((&error["code"], &error["n_prompt_tokens"]), (&json!("context_length_exceeded"), &tokens));
    // What was never stored cannot be found.
    assert_eq!(server.get("/v1/responses/resp_1").status, 404);
    // Neutral, and unknown.
    let neutral = json!({
        "background": false, "store": false, "truncation": "auto", "top_logprobs": 0, "text": { "format": { "type": "text" }, "verbosity": "low" },
        "service_tier": "auto", "prompt_cache_key": "x", "client_metadata": {}, "conversation": null,
    });
    assert_eq!(server.post(URL, &hello(neutral)).status, 200);
}

#[test]
fn failures_in_mid_stream_are_events() {
    let model = HashModel { panic_on: Some(2046), ..scripted("Hello") };
    let server = Server::with_text(model, text_of(TEMPLATE), Limits::default());
    let events = named_events(&server.post(URL, &hello(json!({ "stream": true }))));
    let (name, data) = events.last().expect("events");
    let response = &data["response"];
    assert_eq!((name.as_str(), &response["status"]), ("response.failed", &json!("failed")));
    assert_eq!(response["error"]["code"], "server_error");
    assert!(response["error"]["message"].as_str().is_some_and(|words| !words.is_empty()));
}
