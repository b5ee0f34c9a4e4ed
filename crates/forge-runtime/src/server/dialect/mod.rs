//! The APIs that clients speak. All of them ask for the same things, and hear of the same events.
//!
//! A dialect is two pure functions: one reads the fields of a body and gives an [`Ask`], the other, a [`Writer`], puts the
//! [`Output`] of a generation into words. Nothing else of the server knows any dialect's objects, nor do these know anything of
//! HTTP, of templates or of the model.

mod ask;
mod chat;
mod completions;
mod messages;
mod openai;
mod output;
mod responses;

use serde_json::{Value, json};

use super::api_error::ApiError;
use super::fields::Fields;
pub(super) use ask::{Ask, Chat, Choice, Prompt};
pub(super) use chat::chat;
pub(super) use output::End;
use output::Why;
pub(super) use output::{Item, Mark, Output, Outputs, Piece, Reading};

/// An API that clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's `/v1/completions`.
    Completions,
    /// OpenAI's `/v1/chat/completions`.
    Chat,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// OpenAI's `/v1/responses`.
    Responses,
}

impl Dialect {
    /// What a body asks for, and who answers it.
    ///
    /// # Errors
    /// What is wrong with it, or cannot be done.
    pub(super) fn read(self, fields: Fields) -> Result<(Ask, Box<dyn Writer>), ApiError> {
        fields.string("model")?;
        match self {
            Self::Completions => completions::read(fields),
            Self::Chat => chat::read(fields),
            Self::Messages => messages::read(fields),
            Self::Responses => responses::read(fields),
        }
    }

    /// That by which this path asks for a generation.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        match path.strip_prefix("/v1").unwrap_or(path) {
            "/completions" => Some(Self::Completions),
            "/chat/completions" => Some(Self::Chat),
            "/messages" => Some(Self::Messages),
            "/responses" => Some(Self::Responses),
            _ => None,
        }
    }

    /// Its name where answers are counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }

    /// How long a prompt is, in its words.
    pub(super) fn count(self, tokens: usize) -> Value {
        match self {
            Self::Completions | Self::Chat | Self::Messages => json!({ "input_tokens": tokens }),
            Self::Responses => json!({ "object": "response.input_tokens", "input_tokens": tokens }),
        }
    }

    /// Whose errors answers to requests of this path have, whether or not there is such a route.
    pub(super) fn of_errors(path: &str) -> Self {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let first = path.trim_start_matches('/').split('/').next();
        if first == Some("messages") { Self::Messages } else { Self::Chat }
    }

    /// An error in its words.
    pub(super) fn error(self, error: &ApiError, request_id: Option<&str>) -> Value {
        match self {
            Self::Completions | Self::Chat | Self::Responses => error.body(),
            Self::Messages => {
                let mut body = error.anthropic_body();
                body["request_id"] = request_id.into();
                body
            }
        }
    }
}

/// What all parts of one answer have in common.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// Its id, which begins as the dialect has it.
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// The model's name.
    pub(super) model: &'static str,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// Choices of the answer.
    pub(super) choices: usize,
}

/// Puts one answer into a dialect's words: as a stream, or as a whole.
pub(super) trait Writer: Send {
    /// What ids of answers begin with.
    fn prefix(&self) -> &'static str;

    /// What a stream begins with.
    fn open(&mut self, head: &Head) -> String;

    /// What an event of one of the answer's choices adds to a stream. Dialects that have but one choice may forget which.
    fn output(&mut self, head: &Head, choice: usize, output: Output) -> String;

    /// What a stream says when nothing was to be said for a while.
    fn alive(&mut self, head: &Head) -> String;

    /// The whole answer, of one choice or several.
    fn whole(&mut self, head: &Head, choices: Vec<Chosen>) -> Value;
}

/// One choice of a whole answer: its parts in their order, and its end.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) items: Vec<Item>,
    pub(super) end: End,
}

/// A server-sent event with a name.
fn event(name: &str, body: &Value) -> String {
    format!("event: {name}\ndata: {body}\n\n")
}

/// A server-sent event without a name.
fn data(body: &Value) -> String {
    format!("data: {body}\n\n")
}
