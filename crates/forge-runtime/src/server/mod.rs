//! The HTTP server: the part of the OpenAI API that one text model can answer.
//!
//! `/health`, `/v1/models`, `/v1/completions` and `/v1/chat/completions`, the last two also as server-sent events. One model
//! thread works through a bounded queue of requests. A client may name any model; answers carry this one's name. Whatever a client
//! sends, the answer is JSON: a result, or `{"error": {"message", "type", "param", "code"}}`.
//!
//! A connection that closes cancels its generation, during the prompt too. The first interrupt stops taking connections and
//! lets running generations end; the second cancels them.

mod answer;
mod api_error;
mod fields;
mod request;
mod worker;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::assets::Text;
use super::{Error, LanguageModel, ModelInfo, Result};
use answer::{Answer, Endpoint};
use api_error::ApiError;
use worker::Worker;

/// Limits of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that may wait while one runs; more are refused with status 503.
    pub queue: usize,
    /// Bytes of the longest request body; longer ones are refused with status 413.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue: 64, body_bytes: 16 << 20 }
    }
}

struct Shared {
    info: &'static ModelInfo,
    text: Arc<Text>,
    context: usize,
    worker: Worker,
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

/// Serves until interrupted (Ctrl-C, or the signal to terminate). `ready` is told the address once requests are taken.
///
/// # Errors
/// [`Error::Io`] if the system refuses threads or sockets.
pub fn run<M: LanguageModel + 'static>(
    listener: TcpListener,
    model: M,
    text: Arc<Text>,
    ready: impl FnOnce(SocketAddr),
) -> Result<()> {
    let limits = Limits::default();
    run_until(listener, model, text, limits, ready, interrupted)
}

/// As [`run`], but until the future that `stop` makes is done; it is called twice, once for each step of stopping.
///
/// # Errors
/// As [`run`].
pub fn run_until<M: LanguageModel + 'static, F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    model: M,
    text: Arc<Text>,
    limits: Limits,
    ready: impl FnOnce(SocketAddr),
    stop: impl Fn() -> F + Send + Sync + 'static,
) -> Result<()> {
    let io = |source| Error::Io { path: "HTTP server".into(), source };
    let address = listener.local_addr().map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    let info = model.info();
    let context = model.context();
    let (worker, model_thread) = Worker::start(model, text.clone(), limits.queue).map_err(io)?;
    let canceller = worker.canceller();
    let shared = Arc::new(Shared { info, text, context, worker, limits, started: answer::unix_time() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(io)?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(io)?;
        ready(address);
        let (first, stopping) = tokio::sync::oneshot::channel();
        let graceful = async move {
            stop().await;
            // The receiver waits for this as long as the server runs.
            let _ = first.send(stop());
        };
        let serving = axum::serve(listener, router(shared)).with_graceful_shutdown(graceful).into_future();
        tokio::select! {
            done = serving => done.map_err(io),
            () = async {
                match stopping.await {
                    Ok(second) => second.await,
                    Err(_) => std::future::pending().await,
                }
            } => {
                canceller.cancel_all();
                Ok(())
            }
        }
    })?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    // The queue is closed by now, so that the model thread comes to its end.
    drop(model_thread.join());
    Ok(())
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat_completions))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
}

async fn health() -> Response {
    answer::json_response(&json!({ "status": "ok" }))
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    answer::json_response(&json!({ "object": "list", "data": [model_object(&shared)] }))
}

async fn model(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
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
    let body = read_body(body, shared.limits.body_bytes).await?;
    // Templates and tokenizers take their time on long prompts; other connections go on meanwhile.
    let preparing = shared.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        request::prepare(&body, endpoint, &preparing.text, preparing.info, preparing.context)
    })
    .await
    .map_err(|_| ApiError::internal("the request could not be processed".into()))??;
    let events = shared.worker.submit(prepared.request)?;
    let answer = Answer::new(endpoint, shared.info.name);
    match prepared.stream {
        Some(options) => Ok(answer.stream(events, options.include_usage)),
        None => answer.whole(events).await,
    }
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, limit).await.map_err(|error| {
        // The length limit is the one failure that leaves a client to answer to.
        ApiError::too_large(format!("the request body could not be read, or is longer than {limit} bytes: {error}"))
    })
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
