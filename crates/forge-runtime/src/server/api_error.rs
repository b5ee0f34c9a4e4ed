//! Errors in OpenAI's form, and in Anthropic's.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::Error;
use super::answer::json_response;

/// After how many seconds a client that was not let in should come again.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("5");

/// An error answer. In an answer it is an extension too, so that it can be put into another dialect's words.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
    /// Tokens of a prompt that is too long, and of the context.
    lengths: Option<(usize, usize)>,
}

impl ApiError {
    pub(super) fn invalid(param: impl Into<Option<String>>, message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message,
            kind: "invalid_request_error",
            param: param.into(),
            code: None,
            lengths: None,
        }
    }

    pub(super) fn not_found(message: String, code: Option<&'static str>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code, ..Self::invalid(None, message) }
    }

    pub(super) fn wrong_method(message: String) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, ..Self::invalid(None, message) }
    }

    pub(super) fn too_large(message: String) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::invalid(None, message) }
    }

    pub(super) fn long_target() -> Self {
        Self { status: StatusCode::URI_TOO_LONG, ..Self::invalid(None, "the request's target is too long".into()) }
    }

    pub(super) fn long_header() -> Self {
        let words = "the request's header is too long".into();
        Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ..Self::invalid(None, words) }
    }

    pub(super) fn too_slow() -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, ..Self::invalid(None, "the request body came too slowly".into()) }
    }

    pub(super) fn forbidden(message: String) -> Self {
        Self { status: StatusCode::FORBIDDEN, ..Self::invalid(None, message) }
    }

    pub(super) fn unauthorized(message: String) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, code: Some("invalid_api_key"), ..Self::invalid(None, message) }
    }

    pub(super) fn wrong_type(message: String) -> Self {
        Self { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..Self::invalid(None, message) }
    }

    pub(super) fn overloaded() -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: "rate_limit_error",
            code: Some("queue_full"),
            ..Self::internal("too many requests are waiting; try again later".into())
        }
    }

    pub(super) fn crowded() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Some("too_many_connections"),
            ..Self::internal("too many connections; try again later".into())
        }
    }

    pub(super) fn degraded(message: String) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: Some("degraded"), ..Self::internal(message) }
    }

    pub(super) fn loading() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Some("loading"),
            ..Self::internal("the model is being loaded".into())
        }
    }

    pub(super) fn stopping() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Some("stopping"),
            ..Self::internal("the server is stopping".into())
        }
    }

    pub(super) fn internal(message: String) -> Self {
        let (status, kind) = (StatusCode::INTERNAL_SERVER_ERROR, "server_error");
        Self { status, message, kind, param: None, code: None, lengths: None }
    }

    /// An error of the runtime; `param` is the field that the prompt came from.
    pub(super) fn from_runtime(error: &Error, param: &str) -> Self {
        let message = error.to_string();
        match error {
            Error::PromptTooLong { tokens, context } => Self {
                code: Some("context_length_exceeded"),
                lengths: Some((*tokens, *context)),
                ..Self::invalid(param.to_owned(), message)
            },
            Error::Messages { place, .. } => Self::invalid(place.clone(), message),
            Error::Constraint(_) => Self::invalid(None, message),
            Error::Sampling { name, .. } => Self::invalid((*name).to_owned(), message),
            Error::Cancelled => Self::stopping(),
            Error::Together(error) => Self::from_runtime(error, param),
            Error::RenderingsGivenUp { .. } => Self::degraded(message),
            Error::EmptyPrompt
            | Error::TokenOutOfRange { .. }
            | Error::NoTemplate
            | Error::Template(_)
            | Error::Tokenizer(_) => Self::invalid(param.to_owned(), message),
            _ => Self::internal(message),
        }
    }

    /// Whether it says that there is too much of something.
    pub(super) fn is_about_amounts(&self) -> bool {
        matches!(self.status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS)
    }

    /// What it says.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        let mut error = json!({ "message": self.message, "type": self.kind, "param": self.param, "code": self.code });
        if let Some((tokens, context)) = self.lengths {
            // As llama.cpp's server has them; agents shorten their chats by these.
            error["n_prompt_tokens"] = tokens.into();
            error["n_ctx"] = context.into();
        }
        json!({ "error": error })
    }

    /// The body of the answer in Anthropic's form.
    pub(super) fn anthropic_body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::REQUEST_TIMEOUT => "timeout_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        let message = match self.lengths {
            // Claude Code compacts a chat on these words. A prompt leaves room for one token at least.
            Some((tokens, context)) => format!("prompt is too long: {tokens} tokens > {} maximum", context - 1),
            None => self.message.clone(),
        };
        json!({ "type": "error", "error": { "type": kind, "message": message } })
    }
}

impl ApiError {
    /// The whole answer as bytes, after which the connection is closed.
    pub(super) fn raw(self) -> Vec<u8> {
        let body = self.body().to_string();
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16());
        let lines = [("content-length", body.len().to_string()), ("connection", "close".into())];
        for (name, value) in lines {
            head += &format!("{name}: {value}\r\n");
        }
        for (name, value) in self.into_response().headers() {
            head += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
        (head + "\r\n" + &body).into_bytes()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(&self.body());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, COME_AGAIN);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, const { HeaderValue::from_static("Bearer") });
        }
        response.extensions_mut().insert(self);
        response
    }
}
