//! `long.safetensors` of a case: prompts of one token, of around a tile and of several tiles.
//!
//! Attention is causal, so the logits of one long prompt are those of every prefix of it as well.

use std::path::Path;

use anyhow::{Context, Result};
use safetensors::{Dtype, SafeTensors};

use super::compare::Logits;
use super::files::{self, Case};

/// How many rows of logits were compared, and a line for each that differs.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows compared.
    pub checks: usize,
    /// What differed.
    pub failures: Vec<String>,
}

impl Outcome {
    fn check(&mut self, what: &str, tokens: usize, expected: &[f32], found: &[f32], bound: f32) {
        self.checks += 1;
        let difference = expected.iter().zip(found).fold(0.0, |largest: f32, (expected, found)| {
            let difference = (expected - found).abs();
            if difference.is_nan() { f32::INFINITY } else { largest.max(difference) }
        });
        if difference > bound {
            self.failures.push(format!("{what} of {tokens} tokens: largest difference {difference:.3e}"));
        }
    }
}

/// Runs every prompt of the case through `logits`, which gives a row per token of `ids` with these flags: as a tile
/// whose every row is wanted, as generation does (whole tiles, then a decode step), and the longest by decoding alone.
/// Nothing where the case has no such file.
///
/// # Errors
/// A file that is unreadable or lacks a tensor, a program that fails.
pub fn run(case: &Case, bound: f32, logits: impl Fn(&[u32], &[&str]) -> Result<Logits>) -> Result<Outcome> {
    let path = case.path.join("long.safetensors");
    let mut outcome = Outcome::default();
    if !path.is_file() {
        return Ok(outcome);
    }
    let (ids, lengths, expected) = read(&path).with_context(|| path.display().to_string())?;
    let decoded = logits(&ids, &["--decode"])?;
    for (row, &length) in lengths.iter().enumerate() {
        let (expected, prompt) = (expected.row(row), &ids[..length]);
        outcome.check("decode", length, expected, decoded.row(length - 1), bound);
        outcome.check("a tile", length, expected, logits(prompt, &[])?.row(length - 1), bound);
        outcome.check("a prompt", length, expected, logits(prompt, &["--last"])?.row(0), bound);
    }
    Ok(outcome)
}

/// The prompt, the lengths of prefixes, and the logits after each of them.
fn read(path: &Path) -> Result<(Vec<u32>, Vec<usize>, Logits)> {
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let ids = files::words(&tensors, "input_ids", Dtype::I32)?;
    let lengths: Vec<usize> =
        files::words(&tensors, "lengths", Dtype::I32)?.into_iter().map(|length| length as usize).collect();
    let logits = files::logits(&tensors, "logits")?;
    anyhow::ensure!(
        logits.rows() == lengths.len() && lengths.iter().all(|length| (1..=ids.len()).contains(length)),
        "lengths {lengths:?} of {} tokens and {} rows of logits do not fit",
        ids.len(),
        logits.rows()
    );
    Ok((ids, lengths, logits))
}
