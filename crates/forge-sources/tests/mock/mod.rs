//! A hub on the loopback interface: listings, redirects of large files to another port, ranges, and on request whatever can go
//! wrong.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit of every repository.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Files of this size and more are "large": kept elsewhere, known by their SHA-256.
const LARGE: usize = 1000;

/// What is done instead of answering as one should, to one request for a file.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection ends after this many bytes of the body.
    Cut(usize),
    /// The connection stays open and brings nothing more after this many.
    Stall(usize),
    /// A status without a body, with further headers.
    Status(u16, &'static str),
    /// All of it, whatever was asked for.
    NoRanges,
    /// A range that was not asked for.
    OtherRange,
    /// The right number of wrong bytes.
    Damaged,
    /// A byte more than there should be.
    TooLong,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whether it came to the host of large files.
    pub large: bool,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: HashMap<String, VecDeque<Fault>>,
    requests: Vec<Request>,
    /// Instead of the listing.
    listing: Option<String>,
    /// Status and error code of every listing.
    refused: Option<(u16, &'static str)>,
    /// Sizes that the listing gives in place of the true ones.
    sizes: HashMap<String, u64>,
}

/// The hub; it has one repository, `owner/name`, with branches `main` and `next/one`.
#[derive(Clone)]
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (hub, large) = (listen(), listen());
        let at = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (endpoint, elsewhere) = (at(&hub), at(&large));
        for (listener, is_large) in [(hub, false), (large, true)] {
            let (state, elsewhere) = (state.clone(), elsewhere.clone());
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (state, elsewhere) = (state.clone(), elsewhere.clone());
                    thread::spawn(move || answer(stream, &state, &elsewhere, is_large));
                }
            });
        }
        let hub = Self { endpoint, state };
        for (path, bytes) in files {
            hub.state().files.insert((*path).to_owned(), bytes.to_vec());
        }
        hub
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What happens to the next requests for a file.
    pub fn faults(&self, path: &str, faults: &[Fault]) {
        self.state().faults.insert(path.to_owned(), faults.iter().cloned().collect());
    }

    /// Listings are refused.
    pub fn refuse(&self, status: u16, code: &'static str) {
        self.state().refused = Some((status, code));
    }

    /// Listings say this.
    pub fn list(&self, text: &str) {
        self.state().listing = Some(text.to_owned());
    }

    /// Listings give a file another size.
    pub fn size(&self, path: &str, bytes: u64) {
        self.state().sizes.insert(path.to_owned(), bytes);
    }

    /// Another content under a name.
    pub fn replace(&self, path: &str, bytes: &[u8]) {
        self.state().files.insert(path.to_owned(), bytes.to_vec());
    }

    /// The requests so far, which are then forgotten.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    /// Ranges of the requests so far for a file's content, which are then forgotten.
    pub fn ranges(&self, path: &str) -> Vec<Option<String>> {
        let ends = format!("/{path}");
        let is = |request: &Request| request.path.ends_with(&ends) && (request.large || request.range.is_some());
        self.requests().into_iter().filter(is).map(|request| request.range).collect()
    }
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Serves one connection's one request.
fn answer(stream: TcpStream, state: &Mutex<State>, elsewhere: &str, large: bool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => lines.push(line.trim_end().to_owned()),
        }
    }
    let header = |name: &str| {
        let of = |line: &String| {
            line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        lines.iter().find_map(of)
    };
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    let request = Request { large, path: path.clone(), range: header("range"), token: header("authorization") };
    let mut state = state.lock().unwrap();
    state.requests.push(request.clone());
    if path.starts_with("/api/models/") {
        let (status, code, body) = listing(&state, &path);
        drop(state);
        let head = format!("x-error-code: {code}\r\ncontent-length: {}\r\n", body.len());
        return send(stream, status, &head, body.as_bytes());
    }
    let file = match path.split_once(&format!("/resolve/{COMMIT}/")) {
        Some((_, file)) if !large => file.to_owned(),
        _ => path.trim_start_matches("/large/").to_owned(),
    };
    let Some(bytes) = state.files.get(&file).cloned() else {
        return send(stream, 404, "x-error-code: EntryNotFound\r\ncontent-length: 0\r\n", b"");
    };
    if bytes.len() >= LARGE && !large {
        let head =
            format!("location: {elsewhere}/large/{file}\r\nx-linked-size: {}\r\ncontent-length: 0\r\n", bytes.len());
        return send(stream, 302, &head, b"");
    }
    let fault = state.faults.get_mut(&file).and_then(VecDeque::pop_front);
    drop(state);
    content(stream, &bytes, &request, fault);
}

/// A file, or the part of it that was asked for.
fn content(mut stream: TcpStream, bytes: &[u8], request: &Request, fault: Option<Fault>) {
    let asked = request.range.as_ref().map(|range| {
        range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).unwrap().parse::<usize>().unwrap()
    });
    let mut body = bytes.to_vec();
    let mut from = asked;
    match &fault {
        Some(Fault::Status(status, headers)) => {
            return send(stream, *status, &format!("{headers}content-length: 0\r\n"), b"");
        }
        Some(Fault::NoRanges) => from = None,
        Some(Fault::OtherRange) => from = Some(1),
        Some(Fault::Damaged) => body.iter_mut().for_each(|byte| *byte ^= 1),
        Some(Fault::TooLong) => body.push(0),
        Some(Fault::Cut(_) | Fault::Stall(_)) | None => {}
    }
    if from.is_some_and(|from| from >= body.len()) {
        return send(stream, 416, "content-length: 0\r\n", b"");
    }
    let rest = &body[from.unwrap_or(0)..];
    let mut head = format!("etag: \"x\"\r\ncontent-length: {}\r\n", rest.len());
    if let Some(from) = from {
        head += &format!("content-range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
    }
    let status = if from.is_some() { 206 } else { 200 };
    match fault {
        Some(Fault::Cut(count)) => send(stream, status, &head, &rest[..count.min(rest.len())]),
        Some(Fault::Stall(count)) => {
            let text = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{head}\r\n");
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.write_all(&rest[..count]);
            thread::sleep(Duration::from_secs(30));
        }
        _ => send(stream, status, &head, rest),
    }
}

fn send(mut stream: TcpStream, status: u16, head: &str, body: &[u8]) {
    let _ = stream.write_all(format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
}

/// Status, error code and text of an answer about the repository.
fn listing(state: &State, path: &str) -> (u16, &'static str, String) {
    if let Some((status, code)) = state.refused {
        return (status, code, String::new());
    }
    if let Some(text) = &state.listing {
        return (200, "", text.clone());
    }
    let Some(revision) = path.strip_prefix("/api/models/owner/name/revision/") else {
        return (404, "RepoNotFound", String::new());
    };
    if !["main", "next%2Fone", COMMIT].contains(&revision.trim_end_matches("?blobs=true")) {
        return (404, "RevisionNotFound", String::new());
    }
    let sibling = |(path, bytes): (&String, &Vec<u8>)| {
        let size = state.sizes.get(path).copied().unwrap_or(bytes.len() as u64);
        let git = Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat());
        let mut sibling = json!({ "rfilename": path, "size": size, "blobId": hex(&git) });
        if bytes.len() >= LARGE {
            sibling["lfs"] = json!({ "sha256": hex(&Sha256::digest(bytes)), "size": size, "pointerSize": 130 });
        }
        sibling
    };
    let siblings: Vec<_> = state.files.iter().map(sibling).collect();
    (200, "", json!({ "id": "owner/name", "sha": COMMIT, "siblings": siblings }).to_string())
}

/// The digest by which a file is kept.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
