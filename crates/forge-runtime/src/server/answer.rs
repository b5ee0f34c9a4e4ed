//! From the model thread's events to HTTP: one JSON object, or server-sent events.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::StreamExt;

use super::super::generation::{Finish, Summary};
use super::api_error::ApiError;
use super::heartbeat::Heartbeat;
use super::log::Record;
use super::request::Reading;
use super::tools::{Part, Reader};
use super::worker::Event;

/// Header that says what a client asked for and does not get.
const WARNING: HeaderName = HeaderName::from_static("x-forge-warning");

/// An event that clients pass over (Server-sent events, HTML standard).
const COMMENT: &str = ": still at work\n\n";

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

/// What all parts of one answer have in common, and what of it has come.
pub(super) struct Answer {
    endpoint: Endpoint,
    id: String,
    created: u64,
    model: &'static str,
    /// Takes a chat's answer apart.
    reader: Option<Reader>,
    /// Most tool calls.
    most_calls: usize,
    /// What ids of calls look like.
    ids: Ids,
    /// Calls of earlier answers.
    calls_before: usize,
    /// Tool calls so far.
    calls: usize,
    /// What the client should know, in a header.
    warning: Option<HeaderValue>,
    /// What the log should.
    record: Record,
}

/// What ids of calls look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// `call_` and what follows.
    Usual,
    /// Nine letters and digits, as Mistral's templates demand.
    Short,
    /// `functions.name:0`, counted through the whole chat, which Kimi's template writes in place of the name.
    Named,
}

impl Answer {
    pub(super) fn new(endpoint: Endpoint, model: &'static str, reading: Option<Reading>, record: Record) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let created = unix_time();
        let prefix = match endpoint {
            Endpoint::Completion => "cmpl",
            Endpoint::Chat => "chatcmpl",
        };
        let id = format!("{prefix}-{created:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut answer = Self {
            endpoint,
            id,
            created,
            model,
            reader: None,
            most_calls: usize::MAX,
            ids: Ids::Usual,
            calls_before: 0,
            calls: 0,
            warning: None,
            record,
        };
        if let Some(reading) = reading {
            answer.most_calls = if reading.parallel { usize::MAX } else { 1 };
            answer.ids = match &reading.form {
                Some(form) if form.named_ids => Ids::Named,
                Some(form) if form.open.iter().any(|tag| tag.starts_with('[')) => Ids::Short,
                _ => Ids::Usual,
            };
            answer.calls_before = reading.calls_before;
            answer.warning = reading.warning.map(HeaderValue::from_static);
            let mut reader = Reader::new(reading.form, reading.tools, &reading.thinking, reading.inside);
            // Nothing comes of the beginning of a call.
            reader.push(&reading.begun);
            answer.reader = Some(reader);
        }
        answer
    }

