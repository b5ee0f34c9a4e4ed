//! The HTTP server: the part of the OpenAI API that one text model can answer.
//!
//! `/health`, `/v1/models`, `/v1/completions` and `/v1/chat/completions`, the last two also as server-sent events. One model
//! thread works through a bounded queue of requests. A client may name any model; answers carry this one's name. Whatever a client
//! sends, the answer is JSON: a result, or `{"error": {"message", "type", "param", "code"}}`.
//!
//! A connection that closes cancels its generation, during the prompt too. The first interrupt stops taking connections, closes
//! those that no answer is under way on, and lets generations end; the second cancels them, and what they came to is sent.

mod answer;
mod api_error;
mod connections;
mod cors;
mod fields;
mod request;
pub mod tools;
mod worker;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::StreamExt;

use super::assets::Text;
use super::{Error, LanguageModel, ModelInfo, Result};
use answer::{Answer, Endpoint};
use api_error::ApiError;
use connections::Stage;
pub use cors::{Origin, Origins};
use tools::CallForm;
use worker::Worker;

/// Limits of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that may wait while one runs; more are refused with status 503.
    pub queue: usize,
    /// Bytes of the longest request body; longer ones are refused with status 413.
    pub body_bytes: usize,
    /// Time for the header of a request, and for an idle connection; then the connection is closed.
    pub header_time: Duration,
    /// Time for the body of a request, and as much for each MiB of it that has come; then it is refused with status 408.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 64,
            body_bytes: 16 << 20,
            header_time: Duration::from_secs(30),
            body_time: Duration::from_secs(30),
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
    /// How the model writes tool calls, if that is known, and the special tokens among their tags.
    calls: Option<CallForm>,
    call_tags: Arc<[(u32, String)]>,
    limits: Limits,
    stages: watch::Receiver<Stage>,
    started: u64,
}

/// Takes the address.
///
/// # Errors
/// [`Error::Io`] naming it.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|source| Error::Io { path: address.to_string().into(), source })
}

/// Serves until interrupted (Ctrl-C, or the signal to terminate). `ready` is told the address once requests are taken.
///
/// # Errors
/// [`Error::Io`] if the system refuses threads or sockets.
pub fn run<M: LanguageModel + 'static>(
    listener: TcpListener,
    model: M,
    text: Arc<Text>,
    options: Options,
    ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    run_until(listener, model, text, options, ready, interrupted)
}

/// As [`run`], but until the future that `stop` makes is done; it is called twice, once for each step of stopping.
///
/// # Errors
/// As [`run`].
pub fn run_until<M: LanguageModel + 'static, F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    model: M,
    text: Arc<Text>,
    options: impl Into<Options>,
    ready: impl FnOnce(SocketAddr),
    stop: impl Fn() -> F + Send + Sync + 'static,
) -> Result<()> {
    let io = |source| Error::Io { path: "HTTP server".into(), source };
    let Options { limits, origins } = options.into();
    let address = listener.local_addr().map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    let info = model.info();
    let context = model.context();
    let (worker, model_thread) = Worker::start(model, text.clone(), limits.queue).map_err(io)?;
    let canceller = worker.canceller();
    let calls = CallForm::of(&text);
    let call_tags = calls.iter().flat_map(|form| form.special_tags(&text)).collect();
    let (stage, stages) = watch::channel(Stage::Serving);
    let started = answer::unix_time();
    let shared =
        Arc::new(Shared { info, text, context, worker, calls, call_tags, limits, stages: stages.clone(), started });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(io)?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(io)?;
        ready(address);
        let stopping = async {
            stop().await;
            let second = stop();
            stage.send_replace(Stage::Stopping);
            second.await;
            canceller.cancel_all();
            stage.send_replace(Stage::Leaving);
            std::future::pending().await
        };
        tokio::select! {
            () = connections::serve(listener, router(shared, origins), limits.header_time, stages) => {}
            () = stopping => {}
        }
        Ok::<_, Error>(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    // The queue is closed by now, so that the model thread comes to its end.
    drop(model_thread.join());
    Ok(())
}

fn router(shared: Arc<Shared>, origins: Origins) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat_completions))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
        .layer(from_fn_with_state(Arc::new(origins), cors::check))
}

