//! The HTTP server over real sockets: OpenAI's forms, streaming, errors, limits, cancellation.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::{common, http};
use common::HashModel;
use forge_runtime::server::Limits;
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

/// Answers "Hello, world!" and ends.
fn hello() -> Server {
    let text = common::text("demo");
    let mut script = text.tokenizer.encode("Hello, world!", false).expect("encodes");
    script.push(2047);
    Server::start(HashModel::scripted(&script), Limits::default())
}

fn chat(content: &str) -> Value {
    json!({ "model": "whatever", "messages": [{ "role": "user", "content": content }] })
}

fn with(mut body: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

#[test]
fn models_and_health() {
    let server = hello();
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    let models = server.get("/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("hash-model")));
    assert_eq!(server.get("/v1/models/hash-model").json()["object"], "model");
    let missing = server.get("/v1/models/other");
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[test]
fn chat_completion() {
    let server = hello();
    let reply = server.post("/v1/chat/completions", &chat("Hi"));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "hash-model");
    assert!(body["id"].as_str().expect("id").starts_with("chatcmpl-"));
    let choice = &body["choices"][0];
    assert_eq!(choice["message"], json!({ "role": "assistant", "content": "Hello, world!", "refusal": null }));
    assert_eq!((&choice["finish_reason"], &choice["index"]), (&json!("stop"), &json!(0)));
    let usage = &body["usage"];
    assert_eq!(usage["completion_tokens"], 5);
    let sum = usage["prompt_tokens"].as_u64().expect("count") + 5;
    assert_eq!(usage["total_tokens"], sum);
}

#[test]
fn completion_with_every_form_of_prompt() {
    let server = hello();
    for prompt in [json!("One"), json!(["One"]), json!([2043, 5, 6]), json!([[2043, 5, 6]])] {
        let body = server.post("/v1/completions", &json!({ "prompt": prompt })).json();
        assert_eq!(body["object"], "text_completion", "{body}");
        assert_eq!(body["choices"][0]["text"], "Hello, world!");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
    }
    let short = server.post("/v1/completions", &json!({ "prompt": "One", "max_tokens": 2 })).json();
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&json!("length"), &json!(2))
    );
}

#[test]
fn chat_stream() {
    let server = hello();
    let body = with(chat("Hi"), &json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    let events = reply.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"]));
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let (usage, rest) = chunks.split_last().expect("chunks");
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(5)));
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null()));
    let (last, pieces) = rest.split_last().expect("chunks");
    assert_eq!((&last["choices"][0]["delta"], &last["choices"][0]["finish_reason"]), (&json!({}), &json!("stop")));
    let text: Vec<&str> =
        pieces.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().expect("content")).collect();
    assert_eq!(text.concat(), "Hello, world!");
    assert!(text.len() >= 4, "token by token: {text:?}");
    assert!(pieces.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
}

#[test]
fn completion_stream() {
    let server = hello();
    let events = server.post("/v1/completions", &json!({ "prompt": "One", "stream": true })).events();
    let text: String = events[..events.len() - 1]
        .iter()
        .map(|event| {
            let chunk: Value = serde_json::from_str(event).expect("JSON");
            assert!(chunk.get("usage").is_none());
            chunk["choices"][0]["text"].as_str().expect("text").to_owned()
        })
        .collect();
    assert_eq!((text.as_str(), events.last().map(String::as_str)), ("Hello, world!", Some("[DONE]")));
}

#[test]
fn streams_come_as_they_are_made() {
    let pace = Duration::from_millis(40);
    let server = Server::start(HashModel { pace, ..HashModel::scripted(&[70; 30]) }, Limits::default());
    let body = json!({ "prompt": [1, 2], "stream": true, "max_tokens": 20 });
    let start = Instant::now();
    let mut first = None;
    let reply = server.stream("/v1/completions", &body, |so_far| {
        if first.is_none() && so_far.contains("data:") {
            first = Some(start.elapsed());
        }
        true
    });
    assert_eq!(reply.status, 200);
    assert!(first.expect("events") < start.elapsed() / 2, "the first event waited for the last");
}