    /// Waits for the end and answers with all of it.
    pub(super) async fn whole(mut self, mut events: UnboundedReceiver<Event>) -> Result<Response, ApiError> {
        let (mut text, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
        while let Some(event) = events.recv().await {
            for part in self.parts(&event) {
                match part {
                    Part::Content(piece) => text.push_str(&piece),
                    Part::Reasoning(piece) => reasoning.push_str(&piece),
                    Part::Call { name, arguments } => calls.push(self.call(&name, &arguments, calls.len())),
                }
            }
            match event {
                Event::Text(_) => {}
                Event::Done(Ok(summary)) => {
                    let finish = Some(self.finish_reason(summary.finish));
                    let (object, choice) = match self.endpoint {
                        Endpoint::Completion => ("text_completion", self.completion_choice(&text, finish)),
                        Endpoint::Chat => {
                            let message = message(text, reasoning, calls);
                            let choice =
                                json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": finish });
                            ("chat.completion", choice)
                        }
                    };
                    let mut body = self.object(object, json!([choice]));
                    body["usage"] = usage(&summary);
                    body["timings"] = timings(&summary);
                    let mut response = json_response(&body);
                    self.warn(&mut response);
                    return Ok(response);
                }
                Event::Done(Err(error)) => return Err(ApiError::from_runtime(&error, self.endpoint.prompt_field())),
            }
        }
        Err(ApiError::stopping())
    }

    /// Answers with an event for each piece of text as it comes.
    /// Whenever nothing came for a time of `silence`, a comment does, so that nobody takes the server for dead.
    pub(super) fn stream(
        mut self,
        events: UnboundedReceiver<Event>,
        include_usage: bool,
        silence: Duration,
    ) -> Response {
        let opening = match self.endpoint {
            Endpoint::Completion => String::new(),
            Endpoint::Chat => {
                let delta = json!({ "role": "assistant", "content": "" });
                sse(&self.chunk(self.chat_choice(&delta, None), include_usage))
            }
        };
        let mut response = Response::new(Body::empty());
        self.warn(&mut response);
        let rest = Heartbeat::new(events, silence).map(move |event| match event {
            Some(event) => self.events(event, include_usage),
            None => COMMENT.to_owned(),
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
    fn parts(&mut self, event: &Event) -> Vec<Part> {
        match event {
            Event::Text(_) => {}
            Event::Done(Ok(summary)) => self.record.generated(summary),
            Event::Done(Err(error)) => self.record.failed(&error.to_string()),
        }
        let mut parts = match (event, &mut self.reader) {
            (Event::Text(text), Some(reader)) => reader.push(text),
            (Event::Text(text), None) => vec![Part::Content(text.clone())],
            (Event::Done(Ok(_)), Some(reader)) => reader.finish(),
            (Event::Done(_), _) => Vec::new(),
        };
        parts.retain(|part| match part {
            Part::Call { .. } => {
                self.calls += 1;
                self.calls <= self.most_calls
            }
            _ => true,
        });
        parts
    }

    /// A tool call in the form of the API, the answer's `index`th.
    fn call(&self, name: &str, arguments: &str, index: usize) -> Value {
        let id = match self.ids {
            Ids::Usual => format!("call_{}", call_id()),
            Ids::Short => call_id(),
            Ids::Named => format!("functions.{name}:{}", self.calls_before + index),
        };
        json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
    }

    /// The server-sent events for one event of the model thread.
    fn events(&mut self, event: Event, include_usage: bool) -> String {
        let mut text = String::new();
        let mut index = self.calls;
        for part in self.parts(&event) {
            let deltas = match (self.endpoint, part) {
                (Endpoint::Completion, Part::Content(piece)) => {
                    text += &sse(&self.chunk(self.completion_choice(&piece, None), include_usage));
                    continue;
                }
                (_, Part::Content(piece)) => vec![json!({ "content": piece })],
                (_, Part::Reasoning(piece)) => vec![json!({ "reasoning_content": piece })],
                (_, Part::Call { name, arguments }) => {
                    // First who is called, then with what.
                    let mut call = self.call(&name, "", index);
                    call["index"] = index.into();
                    let rest = json!({ "index": index, "function": { "arguments": arguments } });
                    index += 1;
                    vec![json!({ "tool_calls": [call] }), json!({ "tool_calls": [rest] })]
                }
            };
            for delta in deltas {
                text += &sse(&self.chunk(self.chat_choice(&delta, None), include_usage));
            }
        }
        match event {
            Event::Text(_) => text,
            Event::Done(Ok(summary)) => {
                let finish = Some(self.finish_reason(summary.finish));
                let choice = match self.endpoint {
                    Endpoint::Completion => self.completion_choice("", finish),
                    Endpoint::Chat => self.chat_choice(&json!({}), finish),
                };
                let mut last = self.chunk(choice, include_usage);
                last["timings"] = timings(&summary);
                text += &sse(&last);
                if include_usage {
                    let mut body = self.object(self.chunk_object(), json!([]));
                    body["usage"] = usage(&summary);
                    text += &sse(&body);
                }
                text + "data: [DONE]\n\n"
            }
            Event::Done(Err(error)) => {
                let error = ApiError::from_runtime(&error, self.endpoint.prompt_field());
                text + &sse(&error.body()) + "data: [DONE]\n\n"
            }
        }
    }

    fn finish_reason(&self, finish: Finish) -> &'static str {
        match finish {
            Finish::Stop if self.calls > 0 => "tool_calls",
            Finish::Stop => "stop",
            // Only a server that stops cancels a generation that somebody still listens to.
            Finish::Length | Finish::Cancelled => "length",
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
    response.headers_mut().insert(CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
    response
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn sse(body: &Value) -> String {
    format!("data: {body}\n\n")
}

/// The message of an answer. As OpenAI has it: null where there is nothing but calls.
fn message(text: String, reasoning: String, calls: Vec<Value>) -> Value {
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
    if !reasoning.is_empty() {
        message["reasoning_content"] = reasoning.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

/// Nine letters and digits that no other call of this process has, and that do not begin alike in another.
fn call_id() -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const COUNT: u64 = 62_u64.pow(9);
    // Has no divisor in common with COUNT, so that its multiples come round to no earlier one.
    const STEP: u64 = 8_366_379_594_239_857;
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one("calls") % COUNT));
    let next = |id: u64| Some((id + STEP) % COUNT);
    let mut rest = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|id| id);
    let mut id = String::new();
    for _ in 0..9 {
        id.push(char::from(DIGITS[(rest % 62) as usize]));
        rest /= 62;
    }
    id
}

fn usage(summary: &Summary) -> Value {
    json!({
        "prompt_tokens": summary.prompt_tokens,
        "completion_tokens": summary.completion_tokens,
        "total_tokens": summary.prompt_tokens + summary.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": summary.reused_tokens },
    })
}

/// By the names that llama.cpp's server has for them, and three more.
fn timings(summary: &Summary) -> Value {
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
    let milliseconds = |time: &Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let rate = |tokens: usize, time: &Duration| {
        let seconds = time.as_secs_f64();
        if seconds > 0.0 { json!((tokens as f64 / seconds * 1e3).round() / 1e3) } else { Value::Null }
    };
    let fresh = prompt_tokens - reused_tokens;
    json!({
        "cache_n": reused_tokens,
        "cache_tier": tier.map(|tier| tier.name()),
        "cache_miss": miss.map(|miss| miss.to_string()),
        "queue_ms": milliseconds(queue_time),
        "prompt_n": fresh,
        "prompt_ms": milliseconds(prompt_time),
        "prompt_per_second": rate(fresh, prompt_time),
        "predicted_n": completion_tokens,
        "predicted_ms": milliseconds(decode_time),
        // The first token comes out of the prompt's own run.
        "predicted_per_second": rate(completion_tokens.saturating_sub(1), decode_time),
    })
}
