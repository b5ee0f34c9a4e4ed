//! The library without a server: steps, slots, prefixes, choices, chat templates, tokenizers, weights. One program, as each would compile
//! the software device again.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/plain.rs"]
mod plain;

mod chat;
mod chat_expressions;
mod chat_goldens;
mod chat_templates;
mod generation;
mod indirect;
mod perplexity;
mod policy;
mod prefix;
mod profile;
mod route;
mod sampler;
mod sampler_gpu;
mod service;
mod slots;
mod snapshots;
mod speculation;
mod steps;
mod tokenizer;
mod tune;
mod verify;
mod weights;
