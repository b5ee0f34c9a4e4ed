//! Connections of the HTTP server over real sockets: clients that do not finish, pages of browsers, and how a server stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::{common, http};
use common::HashModel;
use forge_runtime::server::{Limits, Options, Origins};
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

const HALF_HEADER: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n";
const HALF_BODY: &[u8] = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"pro";

fn slow(pace: u64) -> HashModel {
    HashModel { pace: Duration::from_millis(pace), ..HashModel::scripted(&[70; 250]) }
}

/// What is left to read until the server closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is reset is closed too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).expect("UTF-8")
}

fn error(reply: &Reply) -> Value {
    let body = reply.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error object in {body}"));
    assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
    body["error"].clone()
}

#[test]
fn clients_in_the_middle_of_a_request_do_not_keep_a_server_from_ending() {
    let second = [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", HALF_HEADER].concat();
    for sent in [b"".as_slice(), b"G", HALF_HEADER, HALF_BODY, &second] {
        let server = Server::start(HashModel::new(), Limits::default());
        let mut clients: Vec<TcpStream> = (0..20).map(|_| server.connect(sent)).collect();
        // Time for a busy machine to read what was sent: only a request that was seen is answered.
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        server.stop();
        let replies: Vec<String> = clients.iter_mut().map(rest).collect();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", String::from_utf8_lossy(sent));
        if sent == HALF_BODY {
            // Its header was understood, so that there is something to answer.
            for reply in &replies {
                assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("\"stopping\""), "{reply:?}");
            }
        }
        server.ended();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", String::from_utf8_lossy(sent));
    }
}

#[test]
fn stopping_waits_for_answers_beside_half_requests() {
    let server = Server::start(slow(20), Limits::default());
    let _half = [server.connect(HALF_HEADER), server.connect(HALF_BODY)];
    let body = json!({ "prompt": [1, 2], "max_tokens": 20, "stream": true });
    let running = server.open("POST", "/v1/completions", body.to_string().as_bytes());
    std::thread::sleep(Duration::from_millis(100));
    server.stop();
    let events = Reply::read(running, |_| true).events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(events.len(), 22, "20 tokens, the end, and the mark: {events:?}");
    server.ended();
}