async fn health() -> Response {
    answer::json_response(&json!({ "status": "ok" }))
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    answer::json_response(&json!({ "object": "list", "data": [model_object(&shared)] }))
}

async fn model(State(shared): State<Arc<Shared>>, id: Result<Path<String>, PathRejection>) -> Response {
    // What is no UTF-8 is no model's name either.
    let id = id.map(|Path(id)| id).unwrap_or_default();
    if id == shared.info.name {
        answer::json_response(&model_object(&shared))
    } else {
        ApiError::not_found(format!("no model {id:?}; this server has {:?}", shared.info.name), Some("model_not_found"))
            .into_response()
    }
}

fn model_object(shared: &Shared) -> Value {
    json!({
        "id": shared.info.name,
        "object": "model",
        "created": shared.started,
        "owned_by": "forge",
        "context_length": shared.context,
    })
}

async fn unknown_route(uri: Uri) -> ApiError {
    ApiError::not_found(format!("no such route: {}", uri.path()), None)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(format!("{method} is not allowed on {}", uri.path()))
}

async fn completions(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, ApiError> {
    respond(shared, Endpoint::Completion, body).await
}

async fn chat_completions(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, ApiError> {
    respond(shared, Endpoint::Chat, body).await
}

async fn respond(shared: Arc<Shared>, endpoint: Endpoint, body: Body) -> Result<Response, ApiError> {
    let body = read_body(body, &shared).await?;
    // Templates and tokenizers take their time on long prompts; other connections go on meanwhile.
    let preparing = shared.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let Shared { text, calls, info, context, .. } = &*preparing;
        request::prepare(&body, endpoint, text, calls.as_ref(), info, *context)
    })
    .await
    .map_err(|_| ApiError::internal("the request could not be processed".into()))??;
    let reads_calls = prepared.reading.as_ref().is_some_and(|reading| reading.form.is_some());
    let shown = if reads_calls { shared.call_tags.clone() } else { Arc::default() };
    let events = shared.worker.submit(prepared.request, shown)?;
    let answer = Answer::new(endpoint, shared.info.name, prepared.reading);
    match prepared.stream {
        Some(options) => Ok(answer.stream(events, options.include_usage)),
        None => answer.whole(events).await,
    }
}

/// The whole body. A client that stops sending it keeps nothing waiting, least of all a server that stops.
async fn read_body(body: Body, shared: &Shared) -> Result<Vec<u8>, ApiError> {
    let Limits { body_bytes, body_time, .. } = shared.limits;
    let start = tokio::time::Instant::now();
    let mut stages = shared.stages.clone();
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    loop {
        let mebibytes = u32::try_from(bytes.len() >> 20).unwrap_or(u32::MAX);
        let deadline = start + body_time.saturating_mul(1 + mebibytes);
        let part = tokio::select! {
            // What is here already is taken, also by a server that stops.
            biased;
            part = parts.next() => part,
            () = connections::reached(&mut stages, Stage::Stopping) => return Err(ApiError::stopping()),
            () = tokio::time::sleep_until(deadline) => return Err(ApiError::too_slow()),
        };
        match part {
            None => return Ok(bytes),
            Some(Ok(part)) if part.len() <= body_bytes - bytes.len() => bytes.extend(part),
            Some(Ok(_)) => {
                return Err(ApiError::too_large(format!("the request body is longer than {body_bytes} bytes")));
            }
            // Nobody is left to answer to, unless its encoding is broken.
            Some(Err(error)) => {
                return Err(ApiError::invalid(None, format!("the request body could not be read: {error}")));
            }
        }
    }
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
