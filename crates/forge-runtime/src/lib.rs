//! The model-independent half of a program that Forge generates: GPU layer, weight loading, tokenizer, chat template,
//! sampler, token loop, command line and HTTP server.
//!
//! A generated project holds this crate verbatim as `runtime/`; it knows nothing of any model. The other half is the
//! project's `src/model.rs`: constants, buffers and dispatch schedules of one model, behind the [`LanguageModel`] trait.
//!
//! Features, both on by default: `cli` and `server`, for the modules of these names. Without them nothing of clap, axum and
//! tokio is built.
//!
//! From the bottom up:
//! * [`gpu`]: device, kernels, buffers, command buffers; Metal on macOS, the software Metal device elsewhere.
//! * [`weights`]: the memory-mapped `weights.safetensors`, checked to be the one the program was generated for.
//! * [`assets`]: the files embedded in the program.
//! * [`tokenizer`], [`sampler`], [`philox`]: text to ids and back, ids from logits.
//! * [`jinja`], [`chat`], [`messages`], [`chat_templates`]: prompts from messages.
//! * [`memory`]: a bound for what a stranger's template takes.
//! * [`slots`], [`prefix`], [`snapshots`], [`state`]: which beginnings of prompts are known, and where their state is.
//! * [`generation`]: the token loop with stop strings, limits and cancellation.
//! * [`service`]: a loaded model that any thread can ask.
//! * [`spec`]: what the sources of a model and this runtime agree on.
//! * [`verify`]: every kernel against a reference implementation.
//! * [`perplexity`]: how well a text is known, and how far from another program.
//! * [`imatrix`]: which columns of each matrix a text needs most.
//! * [`page`]: pages of one file, and the one that draws a plan or a profile.
//! * [`profile`]: GPU time and bytes of each kernel; [`tune`]: which of a few geometries is the fastest.
//! * `cli`, `server`: what a user touches.

pub mod assets;
pub mod batch;
pub mod chat;
pub mod chat_templates;
#[cfg(feature = "cli")]
pub mod cli;
mod error;
pub mod generation;
pub mod gpu;
#[cfg(feature = "server")]
pub mod grammar;
pub mod imatrix;
pub mod jinja;
pub mod language_model;
pub mod memory;
pub mod messages;
pub mod page;
pub mod perplexity;
pub mod philox;
pub mod prefix;
pub mod profile;
mod safetensors;
pub mod sampler;
#[cfg(feature = "server")]
pub mod server;
pub mod service;
pub mod slots;
pub mod snapshots;
pub mod spec;
pub mod state;
pub mod tokenizer;
pub mod tune;
pub mod verify;
pub mod weights;

pub use assets::Assets;
pub use error::{Error, Result};
pub use language_model::{LanguageModel, LoadOptions, LogitRows, ModelInfo, Submitted};
/// Chats are JSON.
pub use serde_json;
