//! The HTTP server: the parts of the APIs of OpenAI and Anthropic that one text model can answer.
//!
//! [`dialect`] knows the forms of the APIs, [`request`] makes a prompt of what is asked for, [`worker`] generates, and [`answer`]
//! sends what comes, whole or as server-sent events. One model thread takes requests out of a bounded queue and works on as many at a time
//! as the model has slots. A client may name any model; answers carry this one's name. Whatever a client sends, the answer is JSON: a result,
//! or `{"error": {"message", "type", "param", "code"}}`, or an error in Anthropic's form to those who asked in it.
//!
//! A connection that closes cancels its generation, during the prompt too; one that only ends its sending side is taken to have
//! closed, since the two look alike until something is sent to it. The first interrupt stops taking connections, closes
//! those that no answer is under way on, and lets generations end; the second, or the end of the time of grace, cancels them, and
//! what they came to is sent.

mod about;
mod activity;
mod admission;
mod answer;
mod api_error;
mod connections;
mod cors;
mod dialect;
mod fields;
mod gate;
mod heartbeat;
mod log;
mod metrics;
mod page;
mod request;
pub mod tools;
mod worker;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::assets::Text;
use super::generation::speculation::Speculation;
use super::snapshots::Folder;
use super::{Error, LanguageModel, ModelInfo, Result};
use admission::{Admission, Taken};
use answer::{Answer, Unsent};
use api_error::ApiError;
use connections::Stage;
pub use connections::raise_file_limit;
pub use cors::{Origin, Origins};
use dialect::Dialect;
pub use gate::{ApiKey, ApiKeys, Hosts};
pub use log::Log;
use log::{Record, RequestId};
use metrics::Metrics;
use request::{Answers, Prepared, Shown};
use worker::{Keeping, Loading, OfChoice, Started, Worker};

/// Limits of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that may wait while others run; more are refused with status 429.
    pub queue: usize,
    /// Connections at a time. For one more, the one that has been idle longest is closed; where none is, it is answered with
    /// status 503.
    pub connections: usize,
    /// Bytes of the longest request body; longer ones are refused with status 413.
    pub body_bytes: usize,
    /// Time for the header of a request, and for an idle connection; then the connection is closed.
    pub header_time: Duration,
    /// Time for the body of a request, and as much for each MiB of it that has come; then it is refused with status 408.
    pub body_time: Duration,
    /// Time for answers under way once the server is told to stop; then they are cancelled.
    pub grace: Duration,
    /// Longest time without a sign of life in a stream.
    pub silence: Duration,
    /// Bytes of what slots held that are kept beside them; as many as the device has room for unless given.
    pub kept_bytes: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 64,
            connections: 512,
            body_bytes: 16 << 20,
            header_time: Duration::from_secs(30),
            body_time: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            silence: Duration::from_secs(5),
            kept_bytes: None,
        }
    }
}

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Limits of the server.
    pub limits: Limits,
    /// Pages of browsers that may use it.
    pub origins: Origins,
    /// Names that it may be called by.
    pub hosts: Hosts,
    /// Keys, one of which every request must bring.
    pub keys: ApiKeys,
    /// Where a line for each request goes.
    pub log: Log,
    /// Whether special tokens that are written out in messages are special.
    pub trust_special: bool,
    /// Where what slots held is kept beyond memory, and found again by the next server.
    pub folder: Option<Folder>,
    /// How many tokens are guessed.
    pub speculation: Speculation,
}

impl From<Limits> for Options {
    fn from(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
}

struct Shared {
    info: &'static ModelInfo,
    text: Arc<Text>,
    context: usize,
    worker: Worker,
    loading: watch::Receiver<Loading>,
    answers: Answers,
    /// Special tokens among the marks of reasoning, and with those of calls.
    thinking_tags: Arc<[(u32, String)]>,
    all_tags: Arc<[(u32, String)]>,
    admission: Admission,
    metrics: Arc<Metrics>,
    limits: Limits,
    started: u64,
}

/// Takes the address.
///
/// # Errors
/// [`Error::Io`] naming it.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|source| Error::Io { path: address.to_string().into(), source })
}

/// What a server is made of beside its options.
pub struct Parts<L> {
    /// Where it listens.
    pub listener: TcpListener,
    /// The model that it will have.
    pub info: &'static ModelInfo,
    /// Positions of each of that model's slots.
    pub context: usize,
    /// Loads it, on the thread that it stays on.
    pub load: L,
    /// Its text side.
    pub text: Arc<Text>,
}

