//! Requests to the hub, and files from it: resumed where they broke off, compared with the hub's digest, and put in place only
//! then.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::HeaderMap;
use ureq::tls::{RootCerts, TlsConfig};

use super::HubName;
use super::cache::Repository;
use super::listing::{Entry, Listing};
use super::partial::Partial;
use crate::{Environment, Patience, SourceError, Watcher};

/// Bytes that a connection hands over at a time, and how many such pieces may wait.
const PIECE: usize = 256 * 1024;
const WAITING: usize = 16;
/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// The longest listing.
const LONGEST_LISTING: usize = 64 << 20;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(20);
const CONTENT_RANGE: &str = "content-range";
const RETRY_AFTER: &str = "retry-after";
/// What the hub says is wrong, in a word.
const ERROR_CODE: &str = "x-error-code";

/// The hub, as seen by who asks for one repository.
pub struct Client<'a> {
    agent: Agent,
    environment: &'a Environment,
    watcher: &'a dyn Watcher,
    /// What the user asked for.
    name: &'a HubName,
}

/// How a request ended that was no success.
enum Failure {
    /// Before anything of an answer came.
    Unreachable(String),
    /// In the middle.
    Broken(String),
    /// Worth another try, after a pause that the server may ask for.
    Busy(u16, Option<Duration>),
    /// The range asked for does not exist.
    NoSuchRange,
    /// Not worth one.
    Final(SourceError),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Final(error)
    }
}

