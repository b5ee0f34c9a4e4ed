//! The page and the numbers for Prometheus over real sockets.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::{common, dialects, http};
use common::HashModel;
use dialects::{ANSWER, TEMPLATE, answering, scripted, text_of};
use forge_runtime::server::{ApiKeys, Limits, Options};
use forge_runtime::snapshots::Folder;
use http::{Server, eventually};
use serde_json::json;

/// The samples of `/metrics` by name and labels.
fn metrics(server: &Server) -> BTreeMap<String, f64> {
    let reply = server.get("/metrics");
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text;")));
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(sample).collect()
}

#[test]
fn what_happened_is_counted() {
    let server = answering(ANSWER);
    let chat = json!({ "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 20 });
    let mut usage = Vec::new();
    for _ in 0..2 {
        usage.push(server.post("/v1/chat/completions", &chat).json()["usage"].clone());
    }
    assert_eq!(server.post("/v1/messages/", &json!({ "messages": [] })).status, 400);
    assert_eq!(server.post("/v1/messages/count_tokens", &chat).status, 200);
    let streamed = server.post("/responses", &json!({ "input": "Hi", "stream": true, "max_output_tokens": 20 }));
    assert_eq!(streamed.status, 200);
    // An answer is counted when its last byte has been passed on, which its client may see first.
    let mut found = BTreeMap::new();
    eventually("all are counted", || {
        found = metrics(&server);
        let counted = |labels: &str| found.get(&format!("forge_requests_total{{{labels}}}")).copied();
        counted("api=\"chat\",status=\"200\"") == Some(2.0)
            && counted("api=\"messages\",status=\"400\"") == Some(1.0)
            && counted("api=\"responses\",status=\"200\"") == Some(1.0)
            && counted("api=\"other\",status=\"200\"").is_some_and(|count| count >= 1.0)
    });
    let sample = |name: &str| *found.get(name).unwrap_or_else(|| panic!("no {name} in {found:?}"));
    let sum = |name: &str| usage.iter().map(|usage| usage[name].as_f64().expect("a count")).sum::<f64>();
    // The streamed one had the same prompt and limit.
    let third = usage[0]["prompt_tokens"].as_f64().expect("a count");
    assert_eq!(sample("forge_prompt_tokens_total"), sum("prompt_tokens") + third);
    assert_eq!(sample("forge_generated_tokens_total"), sum("completion_tokens") + 20.0);
    let all =
        |prefix: &str| found.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum::<f64>();
    assert_eq!((sample("forge_cache_hits_total{tier=\"slot\"}"), all("forge_cache_hits_total")), (2.0, 2.0));
    let cached = usage[1]["prompt_tokens_details"]["cached_tokens"].as_f64().expect("a count");
    assert!(cached > 0.0 && all("forge_cached_prompt_tokens_total") >= cached);
    for histogram in ["queue", "prefill", "time_to_first_token"] {
        assert_eq!(sample(&format!("forge_{histogram}_seconds_count")), 3.0, "{histogram}");
        assert_eq!(sample(&format!("forge_{histogram}_seconds_bucket{{le=\"+Inf\"}}")), 3.0);
    }
    assert!(sample("forge_inter_token_seconds_count") >= 3.0 * 10.0);
    for (name, value) in
        [("slots", 1.0), ("slots_busy", 0.0), ("requests_waiting", 0.0), ("cancelled_generations_total", 0.0)]
    {
        assert_eq!(sample(&format!("forge_{name}")), value, "{name}");
    }
    assert!(found.contains_key("forge_cache_bytes{tier=\"memory\"}"));
}

/// What was reused came from the slot itself, from another, from memory, or from files.
#[test]
fn hits_are_counted_by_tier() {
    let place = tempfile::tempdir().expect("a folder");
    let start = |slots| {
        let folder = Some(Folder { path: place.path().to_owned(), bytes: 1 << 20, model: "a model".into() });
        let model = HashModel { pace: Duration::from_millis(2), ..HashModel::of_slots(slots) };
        Server::start(model, Options { folder, ..Options::default() })
    };
    let prompt = |first: u32| (0..100).map(|at| first + at * 3 % 700).collect::<Vec<u32>>();
    let ask = |server: &Server, first: u32, tokens: u32| {
        let body = json!({ "prompt": prompt(first), "max_tokens": tokens });
        let reply = server.post("/v1/completions", &body).json();
        reply["timings"]["cache_tier"].as_str().map(str::to_owned)
    };
    let hits = |server: &Server| {
        let found = metrics(server);
        ["slot", "copy", "memory", "disk"].map(|tier| found[&format!("forge_cache_hits_total{{tier=\"{tier}\"}}")])
    };
    let server = start(1);
    let mut tiers = Vec::new();
    for first in [300, 300, 500, 300] {
        tiers.push(ask(&server, first, 2));
    }
    assert_eq!(tiers, [None, Some("slot".to_owned()), None, Some("memory".to_owned())]);
    assert_eq!(hits(&server), [1.0, 0.0, 1.0, 0.0]);
    drop(server);
    let server = start(2);
    assert_eq!(ask(&server, 300, 2).as_deref(), Some("disk"));
    let long = json!({ "prompt": prompt(300), "max_tokens": 150, "stream": true });
    let running = server.open("POST", "/v1/completions", long.to_string().as_bytes());
    eventually("it runs", || server.get("/slots").text().contains("\"is_processing\":true"));
    assert_eq!(ask(&server, 300, 2).as_deref(), Some("copy"));
    drop(running);
    eventually("the one that left is counted", || hits(&server) == [1.0, 1.0, 0.0, 1.0]);
    assert!(metrics(&server)["forge_cache_bytes{tier=\"disk\"}"] > 0.0);
}

#[test]
fn clients_that_leave_are_counted() {
    let model = HashModel { pace: Duration::from_millis(20), ..scripted(&"word ".repeat(300)) };
    let counters = model.counters.clone();
    let server = Server::with_text(model, text_of(TEMPLATE), Limits::default());
    let body = json!({ "prompt": "Once", "stream": true, "max_tokens": 200 });
    let connection = server.open("POST", "/v1/completions", body.to_string().as_bytes());
    eventually("it decodes", || counters.decoded.load(Ordering::SeqCst) > 3);
    assert_eq!(metrics(&server)["forge_slots_busy"], 1.0);
    drop(connection);
    eventually("it is given up", || metrics(&server)["forge_cancelled_generations_total"] == 1.0);
    eventually("its slot is free", || metrics(&server)["forge_slots_busy"] == 0.0);
}

#[test]
fn the_page_is_whole() {
    let keys: ApiKeys = ["secret".parse().expect("a key")].into_iter().collect();
    let server = Server::with_text(scripted("Hello"), text_of(TEMPLATE), Options { keys, ..Options::default() });
    // It has no secrets, and asks for the key itself.
    let reply = server.get("/");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(server.get("/slots").status, 401);
    assert_eq!(server.get("/metrics").status, 401);
    let page = reply.text();
    assert!(page.len() < 40_000, "{} bytes", page.len());
    // Nothing comes from elsewhere, and nothing runs but the one script.
    for foreign in ["http:", "https:", "//", " src=", " href=", "@import", "url(", "innerHTML", "eval("] {
        let found = page.lines().find(|line| line.contains(foreign) && !line.trim_start().starts_with("//"));
        assert_eq!(found, None, "{foreign}");
    }
    for name in ["script", "style"] {
        assert_eq!(page.matches(&format!("<{name}")).count(), 1);
    }
    let policy = reply.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(server.send("HEAD", "/", b"").status, 200);
    assert_eq!(server.post("/", &json!({})).status, 401);
}
