//! Structured output over real sockets: what is asked for is what comes, whatever the model would say.

use std::sync::Arc;

use crate::{common, http, schema};
use common::{HashModel, INFO};
use forge_runtime::assets::Text;
use forge_runtime::generation::speculation::Speculation;
use forge_runtime::server::{Limits, Options};
use forge_runtime::{Assets, ModelInfo};
use http::Server;
use serde_json::{Value, json};

/// A server whose model says anything.
fn server() -> Server {
    Server::start(HashModel { context: 480, ..HashModel::of_slots(2) }, Limits::default())
}

fn colors() -> Value {
    json!({
        "type": "object",
        "properties": {
            "color": { "$ref": "#/$defs/color" },
            "sizes": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 99 }, "minItems": 1, "maxItems": 2 },
            "ok": { "type": ["boolean", "null"] },
        },
        "required": ["color", "sizes", "ok"],
        "additionalProperties": false,
        "$defs": { "color": { "enum": ["red", "green", "blue"] } },
    })
}

fn check(schema: &Value, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(schema::is_valid(schema, schema, &value), "{text}");
}

#[test]
fn every_dialect_holds_answers_to_a_schema() {
    let (server, schema) = (server(), colors());
    let messages = json!([{ "role": "user", "content": "Which?" }]);
    for seed in 0..4 {
        let format =
            json!({ "type": "json_schema", "json_schema": { "name": "colors", "strict": true, "schema": schema } });
        let mut body = json!({ "messages": messages, "temperature": 1, "seed": seed, "response_format": format });
        let reply = server.post("/v1/chat/completions", &body).json();
        let choice = &reply["choices"][0];
        assert_eq!(choice["finish_reason"], "stop", "{reply}");
        let text = choice["message"]["content"].as_str().expect("text").to_owned();
        check(&schema, &text);
        body["stream"] = true.into();
        let events = server.post("/v1/chat/completions", &body).events();
        let piece = |event: &String| {
            let event: Value = serde_json::from_str(event).unwrap_or_default();
            event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(events.iter().map(piece).collect::<String>(), text);

        let body = json!({ "prompt": "A color:", "max_tokens": -1, "temperature": 1, "seed": seed, "response_format": format });
        let reply = server.post("/v1/completions", &body).json();
        check(&schema, reply["choices"][0]["text"].as_str().expect("text"));

        let format = json!({ "type": "json_schema", "name": "colors", "schema": schema });
        let body = json!({ "input": "Which?", "temperature": 1, "seed": seed, "text": { "format": format } });
        let reply = server.post("/v1/responses", &body).json();
        check(&schema, reply["output"][0]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{reply}")));

        let format = json!({ "type": "json_schema", "schema": schema });
        let body = json!({ "messages": messages, "max_tokens": 400, "temperature": 1, "seed": seed, "output_config": { "format": format } });
        let reply = server.post("/v1/messages", &body).json();
        check(&schema, reply["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{reply}")));
    }
}

#[test]
fn objects_and_greedy_choices() {
    let server = server();
    // The end of an object is what this model would like best, were it asked.
    let close = common::text("demo").tokenizer.encode("}", false).expect("encodes")[0];
    let body = json!({
        "messages": [{ "role": "user", "content": "Go." }], "temperature": 0, "logit_bias": [[close, 100]],
        "response_format": { "type": "json_object" },
    });
    let reply = server.post("/v1/chat/completions", &body).json();
    assert_eq!(reply["choices"][0]["message"]["content"], "{}", "{reply}");
    // With a schema, as llama.cpp's server has it.
    let schema = json!({ "type": "object", "properties": { "a": { "const": 7 } }, "required": ["a"], "additionalProperties": false });
    let format = json!({ "type": "json_object", "schema": schema });
    let body =
        json!({ "messages": [{ "role": "user", "content": "Go." }], "temperature": 0, "response_format": format });
    let reply = server.post("/v1/chat/completions", &body).json();
    check(&schema, reply["choices"][0]["message"]["content"].as_str().expect("text"));
}

#[test]
fn what_cannot_be_held_is_refused_in_the_words_of_who_knows() {
    let server = server();
    let ask = |schema: Value| {
        let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let body = json!({ "messages": [{ "role": "user", "content": "Go." }], "response_format": format });
        let reply = server.post("/v1/chat/completions", &body);
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["param"]), (400, &json!("response_format")), "{error}");
        error["message"].as_str().expect("words").to_owned()
    };
    let words = ask(json!({ "type": "array", "uniqueItems": true }));
    assert!(words.contains("uniqueItems"), "{words}");
    let words = ask(json!({ "type": "integer", "minimum": 5, "maximum": 4 }));
    assert!(words.contains("minimum"), "{words}");
    let words = ask(json!({ "enum": (0..10_000).map(|i| format!("value {i}")).collect::<Vec<_>>() }));
    assert!(words.contains("bytes long"), "{words}");
}

