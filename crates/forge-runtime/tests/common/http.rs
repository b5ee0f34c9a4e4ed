//! A server on a port of its own, and a plain HTTP/1.1 client.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forge_runtime::assets::Text;
use forge_runtime::server::{Options, Parts, bind, run_until};
use forge_runtime::{LanguageModel as _, ModelInfo, Result};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::common::{HashModel, text};

pub struct Server {
    address: SocketAddr,
    stops: Arc<Semaphore>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    pub fn start(model: HashModel, options: impl Into<Options>) -> Self {
        Self::with_text(model, text("demo"), options)
    }

    /// A server of another tokenizer or template.
    pub fn with_text(model: HashModel, text: Arc<Text>, options: impl Into<Options>) -> Self {
        let (info, context) = (model.info(), model.context());
        let (server, loaded) = Self::begin(info, context, text, options, move || Ok(model));
        loaded.recv().expect("has its model");
        server
    }

    /// A server that has its model once `load` is done.
    pub fn loading(
        info: &'static ModelInfo,
        context: usize,
        text: Arc<Text>,
        options: impl Into<Options>,
        load: impl FnOnce() -> Result<HashModel> + Send + 'static,
    ) -> Self {
        Self::begin(info, context, text, options, load).0
    }

    /// A server, and who tells when it has its model.
    fn begin(
        info: &'static ModelInfo,
        context: usize,
        text: Arc<Text>,
        options: impl Into<Options>,
        load: impl FnOnce() -> Result<HashModel> + Send + 'static,
    ) -> (Self, Receiver<()>) {
        let options = options.into();
        let listener = bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stops = Arc::new(Semaphore::new(0));
        let signal = stops.clone();
        let (loaded, ready) = channel();
        let thread = std::thread::spawn(move || {
            let stop = move || {
                let signal = signal.clone();
                async move {
                    if let Ok(permit) = signal.acquire().await {
                        permit.forget();
                    }
                }
            };
            let parts = Parts { listener, info, context, load, text };
            run_until(parts, options, move |_| loaded.send(()).unwrap_or_default(), stop)
        });
        (Self { address, stops, thread: Some(thread) }, ready)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One step of stopping.
    pub fn stop(&self) {
        self.stops.add_permits(1);
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, body.to_string().as_bytes())
    }

    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        Reply::read(self.open(method, path, body), |_| true)
    }

    /// As `send`, with further header lines, each with its end.
    pub fn send_with(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> Reply {
        Reply::read(self.open_with(method, path, lines, body), |_| true)
    }

    /// As `post`, but `watch` sees the body so far whenever there is more of it, and leaves by saying no.
    pub fn stream(&self, path: &str, body: &Value, watch: impl FnMut(&str) -> bool) -> Reply {
        Reply::read(self.open("POST", path, body.to_string().as_bytes()), watch)
    }

    /// A connection with a request sent on it.
    pub fn open(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        self.open_with(method, path, "", body)
    }

    /// A connection on which these bytes were sent.
    pub fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(bytes).expect("sends");
        stream
    }

    fn open_with(&self, method: &str, path: &str, lines: &str, body: &[u8]) -> TcpStream {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = self.connect(head.as_bytes());
        // A server that refuses a long body may close before it has read all of it.
        let _ = stream.write_all(body);
        stream
    }
}

impl Server {
    /// Waits for the end of a server that was told to stop, and does not tell it again.
    pub fn ended(mut self) {
        self.thread.take().expect("runs").join().expect("the server panicked").expect("serves");
    }

    /// What a server ends with that has no model.
    pub fn failed(mut self) -> String {
        self.thread.take().expect("runs").join().expect("the server panicked").expect_err("no model").to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stops.add_permits(2);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(matches!(ended, Ok(Ok(()))) || std::thread::panicking(), "the server panicked or failed");
        }
    }
}

pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    pub fn read(stream: TcpStream, mut watch: impl FnMut(&str) -> bool) -> Self {
        let mut reader = BufReader::new(stream);
        let mut lines = std::iter::from_fn(|| {
            let mut line = String::new();
            reader.read_line(&mut line).expect("reads");
            Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
        });
        let status =
            lines.next().expect("a status line").split(' ').nth(1).expect("a status").parse().expect("a number");
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).expect("a header")
            })
            .collect();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let mut reply = Self { status, headers, body: String::new() };
        if !chunked {
            let mut body = Vec::new();
            reader.read_to_end(&mut body).expect("reads");
            reply.body = String::from_utf8(body).expect("UTF-8");
            return reply;
        }
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).expect("reads");
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).expect("reads");
            reply.body += std::str::from_utf8(&chunk[..size]).expect("chunks end between characters");
            if size == 0 || !watch(&reply.body) {
                return reply;
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:.300}", self.body))
    }

    /// The body as it came.
    pub fn text(&self) -> &str {
        &self.body
    }

    /// The data of each server-sent event that is no comment.
    pub fn events(&self) -> Vec<String> {
        let events = self.body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
        events.map(|event| event.strip_prefix("data: ").expect("data").to_owned()).collect()
    }
}

/// Waits until `done`, for some seconds at most.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
