//! Several clients at once over real sockets: identical texts, short answers beside long ones, slots that are freed, what the server
//! says of itself.

use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::{common, http};
use common::{Call, HashModel, INFO, Written};
use forge_runtime::Error;
use forge_runtime::server::{Limits, Log, Options};
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

fn content(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["choices"][0]["text"].as_str().expect("text").to_owned()
}

fn completion(seed: u64) -> Value {
    let prompt: Vec<u64> = (0..5 + seed % 40).map(|at| 20 + seed * 7 + at).collect();
    json!({ "prompt": prompt, "max_tokens": 5 + seed % 30, "temperature": 1.0, "seed": seed, "repeat_penalty": 1.2 })
}

#[test]
fn clients_at_once_get_what_each_would_alone() {
    let alone: Vec<String> = (0..24)
        .map(|seed| {
            let server = Server::start(HashModel::of_slots(1), Limits::default());
            content(&server.post("/v1/completions", &completion(seed)))
        })
        .collect();
    for slots in [1, 4, 12] {
        let pace = Duration::from_millis(1);
        let model = HashModel { pace, ..HashModel::of_slots(slots) };
        let counters = model.counters.clone();
        let server = Server::start(model, Limits::default());
        std::thread::scope(|scope| {
            for (seed, expected) in alone.iter().enumerate() {
                let server = &server;
                scope.spawn(move || {
                    let body = completion(seed as u64);
                    assert_eq!(content(&server.post("/v1/completions", &body)), *expected, "{slots} slots");
                    let mut stream = body;
                    stream["stream"] = true.into();
                    let events = server.post("/v1/completions", &stream).events();
                    let text: String = events[..events.len() - 1]
                        .iter()
                        .map(|event| {
                            let chunk: Value = serde_json::from_str(event).expect("JSON");
                            chunk["choices"][0]["text"].as_str().expect("text").to_owned()
                        })
                        .collect();
                    assert_eq!(text, *expected, "{slots} slots, streamed");
                });
            }
        });
        let most = counters.calls().iter().map(|call| if let Call::Step(rows) = call { rows.len() } else { 0 }).max();
        assert!(slots == 1 || most > Some(2), "no steps were shared: {most:?}");
    }
}

/// Four answers of 8 tokens beside three long ones: none waits for a long one's end.
#[test]
fn short_answers_come_while_long_ones_run() {
    let model = HashModel { pace: Duration::from_millis(2), script: vec![70; 250], ..HashModel::of_slots(4) };
    let counters = model.counters.clone();
    let server = Server::start(model, Limits::default());
    let long: Vec<_> = (0..3)
        .map(|i| {
            let body = json!({ "prompt": [5 + i, 6], "max_tokens": 240, "stream": true });
            server.open("POST", "/v1/completions", body.to_string().as_bytes())
        })
        .collect();
    eventually("they run", || counters.calls().iter().any(|call| matches!(call, Call::Step(rows) if rows.len() == 3)));
    for i in 0..4 {
        let before = counters.calls().len();
        let body = json!({ "prompt": vec![200 + i; 40], "max_tokens": 8 });
        assert_eq!(server.post("/v1/completions", &body).json()["usage"]["completion_tokens"], 8);
        let calls = counters.calls().len() - before;
        // Five tiles between steps, eight steps, and what ran while the answer was on its way.
        assert!(calls < 60, "{calls} pieces of work");
    }
    let shown = server.get("/slots").json();
    let busy = shown["slots"].as_array().expect("slots").iter().filter(|slot| slot["is_processing"] == true).count();
    assert_eq!(busy, 3, "the long ones run still: {shown}");
    for stream in long {
        let reply = Reply::read(stream, |_| true);
        assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    }
}

#[test]
fn a_client_that_leaves_frees_its_slot_and_its_place() {
    let model = HashModel { pace: Duration::from_millis(10), script: vec![70; 250], ..HashModel::of_slots(2) };
    let server = Server::start(model, Limits { queue: 1, ..Limits::default() });
    let body = |i: u32| json!({ "prompt": [i, 6], "max_tokens": 240, "stream": true }).to_string();
    let mut open: Vec<_> = (0..2).map(|i| Some(server.open("POST", "/v1/completions", body(i).as_bytes()))).collect();
    let processing = || {
        let shown = server.get("/slots").json();
        let busy = shown["slots"].as_array().expect("slots").iter().filter(|slot| slot["is_processing"] == true);
        (busy.count(), shown["waiting"].as_u64().expect("a count"))
    };
    eventually("both run", || processing() == (2, 0));
    open.push(Some(server.open("POST", "/v1/completions", body(2).as_bytes())));
    eventually("one waits", || processing() == (2, 1));
    // Two run, one waits: a fourth is told to come again.
    let refused = server.post("/v1/completions", &json!({ "prompt": [1], "max_tokens": 1 }));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("5")));
    // The one that waits leaves, and then one that runs.
    open[2] = None;
    eventually("nobody waits", || processing() == (2, 0));
    open[0] = None;
    eventually("a slot is free", || processing() == (1, 0));
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": [1], "max_tokens": 1 })).status, 200);
}