#[test]
fn half_requests_end_without_a_signal_too() {
    let time = Duration::from_millis(300);
    let server = Server::start(slow(50), Limits { header_time: time, body_time: time, ..Limits::default() });
    let start = Instant::now();
    let mut clients = [b"".as_slice(), HALF_HEADER, HALF_BODY].map(|sent| server.connect(sent));
    let replies = clients.each_mut().map(rest);
    assert!((time..Duration::from_secs(5)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!([&replies[0], &replies[1]], ["", ""]);
    assert!(
        replies[2].starts_with("HTTP/1.1 408 ") && replies[2].contains("{\"error\":{\"message\""),
        "{}",
        replies[2]
    );
    // An answer may take longer than its request.
    let reply = server.post("/v1/completions", &json!({ "prompt": [1, 2], "max_tokens": 20 }));
    assert_eq!((reply.status, &reply.json()["usage"]["completion_tokens"]), (200, &json!(20)));
}

#[test]
fn a_long_body_has_more_time() {
    let limits = Limits { body_time: Duration::from_millis(700), ..Limits::default() };
    let server = Server::start(HashModel::new(), limits);
    let body = format!("{{\"prompt\": [1, 2], \"max_tokens\": 1, \"user\": \"{}\"}}", "x".repeat(2 << 20));
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = server.connect(head.as_bytes());
    // Together longer than the time for a short body.
    for part in body.as_bytes().chunks(body.len() / 4 + 1) {
        stream.write_all(part).expect("sends");
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(Reply::read(stream, |_| true).status, 200);
}

#[test]
fn cancelled_answers_are_told_their_end() {
    let model = slow(50);
    let counters = model.counters.clone();
    let server = Server::start(model, Limits::default());
    let body = |stream: bool| json!({ "prompt": [1, 2], "max_tokens": 200, "stream": stream }).to_string();
    let running = server.open("POST", "/v1/completions", body(true).as_bytes());
    eventually("it decodes", || counters.decoded.load(Ordering::SeqCst) >= 3);
    let waiting = [false, true].map(|stream| server.open("POST", "/v1/completions", body(stream).as_bytes()));
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    server.stop();
    server.stop();
    let events = Reply::read(running, |_| true).events();
    let [.., last, done] = events.as_slice() else { panic!("{events:?}") };
    assert!(last.contains("\"finish_reason\":\"length\"") && done == "[DONE]", "{events:?}");
    let [whole, stream] = waiting.map(|connection| Reply::read(connection, |_| true));
    assert_eq!((whole.status, &error(&whole)["code"]), (503, &json!("stopping")));
    let events = stream.events();
    assert!(events[0].contains("\"stopping\"") && events[1] == "[DONE]", "{events:?}");
    server.ended();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn idle_connections_end() {
    let time = Duration::from_millis(300);
    let server = Server::start(HashModel::new(), Limits { header_time: time, ..Limits::default() });
    let mut connection = server.connect(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(rest(&mut connection).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_server_that_stops_waits_no_longer_than_its_grace() {
    let limits = Limits { grace: Duration::from_millis(300), ..Limits::default() };
    let model = slow(50);
    let counters = model.counters.clone();
    let server = Server::start(model, limits);
    let body = json!({ "prompt": [1, 2], "max_tokens": 200, "stream": true }).to_string();
    let [running, waiting] = [(), ()].map(|()| server.open("POST", "/v1/completions", body.as_bytes()));
    eventually("it decodes", || counters.decoded.load(Ordering::SeqCst) >= 3);
    server.stop();
    let [running, waiting] = [running, waiting].map(|connection| Reply::read(connection, |_| true).events());
    for events in [&running, &waiting] {
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{events:?}");
    }
    let told =
        |events: &[String]| events.iter().any(|event| event.contains("\"length\"") || event.contains("\"stopping\""));
    assert!(told(&running) && told(&waiting), "{running:?} {waiting:?}");
    assert!(counters.decoded.load(Ordering::SeqCst) < 200);
    server.ended();
}

#[test]
fn idle_connections_make_room() {
    let server = Server::start(HashModel::new(), Limits { connections: 4, ..Limits::default() });
    let mut idle: Vec<TcpStream> = (0..20).map(|_| server.connect(HALF_HEADER)).collect();
    assert_eq!(server.get("/health").status, 200);
    // The eldest have gone, and only they.
    assert!(idle[..16].iter_mut().all(|connection| rest(connection).is_empty()));
    let mut last = idle.pop().expect("a connection");
    last.write_all(b"\r\n").expect("sends");
    let mut begin = [0; 12];
    last.read_exact(&mut begin).expect("an answer");
    assert_eq!(&begin, b"HTTP/1.1 200");
}

#[test]
fn connections_that_are_all_busy_make_none() {
    let model = slow(50);
    let counters = model.counters.clone();
    let server = Server::start(model, Limits { connections: 3, ..Limits::default() });
    let body = json!({ "prompt": [1, 2], "max_tokens": 200, "stream": true }).to_string();
    let mut busy: Vec<TcpStream> = (0..3).map(|_| server.open("POST", "/v1/completions", body.as_bytes())).collect();
    eventually("it decodes", || counters.decoded.load(Ordering::SeqCst) >= 1);
    // All three have been seen once each has an answer; only the first has a token.
    for connection in &mut busy {
        let mut begin = [0; 12];
        if connection.peek(&mut begin).is_ok_and(|bytes| bytes > 0) {
            assert_eq!(&begin, b"HTTP/1.1 200");
        }
    }
    let refused = server.get("/health");
    assert_eq!((refused.status, &error(&refused)["code"]), (503, &json!("too_many_connections")));
    assert!(refused.header("retry-after").is_some());
    drop(busy);
    eventually("there is room again", || server.get("/health").status == 200);
}

#[test]
fn what_is_no_request_is_answered_in_json() {
    let server = Server::start(HashModel::new(), Limits::default());
    let long = "x".repeat(1 << 20);
    for (sent, status) in [
        ("garbage\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".into(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\r\n".into(), 400),
        (format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", &long[..100_000]), 414),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"), 431),
    ] {
        let mut connection = server.connect(b"");
        // The answer may come before all is sent.
        let _ = connection.write_all(sent.as_bytes());
        let reply = Reply::read(connection, |_| true);
        assert_eq!((reply.status, reply.header("content-type")), (status, Some("application/json")), "{sent:.30}");
        assert_eq!(error(&reply)["type"], "invalid_request_error");
    }
    // After an answer on the same connection too.
    let sent = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nnonsense\r\n\r\n";
    let text = rest(&mut server.connect(sent));
    let second = text.split("HTTP/1.1 400 ").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(second.ends_with("\"param\":null,\"code\":null}}"), "{text}");
}

/// A preflight for a chat of this origin.
fn preflight(server: &Server, path: &str, origin: &str) -> Reply {
    let lines = format!(
        "origin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: authorization,content-type\r\n"
    );
    server.send_with("OPTIONS", path, &lines, b"")
}

#[test]
fn pages_of_this_machine_get_their_preflights_answered() {
    let server = Server::start(HashModel::new(), Limits::default());
    for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "https://app.localhost"] {
        for path in ["/v1/chat/completions", "/v1/models", "/health", "/nowhere"] {
            let reply = preflight(&server, path, origin);
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some(origin)), "{path}");
            assert_eq!(reply.header("access-control-allow-headers"), Some("authorization,content-type"));
            assert!(reply.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        }
        // Every answer is for the page, errors and streams too.
        let line = format!("origin: {origin}\r\ncontent-type: application/json\r\n");
        let streamed = json!({ "prompt": [1, 2], "max_tokens": 2, "stream": true }).to_string();
        for (method, path, body, status) in [
            ("GET", "/v1/models", "", 200),
            ("GET", "/nowhere", "", 404),
            ("POST", "/v1/models", "", 405),
            ("POST", "/v1/completions", "{", 400),
            ("POST", "/v1/completions", streamed.as_str(), 200),
        ] {
            let reply = server.send_with(method, path, &line, body.as_bytes());
            assert_eq!(
                (reply.status, reply.header("access-control-allow-origin")),
                (status, Some(origin)),
                "{method} {path}"
            );
            assert_eq!(reply.header("vary"), Some("origin"));
        }
    }
    let reply = server.send_with(
        "OPTIONS",
        "/v1/models",
        "origin: http://localhost\r\naccess-control-request-method: GET\r\naccess-control-request-private-network: true\r\n",
        b"",
    );
    assert_eq!(reply.header("access-control-allow-private-network"), Some("true"));
}

#[test]
fn other_pages_are_refused_before_anything_is_done() {
    let model = HashModel::new();
    let counters = model.counters.clone();
    let server = Server::start(model, Limits::default());
    let body = json!({ "prompt": [1, 2], "max_tokens": 2 }).to_string();
    for origin in ["http://evil.example", "null", "https://localhost.evil.example", "app://obsidian.md"] {
        // A "simple" request needs no preflight, and the page's name may resolve to this machine.
        let lines = format!("origin: {origin}\r\ncontent-type: text/plain\r\n");
        let replies = [
            server.send_with("POST", "/v1/completions", &lines, body.as_bytes()),
            server.send_with("GET", "/v1/models", &lines, b""),
            preflight(&server, "/v1/completions", origin),
        ];
        for reply in replies {
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None), "{origin}");
            assert!(error(&reply)["message"].as_str().is_some_and(|message| message.contains("--cors")));
        }
    }
    assert_eq!(counters.decoded.load(Ordering::SeqCst), 0);
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": [1, 2], "max_tokens": 2 })).status, 200);
}

#[test]
fn named_pages_are_let_in() {
    let origins = |names: &[&str]| Origins::default().with(names.iter().map(|name| name.parse().expect("an origin")));
    let start = |names| Server::start(HashModel::new(), Options { origins: origins(names), ..Options::default() });
    let server = start(&["app://obsidian.md", "https://chat.example"]);
    for (origin, status) in [
        ("app://obsidian.md", 204),
        ("https://chat.example", 204),
        ("http://localhost:1", 204),
        ("http://chat.example", 403),
    ] {
        assert_eq!(preflight(&server, "/v1/completions", origin).status, status, "{origin}");
    }
    let reply = preflight(&start(&["*"]), "/v1/completions", "http://evil.example");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some("*")));
    assert_eq!(preflight(&start(&["none"]), "/v1/completions", "http://localhost").status, 403);
}
