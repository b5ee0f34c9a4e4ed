//! Development commands of Forge; `cargo xtask help` lists them.

mod bench;
mod bindings;
mod book;
mod cases;
mod check;
mod check_msl;
mod clang;
mod counters;
mod cross_check;
mod demo;
mod embed;
mod forge;
mod gpu;
mod library;
mod mutate;
mod pool;
mod pypi;
mod python;
mod real_models;
mod shared;
mod shell;
mod snapshots;
mod swift;
mod table;
mod test;
mod tidy;
mod tune;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Development commands of Forge
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Generate a project from the bundled checkpoint, build it and let it tell a story
    Demo,
    /// Run all tests
    Test(test::Options),
    /// Compare generated projects with reference logits, texts and token ids
    Cases(cases::Options),
    /// Check the emitted projects against tests/snapshots, or replace these
    Snapshots(snapshots::Options),
    /// Check emitted kernels for what Apple's compiler would reject
    CheckMsl(check_msl::Options),
    /// Type-check, lint and link emitted projects for macOS
    CrossCheck(cross_check::Options),
    /// Hold the bytes that the software device counts against those that the plan says
    Counters(counters::Options),
    /// Remove or spoil barriers one at a time and see that checked mode notices each
    Mutate(mutate::Options),
    /// Measure packing, decoding and rebuilding
    Bench {
        #[command(subcommand)]
        bench: Option<bench::Bench>,
    },
    /// Pack what a machine with an NVIDIA GPU, and without Rust, needs to check and time emitted projects
    Gpu(gpu::Options),
    /// Compare trained models with transformers (downloads them and PyTorch; takes minutes)
    RealModels(real_models::Options),
    /// Check the book (docs/), and run the commands in it
    Book(book::Options),
    /// Check the house rules
    Tidy,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo => demo::main()?,
        Task::Test(options) => return test::main(&options),
        Task::Cases(options) => return cases::main(&options),
        Task::Snapshots(options) => snapshots::main(&options)?,
        Task::CheckMsl(options) => check_msl::main(&options)?,
        Task::CrossCheck(options) => return cross_check::main(&options),
        Task::Counters(options) => counters::main(&options)?,
        Task::Mutate(options) => return mutate::main(&options),
        Task::Bench { bench } => bench::main(bench)?,
        Task::Gpu(options) => gpu::main(&options)?,
        Task::RealModels(options) => return real_models::main(&options),
        Task::Book(options) => book::main(&options)?,
        Task::Tidy => tidy::main()?,
    }
    Ok(ExitCode::SUCCESS)
}
