//! Connections: taking them, how long each may wait for a client, and how they end.
//!
//! A client may be as slow as it likes to read an answer, but not to send a request: the header has a time limit, which an idle
//! connection has too, and so has the body. Once the server stops, connections without an answer under way are closed; those with
//! one end with it. Once it leaves, they have [`LAST_WORDS`] to pass on what was cancelled.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Requests are taken.
    Serving,
    /// No more; what runs or waits goes on.
    Stopping,
    /// What runs is cancelled.
    Leaving,
}

/// Time for the ends of cancelled answers.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often a connection is looked at while the server stops.
const GLANCE: Duration = Duration::from_millis(50);

/// How long a client may read nothing of an answer while the server stops.
const STALLED: Duration = Duration::from_secs(30);

/// Pause after an error that more connections would only bring about again, such as too many open files.
const OUT_OF_FILES: Duration = Duration::from_millis(500);

/// Waits until stopping has come to `stage`.
pub(super) async fn reached(stages: &mut Receiver<Stage>, stage: Stage) {
    if stages.wait_for(|now| *now >= stage).await.is_err() {
        // The sender lives as long as the server.
        std::future::pending().await
    }
}

/// Serves connections until stopping is over.
pub(super) async fn serve(listener: TcpListener, router: Router, header_time: Duration, mut stages: Receiver<Stage>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Events are small, and each is to be seen at once.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, router.clone(), header_time, stages.clone()));
                }
                Err(error) if is_the_clients(&error) => {}
                Err(_) => sleep(OUT_OF_FILES).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = reached(&mut stages, Stage::Stopping) => break,
        }
    }
    // Clients whose connection stood before the end are told of it, rather than reset.
    while let Poll::Ready(Ok((stream, _))) = poll_fn(|context| Poll::Ready(listener.poll_accept(context))).await {
        connections.spawn(connection(stream, router.clone(), header_time, stages.clone()));
    }
    drop((listener, router));
    let all_ended = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = all_ended => {}
        () = async {
            reached(&mut stages, Stage::Leaving).await;
            sleep(LAST_WORDS).await;
        } => {}
    }
}

/// An error of a connection that was gone before it was taken.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(stream: TcpStream, router: Router, header_time: Duration, mut stages: Receiver<Stage>) {
    let activity = Arc::new(Activity::default());
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let running = Running::start(&activity);
        let answer = router.call(request);
        async move {
            let response: Response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Answered { body, _running: running }))
        }
    });
    let io = TokioIo::new(Observed { stream, activity: activity.clone() });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_time);
    let served = builder.serve_connection(io, service);
    tokio::pin!(served);
    tokio::select! {
        // A client that breaks off is no error of the server.
        _ = served.as_mut() => return,
        () = reached(&mut stages, Stage::Stopping) => {}
    }
    served.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            _ = served.as_mut() => return,
            () = sleep(GLANCE) => {
                if activity.is_over() {
                    return;
                }
            }
        }
    }
}

/// What a connection is busy with.
#[derive(Default)]
struct Activity {
    /// Requests whose header has come and whose answer is not yet written.
    answers: AtomicUsize,
    /// The client is to read first before more can be written.
    blocked: AtomicBool,
    /// When it last read something.
    progress: Mutex<Option<Instant>>,
}

impl Activity {
    /// Whether nothing is left to be written, or nobody reads it.
    fn is_over(&self) -> bool {
        if self.blocked.load(Ordering::Relaxed) {
            return self.progress().is_some_and(|last| last.elapsed() > STALLED);
        }
        self.answers.load(Ordering::Relaxed) == 0
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A request that is being answered.
struct Running(Arc<Activity>);

impl Running {
    fn start(activity: &Arc<Activity>) -> Self {
        activity.answers.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.answers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, which is under way for as long as there is more of it.
struct Answered {
    body: Body,
    _running: Running,
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

/// A socket that tells whether its client reads.
struct Observed {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Observed {
    fn wrote<T>(&self, result: &Poll<io::Result<T>>) {
        let blocked = result.is_pending();
        let before = self.activity.blocked.swap(blocked, Ordering::Relaxed);
        if !blocked || !before {
            *self.activity.progress() = Some(Instant::now());
        }
    }
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
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
