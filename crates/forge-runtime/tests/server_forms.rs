//! Structured output over real sockets: what is asked for is what comes, whatever the model would say.

mod common;
#[path = "common/http.rs"]
mod http;
#[path = "common/schema.rs"]
mod schema;

use common::HashModel;
use forge_runtime::generation::speculation::Speculation;
use forge_runtime::server::{Limits, Options};
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
