//! Errors in OpenAI's form.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::Error;
use super::answer::json_response;

/// An error answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    pub(super) fn invalid(param: impl Into<Option<String>>, message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message,
            kind: "invalid_request_error",
            param: param.into(),
            code: None,
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

    pub(super) fn too_slow() -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, ..Self::invalid(None, "the request body came too slowly".into()) }
    }

    pub(super) fn forbidden(message: String) -> Self {
        Self { status: StatusCode::FORBIDDEN, ..Self::invalid(None, message) }
    }

    pub(super) fn overloaded() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Some("queue_full"),
            ..Self::internal("too many requests are waiting; try again later".into())
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
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message, kind: "server_error", param: None, code: None }
    }

    /// An error of the runtime; `param` is the field that the prompt came from.
    pub(super) fn from_runtime(error: &Error, param: &str) -> Self {
        let message = error.to_string();
        match error {
            Error::PromptTooLong { .. } => {
                Self { code: Some("context_length_exceeded"), ..Self::invalid(param.to_owned(), message) }
            }
            Error::Messages { place, .. } => Self::invalid(place.clone(), message),
            Error::Sampling { name, .. } => Self::invalid((*name).to_owned(), message),
            Error::Cancelled => Self::stopping(),
            Error::EmptyPrompt
            | Error::TokenOutOfRange { .. }
            | Error::NoTemplate
            | Error::Template(_)
            | Error::Tokenizer(_) => Self::invalid(param.to_owned(), message),
            _ => Self::internal(message),
        }
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(&self.body());
        *response.status_mut() = self.status;
        response
    }
}