/// What was guessed and what was forced is in `timings` and `/metrics`, and the text is what it is without.
#[test]
fn guesses_and_forced_tokens_are_counted() {
    let ask = |speculation: Speculation| {
        let model = HashModel { context: 480, script: (300..309).cycle().take(60).collect(), ..HashModel::of_slots(2) };
        let server =
            Server::with_text(model, common::text("demo"), Options { speculation, ..Limits::default().into() });
        let format = json!({ "type": "json_schema", "json_schema": { "name": "colors", "schema": colors() } });
        let free = json!({ "prompt": "A color:", "max_tokens": 50, "temperature": 0 });
        let held =
            json!({ "prompt": "A color:", "max_tokens": 99, "temperature": 1, "seed": 3, "response_format": format });
        let replies = [free, held].map(|body| server.post("/v1/completions", &body).json());
        let page = server.get("/metrics").text().to_owned();
        let names = ["guessed", "right_guessed", "forced"].map(|name| format!("forge_{name}_tokens_total "));
        let counted = names.map(|name| {
            let line = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{page}"));
            line.parse::<u64>().expect("a count")
        });
        let timings = ["draft_n", "draft_n_accepted", "forced_n"]
            .map(|name| replies.iter().map(|reply| reply["timings"][name].as_u64().expect("a count")).sum::<u64>());
        assert_eq!(counted, timings);
        (replies.map(|reply| reply["choices"][0]["text"].clone()), counted)
    };
    let (plain, none) = ask(Speculation::Off);
    assert_eq!(none, [0; 3]);
    let (text, [guessed, right, forced]) = ask(Speculation::Depth(4));
    assert_eq!(text, plain);
    assert!(guessed >= right && right > 20 && forced > 0, "{right} of {guessed}, {forced} forced");
}

/// Writes calls as Hermes does, between tags that are tokens, and thinks.
const TOOL_TEMPLATE: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content or '' }}\
    {% for c in m.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n\
    </tool_call>{% endfor %}<|end|>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

/// A server whose vocabulary has tags of calls, and whose model would like to say this.
fn calling(wanted: &str) -> Server {
    let json = std::str::from_utf8(common::read("demo", "tokenizer.json")).expect("UTF-8");
    let names = [("<|user|>", "<tool_call>"), ("<|assistant|>", "</tool_call>"), ("<|bos|>", "<think>")];
    let json = names.iter().fold(json.to_owned(), |json, (name, other)| json.replace(name, other));
    let assets =
        Assets { tokenizer: json.into_bytes().leak(), chat_template: Some(TOOL_TEMPLATE), ..common::assets("demo") };
    let text = Arc::new(Text::load(&assets).expect("loads"));
    let script = text.tokenizer.encode(wanted, false).expect("encodes");
    let model = HashModel { script, ..HashModel::with_info(ModelInfo { slots: 1, ..INFO }) };
    Server::with_text(HashModel { context: 480, ..model }, text, Limits::default())
}

fn weather(strict: bool) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": { "city": { "enum": ["Oslo", "Rome"] }, "days": { "type": "integer", "minimum": 1, "maximum": 9 } },
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    json!([{ "type": "function", "function": { "name": "weather", "strict": strict, "parameters": parameters } }])
}

fn ask(server: &Server, fields: &Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 300, "temperature": 1 });
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-forge-warning"), None);
    reply.json()["choices"][0].clone()
}

