//! Mixed load over real sockets with clients that leave, read slowly, send halves and send nonsense: nothing leaks, nothing is lost. `FORGE_TORTURE=N` runs
//! N rounds instead of a few, with more before them, and prints what memory, threads and files were.

mod common;
#[path = "common/counting.rs"]
mod counting;
#[path = "common/http.rs"]
mod http;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use common::{HashModel, INFO};
use forge_runtime::ModelInfo;
use forge_runtime::server::Limits;
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

/// Clients of a round, all at once.
const CLIENTS: u64 = 12;
/// Rounds before the first look, and after it.
const WARM: u64 = 6;
const ROUNDS: u64 = 6;
/// Rounds before the first look of a long run, in which the heap has come to its size.
const LONG_WARM: u64 = 300;
/// Looks at what is held after the first one.
const PARTS: u64 = 3;
/// Bytes that may be kept beside the slots: a few sequences, so that what is kept comes and goes.
const KEPT: usize = 16 << 10;
/// What may be more at the end than after the first rounds.
const MORE: usize = 20;

/// What the process has.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// That the program has asked for and not given back.
    bytes: usize,
    /// Resident and of no file, once the system's allocator has given back what it can: stacks, heaps and their gaps.
    resident_kilobytes: usize,
    threads: usize,
    files: usize,
}

impl Held {
    /// Of this process; all but bytes as Linux tells, nothing elsewhere.
    fn now() -> Self {
        let count = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
        counting::trim();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
        Self {
            bytes: counting::held(),
            resident_kilobytes: resident.trim().trim_end_matches(" kB").parse().unwrap_or(0),
            threads: count("/proc/self/task"),
            files: count("/proc/self/fd"),
        }
    }
}

fn completion(seed: u64) -> Value {
    let prompt: Vec<u64> = (0..20 + seed % 60).map(|at| 20 + seed % 9 * 70 + at).collect();
    json!({ "prompt": prompt, "max_tokens": 4 + seed % 20, "temperature": 1.0, "seed": seed })
}

fn with(mut body: Value, fields: Value) -> Value {
    body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
    body
}

/// Bodies that nobody should send.
fn hostile(seed: u64) -> Vec<u8> {
    match seed % 7 {
        0 => vec![b'['; 100_000],
        1 => b"{\"prompt\": \"\xff\xfe\"}".to_vec(),
        2 => format!("{{\"tools\":[{}1]}}", "{},".repeat(120_000)).into_bytes(),
        3 => json!({ "prompt": "x".repeat(300_000) }).to_string().into_bytes(),
        4 => json!({ "prompt": [1, 2, -3] }).to_string().into_bytes(),
        5 => json!({ "prompt": "x", "n": 1_000_000, "logit_bias": { "99999999": 1 } }).to_string().into_bytes(),
        _ => Vec::new(),
    }
}

/// One client, which does what its number says. Says what a whole answer was.
fn client(server: &Server, seed: u64) -> Option<(u64, String)> {
    const COMPLETIONS: &str = "/v1/completions";
    let body = completion(seed);
    let bytes = body.to_string();
    let streamed = with(body.clone(), json!({ "stream": true, "max_tokens": 60 })).to_string();
    let overloaded = |reply: &Reply| reply.status == 429;
    match seed % CLIENTS {
        0 | 1 => {
            let reply = server.post(COMPLETIONS, &body);
            assert!(reply.status == 200 || overloaded(&reply), "{}", reply.text());
            (reply.status == 200).then(|| (seed, reply.json()["choices"][0]["text"].as_str().expect("text").to_owned()))
        }
        2 => {
            let reply = server.post(COMPLETIONS, &with(body, json!({ "n": 3, "logprobs": 2, "echo": true })));
            assert!(reply.status == 200 || overloaded(&reply), "{}", reply.text());
            None
        }
        3 => {
            let form = json!({ "type": "json_schema", "json_schema": { "schema": { "enum": ["a", "bc", 17] } } });
            let reply = server.post(COMPLETIONS, &with(body, json!({ "response_format": form, "max_tokens": -1 })));
            assert!(reply.status == 200 || overloaded(&reply), "{}", reply.text());
            None
        }
        // Leaves in the middle, at once, and before it has sent all.
        4 => {
            let body = with(body, json!({ "stream": true, "max_tokens": 100 }));
            server.stream(COMPLETIONS, &body, |text| text.len() < 400);
            None
        }
        5 => {
            drop(server.open("POST", COMPLETIONS, streamed.as_bytes()));
            None
        }
        6 => {
            drop(server.connect(b"POST /v1/completions HTTP/1.1\r\nho"));
            None
        }
        7 => {
            let head = format!("POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", bytes.len() + 9);
            drop(server.connect(format!("{head}{bytes}").as_bytes()));
            None
        }
        // Reads a byte now and then, and leaves.
        8 => {
            let mut stream = server.open("POST", COMPLETIONS, streamed.as_bytes());
            let mut byte = [0];
            for _ in 0..20 {
                let _ = stream.read(&mut byte);
                std::thread::sleep(Duration::from_millis(1));
            }
            None
        }
        9 => {
            let reply = server.send("POST", COMPLETIONS, &hostile(seed / CLIENTS));
            assert!((400..500).contains(&reply.status), "{} {:.200}", reply.status, reply.text());
            None
        }
        10 => {
            let mut stream = server.connect(b"\x16\x03\x01\x02\x00nonsense\r\n\r\n\r\n");
            let _ = stream.write_all(b"more");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            None
        }
        _ => {
            for path in ["/health", "/metrics", "/slots", "/v1/models", "/nowhere"] {
                server.get(path);
            }
            None
        }
    }
}

