//! Connections: taking them, how long each may wait for a client, and how they end.
//!
//! A client may be as slow as it likes to read an answer, but not to send a request: the header has a time limit, which an idle
//! connection has too, and so has the body. There are only so many connections, and idle ones make room for new ones. Once the
//! server stops, connections without an answer under way are closed; those with one end with it. Once it leaves, they have
//! [`LAST_WORDS`] to pass on what was cancelled.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Limits;
use super::activity::{Activity, Answered, Observed, Running};
use super::api_error::ApiError;

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

/// Connections beyond all others that are told so at a time; what is beyond these is closed at once.
const MOST_TURNED_AWAY: usize = 64;

/// Pause after an error that more connections would only bring about again, such as too many open files.
const OUT_OF_FILES: Duration = Duration::from_millis(500);

/// Waits until stopping has come to `stage`.
pub(super) async fn reached(stages: &mut Receiver<Stage>, stage: Stage) {
    if stages.wait_for(|now| *now >= stage).await.is_err() {
        // The sender lives as long as the server.
        std::future::pending().await
    }
}

/// Files that the server wants to be able to open, connections among them.
#[cfg(unix)]
const FILES: libc::rlim_t = 4096;

/// Lets the process open more files than the 256 that macOS begins with, if it may. How many it may open then, where that is known.
pub fn raise_file_limit() -> Option<usize> {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: each call is given a place of its type.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
                return None;
            }
            let raised = libc::rlimit { rlim_cur: FILES.min(limit.rlim_max), ..limit };
            if limit.rlim_cur < raised.rlim_cur && libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                limit = raised;
            }
        }
        usize::try_from(limit.rlim_cur).ok()
    }
    #[cfg(not(unix))]
    None
}

/// Connections that stand.
struct Standing {
    most: usize,
    all: Vec<Weak<Activity>>,
}

impl Standing {
    /// What a new connection is to be watched by; `None` if there are too many.
    fn enter(&mut self) -> Option<Arc<Activity>> {
        if self.all.len() >= self.most {
            self.all.retain(|activity| activity.strong_count() > 0);
        }
        if self.all.len() >= self.most {
            let (at, idle) = self
                .all
                .iter()
                .enumerate()
                .filter_map(|(at, activity)| {
                    let activity = activity.upgrade().filter(|activity| activity.is_idle())?;
                    Some((at, activity))
                })
                .min_by_key(|(_, activity)| activity.idle_since())?;
            idle.close();
            self.all.swap_remove(at);
        }
        let activity = Arc::new(Activity::default());
        self.all.push(Arc::downgrade(&activity));
        Some(activity)
    }
}

/// Serves connections until stopping is over.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits, mut stages: Receiver<Stage>) {
    let header_time = limits.header_time;
    let mut standing = Standing { most: limits.connections.max(1), all: Vec::new() };
    let turned_away = Arc::new(());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Events are small, and each is to be seen at once.
                    let _ = stream.set_nodelay(true);
                    match standing.enter() {
                        Some(activity) => {
                            connections.spawn(connection(stream, router.clone(), header_time, stages.clone(), activity));
                        }
                        None if Arc::strong_count(&turned_away) <= MOST_TURNED_AWAY => {
                            connections.spawn(turn_away(stream, turned_away.clone()));
                        }
                        None => {}
                    }
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
        let activity = Arc::new(Activity::default());
        connections.spawn(connection(stream, router.clone(), header_time, stages.clone(), activity));
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

/// Says that there is no room, whatever is asked.
async fn turn_away(stream: TcpStream, _one_of: Arc<()>) {
    let service = service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(ApiError::crowded().into_response()) });
    let mut builder = http1::Builder::new();
    let served = builder.timer(TokioTimer::new()).keep_alive(false).serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(LAST_WORDS, served).await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    header_time: Duration,
    mut stages: Receiver<Stage>,
    activity: Arc<Activity>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let running = Running::start(&activity);
        let answer = router.call(request);
        async move {
            let response: Response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Answered::new(body, running)))
        }
    });
    let io = TokioIo::new(Observed::new(stream, activity.clone()));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_time).writev(false);
    let served = builder.serve_connection(io, service);
    tokio::pin!(served);
    tokio::select! {
        // A client that breaks off is no error of the server.
        _ = served.as_mut() => return,
        () = activity.closed() => {}
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