impl<'a> Client<'a> {
    pub fn new(environment: &'a Environment, watcher: &'a dyn Watcher, name: &'a HubName) -> Self {
        let stall = environment.patience.stall;
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        // Redirects lead to other hosts, which get no token: ureq sends it to none but the first.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(environment.endpoint.starts_with("https:"))
            .timeout_connect(Some(CONNECT.min(stall)))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            .tls_config(tls)
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), environment, watcher, name }
    }

    /// The files of the repository at the revision.
    pub fn list(&self) -> Result<Listing, SourceError> {
        let revision = encoded(self.name.revision()).replace('/', "%2F");
        let repository = &self.name.repository;
        let url = format!("{}/api/models/{repository}/revision/{revision}?blobs=true", self.environment.endpoint);
        let mut retries = self.retries();
        loop {
            let (status, pause) = match self.get(&url) {
                Ok(bytes) => return Listing::parse(&bytes).map_err(|reason| self.nonsense(reason)),
                Err(Failure::Final(error)) => return Err(error),
                // Whoever has no network has none in a second either.
                Err(Failure::Unreachable(reason) | Failure::Broken(reason)) if retries.failed > 0 => {
                    let endpoint = self.environment.endpoint.clone();
                    return Err(SourceError::Unreachable { name: self.name.repository_name(), endpoint, reason });
                }
                Err(Failure::Unreachable(_) | Failure::Broken(_)) => (None, None),
                Err(Failure::NoSuchRange) => (Some(416), None),
                Err(Failure::Busy(status, pause)) => (Some(status), pause),
            };
            if let (true, Some(status)) = (retries.are_over(), status) {
                return Err(SourceError::Status { name: self.name.repository_name(), status });
            }
            retries.pause(pause, self.watcher)?;
        }
    }

    /// All of a short answer.
    fn get(&self, url: &str) -> Result<Vec<u8>, Failure> {
        let mut answer = self.ask(url, 0)?;
        match answer.status {
            200 => {}
            _ => return Err(self.refusal(&answer, None)),
        }
        let mut bytes = Vec::new();
        while let Some(piece) = answer.next(self.watcher)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > LONGEST_LISTING {
                return Err(self.nonsense("it does not end".to_owned()).into());
            }
        }
        Ok(bytes)
    }

    /// Makes sure that a file of a commit is in the cache.
    pub fn fetch(&self, repository: &Repository, commit: &str, entry: &Entry) -> Result<(), SourceError> {
        let digest = entry.digest.hex();
        let blob = repository.blobs().join(digest);
        let is_there = || fs::metadata(&blob).is_ok_and(|meta| meta.is_file() && meta.len() == entry.file.bytes);
        if !is_there() {
            fs::create_dir_all(repository.blobs()).map_err(SourceError::io(&repository.blobs()))?;
            let _lock = repository.lock(digest, self.watcher)?;
            // Another process may have been faster.
            if !is_there() {
                self.download(commit, &blob, entry)?;
            }
        }
        repository.link(commit, &entry.file.path, digest)
    }

    fn download(&self, commit: &str, blob: &Path, entry: &Entry) -> Result<(), SourceError> {
        let (path, bytes) = (&entry.file.path, entry.file.bytes);
        let url = format!("{}/{}/resolve/{commit}/{}", self.environment.endpoint, self.name.repository, encoded(path));
        let mut partial = Partial::open(blob, entry, &self.name.repository_name(), self.watcher)?;
        self.watcher.begin(path, partial.received(), bytes);
        let mut retries = self.retries();
        // A file without content has nothing to ask for.
        while partial.received() < bytes {
            let before = partial.received();
            let failure = match self.stream(&url, &mut partial, entry) {
                Ok(()) => Failure::Broken("it ended too early".to_owned()),
                Err(failure) => failure,
            };
            if partial.received() > before {
                retries = self.retries();
            }
            let (reason, pause) = match failure {
                Failure::Broken(_) if partial.received() == bytes => break,
                Failure::Final(error) => return Err(error),
                Failure::Busy(status, _) if retries.are_over() => {
                    return Err(SourceError::Status { name: self.name.repository_name(), status });
                }
                Failure::Busy(status, pause) => (format!("the hub answers {status}"), pause),
                Failure::Unreachable(reason) | Failure::Broken(reason) => (reason, None),
                Failure::NoSuchRange => {
                    partial.restart()?;
                    self.watcher.restart();
                    ("the hub does not have what was left to fetch".to_owned(), None)
                }
            };
            if retries.are_over() {
                return Err(SourceError::Broken {
                    name: self.name.repository_name(),
                    file: path.clone(),
                    received: partial.received(),
                    bytes,
                    reason,
                });
            }
            retries.pause(pause, self.watcher)?;
        }
        partial.put_in_place()?;
        self.watcher.end();
        Ok(())
    }

    /// One request for what is missing of a file.
    fn stream(&self, url: &str, partial: &mut Partial<'_>, entry: &Entry) -> Result<(), Failure> {
        let from = partial.received();
        let mut answer = self.ask(url, from)?;
        match answer.status {
            206 if from > 0 => {
                if answer.first_byte() != Some(from) {
                    return Err(self.nonsense("it is of another range than was asked for".to_owned()).into());
                }
            }
            // A server need not know ranges: then it begins again.
            200 => {
                if from > 0 {
                    partial.restart()?;
                    self.watcher.restart();
                }
            }
            416 if from > 0 => return Err(Failure::NoSuchRange),
            _ => return Err(self.refusal(&answer, Some(&entry.file.path))),
        }
        while let Some(piece) = answer.next(self.watcher)? {
            if partial.received() + piece.len() as u64 > entry.file.bytes {
                partial.restart()?;
                return Err(self.nonsense(format!("{} is longer than it says", entry.file.path)).into());
            }
            partial.append(&piece)?;
            self.watcher.advance(piece.len() as u64);
        }
        Ok(())
    }

    /// Sends a request for what follows the first `from` bytes and waits for the answer's head.
    fn ask(&self, url: &str, from: u64) -> Result<Answer, Failure> {
        let mut request = self.agent.get(url).header("accept-encoding", "identity");
        if let Some(token) = &self.environment.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        let (sender, events) = sync_channel(WAITING);
        // A thread of its own: a read cannot be interrupted, but whoever waits for it can stop waiting.
        thread::spawn(move || match request.call() {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let sent = sender.send(Event::Head(head.status.as_u16(), head.headers));
                if sent.is_ok() {
                    hand_over(body.into_reader(), &sender);
                }
            }
            Err(error) => {
                let _ = sender.send(Event::Failed(error.to_string()));
            }
        });
        match next(&events, self.watcher)? {
            Some(Event::Head(status, headers)) => Ok(Answer { status, headers, events }),
            Some(Event::Failed(reason)) => Err(Failure::Unreachable(reason)),
            Some(Event::Bytes(_)) | None => Err(Failure::Unreachable("no answer".to_owned())),
        }
    }

    /// What an answer means that has nothing of what was asked for.
    fn refusal(&self, answer: &Answer, file: Option<&str>) -> Failure {
        let name = self.name.repository_name();
        let code = answer.header(ERROR_CODE).unwrap_or_default();
        let page = format!("{}/{}", self.environment.endpoint, self.name.repository);
        match answer.status {
            // The hub does not tell who is unknown whether a repository is private or missing.
            401 if code == "RepoNotFound" && self.environment.token.is_none() => {
                let reason = format!(
                    "no such repository, or a private one: look at {page}; for a private one set HF_TOKEN to a token of an \
                     account that may read it"
                );
                SourceError::Restricted { name, reason }.into()
            }
            401 | 403 => {
                let reason = if self.environment.token.is_some() {
                    format!(
                        "the account of your token may not read it: ask for access at {page}, or set HF_TOKEN to another"
                    )
                } else {
                    format!(
                        "access is restricted: accept its terms at {page} and set HF_TOKEN to a token of your account"
                    )
                };
                SourceError::Restricted { name, reason }.into()
            }
            404 => {
                let what = match (file, code, self.name.revision.as_deref()) {
                    (Some(file), ..) => format!("{page} has no {file}"),
                    (None, "RevisionNotFound", Some(revision)) => format!("{page} has no revision {revision}"),
                    _ => format!("there is no {page}, or not for the account of your token"),
                };
                SourceError::NotFound { name, what }.into()
            }
            status @ (408 | 429 | 500..=599) => {
                let pause = answer.header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
                Failure::Busy(status, pause.map(Duration::from_secs))
            }
            status => SourceError::Status { name, status }.into(),
        }
    }

    fn nonsense(&self, reason: String) -> SourceError {
        let (name, endpoint) = (self.name.repository_name(), self.environment.endpoint.clone());
        SourceError::Answer { name, endpoint, reason }
    }

    fn retries(&self) -> Retries {
        Retries { failed: 0, patience: self.environment.patience }
    }
}