/// What may be a call and need be none is a whole call of a tool that there is once it begins as one; what comes before it is free.
#[test]
fn strict_tools_are_held_where_there_need_be_no_call() {
    let wanted = "Let me look.<tool_call>[17] nonsense, no call at all";
    let tools = weather(true);
    let schema = &tools[0]["function"]["parameters"];
    let mut called = 0;
    for seed in 0..6 {
        let choice = ask(&calling(wanted), &json!({ "tools": tools, "seed": seed }));
        let message = &choice["message"];
        let content = message["content"].as_str().expect("content");
        assert!(content.starts_with("Let me look."), "{choice}");
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            assert_eq!(call["function"]["name"], "weather");
            check(schema, call["function"]["arguments"].as_str().expect("text"));
            called += 1;
        }
        // One that is not strict is held by nothing.
        let choice = ask(&calling(wanted), &json!({ "tools": weather(false), "seed": seed }));
        assert!(choice["message"]["content"].as_str().expect("content").contains("[17] nonsense"), "{choice}");
    }
    assert!(called >= 5, "{called} calls of 6");
}

/// Beside tools that may be called or not, an answer is of the form that was asked for, or consists of calls.
#[test]
fn a_form_beside_tools() {
    let format = json!({ "type": "json_schema", "json_schema": { "name": "colors", "schema": colors() } });
    let (mut called, mut said) = (0, 0);
    for (wanted, seed) in [("<tool_call>\n", 1), ("<tool_call>\n", 2), ("Hello, world", 3), ("Hello, world", 4)] {
        // It may think first, which has no end here.
        let never = json!({ "2043": -100 });
        let fields = json!({ "tools": weather(true), "response_format": format, "seed": seed, "logit_bias": never });
        let choice = ask(&calling(wanted), &fields);
        let message = &choice["message"];
        match message["tool_calls"].as_array() {
            Some(calls) => {
                check(
                    &weather(true)[0]["function"]["parameters"],
                    calls[0]["function"]["arguments"].as_str().expect("text"),
                );
                called += 1;
            }
            None => {
                check(&colors(), message["content"].as_str().expect("content"));
                said += 1;
            }
        }
    }
    assert_eq!((called, said), (2, 2));
}

/// Thoughts beyond their budget are ended, also where a form follows; those within are left alone.
#[test]
fn thoughts_have_a_budget() {
    let wanted = "<think>One two three four five six seven eight nine ten eleven twelve";
    let thoughts = |choice: &Value| choice["message"]["reasoning_content"].as_str().unwrap_or_default().to_owned();
    let free = thoughts(&ask(&calling(wanted), &json!({ "temperature": 0 })));
    for (most, name) in [
        (0, "thinking_token_budget"),
        (1, "thinking_budget_tokens"),
        (3, "thinking_budget"),
        (5, "thinking_token_budget"),
    ] {
        let choice = ask(&calling(wanted), &json!({ "temperature": 0, "max_tokens": 40, name: most }));
        let thought = thoughts(&choice);
        assert!(free.starts_with(&thought) && thought.len() < free.len(), "{thought}");
        let tokens = common::text("demo").tokenizer.encode(&thought, false).expect("encodes").len();
        assert!(tokens <= most, "{tokens} tokens of at most {most}: {thought}");
        assert!(!choice["message"]["content"].as_str().expect("content").is_empty(), "{choice}");
    }
    let format = json!({ "type": "json_schema", "json_schema": { "name": "colors", "schema": colors() } });
    let choice =
        ask(&calling(wanted), &json!({ "response_format": format, "reasoning": { "max_tokens": 4 }, "seed": 3 }));
    check(&colors(), choice["message"]["content"].as_str().expect("content"));
    assert!(!thoughts(&choice).is_empty() && thoughts(&choice).len() < free.len());
    // Those that end by themselves, and texts without any.
    for (wanted, thought) in [("<think>One two</think>\n\nHello", "One two"), ("Hello", "")] {
        let choice = ask(&calling(wanted), &json!({ "temperature": 0, "max_tokens": 20, "thinking_token_budget": 8 }));
        assert_eq!(thoughts(&choice), thought);
        assert!(choice["message"]["content"].as_str().expect("content").starts_with("Hello"), "{choice}");
    }
    let server = calling(wanted);
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 40, "thinking": { "type": "enabled", "budget_tokens": 4 }, "temperature": 0 });
    let message = server.post("/v1/messages", &body).json();
    assert_eq!(message["content"][0]["type"], "thinking");
    assert!(
        free.starts_with(message["content"][0]["thinking"].as_str().expect("text"))
            && message["content"][1]["type"] == "text"
    );
    let reply = server.post("/v1/responses", &json!({ "input": "Hi", "reasoning": { "max_tokens": -4 } }));
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("reasoning.max_tokens")));
}
