//! Tool calls in answers: how a model writes them, and finding them in its text as it comes.
//!
//! [`form`] asks the chat template; [`reader`] takes an answer apart into content, reasoning and calls; [`call`] reads one call.
//! Nothing here knows of HTTP or of the API's objects.

mod call;
mod form;
mod reader;

use serde_json::Value;

pub use form::CallForm;
pub use reader::{Part, Reader};

/// A function that a request offers to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// JSON schema of its arguments; null where there is none.
    pub parameters: Value,
}
