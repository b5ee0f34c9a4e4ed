//! Tool calls in answers: how a model writes them, and finding them in its text as it comes.
//!
//! [`form`] says what forms there are and [`probe`] asks the chat template which it is; [`reader`] takes an answer apart into
//! content, reasoning and calls; [`call`] reads one call, and so do [`invoke`], [`keys`], [`python`] and [`separated`] in forms of their
//! own; [`harmony`] reads answers in channels. [`rest`] makes a grammar of calls, with [`values`]. Nothing here knows of HTTP or of the API's objects.

mod call;
mod form;
mod harmony;
mod invoke;
mod keys;
mod probe;
mod python;
mod reader;
mod rest;
mod schema;
mod separated;
mod thinking;
mod values;

use serde_json::Value;

pub use form::{CallForm, Style};
pub use reader::{Part, Reader};
pub use rest::{Begun, CallRest};
pub use thinking::Thinking;

/// A function that a request offers to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// JSON schema of its arguments; null where there is none.
    pub parameters: Value,
    /// Whether calls are to be held to it where there need be none.
    pub strict: bool,
}