/// What comes of a request.
enum Event {
    Head(u16, HeaderMap),
    Bytes(Vec<u8>),
    Failed(String),
}

/// An answer whose head is there.
struct Answer {
    status: u16,
    headers: HeaderMap,
    events: Receiver<Event>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first byte of the range that this is: `bytes 100-199/200`.
    fn first_byte(&self) -> Option<u64> {
        self.header(CONTENT_RANGE)?.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok()
    }

    /// The next bytes; none at the end.
    fn next(&mut self, watcher: &dyn Watcher) -> Result<Option<Vec<u8>>, Failure> {
        match next(&self.events, watcher)? {
            Some(Event::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Event::Failed(reason)) => Err(Failure::Broken(reason)),
            Some(Event::Head(..)) | None => Ok(None),
        }
    }
}

/// Waits for what a request brings next; none when it is over.
fn next(events: &Receiver<Event>, watcher: &dyn Watcher) -> Result<Option<Event>, SourceError> {
    loop {
        match events.recv_timeout(LOOK) {
            Ok(event) => return Ok(Some(event)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if watcher.cancelled() => return Err(SourceError::Cancelled),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Reads a body to its end, or until nobody listens any more.
fn hand_over(mut body: impl std::io::Read, sender: &SyncSender<Event>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let result = body.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let done = piece.is_empty();
        if !done && sender.send(Event::Bytes(piece)).is_err() {
            return;
        }
        match result {
            Ok(_) if done => return,
            Ok(_) => {}
            Err(error) => {
                let _ = sender.send(Event::Failed(error.to_string()));
                return;
            }
        }
    }
}

/// Tries in a row that brought nothing.
struct Retries {
    failed: u32,
    patience: Patience,
}

impl Retries {
    /// Whether this failure was the last that is borne.
    fn are_over(&self) -> bool {
        self.failed + 1 >= self.patience.tries
    }

    /// Waits before the next try, twice as long as before the last one or as long as a server asks for.
    fn pause(&mut self, asked: Option<Duration>, watcher: &dyn Watcher) -> Result<(), SourceError> {
        let usual = self.patience.pause * 2u32.saturating_pow(self.failed.min(16));
        let pause = asked.unwrap_or(usual).min(self.patience.longest_pause);
        self.failed += 1;
        let end = Instant::now() + pause;
        loop {
            if watcher.cancelled() {
                return Err(SourceError::Cancelled);
            }
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => thread::sleep(left.min(LOOK)),
            }
        }
    }
}

/// A path for a URL; slashes stay.
fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn urls_have_no_other_characters() {
        assert_eq!(encoded("a b/Q4#?%.gguf"), "a%20b/Q4%23%3F%25.gguf");
    }
}
