//! What one connection is busy with, seen from both of its ends: the answers that go into it, and the socket they leave by.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::api_error::ApiError;

/// How long a client may read nothing of an answer while the server stops.
const STALLED: Duration = Duration::from_secs(30);

/// What a connection is busy with.
pub(super) struct Activity {
    /// Requests whose header has come and whose answer is not yet written.
    answers: AtomicUsize,
    /// The client is to read first before more can be written.
    blocked: AtomicBool,
    /// When it last read something.
    progress: Mutex<Option<Instant>>,
    /// When its last answer ended, or it began.
    idle_since: Mutex<Instant>,
    /// It is to end once no answer is under way.
    close: Notify,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            answers: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
            progress: Mutex::new(None),
            idle_since: Mutex::new(Instant::now()),
            close: Notify::new(),
        }
    }
}

impl Activity {
    /// Whether no answer is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.answers.load(Ordering::Relaxed) == 0
    }

    /// When its last answer ended, or it began.
    pub(super) fn idle_since(&self) -> Instant {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is to end once no answer is under way.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Waits for [`Activity::close`].
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Whether nothing is left to be written, or nobody reads it.
    pub(super) fn is_over(&self) -> bool {
        if self.blocked.load(Ordering::Relaxed) {
            return self.progress().is_some_and(|last| last.elapsed() > STALLED);
        }
        self.is_idle()
    }

    fn progress(&self) -> MutexGuard<'_, Option<Instant>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
pub(super) struct Running(Arc<Activity>);

impl Running {
    pub(super) fn start(activity: &Arc<Activity>) -> Self {
        activity.answers.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.answers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, which is under way for as long as there is more of it.
pub(super) struct Answered {
    body: Body,
    _running: Running,
}

impl Answered {
    pub(super) fn new(body: Body, running: Running) -> Self {
        Self { body, _running: running }
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells whether its client reads, and has the library's answers to what is no request in the form of all others.
pub(super) struct Observed {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// What is left of an answer that takes the place of one of the library's.
    instead: Vec<u8>,
}

impl Observed {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, instead: Vec::new() }
    }

    fn wrote<T>(&self, result: &Poll<io::Result<T>>) {
        let blocked = result.is_pending();
        let before = self.activity.blocked.swap(blocked, Ordering::Relaxed);
        if !blocked || !before {
            *self.activity.progress() = Some(Instant::now());
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_empty() {
            match own_answer(bytes) {
                Some(answer) if self.activity.is_idle() => self.instead = answer,
                _ => return Pin::new(&mut self.stream).poll_write(context, bytes),
            }
        }
        while !self.instead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            self.instead.drain(..written);
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

/// What is to be said instead of an answer that hyper makes by itself, which has nothing but a status.
fn own_answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let (line, fields) = head.split_once("\r\n")?;
    let bare = fields.split("\r\n").all(|field| !field.starts_with("content-") || field == "content-length: 0");
    let error = match line.split(' ').nth(1).filter(|_| bare)? {
        "400" => ApiError::invalid(None, "this is no HTTP/1.1 request".into()),
        "414" => ApiError::long_target(),
        "431" => ApiError::long_header(),
        _ => return None,
    };
    Some(error.raw())
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.poll_bytes(context, bytes);
        self.wrote(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
