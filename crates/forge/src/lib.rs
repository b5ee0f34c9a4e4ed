//! The `forge` command as a library: arguments, the order of the stages, and the folder on disk.
//!
//! Owns what a user sees: help, progress, reports, errors, and that a project appears whole or not at all.
//! What a checkpoint means, how it is planned, rendered and packed belongs to the other crates.

pub mod check;
mod chips;
pub mod cli;
mod error;
pub mod generate;
mod imatrix;
pub mod inspect;
mod interrupt;
pub mod list;
mod measure;
pub mod output;
#[path = "../../forge-runtime/src/page/mod.rs"]
mod page;
mod plan;
mod progress;
mod quantize;
mod recipe;
mod sources;
mod table;
mod tuning;
mod units;
mod warnings;

pub use chips::Chip;
pub use error::Error;