/// Serves until interrupted (Ctrl-C, or the signal to terminate). Requests are taken at once, and wait while the model is
/// being loaded; `ready` is told the address once it is.
///
/// # Errors
/// [`Error::Io`] if the system refuses threads or sockets, and those of loading.
pub fn run<M: LanguageModel + 'static>(
    parts: Parts<impl FnOnce() -> Result<M> + Send + 'static>,
    options: Options,
    ready: impl FnOnce(SocketAddr) + Send + 'static,
) -> Result<()> {
    run_until(parts, options, ready, interrupted)
}

/// As [`run`], but until the future that `stop` makes is done; it is called twice, once for each step of stopping.
///
/// # Errors
/// As [`run`].
pub fn run_until<M: LanguageModel + 'static, F: Future<Output = ()> + Send + 'static>(
    parts: Parts<impl FnOnce() -> Result<M> + Send + 'static>,
    options: impl Into<Options>,
    ready: impl FnOnce(SocketAddr) + Send + 'static,
    stop: impl Fn() -> F + Send + Sync + 'static,
) -> Result<()> {
    let io = |source| Error::Io { path: "HTTP server".into(), source };
    let Parts { listener, info, context, load, text } = parts;
    let options = options.into();
    let limits = options.limits;
    let address = listener.local_addr().map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    let places = admission::places(limits, info.slots);
    let metrics = Arc::new(Metrics::new());
    let keeping = Keeping {
        bytes: limits.kept_bytes,
        folder: options.folder.clone(),
        speculation: options.speculation,
        log: options.log.clone(),
    };
    let Started { worker, loading, thread } =
        Worker::start(load, text.clone(), metrics.clone(), places, keeping).map_err(io)?;
    let stopper = worker.stopper();
    let marked = info.rewind.is_some();
    let answers = Answers { trust_special: options.trust_special, marked, ..Answers::of(&text) };
    let thinking_tags: Arc<[_]> = answers.thinking.special_tags(&text).into();
    let call_tags = answers.calls.iter().flat_map(|form| form.special_tags(&text));
    let all_tags = thinking_tags.iter().cloned().chain(call_tags).collect();
    let (stage, stages) = watch::channel(Stage::Serving);
    let started = answer::unix_time();
    let admission = Admission::new(limits, info.slots, stages.clone());
    let mut loaded = loading.clone();
    let shared = Arc::new(Shared {
        info,
        text,
        context,
        worker,
        loading,
        answers,
        thinking_tags,
        all_tags,
        admission,
        metrics,
        limits,
        started,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(io)?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(io)?;
        let stopping = async {
            stop().await;
            let second = stop();
            stage.send_replace(Stage::Stopping);
            let _ = tokio::time::timeout(limits.grace, second).await;
            stopper.stop();
            stage.send_replace(Stage::Leaving);
            std::future::pending().await
        };
        let loading = async {
            if let Ok(Loading::Done) = loaded.wait_for(|loading| *loading != Loading::Underway).await.map(|now| *now) {
                ready(address);
                std::future::pending().await
            }
        };
        tokio::select! {
            () = connections::serve(listener, router(shared, options), limits, stages) => {}
            () = stopping => {}
            // Without a model there is nothing to serve.
            () = loading => {}
        }
        Ok::<_, Error>(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    // The queue is closed by now, so that the model thread comes to its end.
    thread.join().unwrap_or(Ok(()))
}

fn router(shared: Arc<Shared>, options: Options) -> Router {
    let Options { origins, hosts, keys, log, .. } = options;
    let mut router = Router::new();
    // Some clients leave out the version, or are given an address that ends in a slash.
    for version in ["", "/v1"] {
        for end in ["", "/"] {
            let routes = [
                ("/chat/completions", generating(Dialect::Chat)),
                ("/completions", generating(Dialect::Completions)),
                ("/messages", generating(Dialect::Messages)),
                ("/messages/count_tokens", counting(Dialect::Messages)),
                ("/responses", generating(Dialect::Responses)),
                ("/responses/input_tokens", counting(Dialect::Responses)),
                ("/models", get(about::models)),
                ("/health", get(about::health)),
                ("/slots", get(about::slots)),
                ("/props", get(about::props)),
                ("/metrics", get(about::metrics)),
                ("/tokenize", working(about::tokenize)),
                ("/detokenize", working(about::detokenize)),
                ("/apply-template", working(about::apply_template)),
            ];
            for (path, handler) in routes {
                router = router.route(&format!("{version}{path}{end}"), handler);
            }
        }
        router = router.route(&format!("{version}/models/{{*id}}"), get(about::model));
    }
    // The innermost comes first.
    router
        .route("/", get(page::page))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared.clone())
        .layer(from_fn(gate::check_type))
        .layer(from_fn_with_state(Arc::new(keys), gate::check_key))
        .layer(from_fn_with_state(Arc::new(origins), cors::check))
        .layer(from_fn_with_state(Arc::new(hosts), gate::check_host))
        .layer(from_fn(word_errors))
        .layer(from_fn_with_state((log, shared.metrics.clone()), log::track))
}

async fn unknown_route(uri: Uri) -> ApiError {
    ApiError::not_found(format!("no such route: {}", uri.path()), None)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(format!("{method} is not allowed on {}", uri.path()))
}

/// The route by which a dialect asks for a generation.
fn generating(dialect: Dialect) -> MethodRouter<Arc<Shared>> {
    post(move |State(shared): State<_>, Extension(record): Extension<_>, headers: HeaderMap, body: Body| {
        respond(shared, dialect, record, headers, body)
    })
}

/// The route by which a dialect asks how long a prompt is.
fn counting(dialect: Dialect) -> MethodRouter<Arc<Shared>> {
    working(move |Shared { text, answers, context, .. }, body| {
        Ok(dialect.count(request::count(body, dialect, text, answers, *context)?))
    })
}

/// A route that makes one JSON value of another.
fn working(
    work: impl Fn(&Shared, &[u8]) -> Result<Value, ApiError> + Copy + Send + Sync + 'static,
) -> MethodRouter<Arc<Shared>> {
    post(
        move |State(shared): State<Arc<Shared>>,
              Extension(record): Extension<Record>,
              headers: HeaderMap,
              body: Body| async move {
            let answer = async {
                let body = shared.admission.read(&headers, body).await?;
                apart(shared, body, work).await
            };
            match answer.await {
                Ok(value) => Ok(answer::json_response(&value)),
                Err(error) => Err(record.error(error)),
            }
        },
    )
}

/// Does what may take its time on a body, templates and tokenizers, where other connections go on meanwhile.
async fn apart<T: Send + 'static>(
    shared: Arc<Shared>,
    body: Taken,
    work: impl FnOnce(&Shared, &[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let turn = shared.admission.turn().await?;
    let done = tokio::task::spawn_blocking(move || {
        // The turn and the body's room are given up where the work ends, whether or not anybody waits for it still.
        let (_turn, body) = (turn, body);
        work(&shared, &body.bytes)
    });
    done.await.unwrap_or_else(|_| Err(ApiError::internal("the request could not be processed".into())))
}

async fn respond(
    shared: Arc<Shared>,
    dialect: Dialect,
    record: Record,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let submitted = submit(&shared, dialect, &record, &headers, body).await;
    let (answer, stream, events) = submitted.map_err(|error| record.error(error))?;
    let answer = Answer::new(answer, shared.info.name, record);
    if stream { Ok(answer.stream(events, shared.limits.silence)) } else { answer.whole(events).await }
}

/// Makes a request of a body and queues it.
async fn submit(
    shared: &Arc<Shared>,
    dialect: Dialect,
    record: &Record,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Unsent, bool, UnboundedReceiver<OfChoice>), ApiError> {
    let body = shared.admission.read(headers, body).await?;
    let place = shared.admission.place()?;
    let Prepared { requests, shown, skipped, stream, answer } =
        apart(shared.clone(), body, move |Shared { text, answers, info, context, .. }, body| {
            request::prepare(body, dialect, text, answers, info, *context)
        })
        .await?;
    record.skipped(&skipped);
    let place = shared.admission.places(place, requests.len())?;
    let shown = match shown {
        Shown::ReasoningAndCalls => shared.all_tags.clone(),
        Shown::Reasoning => shared.thinking_tags.clone(),
        Shown::None => Arc::default(),
    };
    Ok((answer, stream, shared.worker.submit(requests, &shown, place)?))
}

/// Errors in the words of the dialect that a path belongs to.
async fn word_errors(request: Request, next: Next) -> Response {
    let dialect = Dialect::of_errors(request.uri().path());
    let id = request.extensions().get::<RequestId>().map(|RequestId(id)| id.clone());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let id = id.as_ref().and_then(|id| id.to_str().ok());
        *response.body_mut() = Body::from(dialect.error(&error, id).to_string());
    }
    if let (Dialect::Messages, Some(id)) = (dialect, id) {
        // By this name Anthropic's clients know it.
        response.headers_mut().insert("request-id", id);
    }
    response
}

/// Ctrl-C, or the signal to terminate.
async fn interrupted() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = interrupt => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => drop(interrupt.await),
        }
    }
    #[cfg(not(unix))]
    drop(interrupt.await);
}
