//! From the model thread's events to HTTP: one JSON object, or server-sent events.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::super::generation::{Finish, Summary};
use super::api_error::ApiError;
use super::worker::Event;

/// Which of the two ways to generate was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v1/completions`
    Completion,
    /// `/v1/chat/completions`
    Chat,
}

impl Endpoint {
    /// The request field that the prompt comes from.
    pub(super) fn prompt_field(self) -> &'static str {
        match self {
            Self::Completion => "prompt",
            Self::Chat => "messages",
        }
    }
}

/// What all parts of one answer have in common.
pub(super) struct Answer {
    endpoint: Endpoint,
    id: String,
    created: u64,
    model: &'static str,
}

impl Answer {
    pub(super) fn new(endpoint: Endpoint, model: &'static str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let created = unix_time();
        let prefix = match endpoint {
            Endpoint::Completion => "cmpl",
            Endpoint::Chat => "chatcmpl",
        };
        let id = format!("{prefix}-{created:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self { endpoint, id, created, model }
    }

    /// Waits for the end and answers with all of it.
    pub(super) async fn whole(self, mut events: UnboundedReceiver<Event>) -> Result<Response, ApiError> {
        let mut text = String::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Text(piece) => text.push_str(&piece),
                Event::Done(Ok(summary)) => {
                    let finish = Some(finish_reason(summary.finish));
                    let (object, choice) = match self.endpoint {
                        Endpoint::Completion => ("text_completion", self.completion_choice(&text, finish)),
                        Endpoint::Chat => {
                            let message = json!({ "role": "assistant", "content": text, "refusal": null });
                            let choice =
                                json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": finish });
                            ("chat.completion", choice)
                        }
                    };
                    let mut body = self.object(object, json!([choice]));
                    body["usage"] = usage(&summary);
                    return Ok(json_response(&body));
                }
                Event::Done(Err(error)) => return Err(ApiError::from_runtime(&error, self.endpoint.prompt_field())),
            }
        }
        Err(ApiError::stopping())
    }

    /// Answers with an event for each piece of text as it comes.
    pub(super) fn stream(self, events: UnboundedReceiver<Event>, include_usage: bool) -> Response {
        let opening = match self.endpoint {
            Endpoint::Completion => String::new(),
            Endpoint::Chat => {
                let delta = json!({ "role": "assistant", "content": "" });
                sse(&self.chunk(self.chat_choice(&delta, None), include_usage))
            }
        };
        let rest = UnboundedReceiverStream::new(events).map(move |event| self.events(event, include_usage));
        let parts = tokio_stream::once(opening).chain(rest).map(Ok::<_, Infallible>);
        let mut response = Response::new(Body::from_stream(parts));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, const { axum::http::HeaderValue::from_static("text/event-stream") });
        headers.insert(CACHE_CONTROL, const { axum::http::HeaderValue::from_static("no-cache") });
        response
    }

    /// The server-sent events for one event of the model thread.
    fn events(&self, event: Event, include_usage: bool) -> String {
        match event {
            Event::Text(text) => {
                let choice = match self.endpoint {
                    Endpoint::Completion => self.completion_choice(&text, None),
                    Endpoint::Chat => self.chat_choice(&json!({ "content": text }), None),
                };
                sse(&self.chunk(choice, include_usage))
            }
            Event::Done(Ok(summary)) => {
                let finish = Some(finish_reason(summary.finish));
                let choice = match self.endpoint {
                    Endpoint::Completion => self.completion_choice("", finish),
                    Endpoint::Chat => self.chat_choice(&json!({}), finish),
                };
                let mut text = sse(&self.chunk(choice, include_usage));
                if include_usage {
                    let mut body = self.object(self.chunk_object(), json!([]));
                    body["usage"] = usage(&summary);
                    text += &sse(&body);
                }
                text + "data: [DONE]\n\n"
            }
            Event::Done(Err(error)) => {
                let error = ApiError::from_runtime(&error, self.endpoint.prompt_field());
                sse(&error.body()) + "data: [DONE]\n\n"
            }
        }
    }

    fn chunk(&self, choice: Value, include_usage: bool) -> Value {
        let mut body = self.object(self.chunk_object(), json!([choice]));
        if include_usage {
            // As OpenAI has it: null in every chunk but the last.
            body["usage"] = Value::Null;
        }
        body
    }

    fn chunk_object(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Completion => "text_completion",
            Endpoint::Chat => "chat.completion.chunk",
        }
    }

    fn object(&self, object: &str, choices: Value) -> Value {
        json!({ "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices })
    }

    fn completion_choice(&self, text: &str, finish: Option<&str>) -> Value {
        json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": finish })
    }

    fn chat_choice(&self, delta: &Value, finish: Option<&str>) -> Value {
        json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish })
    }
}

/// A JSON answer with status 200.
pub(super) fn json_response(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, const { axum::http::HeaderValue::from_static("application/json") });
    response
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn sse(body: &Value) -> String {
    format!("data: {body}\n\n")
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        // Only a server that stops cancels a generation that somebody still listens to.
        Finish::Length | Finish::Cancelled => "length",
    }
}

fn usage(summary: &Summary) -> Value {
    json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.prompt_tokens + summary.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": summary.reused_tokens },
    })
}