/// Every client of these rounds; whole answers are what they are alone.
fn rounds(server: &Server, range: std::ops::Range<u64>, alone: &mut dyn FnMut(u64) -> String) -> usize {
    let mut answers = 0;
    for round in range {
        let whole: Vec<(u64, String)> = std::thread::scope(|scope| {
            let one = |number: u64| scope.spawn(move || client(server, round * CLIENTS + number));
            let clients: Vec<_> = (0..CLIENTS).map(one).collect();
            clients.into_iter().filter_map(|client| client.join().expect("a client")).collect()
        });
        for (seed, text) in whole {
            assert_eq!(text, alone(seed), "request {seed}");
            answers += 1;
        }
    }
    answers
}

#[test]
fn nothing_leaks_and_nothing_is_lost() {
    let long: Option<u64> = std::env::var("FORGE_TORTURE").ok().and_then(|count| count.parse().ok());
    let (warm_up, most) = long.map_or((WARM, ROUNDS), |rounds| (LONG_WARM, rounds));
    if long.is_some() {
        counting::one_heap();
    }
    // What each request is alone is found anew every time, and nothing of it is kept.
    let alone_model = HashModel { context: 512, ..HashModel::of_slots(1) };
    let info = ModelInfo { slots: 4, few_rows: 8, ..INFO };
    let model = HashModel { context: 512, pace: Duration::from_micros(200), ..HashModel::with_info(info) };
    let counters = [alone_model.counters.clone(), model.counters.clone()];
    let reference = Server::start(alone_model, Limits { kept_bytes: Some(0), ..Limits::default() });
    let mut alone = |seed: u64| {
        let reply = reference.post("/v1/completions", &completion(seed));
        reply.json()["choices"][0]["text"].as_str().expect("text").to_owned()
    };
    let server = Server::start(model, Limits { kept_bytes: Some(KEPT), queue: 6, ..Limits::default() });
    let idle = || {
        // What the test's own models remember of their work is nobody's leak.
        counters.iter().for_each(|counters| *counters.calls.lock().expect("no panic") = Vec::new());
        eventually("nothing runs and nothing waits", || {
            let text = server.get("/metrics").text().to_owned();
            text.contains("\nforge_slots_busy 0\n") && text.contains("\nforge_requests_waiting 0\n")
        });
    };
    // A connection and what prepares a request end a little later than its answer.
    let settled = |most: Option<Held>| {
        let mut last = Held::now();
        eventually("memory, files and threads are given back", || {
            let now = Held::now();
            let before = std::mem::replace(&mut last, now);
            match most {
                Some(most) => {
                    now.files <= most.files + 4
                        && now.threads <= most.threads + 4
                        && now.bytes <= most.bytes + most.bytes / MORE
                }
                None => now.bytes.abs_diff(before.bytes) < 1 << 10 && now.files == before.files,
            }
        });
        last
    };
    rounds(&server, 0..warm_up, &mut alone);
    idle();
    let kept = server.get("/slots").json()["kept_bytes"].as_u64().expect("bytes") as usize;
    assert!(kept <= KEPT && kept > KEPT - (4 << 10), "{kept} bytes are kept after {warm_up} rounds");
    let warm = settled(None);
    let (mut answers, mut resident) = (0, usize::MAX);
    for part in 0..PARTS {
        let of = |part: u64| warm_up + most * part / PARTS;
        answers += rounds(&server, of(part)..of(part + 1), &mut alone);
        idle();
        let now = settled(Some(warm));
        resident = resident.min(now.resident_kilobytes);
        println!(
            "{} requests, {answers} compared: after warm-up {warm:?}, now {now:?}",
            (of(part + 1) - warm_up) * CLIENTS
        );
    }
    assert!(answers as u64 >= most, "{answers} whole answers in {most} rounds");
    if long.is_some() {
        // Gaps in the heap come and go; what is lost would be there at every look.
        let before = warm.resident_kilobytes;
        assert!(resident <= before + before / MORE, "{before} kB resident, then {resident} at least");
    }
}
