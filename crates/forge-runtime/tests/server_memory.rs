//! Memory that requests take, over real sockets: bounded for each and for all of them together.

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/http.rs"]
mod http;

use std::sync::{Arc, Mutex, PoisonError};

use common::HashModel;
use forge_runtime::Assets;
use forge_runtime::assets::Text;
use forge_runtime::server::Limits;
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

/// All memory is counted, so that one test at a time can be.
static ALONE: Mutex<()> = Mutex::new(());

fn server(template: &'static str, limits: Limits) -> Server {
    let assets = Assets { chat_template: Some(template), ..common::assets("demo") };
    let text = Arc::new(Text::load(&assets).expect("loads"));
    Server::with_text(HashModel::scripted(&[70, 2047]), text, limits)
}

fn chat(content: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": content }] })
}

fn error(reply: &Reply) -> Value {
    let body = reply.json();
    assert!(body["error"]["message"].is_string(), "{body}");
    body["error"].clone()
}

/// Writes everything that it is given.
const TEMPLATE: &str =
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";

/// Many values in few bytes.
#[test]
fn bodies_of_many_values_take_no_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = server(TEMPLATE, Limits::default());
    let many = |before: &str, value: &str, count: usize, after: &str| -> &'static str {
        format!("{before}{}{value}{after}", format!("{value},").repeat(count - 1)).leak()
    };
    let messages = r#"{"messages":[{"role":"user","content":"x"}],"#;
    let bodies: [&'static str; 4] = [
        many(&format!("{messages}\"tools\":["), r#"{"a":1}"#, 1_800_000, "]}"),
        many(&format!("{messages}\"chat_template_kwargs\":{{\"x\":["), "[]", 4_500_000, "]}}"),
        many("{\"messages\":[", r#"{"role":"user","content":"x"}"#, 400_000, "]}"),
        many("[", "0", 7_000_000, "]"),
    ];
    let bodies = bodies.map(str::as_bytes);
    assert!(bodies.iter().all(|body| body.len() < 16 << 20));
    let before = counting::held();
    counting::forget_peak();
    std::thread::scope(|scope| {
        for body in bodies.iter().cycle().take(12) {
            let server = &server;
            scope.spawn(move || {
                let reply = server.send("POST", "/v1/chat/completions", body);
                assert_eq!(reply.status, 400, "{:?}", reply.json());
                assert!(error(&reply)["message"].as_str().is_some_and(|words| words.contains("JSON values")));
            });
        }
    });
    // Room for bodies, and nothing that is made of them.
    let peak = counting::peak() - before;
    assert!(peak < 96 << 20, "{} MiB", peak >> 20);
    eventually("all is given back", || counting::held() < before + (1 << 20));
    assert_eq!(server.post("/v1/chat/completions", &chat("hi")).status, 200);
}

/// As many values as there may be, from many clients at once: few are worked on at a time.
#[test]
fn memory_is_bounded_for_all_requests_together() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = server(TEMPLATE, Limits::default());
    let message = json!({ "role": "user", "content": "x".repeat(30) });
    let body = json!({ "messages": vec![message; 9_000] }).to_string();
    counting::forget_peak();
    let before = counting::held();
    let body: &[u8] = body.as_bytes();
    std::thread::scope(|scope| {
        for _ in 0..36 {
            let server = &server;
            scope.spawn(move || {
                let reply = server.send("POST", "/v1/chat/completions", body);
                // Far beyond the context.
                assert_eq!((reply.status, &error(&reply)["code"]), (400, &json!("context_length_exceeded")));
            });
        }
    });
    let peak = counting::peak() - before;
    assert!(peak < 160 << 20, "{} MiB", peak >> 20);
    println!("peak {} MiB", peak >> 20);
}