/// What runs when the model fails is lost; what waits is not.
#[test]
fn a_panic_ends_what_runs_and_nothing_else() {
    let model = HashModel {
        pace: Duration::from_millis(10),
        script: vec![70; 250],
        panic_on: Some(77),
        ..HashModel::of_slots(2)
    };
    let server = Server::start(model, Limits::default());
    let long = json!({ "prompt": [5, 6], "max_tokens": 200 }).to_string();
    let running = server.open("POST", "/v1/completions", long.as_bytes());
    eventually("it runs", || server.get("/slots").json()["slots"][0]["n_decoded"].as_u64() > Some(2));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            eventually("both are busy", || server.get("/slots").json()["slots"][1]["is_processing"] == true);
            server.post("/v1/completions", &json!({ "prompt": [8], "max_tokens": 3 })).status
        });
        let prompt = [vec![9; 100], vec![77]].concat();
        let failing = json!({ "prompt": prompt, "max_tokens": 1 });
        assert_eq!(server.post("/v1/completions", &failing).status, 500);
        assert_eq!(waiting.join().expect("no panic"), 200);
    });
    assert_eq!(Reply::read(running, |_| true).status, 500);
    assert_eq!(server.post("/v1/completions", &json!({ "prompt": [5, 6], "max_tokens": 3 })).status, 200);
}

#[test]
fn a_server_that_loads_says_so() {
    let (go, wait) = channel::<bool>();
    let load = move || {
        let good = wait.recv().expect("is told");
        if good { Ok(HashModel::new()) } else { Err(Error::Usage("no such weights".into())) }
    };
    let server = Server::loading(&INFO, 256, common::text("demo"), Limits::default(), load);
    let completion = json!({ "prompt": [1, 2], "max_tokens": 1 });
    let health = server.get("/health");
    assert_eq!((health.status, &health.json()["error"]["code"]), (503, &json!("loading")));
    assert!(health.header("retry-after").is_some());
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "hash-model");
    // A request waits for the model.
    let early = server.open("POST", "/v1/completions", completion.to_string().as_bytes());
    go.send(true).expect("is heard");
    assert_eq!(Reply::read(early, |_| true).status, 200);
    eventually("it is loaded", || server.get("/health").status == 200);
    // One that has nothing to serve ends with the reason.
    let (go, wait) = channel::<bool>();
    let load =
        move || if wait.recv().is_ok() { Err(Error::Usage("no such weights".into())) } else { Ok(HashModel::new()) };
    let server = Server::loading(&INFO, 256, common::text("demo"), Limits::default(), load);
    assert_eq!(server.get("/health").status, 503);
    let early = server.open("POST", "/v1/completions", completion.to_string().as_bytes());
    go.send(true).expect("is heard");
    assert_eq!(server.failed(), "no such weights");
    drop(early);
}

/// The same prompt again, an edited one, another between: only what is new is run, and the log says why.
#[test]
fn prompts_are_reused_and_misses_have_reasons() {
    let written = Written::default();
    let options = Options { log: Log::to(written.clone()).expect("a thread"), ..Options::default() };
    let model = HashModel { script: vec![70; 250], ..HashModel::of_slots(2) };
    let counters = model.counters.clone();
    let server = Server::start(model, options);
    let mut reasons = Vec::new();
    let mut cached = |prompt: &[u32]| {
        let body = json!({ "prompt": prompt, "max_tokens": 4 });
        let answer = server.post("/v1/completions", &body).json();
        let (usage, timings) = (&answer["usage"], &answer["timings"]);
        assert_eq!(
            (&timings["cache_n"], &timings["predicted_n"]),
            (&usage["prompt_tokens_details"]["cached_tokens"], &json!(4))
        );
        reasons.push(timings["cache_miss"].as_str().map(str::to_owned));
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    let chat: Vec<u32> = (100..160).collect();
    let edited = [&chat[..50], &[1, 2, 3]].concat();
    // New; regenerated; its last message edited; a title; and the chat goes on.
    assert_eq!(cached(&chat), 0);
    assert_eq!(cached(&chat), 59);
    assert_eq!(cached(&edited), 50);
    assert_eq!(cached(&[7, 8, 9]), 0);
    let next = [&edited[..], &[70, 70, 70], &[4, 5]].concat();
    assert_eq!(cached(&next), 56);
    assert_eq!(counters.copies.load(Ordering::SeqCst), 0);
    drop(server);
    let log = written.text();
    let misses: Vec<Option<&str>> =
        log.lines().map(|line| line.split(' ').find_map(|word| word.strip_prefix("miss="))).collect();
    assert_eq!(misses, [Some("new"), None, Some("parted@50"), Some("new"), None], "{log}");
    assert_eq!(reasons.iter().map(Option::as_deref).collect::<Vec<_>>(), misses);
}
