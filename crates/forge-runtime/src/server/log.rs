//! One line for each request, and the ids by which a client's log and this one are brought together.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use super::super::generation::{Finish, Summary};
use super::answer::unix_time;
use super::api_error::ApiError;
use super::dialect::Dialect;
use super::metrics::Metrics;

/// Header with a request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id, among its extensions.
#[derive(Clone)]
pub(super) struct RequestId(pub(super) HeaderValue);

/// Longest id of a client that is taken as the request's.
const LONGEST_ID: usize = 128;

/// Characters of a path in a line.
const LONGEST_PATH: usize = 100;

/// Lines that may wait for a slow writer; further ones are lost.
const WAITING: usize = 1024;

/// Where lines go: nowhere by default.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Lines>>);

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_some() { "Log" } else { "no log" })
    }
}

struct Lines {
    sender: Option<SyncSender<String>>,
    /// Closed once the last line is written.
    written: Mutex<Receiver<()>>,
}

impl Log {
    /// Lines go to `writer`, on a thread of its own: a writer that fails or hangs keeps no request waiting.
    ///
    /// # Errors
    /// Those of starting the thread.
    pub fn to(mut writer: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, lines) = sync_channel::<String>(WAITING);
        let (done, written) = sync_channel(0);
        std::thread::Builder::new().name("log".into()).spawn(move || {
            let _done: SyncSender<()> = done;
            for line in lines {
                let _ = writer.write_all(line.as_bytes()).and_then(|()| writer.flush());
            }
        })?;
        Ok(Self(Some(Arc::new(Lines { sender: Some(sender), written: Mutex::new(written) }))))
    }

    /// A line that is of no request.
    pub(super) fn note(&self, words: &str) {
        self.line(format!("{} {words}\n", timestamp(unix_time())));
    }

    fn line(&self, line: String) {
        if let Some(sender) = self.0.as_ref().and_then(|lines| lines.sender.as_ref()) {
            let _ = sender.try_send(line);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.sender = None;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // What is left is written, unless the writer hangs.
        let _: Result<(), RecvTimeoutError> = written.recv_timeout(Duration::from_secs(1));
    }
}

/// What becomes known of a request while it is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Record(Arc<Mutex<Words>>);

/// See [`Record`].
#[derive(Debug, Default)]
struct Words {
    /// What was asked for and is left out.
    skipped: String,
    /// What came of it.
    outcome: String,
}

impl Record {
    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, outcome: String) {
        self.words().outcome = outcome;
    }

    /// These were asked for and are left out.
    pub(super) fn skipped(&self, names: &[String]) {
        if !names.is_empty() {
            let names: String = names.join(",").chars().take(LONGEST_PATH).collect();
            self.words().skipped = format!(" skipped={names:?}");
        }
    }

    /// The generation ended so.
    pub(super) fn generated(&self, summary: &Summary) {
        let finish = match summary.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Cancelled => "cancelled",
        };
        let Summary {
            prompt_tokens,
            reused_tokens,
            tier,
            completion_tokens,
            miss,
            queue_time,
            prompt_time,
            decode_time,
            ..
        } = summary;
        let mut words = format!(
            "prompt={prompt_tokens} cached={reused_tokens} new={completion_tokens} first={:.3}s",
            prompt_time.as_secs_f64()
        );
        let seconds = decode_time.as_secs_f64();
        if *completion_tokens > 1 && seconds > 0.0 {
            let _ = write!(words, " tokens/s={:.1}", (completion_tokens - 1) as f64 / seconds);
        }
        let _ = write!(words, " queue={:.3}s", queue_time.as_secs_f64());
        if summary.guessed_tokens > 0 {
            let _ = write!(words, " guessed={} right={}", summary.guessed_tokens, summary.right_tokens);
        }
        if summary.forced_tokens > 0 {
            let _ = write!(words, " forced={}", summary.forced_tokens);
        }
        if let Some(tier) = tier {
            let _ = write!(words, " from={}", tier.name());
        }
        if let Some(miss) = miss {
            let _ = write!(words, " miss={miss}");
        }
        self.set(format!("{words} finish={finish}"));
    }

    /// It came to this error.
    pub(super) fn error(&self, error: ApiError) -> ApiError {
        self.failed(error.message());
        error
    }

    /// It came to nothing, for this reason.
    pub(super) fn failed(&self, reason: &str) {
        self.set(format!("error={reason:?}"));
    }
}

/// A request that is being answered; dropped, it is counted, and a line.
struct Entry {
    log: Log,
    metrics: Arc<Metrics>,
    /// Whose words it was asked in.
    api: &'static str,
    start: Instant,
    /// Method, path and id.
    request: String,
    record: Record,
    status: Option<StatusCode>,
    /// The answer was passed on to its end.
    ended: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.metrics.answered(self.api, self.status);
        if self.log.0.is_none() {
            return;
        }
        let mut line = format!("{} {}", timestamp(unix_time()), self.request);
        let _ = match self.status {
            Some(status) => write!(line, " {}", status.as_u16()),
            None => write!(line, " -"),
        };
        let _ = write!(line, " {:.3}s", self.start.elapsed().as_secs_f64());
        let Words { skipped, outcome } = &*self.record.words();
        line += skipped;
        if !outcome.is_empty() {
            let _ = write!(line, " {outcome}");
        }
        if !self.ended {
            line.push_str(" client gone");
        }
        line.push('\n');
        self.log.line(line);
    }
}

/// Gives each request its id, its record, and its line.
pub(super) async fn track(
    State((log, metrics)): State<(Log, Arc<Metrics>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    let path: String = request.uri().path().chars().take(LONGEST_PATH).collect();
    let words = format!("{} {} {path}", id.to_str().unwrap_or_default(), request.method());
    let record = Record::default();
    request.extensions_mut().insert(record.clone());
    request.extensions_mut().insert(RequestId(id.clone()));
    let no_body = request.method() == axum::http::Method::HEAD;
    let api = Dialect::of_path(request.uri().path()).map_or("other", Dialect::name);
    let mut entry =
        Entry { log, metrics, api, start: Instant::now(), request: words, record, status: None, ended: false };
    let mut response = next.run(request).await;
    entry.status = Some(response.status());
    entry.ended = no_body;
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(Tracked { body, entry }))
}

/// The client's own id, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    let given = headers
        .get(REQUEST_ID)
        .filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    given.cloned().unwrap_or_else(|| {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let [high, low] = KEYS.each_ref().map(|key| key.hash_one(count));
        HeaderValue::try_from(format!("req_{high:016x}{low:016x}")).unwrap_or(HeaderValue::from_static("req"))
    })
}

/// The body of an answer, at whose end the request's line is written.
struct Tracked {
    body: Body,
    entry: Entry,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None)) {
            self.entry.ended = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.entry.ended |= self.body.is_end_stream();
    }
}

/// UTC as in RFC 3339.
pub(super) fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years from March on, in eras of 400: leap days then come last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let year = year + 400 * era;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