/// A client that hears nothing gives up and asks again.
#[test]
fn silent_streams_show_life() {
    let limits = Limits { silence: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(HashModel { pace: Duration::from_millis(300), ..HashModel::scripted(&[70; 9]) }, limits);
    for (path, body) in [("/v1/completions", json!({ "prompt": [1, 2] })), ("/v1/chat/completions", chat("Hi"))] {
        let reply = server.post(path, &with(body, &json!({ "stream": true, "max_tokens": 3 })));
        let comments = reply.text().split("\n\n").filter(|event| event.starts_with(": ")).count();
        assert!(comments >= 3, "{}", reply.text());
        assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
        let data = reply.events().into_iter().filter(|event| event != "[DONE]");
        assert!(data.map(|event| serde_json::from_str::<Value>(&event)).all(|event| event.is_ok()));
    }
}

#[test]
fn stop_and_seed() {
    let server = hello();
    for stop in [json!(" world"), json!(["zzz", " world"])] {
        let body = server.post("/v1/chat/completions", &with(chat("Hi"), &json!({ "stop": stop }))).json();
        assert_eq!(body["choices"][0]["message"]["content"], "Hello,");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
    }
    let server = Server::start(HashModel::new(), Limits::default());
    let text = |seed: i64| {
        let body = json!({ "prompt": "x", "temperature": 1.5, "seed": seed, "max_tokens": 12 });
        server.post("/v1/completions", &body).json()["choices"][0]["text"].clone()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
    assert_eq!(text(-5), text(-5));
}

/// The error of a reply, whose four fields must be there.
fn error(reply: &Reply) -> Value {
    let body = reply.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error object in {body}"));
    let mut keys = vec!["message", "type", "param", "code"];
    if error["code"] == "context_length_exceeded" {
        keys.extend(["n_prompt_tokens", "n_ctx"]);
    }
    assert_eq!(error.keys().collect::<Vec<_>>(), keys);
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    body["error"].clone()
}

#[test]
fn bad_requests_get_errors_and_the_server_stays() {
    let server = hello();
    let chat_url = "/v1/chat/completions";
    for malformed in ["", "{", "[]", "null", "{\"messages\": [}", "\u{0}", "{\"a\":1e999}", &"[".repeat(10_000)] {
        let reply = server.send("POST", chat_url, malformed.as_bytes());
        assert_eq!(reply.status, 400, "{malformed:.20}");
        assert_eq!(error(&reply)["type"], "invalid_request_error");
    }
    assert_eq!(server.send("POST", chat_url, &[0xff, 0xfe, b'{']).status, 400);
    for (fields, param) in [
        (json!({ "messages": null }), "messages"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": "hi" }), "messages"),
        (json!({ "messages": [{ "role": 3, "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }), "messages[0].content"),
        (json!({ "model": 3 }), "model"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "top_p": 2 }), "top_p"),
        (json!({ "max_tokens": -2 }), "max_tokens"),
        (json!({ "max_tokens": "8" }), "max_tokens"),
        (json!({ "max_completion_tokens": 1.5 }), "max_completion_tokens"),
        (json!({ "stream": "yes" }), "stream"),
        (json!({ "stream_options": { "include_usage": true } }), "stream_options"),
        (json!({ "stop": 5 }), "stop"),
        (json!({ "stop": ["a", 5] }), "stop"),
        (json!({ "seed": "x" }), "seed"),
        (json!({ "logprobs": "yes" }), "logprobs"),
        (json!({ "logit_bias": { "one": 5 } }), "logit_bias"),
        (json!({ "logit_bias": { "2048": 5 } }), "logit_bias"),
        (json!({ "logit_bias": { "-1": 5 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": 100.5 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": true } }), "logit_bias"),
        (json!({ "logit_bias": [[1, 5], [2]] }), "logit_bias"),
        (json!({ "logit_bias": [[4_294_967_296_u64, 1]] }), "logit_bias"),
        (json!({ "logit_bias": 5 }), "logit_bias"),
        (json!({ "presence_penalty": 2.5 }), "presence_penalty"),
        (json!({ "frequency_penalty": -3 }), "frequency_penalty"),
        (json!({ "frequency_penalty": "much" }), "frequency_penalty"),
        (json!({ "response_format": { "type": "xml" } }), "response_format"),
        (json!({ "response_format": "json" }), "response_format"),
        (json!({ "response_format": { "type": "json_schema" } }), "response_format.schema"),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "not": {} } } } }),
            "response_format",
        ),
        (json!({ "grammar": "root ::= \"a\"" }), "grammar"),
        (json!({ "guided_json": { "type": "object" } }), "guided_json"),
        (json!({ "tools": 3 }), "tools"),
        (json!({ "function_call": { "name": "f" } }), "function_call"),
        (json!({ "modalities": ["text", "audio"] }), "modalities"),
        (json!({ "audio": { "voice": "a" } }), "audio"),
        (json!({ "ignore_eos": true }), "ignore_eos"),
        (json!({ "cache_prompt": false }), "cache_prompt"),
        (json!({ "messages": [{ "role": "wizard", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": vec![json!({ "role": "user", "content": "x" }); 10_001] }), "messages"),
        (json!({ "tools": vec![json!({ "function": { "name": "f" } }); 1_001] }), "tools"),
        (json!({ "stop": "x".repeat(5000) }), "stop"),
    ] {
        let reply = server.post(chat_url, &with(chat("Hi"), &fields));
        assert_eq!(reply.status, 400, "{fields}");
        assert_eq!(error(&reply)["param"], param, "{fields}");
    }
    for fields in [
        json!({}),
        json!({ "prompt": 5 }),
        json!({ "prompt": ["a", "b"] }),
        json!({ "prompt": [1, "b"] }),
        json!({ "prompt": [] }),
        json!({ "prompt": [2048] }),
    ] {
        let reply = server.post("/v1/completions", &fields);
        assert_eq!((reply.status, &error(&reply)["param"]), (400, &json!("prompt")), "{fields}");
    }
    // Fields at their neutral values, and unknown ones, are fine.
    let neutral = json!({
        "n": 1, "logprobs": false, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "stop": null,
        "user": "me", "response_format": { "type": "text" }, "tool_choice": "none", "top_p": 1, "seed": null,
        "modalities": ["text"], "ignore_eos": false, "cache_prompt": true, "function_call": "auto", "audio": null,
    });
    assert_eq!(server.post(chat_url, &with(chat("Hi"), &neutral)).status, 200);
}

/// -1 is no limit; 0 runs the prompt alone.
#[test]
fn limits_on_tokens() {
    let server = hello();
    for (fields, tokens) in [
        (json!({ "max_tokens": -1 }), 5),
        (json!({ "max_tokens": 0 }), 0),
        (json!({ "max_tokens": 2 }), 2),
        (json!({ "max_tokens": 0, "max_completion_tokens": -1 }), 5),
        (json!({ "max_tokens": 5, "max_completion_tokens": 2 }), 2),
    ] {
        let body = server.post("/v1/chat/completions", &with(chat("Hi"), &fields)).json();
        assert_eq!(body["usage"]["completion_tokens"], tokens, "{fields}: {body}");
        let finish = if tokens == 5 { "stop" } else { "length" };
        assert_eq!(body["choices"][0]["finish_reason"], finish, "{fields}");
    }
    let all = server.post("/v1/completions", &json!({ "prompt": "One", "max_tokens": -1 })).json();
    assert_eq!(all["choices"][0]["text"], "Hello, world!");
}

#[test]
fn prompts_that_do_not_fit() {
    let server = hello();
    let long = "story ".repeat(400);
    for (url, body) in [
        ("/v1/chat/completions", chat(&long)),
        ("/v1/completions", json!({ "prompt": long })),
        ("/v1/completions", json!({ "prompt": vec![5; 256] })),
        ("/v1/completions", json!({ "prompt": "x".repeat(5_000_000) })),
    ] {
        let reply = server.post(url, &body);
        assert_eq!(reply.status, 400);
        assert_eq!(error(&reply)["code"], "context_length_exceeded");
    }
}

#[test]
fn routes_and_methods() {
    let server = hello();
    for path in ["/v1", "/v1/embeddings", "/v1/chat/completions/x", "/health/x", "/%ff", "/v1/models/%ff", "/v1/../etc"]
    {
        let reply = server.get(path);
        assert_eq!(reply.status, 404, "{path}");
        error(&reply);
    }
    for (method, path) in [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("DELETE", "/health")] {
        let reply = server.send(method, path, b"");
        assert_eq!(reply.status, 405, "{method} {path}");
        error(&reply);
    }
}

#[test]
fn routes_go_by_several_names() {
    let server = hello();
    for path in ["/v1/models", "/v1/models/", "/models", "/models/"] {
        assert_eq!(server.get(path).json()["object"], "list", "{path}");
        assert_eq!(server.send("HEAD", path, b"").status, 200, "{path}");
    }
    for path in ["/v1/chat/completions/", "/chat/completions", "/chat/completions/"] {
        assert_eq!(server.post(path, &chat("Hi")).json()["object"], "chat.completion", "{path}");
    }
    for path in ["/v1/completions/", "/completions"] {
        assert_eq!(server.post(path, &json!({ "prompt": "One" })).json()["object"], "text_completion", "{path}");
    }
}

#[test]
fn sampling_parameters_may_be_extreme() {
    let server = Server::start(HashModel::new(), Limits::default());
    let text = |fields: Value| {
        let reply = server.post("/v1/completions", &with(json!({ "prompt": "Once", "seed": 1 }), &fields));
        assert_eq!(reply.status, 200, "{fields}: {}", reply.json());
        reply.json()["choices"][0]["text"].clone()
    };
    let greedy = text(json!({ "temperature": 0 }));
    for fields in [
        json!({ "temperature": 1e-45 }),
        json!({ "temperature": 1e-300 }),
        json!({ "temperature": 1, "top_p": 0 }),
        json!({ "temperature": 100, "top_p": 5e-8 }),
        json!({ "temperature": 100, "top_p": 1e-300 }),
        json!({ "temperature": 100, "top_k": 1 }),
        json!({ "temperature": 1, "min_p": 1 }),
    ] {
        assert_eq!(text(fields.clone()), greedy, "{fields}");
    }
    for fields in [
        json!({ "temperature": 100, "top_p": 1, "top_k": 0, "min_p": 0 }),
        json!({ "temperature": 1, "top_k": 18_446_744_073_709_551_615_u64 }),
        json!({ "temperature": 1, "min_p": 1e-300, "repeat_penalty": 0.01 }),
        json!({ "temperature": 1, "repetition_penalty": 100 }),
    ] {
        text(fields);
    }
    for (fields, param) in [
        (json!({ "temperature": 1e30 }), "temperature"),
        (json!({ "temperature": 1e300 }), "temperature"),
        (json!({ "top_p": -0.1 }), "top_p"),
        (json!({ "top_p": 1.1 }), "top_p"),
        (json!({ "top_k": -1 }), "top_k"),
        (json!({ "min_p": 2 }), "min_p"),
        (json!({ "repeat_penalty": 0 }), "repeat_penalty"),
        (json!({ "repeat_penalty": 1e-9 }), "repeat_penalty"),
        (json!({ "repeat_penalty": 1e9 }), "repeat_penalty"),
    ] {
        let reply = server.post("/v1/completions", &with(json!({ "prompt": "Once" }), &fields));
        assert_eq!((reply.status, &error(&reply)["param"]), (400, &json!(param)), "{fields}");
    }
}

#[test]
fn biases_and_penalties_change_the_choice() {
    let server = Server::start(HashModel::new(), Limits::default());
    let choose = |fields: Value| {
        let mut body = json!({ "prompt": "Once upon a time", "temperature": 0, "max_tokens": 12 });
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let reply = server.post("/v1/completions", &body);
        assert_eq!(reply.status, 200, "{fields}: {}", reply.json());
        reply.json()["choices"][0]["text"].as_str().expect("text").to_owned()
    };
    let plain = choose(json!({}));
    for nothing in [
        json!({ "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0 }),
        json!({ "logit_bias": null, "presence_penalty": null }),
        json!({ "logit_bias": { "7": 0.0 } }),
        // This model never repeats itself in so few tokens.
        json!({ "presence_penalty": 2, "frequency_penalty": 2 }),
    ] {
        assert_eq!(choose(nothing.clone()), plain, "{nothing}");
    }
    let ids = common::text("demo").tokenizer.encode(" dog", false).expect("encodes");
    let [dog] = ids[..] else { panic!("{ids:?}") };
    let mut biases = serde_json::Map::new();
    biases.insert(dog.to_string(), json!(100));
    let dogs = choose(json!({ "logit_bias": biases }));
    assert_eq!(dogs, " dog".repeat(12));
    assert_eq!(choose(json!({ "logit_bias": [[dog, 100]] })), dogs);
    // Twelve times two is more than what the logits of this model differ by, but less than the bias.
    biases.insert(dog.to_string(), json!(8));
    let fewer = choose(json!({ "logit_bias": biases, "frequency_penalty": 2 }));
    assert!(fewer.starts_with(" dog") && fewer != dogs, "{fewer}");
    assert_eq!(choose(json!({ "logit_bias": [[dog, 100], [dog, false]] })), plain);
}

#[test]
fn bodies_are_limited() {
    let server = Server::start(HashModel::new(), Limits { body_bytes: 10_000, ..Limits::default() });
    let reply = server.post("/v1/completions", &json!({ "prompt": "x".repeat(20_000) }));
    assert_eq!(reply.status, 413);
    error(&reply);
}

#[test]
fn a_client_that_leaves_stops_its_generation() {
    let pace = Duration::from_millis(20);
    for stream in [false, true] {
        let model = HashModel { pace, ..HashModel::scripted(&[70; 300]) };
        let counters = model.counters.clone();
        let server = Server::start(model, Limits::default());
        let body = json!({ "prompt": [1, 2], "max_tokens": 200, "stream": stream });
        let mut connection = server.open("POST", "/v1/completions", body.to_string().as_bytes());
        eventually("it decodes", || counters.decoded.load(Ordering::SeqCst) >= 3);
        connection.flush().expect("flushes");
        connection.shutdown(Shutdown::Both).expect("closes");
        drop(connection);
        // The model is free for the next request long before the first would have ended.
        let start = Instant::now();
        assert_eq!(server.post("/v1/completions", &json!({ "prompt": [1, 2], "max_tokens": 1 })).status, 200);
        assert!(start.elapsed() < pace * 100, "stream {stream}: {:?}", start.elapsed());
        assert!(counters.decoded.load(Ordering::SeqCst) < 100);
    }
}

#[test]
fn a_client_that_leaves_stops_its_prompt() {
    let model = HashModel { pace: Duration::from_millis(50), ..HashModel::new() };
    let counters = model.counters.clone();
    let server = Server::start(model, Limits::default());
    for stream in [false, true] {
        counters.tiles.store(0, Ordering::SeqCst);
        let body = json!({ "prompt": vec![5; 250], "stream": stream });
        let connection = server.open("POST", "/v1/completions", body.to_string().as_bytes());
        eventually("the prompt is being worked on", || counters.tiles.load(Ordering::SeqCst) >= 2);
        drop(connection);
        eventually("the prompt is given up", || {
            let tiles = counters.tiles.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(200));
            counters.tiles.load(Ordering::SeqCst) == tiles
        });
        assert!(counters.tiles.load(Ordering::SeqCst) < 25);
    }
}

#[test]
fn a_full_queue_refuses() {
    let model = HashModel { pace: Duration::from_millis(50), ..HashModel::scripted(&[70; 300]) };
    let counters = model.counters.clone();
    let server = Server::start(model, Limits { queue: 1, ..Limits::default() });
    let body = json!({ "prompt": [1, 2], "max_tokens": 250 }).to_string();
    let running = server.open("POST", "/v1/completions", body.as_bytes());
    eventually("it runs", || counters.decoded.load(Ordering::SeqCst) > 0);
    let body = json!({ "prompt": [1, 2], "max_tokens": 1 });
    let (sender, replies) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (sender, server, body) = (sender.clone(), &server, &body);
            scope.spawn(move || sender.send(server.post("/v1/completions", body)).expect("is heard"));
        }
        // One waits in the queue; the others are refused while the first still runs.
        for _ in 0..3 {
            let refused = replies.recv().expect("a reply");
            assert_eq!((refused.status, &error(&refused)["code"]), (429, &json!("queue_full")));
            assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
        }
        drop(running);
        assert_eq!(replies.recv().expect("a reply").status, 200);
    });
}

#[test]
fn requests_wait_for_each_other() {
    let server = Server::start(HashModel { pace: Duration::from_millis(2), ..HashModel::new() }, Limits::default());
    let body = json!({ "prompt": "Once", "max_tokens": 20, "temperature": 0 });
    let alone = server.post("/v1/completions", &body).json()["choices"][0]["text"].clone();
    std::thread::scope(|scope| {
        let replies: Vec<_> = (0..8).map(|_| scope.spawn(|| server.post("/v1/completions", &body).json())).collect();
        for reply in replies {
            assert_eq!(reply.join().expect("no panic")["choices"][0]["text"], alone);
        }
    });
}

#[test]
fn a_model_that_panics_does_not_take_the_server_down() {
    let server = Server::start(HashModel { panic_on: Some(77), ..HashModel::new() }, Limits::default());
    let reply = server.post("/v1/completions", &json!({ "prompt": [1, 77, 3] }));
    assert_eq!((reply.status, &error(&reply)["type"]), (500, &json!("server_error")));
    let events = server.post("/v1/completions", &json!({ "prompt": [1, 77, 3], "stream": true })).events();
    assert!(events[0].contains("\"error\""), "{events:?}");
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": [1, 2], "max_tokens": 1 })).status, 200);
}

#[test]
fn stopping_lets_generations_end() {
    let server = Server::start(
        HashModel { pace: Duration::from_millis(20), ..HashModel::scripted(&[70; 50]) },
        Limits::default(),
    );
    let body = json!({ "prompt": [1, 2], "max_tokens": 20 });
    std::thread::scope(|scope| {
        let reply = scope.spawn(|| server.post("/v1/completions", &body));
        std::thread::sleep(Duration::from_millis(100));
        server.stop();
        assert_eq!(reply.join().expect("no panic").json()["usage"]["completion_tokens"], 20);
    });
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn stopping_twice_cancels() {
    let server = Server::start(
        HashModel { pace: Duration::from_millis(100), ..HashModel::scripted(&[70; 250]) },
        Limits::default(),
    );
    let body = json!({ "prompt": [1, 2], "max_tokens": 200 }).to_string();
    let _running = server.open("POST", "/v1/completions", body.as_bytes());
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    server.stop();
    server.stop();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
