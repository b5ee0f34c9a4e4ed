//! From the model thread's events to HTTP: one JSON object, or server-sent events, in the words of a dialect.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::StreamExt;

use super::api_error::ApiError;
use super::dialect::{Head, Item, Output, Outputs, Writer};
use super::heartbeat::Heartbeat;
use super::log::Record;
use super::worker::Event;

/// Header that says what a client asked for and does not get.
const WARNING: HeaderName = HeaderName::from_static("x-forge-warning");

/// What is known of an answer before it begins.
pub(super) struct Unsent {
    /// Puts it into words.
    pub(super) writer: Box<dyn Writer>,
    /// Takes the text apart.
    pub(super) outputs: Outputs,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// The field that it came from.
    pub(super) prompt_field: &'static str,
    /// What the client should know, in a header.
    pub(super) warning: Option<String>,
}

/// An answer under way.
pub(super) struct Answer {
    head: Head,
    writer: Box<dyn Writer>,
    outputs: Outputs,
    /// The field that the prompt came from.
    prompt_field: &'static str,
    /// What the client should know, in a header.
    warning: Option<HeaderValue>,
    /// What the log should.
    record: Record,
}

impl Answer {
    pub(super) fn new(prepared: Unsent, model: &'static str, record: Record) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Unsent { writer, outputs, prompt_tokens, prompt_field, warning } = prepared;
        let created = unix_time();
        let id = format!("{}{created:x}-{:x}", writer.prefix(), COUNT.fetch_add(1, Ordering::Relaxed));
        let warning = warning.and_then(|words| HeaderValue::from_str(&words).ok());
        let head = Head { id, created, model, prompt_tokens };
        Self { head, writer, outputs, prompt_field, warning, record }
    }

    /// Waits for the end and answers with all of it.
    pub(super) async fn whole(mut self, mut events: UnboundedReceiver<Event>) -> Result<Response, ApiError> {
        let mut items = Vec::new();
        while let Some(event) = events.recv().await {
            for output in self.outputs(event) {
                Item::add(&mut items, &output);
                match output {
                    Output::End(end) => {
                        let mut response = json_response(&self.writer.whole(&self.head, items, &end));
                        self.warn(&mut response);
                        return Ok(response);
                    }
                    Output::Failed(error) => return Err(error),
                    _ => {}
                }
            }
        }
        Err(ApiError::stopping())
    }

    /// Answers with an event for each piece of text as it comes.
    /// Whenever nothing came for a time of `silence`, a sign of life does, so that nobody takes the server for dead.
    pub(super) fn stream(mut self, events: UnboundedReceiver<Event>, silence: Duration) -> Response {
        let mut response = Response::new(Body::empty());
        self.warn(&mut response);
        let opening = self.writer.open(&self.head);
        let rest = Heartbeat::new(events, silence).map(move |event| match event {
            Some(event) => {
                let outputs = self.outputs(event).into_iter();
                outputs.map(|output| self.writer.output(&self.head, output)).collect()
            }
            None => self.writer.alive(&self.head),
        });
        let parts = tokio_stream::once(opening).chain(rest).map(Ok::<_, Infallible>);
        *response.body_mut() = Body::from_stream(parts);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, const { HeaderValue::from_static("text/event-stream") });
        headers.insert(CACHE_CONTROL, const { HeaderValue::from_static("no-cache") });
        response
    }

    fn warn(&mut self, response: &mut Response) {
        if let Some(warning) = self.warning.take() {
            response.headers_mut().insert(WARNING, warning);
        }
    }

    /// What an event adds to the answer.
    fn outputs(&mut self, event: Event) -> Vec<Output> {
        match event {
            Event::Text(piece) => self.outputs.text(piece),
            Event::Done(Ok(summary)) => {
                self.record.generated(&summary);
                self.outputs.end(summary)
            }
            Event::Done(Err(error)) => {
                self.record.failed(&error.to_string());
                vec![Output::Failed(ApiError::from_runtime(&error, self.prompt_field))]
            }
        }
    }
}

/// A JSON answer with status 200.
pub(super) fn json_response(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
    response
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
