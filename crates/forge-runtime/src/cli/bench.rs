//! `bench`: tokens per second for a prompt and for decoding, in the form of llama-bench: mean and spread over repetitions.

use std::time::Instant;

use clap::Args;

use super::super::batch::{Row, Step, Token, Wants};
use super::super::sampler::{Sampling, StepSampling};
use super::super::{Error, LanguageModel, LogitRows, ModelInfo, Result};
use super::{Program, terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Tokens of the prompt; 0 leaves this part out.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens to decode one by one; 0 leaves this part out.
    #[arg(long = "gen", value_name = "N", default_value_t = 128)]
    generate: usize,
    /// Decode also this many sequences side by side, a step ahead of the host as a server does; several numbers with commas
    /// between are measured in turn.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    rows: Vec<usize>,
    /// Measure this many times.
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let info = program.info;
    let name = info.name;
    let mut model = program.model()?;
    let context = model.context();
    options.rows.iter().try_for_each(|&rows| check_rows(rows, info))?;
    let longest = options.prompt.max(options.generate);
    if longest > context {
        return Err(Error::PromptTooLong { tokens: longest, context });
    }
    // Spread over the vocabulary, so that no cache sees one embedding row alone.
    let vocab_size = info.vocab_size;
    let spread_out =
        |count: usize| -> Vec<u32> { (0..count).map(|index| (index.wrapping_mul(7919) % vocab_size) as u32).collect() };
    let tokens = spread_out(longest);
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
    for &rows in &options.rows {
        let first = spread_out(rows);
        let mut steps = |model: &mut M| decode_together(model, &first, options.generate);
        let rates = measure(&mut model, rows * options.generate, options.repeat, &mut steps)?;
        let test = format!("generate {} for each of {rows}", options.generate);
        terminal::print(&format!("| {name} | {test} | {} |\n", spread(&rates)))?;
    }
    Ok(())
}

/// Refuses rows that no step of a model has with a sequence each.
pub(super) fn check_rows(rows: usize, info: &ModelInfo) -> Result<()> {
    let most = info.slots.min(info.few_rows);
    if (1..=most).contains(&rows) {
        return Ok(());
    }
    Err(Error::Usage(format!("--rows {rows}: this program holds {most} sequences side by side (forge gen --slots)")))
}

/// Decodes a sequence from each token, `count` tokens of each. A step is started before the tokens of the one before it are known.
fn decode_together<M: LanguageModel>(model: &mut M, first: &[u32], count: usize) -> Result<()> {
    (0..first.len()).for_each(|slot| model.observe(slot, &[], &[], &Sampling::default()));
    let mut sampling = StepSampling::new(&Sampling::default());
    let mut before: Option<Step> = None;
    for position in 0..count {
        let token = |slot: usize| if position == 0 { Token::Known(first[slot]) } else { Token::Chosen };
        let row = |slot| Row { token: token(slot), slot, position, wants: Wants::Choice(sampling.clone()) };
        let step = model.step(&(0..first.len()).map(row).collect::<Vec<_>>())?;
        sampling.advance();
        if let Some(before) = before.replace(step) {
            model.finish(before)?;
        }
    }
    before.map_or(Ok(()), |last| model.finish(last).map(drop))
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
