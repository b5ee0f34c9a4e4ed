//! What is told of a plan: one [`Document`], of which the JSON, the text and the page are made.

mod account;
mod document;
mod json;
pub(crate) mod text;

pub(crate) use account::{Asked, document};
pub(crate) use document::{Document, Experts, Model, Stored};
pub(crate) use json::text as json;
