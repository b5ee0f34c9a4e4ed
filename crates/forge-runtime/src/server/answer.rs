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
use super::dialect::{Chosen, End, Head, Item, Mark, Output, Outputs, Piece, Writer};
use super::heartbeat::Heartbeat;
use super::log::Record;
use super::worker::{Event, OfChoice};

/// Header that says what a client asked for and does not get.
const WARNING: HeaderName = HeaderName::from_static("x-forge-warning");

/// What is known of an answer before it begins.
pub(super) struct Unsent {
    /// Puts it into words.
    pub(super) writer: Box<dyn Writer>,
    /// Take the texts of its choices apart.
    pub(super) outputs: Vec<Outputs>,
    /// What each of them begins with.
    pub(super) echo: Option<Echo>,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// The field that it came from.
    pub(super) prompt_field: &'static str,
    /// What the client should know, in a header.
    pub(super) warning: Option<String>,
}

/// A prompt that an answer begins with.
#[derive(Debug, Clone)]
pub(super) struct Echo {
    /// Its text, and the tokens whose log-probabilities are known by now, where that is wanted.
    pub(super) piece: Piece,
    /// Where in it the text of each token begins, in bytes.
    pub(super) starts: Vec<usize>,
}

/// A choice of an answer under way.
struct OneChoice {
    outputs: Outputs,
    /// What it begins with, until that was said.
    echo: Option<Echo>,
}

/// An answer under way.
pub(super) struct Answer {
    head: Head,
    writer: Box<dyn Writer>,
    choices: Vec<OneChoice>,
    /// Of those that have ended.
    ends: Vec<End>,
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
        let Unsent { writer, outputs, echo, prompt_tokens, prompt_field, warning } = prepared;
        let created = unix_time();
        let id = format!("{}{created:x}-{:x}", writer.prefix(), COUNT.fetch_add(1, Ordering::Relaxed));
        let warning = warning.and_then(|words| HeaderValue::from_str(&words).ok());
        let head = Head { id, created, model, prompt_tokens, choices: outputs.len() };
        let choices = outputs.into_iter().map(|outputs| OneChoice { outputs, echo: echo.clone() }).collect();
        Self { head, writer, choices, ends: Vec::new(), prompt_field, warning, record }
    }

    /// Waits for the end and answers with all of it.
    pub(super) async fn whole(mut self, mut events: UnboundedReceiver<OfChoice>) -> Result<Response, ApiError> {
        let mut items: Vec<Vec<Item>> = self.choices.iter().map(|_| Vec::new()).collect();
        let mut ends: Vec<Option<End>> = self.choices.iter().map(|_| None).collect();
        while let Some((choice, event)) = events.recv().await {
            for output in self.outputs(choice, event) {
                Item::add(&mut items[choice], &output);
                match output {
                    Output::End(end) => ends[choice] = Some(end),
                    Output::Failed(error) => return Err(error),
                    _ => {}
                }
            }
            if self.ends.len() == ends.len() {
                let chosen = items.into_iter().zip(ends.into_iter().flatten());
                let chosen = chosen.map(|(items, end)| Chosen { items, end }).collect();
                let mut response = json_response(&self.writer.whole(&self.head, chosen));
                self.warn(&mut response);
                return Ok(response);
            }
        }
        Err(ApiError::stopping())
    }

    /// Answers with an event for each piece of text as it comes.
    /// Whenever nothing came for a time of `silence`, a sign of life does, so that nobody takes the server for dead.
    pub(super) fn stream(mut self, events: UnboundedReceiver<OfChoice>, silence: Duration) -> Response {
        let mut response = Response::new(Body::empty());
        self.warn(&mut response);
        let opening = self.writer.open(&self.head);
        // Where one choice comes to nothing, the others are not waited for.
        let mut failed = false;
        let rest = Heartbeat::new(events, silence).map_while(move |event| match event {
            _ if failed => None,
            Some((choice, event)) => {
                let mut text = String::new();
                for output in self.outputs(choice, event) {
                    failed |= matches!(output, Output::Failed(_));
                    text += &self.writer.output(&self.head, choice, output);
                }
                Some(text)
            }
            None => Some(self.writer.alive(&self.head)),
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

    /// What an event of a choice adds to the answer.
    fn outputs(&mut self, choice: usize, event: Event) -> Vec<Output> {
        let Some(OneChoice { outputs, echo }) = self.choices.get_mut(choice) else { return Vec::new() };
        match (&mut *echo, event) {
            (Some(Echo { piece, starts }), Event::PromptScored(scored)) => {
                let at = starts.get(piece.scores.len()).copied().unwrap_or(piece.text.len());
                piece.scores.push(Mark::new(at, scored));
                Vec::new()
            }
            (None, Event::PromptScored(_)) => Vec::new(),
            (_, Event::Scored(scored, at)) => {
                outputs.scored(scored, at);
                Vec::new()
            }
            (_, Event::Text(piece)) => {
                let begun = echo.take().map(|echo| Output::Text(echo.piece));
                begun.into_iter().chain(outputs.text(piece)).collect()
            }
            (_, Event::Done(Ok(summary))) => {
                let begun = echo.take().map(|echo| Output::Text(echo.piece));
                let all: Vec<Output> = begun.into_iter().chain(outputs.end(summary)).collect();
                self.ends.extend(all.iter().filter_map(Output::end).cloned());
                if let Some(summary) = End::summary_of(&self.ends) {
                    self.record.generated(&summary);
                }
                all
            }
            (_, Event::Done(Err(error))) => {
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
