//! What hostile or too many requests cost, over real sockets: one rendering, an answer that says so, and never the service.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{common, http};
use common::HashModel;
use forge_runtime::Assets;
use forge_runtime::assets::Text;
use forge_runtime::memory::Allocator;
use forge_runtime::server::Limits;
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

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

/// Writes everything that it is given, and takes too much for one word.
const GREEDY: &str = "{% if messages[0].content == 'explode' %}{% set a = 'x' * 90000000 %}{{ (a ~ a ~ a ~ a ~ a ~ a) | length }}{% endif %}\
    {% if messages[0].content == 'slow' %}{% for a in range(40) %}{% if messages[0].content * 2000000 == 'y' %}{% endif %}{% endfor %}{% endif %}\
    {% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";

#[test]
fn a_rendering_that_explodes_costs_itself_alone() {
    let server = server(GREEDY, Limits::default());
    for exploded in 1..=4 {
        assert_eq!(server.post("/v1/chat/completions", &chat("hi")).status, 200);
        assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
        let reply = server.post("/v1/chat/completions", &chat("explode"));
        let words = error(&reply)["message"].as_str().expect("words").to_owned();
        assert!(reply.status == 400 && words.contains("rendering took longer than"), "{exploded}: {words}");
    }
    // What they hold is lost: a fifth is not begun, and whoever watches the server is told.
    for reply in [server.post("/v1/chat/completions", &chat("hi")), server.get("/health")] {
        assert_eq!((reply.status, &error(&reply)["code"]), (503, &json!("degraded")));
        assert!(error(&reply)["message"].as_str().is_some_and(|words| words.contains("restart")));
    }
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": "hi" })).status, 200);
}

#[test]
fn templates_that_loop_or_refuse_are_answered() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let recursive = "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    let doubling = "{% set ns = namespace(x='ab') %}{% for i in range(25) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}{{ ns.x }}";
    for template in [endless, recursive, doubling, "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{{ nothing.at.all }}"]
    {
        // Not for what is asked of it when the server starts.
        let source = format!("{{% if messages[0].content == 'hi' %}}{template}{{% endif %}}fine");
        let server = server(source.leak(), Limits::default());
        let reply = server.post("/v1/chat/completions", &chat("hi"));
        assert_eq!((reply.status, &error(&reply)["param"]), (400, &json!("messages")), "{template}");
        assert_eq!(server.post("/v1/chat/completions", &chat("ho")).status, 200, "{template}");
        assert_eq!(server.post("/v1/completions", &json!({ "prompt": "hi" })).status, 200, "{template}");
        assert_eq!(server.get("/health").status, 200);
    }
}

#[test]
fn bodies_without_room_are_told_to_come_again() {
    let limits = Limits { body_time: Duration::from_secs(2), ..Limits::default() };
    let server = server(GREEDY, limits);
    let head =
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 16777216\r\n\r\n";
    // Two MiB have three times the time.
    let half: Vec<_> = (0..4).map(|_| server.connect(&[head.as_bytes(), &vec![b' '; 2 << 20]].concat())).collect();
    std::thread::sleep(Duration::from_millis(500));
    let long = json!({ "prompt": [1, 2], "max_tokens": 1, "user": "x".repeat(200_000) });
    let reply = server.post("/v1/completions", &long);
    assert_eq!((reply.status, &error(&reply)["code"]), (429, &json!("queue_full")));
    assert!(reply.header("retry-after").is_some());
    // Short ones need no room, and others are let in once there is some.
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": [1, 2], "max_tokens": 1 })).status, 200);
    drop(half);
    eventually("there is room", || server.post("/v1/completions", &long).status == 200);
}

/// A client that is refused while it sends a long body sees the answer and no reset.
#[test]
fn refusals_of_long_bodies_are_read() {
    let model = HashModel { pace: Duration::from_millis(20), ..HashModel::scripted(&[70; 250]) };
    let counters = model.counters.clone();
    let server = Server::start(model, Limits { queue: 0, ..Limits::default() });
    let body = json!({ "prompt": [1, 2], "max_tokens": 200 }).to_string();
    let running = server.open("POST", "/v1/completions", body.as_bytes());
    eventually("it runs", || counters.decoded.load(Ordering::SeqCst) > 0);
    let send = |bytes: usize| {
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
        let mut connection = server.connect(head.as_bytes());
        for _ in 0..bytes >> 20 {
            connection.write_all(&vec![b' '; 1 << 20]).expect("is read to its end");
        }
        Reply::read(connection, |_| true).status
    };
    assert_eq!(send(10 << 20), 429);
    assert_eq!(send(20 << 20), 413);
    drop(running);
}

#[test]
fn health_is_told_while_prompts_are_made() {
    let server = server(GREEDY, Limits::default());
    let finished = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                assert_eq!(server.post("/v1/chat/completions", &chat("slow")).status, 200);
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        for _ in 0..10 {
            assert_eq!(server.get("/health").status, 200);
        }
        assert!(finished.load(Ordering::SeqCst) < 6, "all ended before health was told");
    });
}
