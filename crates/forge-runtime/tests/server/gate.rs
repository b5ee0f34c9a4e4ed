//! Who may ask, over real sockets: names of the server, keys, types of bodies; and what tells requests apart, ids and the log.

use std::io::Write;
use std::time::Duration;

use crate::{common, http};
use common::{HashModel, Written};
use forge_runtime::server::{ApiKeys, Hosts, Limits, Log, Options};
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

fn error(reply: &Reply) -> Value {
    let body = reply.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error object in {body}"));
    assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
    body["error"].clone()
}

/// A GET with this Host header, or none.
fn get(server: &Server, path: &str, host: Option<&str>) -> Reply {
    let host = host.map(|host| format!("host: {host}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.{}\r\nconnection: close\r\n{host}\r\n", u8::from(!host.is_empty()));
    Reply::read(server.connect(request.as_bytes()), |_| true)
}

#[test]
fn names_that_nobody_can_register_are_the_servers() {
    let hosts = Hosts::default();
    for host in [
        "localhost",
        "LocalHost:8080",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:80",
        "192.168.1.5:8080",
        "[::1]",
        "[::1]:8080",
        "[fe80::1]:1",
        "mac",
        "my-mac:8080",
        "my-mac.local",
        "model.localhost:1",
        "host.docker.internal:8080",
        "printer.home.arpa",
    ] {
        assert!(hosts.allow(host), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:8080",
        "evil.local.example",
        "[::1].evil.example",
        "[evil.example]",
        "localhost:80@evil.example",
        "localhost:x",
        "evil.example.",
        "a b",
        "1.2.3",
        ".",
    ] {
        assert!(!hosts.allow(host), "{host}");
    }
    let named = Hosts::default().with(["Chat.Example".to_owned()]);
    assert!(named.allow("chat.example:443") && named.allow("CHAT.example.") && named.allow("localhost"));
    assert!(!named.allow("evil.example") && !named.allow("a.chat.example"));
    assert!(Hosts::default().with(["*".to_owned()]).allow("evil.example"));
}

/// A page whose name is rebound to this machine is of the same origin, so that a browser sends no Origin with its GET.
#[test]
fn requests_to_other_names_are_refused_before_anything_is_done() {
    let model = HashModel::new();
    let counters = model.counters.clone();
    let server = Server::start(model, Limits::default());
    for path in ["/health", "/v1/models", "/nowhere"] {
        let reply = get(&server, path, Some("evil.example:8080"));
        assert_eq!(reply.status, 403, "{path}");
        assert!(error(&reply)["message"].as_str().is_some_and(|words| words.contains("--allow-host")));
    }
    let body = json!({ "prompt": [1, 2], "max_tokens": 2 }).to_string();
    let head = format!("content-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let request = format!("POST /v1/completions HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n{head}");
    assert_eq!(Reply::read(server.connect(request.as_bytes()), |_| true).status, 403);
    // The target may name another host than the header.
    let request =
        format!("POST http://evil.example/v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}");
    assert_eq!(Reply::read(server.connect(request.as_bytes()), |_| true).status, 403);
    assert_eq!(counters.decoded.load(std::sync::atomic::Ordering::SeqCst), 0);
    for host in [None, Some("localhost:8080"), Some("127.0.0.1"), Some("host.docker.internal")] {
        assert_eq!(get(&server, "/v1/models", host).status, 200, "{host:?}");
    }
    let hosts = Hosts::default().with(["chat.example".to_owned()]);
    let server = Server::start(HashModel::new(), Options { hosts, ..Options::default() });
    assert_eq!(get(&server, "/health", Some("chat.example")).status, 200);
    assert_eq!(get(&server, "/health", Some("evil.example")).status, 403);
}

#[test]
fn keys_are_asked_for() {
    let keys: ApiKeys = ["first-key", "second-key"].iter().map(|key| key.parse().expect("a key")).collect();
    assert!(!format!("{keys:?}").contains("key-"), "{keys:?}");
    let server = Server::start(HashModel::new(), Options { keys, ..Options::default() });
    let body = json!({ "prompt": [1, 2], "max_tokens": 1 }).to_string();
    let ask = |lines: &str| server.send_with("POST", "/v1/completions", lines, body.as_bytes());
    for lines in [
        "",
        "authorization: Bearer \r\n",
        "authorization: Bearer first-ke\r\n",
        "authorization: Bearer first-keyy\r\n",
        "authorization: Basic first-key\r\n",
        "authorization: first-key\r\n",
        "authorization: \r\n",
        "x-api-key: other\r\n",
    ] {
        let reply = ask(lines);
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{lines}");
        assert_eq!(error(&reply)["code"], "invalid_api_key");
    }
    for lines in
        ["authorization: Bearer first-key\r\n", "Authorization: bearer  second-key \r\n", "x-api-key: second-key\r\n"]
    {
        assert_eq!(ask(lines).status, 200, "{lines}");
    }
    // Nothing but whether it lives is told without one, not even which routes there are.
    for path in ["/v1/models", "/nowhere"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    assert_eq!(server.get("/health").status, 200);
    // Browsers send no key with a preflight, and pages see why they are refused.
    let lines = "origin: http://localhost:1\r\naccess-control-request-method: POST\r\n";
    assert_eq!(server.send_with("OPTIONS", "/v1/completions", lines, b"").status, 204);
    let reply = server.send_with("POST", "/v1/completions", "origin: http://localhost:1\r\n", body.as_bytes());
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (401, Some("http://localhost:1")));
    for key in ["", " ", "two words", "ä"] {
        assert!(key.parse::<forge_runtime::server::ApiKey>().is_err(), "{key:?}");
    }
}

#[test]
fn pages_send_json() {
    let server = Server::start(HashModel::new(), Limits::default());
    let body = json!({ "prompt": [1, 2], "max_tokens": 1 }).to_string();
    let ask = |lines: &str| server.send_with("POST", "/v1/completions", lines, body.as_bytes());
    let page = "origin: http://localhost:1\r\n";
    for kind in ["", "content-type: text/plain\r\n", "content-type: application/x-www-form-urlencoded\r\n"] {
        let reply = ask(&format!("{page}{kind}"));
        assert_eq!((reply.status, &error(&reply)["type"]), (415, &json!("invalid_request_error")), "{kind}");
        // Programs may leave it out, and curl says that it is a form.
        assert_eq!(ask(kind).status, 200, "{kind}");
    }
    for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
        assert_eq!(ask(&format!("{page}content-type: {kind}\r\n")).status, 200, "{kind}");
    }
}

#[test]
fn every_answer_has_an_id() {
    let server = Server::start(HashModel::new(), Limits::default());
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, body) in [
        ("GET", "/health", ""),
        ("GET", "/nowhere", ""),
        ("POST", "/v1/models", ""),
        ("POST", "/v1/completions", "{"),
        ("POST", "/v1/completions", r#"{"prompt":[1,2],"max_tokens":1}"#),
        ("POST", "/v1/completions", r#"{"prompt":[1,2],"max_tokens":1,"stream":true}"#),
    ] {
        let id = server.send(method, path, body.as_bytes()).header("x-request-id").expect("an id").to_owned();
        assert!(id.starts_with("req_") && id.len() > 20, "{id}");
        assert!(ids.insert(id));
        let reply = server.send_with(method, path, "x-request-id: my-id:7\r\n", body.as_bytes());
        assert_eq!(reply.header("x-request-id"), Some("my-id:7"));
        for bad in ["x".repeat(200), "a b".into(), "ä".into(), String::new()] {
            let reply = server.send_with(method, path, &format!("x-request-id: {bad}\r\n"), body.as_bytes());
            assert!(reply.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{bad}");
        }
    }
}

#[test]
fn every_request_is_a_line() {
    let written = Written::default();
    let log = Log::to(written.clone()).expect("a thread");
    let model = HashModel { pace: Duration::from_millis(5), ..HashModel::scripted(&[70; 250]) };
    let server = Server::start(model, Options { log, ..Options::default() });
    let id = |name: &str| format!("x-request-id: {name}\r\n");
    let body = |stream: bool| json!({ "prompt": [1, 2, 3], "max_tokens": 4, "stream": stream }).to_string();
    server.send_with("GET", "/health", &id("id-one"), b"");
    server.send_with("GET", "/no%0Awhere", &id("id-two"), b"");
    server.send_with("POST", "/v1/completions", &id("id-three"), body(false).as_bytes());
    server.send_with("POST", "/v1/completions", &id("id-four"), body(true).as_bytes());
    server.send_with("POST", "/v1/completions", &id("id-five"), b"{\"prompt\": 5}");
    for (name, stream) in [("id-six", false), ("id-seven", true)] {
        let long = json!({ "prompt": [1, 2], "max_tokens": 200, "stream": stream }).to_string();
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n{}content-length: {}\r\n\r\n{long}",
            id(name),
            long.len()
        );
        let connection = server.connect(request.as_bytes());
        std::thread::sleep(Duration::from_millis(200));
        drop(connection);
    }
    eventually("there are seven lines", || written.lines().len() == 7);
    let lines = written.lines();
    let line = |name: &str| {
        let found = lines.iter().filter(|line| line.contains(&format!(" {name} "))).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{lines:?}");
        let (time, rest) = found[0].split_once(' ').expect("a time");
        assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 20, "{time}");
        rest.to_owned()
    };
    assert!(line("id-one").starts_with("id-one GET /health 200 "));
    assert!(line("id-two").starts_with("id-two GET /no%0Awhere 404 "));
    // The second time all but the prompt's last token is held.
    for (name, cached) in [("id-three", 0), ("id-four", 2)] {
        let line = line(name);
        assert!(line.starts_with(&format!("{name} POST /v1/completions 200 ")), "{line}");
        assert!(
            line.contains(&format!(" prompt=3 cached={cached} new=4 first=")) && line.ends_with(" finish=length"),
            "{line}"
        );
    }
    let line_five = line("id-five");
    assert!(line_five.contains(" 400 ") && line_five.contains("error=\"prompt must be"), "{line_five}");
    assert!(line("id-six").starts_with("id-six POST /v1/completions - "), "{}", line("id-six"));
    for name in ["id-six", "id-seven"] {
        assert!(line(name).ends_with(" client gone"), "{}", line(name));
    }
}

/// A writer that never returns.
struct Hung;

impl Write for Hung {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        loop {
            std::thread::park();
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_hangs_or_fails_keeps_nobody_waiting() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    for log in [Log::to(Hung), Log::to(full.expect("opens"))] {
        let server = Server::start(HashModel::new(), Options { log: log.expect("a thread"), ..Options::default() });
        for _ in 0..1100 {
            assert_eq!(server.get("/health").status, 200);
        }
    }
}
