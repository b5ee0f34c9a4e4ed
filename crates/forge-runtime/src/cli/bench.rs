//! `bench`: tokens per second for a prompt and for decoding, in the form of llama-bench: mean and spread over repetitions.

use std::time::Instant;

use clap::Args;

use super::super::{Error, LanguageModel, LogitRows, Result};
use super::{Program, terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Tokens of the prompt; 0 leaves this part out.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens to decode one by one; 0 leaves this part out.
    #[arg(long = "gen", value_name = "N", default_value_t = 128)]
    generate: usize,
    /// Measure this many times.
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let name = program.info.name;
    let mut model = program.model()?;
    let context = model.context();
    let longest = options.prompt.max(options.generate);
    if longest > context {
        return Err(Error::PromptTooLong { tokens: longest, context });
    }
    // Spread over the vocabulary, so that no cache sees one embedding row alone.
    let vocab_size = model.info().vocab_size;
    let tokens: Vec<u32> = (0..longest).map(|index| (index.wrapping_mul(7919) % vocab_size) as u32).collect();
    let mut logits = Vec::new();
    let mut prompt = |model: &mut M| {
        logits.clear();
        model.prefill(0, 0, &tokens[..options.prompt], LogitRows::Last, &mut logits, &mut || true)
    };
    let mut row = Vec::new();
    let mut decode = |model: &mut M| {
        tokens[..options.generate]
            .iter()
            .enumerate()
            .try_for_each(|(position, &token)| model.decode(0, position, token, &mut row))
    };
    terminal::print("| model | test | tokens/s |\n| --- | --- | ---: |\n")?;
    if options.prompt > 0 {
        let rates = measure(&mut model, options.prompt, options.repeat, &mut prompt)?;
        terminal::print(&format!("| {name} | prompt {} | {} |\n", options.prompt, spread(&rates)))?;
    }
    if options.generate > 0 {
        let rates = measure(&mut model, options.generate, options.repeat, &mut decode)?;
        terminal::print(&format!("| {name} | generate {} | {} |\n", options.generate, spread(&rates)))?;
    }
    Ok(())
}

/// Tokens per second of each repetition, after one that is not counted.
fn measure<M>(
    model: &mut M,
    tokens: usize,
    repeat: usize,
    work: &mut dyn FnMut(&mut M) -> Result<()>,
) -> Result<Vec<f64>> {
    work(model)?;
    (0..repeat.max(1))
        .map(|_| {
            let start = Instant::now();
            work(model)?;
            Ok(tokens as f64 / start.elapsed().as_secs_f64().max(1e-9))
        })
        .collect()
}

fn spread(rates: &[f64]) -> String {
    let n = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / n;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    format!("{mean:.2} ± {:.2}", variance.sqrt())
}
