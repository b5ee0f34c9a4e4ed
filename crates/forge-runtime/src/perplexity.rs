//! How well a model knows a text (perplexity), and how far its probabilities are from another's of the same text (KL divergence).
//!
//! A text is cut into windows, each a sequence of its own. A model's log-probabilities of a whole text go into a file, against which
//! another program of the same tokens is measured: so two programs need not be loaded at once.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::tokenizer::Tokenizer;
use super::{Error, LanguageModel, LogitRows, Result, safetensors};

/// Rows whose logits are held at once.
const ROWS: usize = 64;

/// A text as sequences, each of which begins with what the tokenizer puts before a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Ids of each.
    pub ids: Vec<Vec<u32>>,
    /// Tokens of each that are given: they are not scored. At least one.
    pub given: usize,
}

impl Windows {
    /// Cuts a text into windows of at most `window` tokens, of which at most `most` are scored. Special tokens written out in the text are
    /// special.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or one in which no token follows another.
    pub fn new(tokenizer: &Tokenizer, text: &str, window: usize, most: usize) -> Result<Self> {
        let first = tokenizer.encode("", true)?;
        let mut ids = tokenizer.encode(text, false)?;
        let given = first.len().max(1);
        if window <= given {
            return Err(Error::Usage(format!("a window of {window} tokens has none to score after {given}")));
        }
        // Where nothing is put before a text, each window gives its first token.
        let own = window - first.len();
        let scored = window - given;
        let (whole, rest) = (most / scored, most % scored);
        let last = if rest == 0 { 0 } else { rest + own - scored };
        ids.truncate(whole.saturating_mul(own).saturating_add(last));
        let chunks = ids.chunks(own).map(|chunk| [&first, chunk].concat()).filter(|ids| ids.len() > given);
        let windows = Self { ids: chunks.collect(), given };
        if windows.ids.is_empty() {
            return Err(Error::Usage("the text is too short: no token follows another".to_owned()));
        }
        Ok(windows)
    }

    /// Tokens that are scored.
    pub fn scored(&self) -> usize {
        self.ids.iter().map(|ids| ids.len() - self.given).sum()
    }

    /// These tokens, in order.
    fn targets(&self) -> impl Iterator<Item = u32> {
        self.ids.iter().flat_map(|ids| ids[self.given..].iter().copied())
    }

    /// Runs a model over all windows. `each` gets a scored token and the natural logarithms of the probabilities of all tokens in its place,
    /// `[vocab]`.
    ///
    /// # Errors
    /// GPU errors, logits that are not finite, and what `each` returns.
    pub fn run<M: LanguageModel>(&self, model: &mut M, each: &mut dyn FnMut(u32, &[f32]) -> Result<()>) -> Result<()> {
        let vocab_size = model.info().vocab_size;
        let mut logits = Vec::new();
        for ids in &self.ids {
            // What follows the last token is not known.
            for (index, tokens) in ids[..ids.len() - 1].chunks(ROWS).enumerate() {
                let position = index * ROWS;
                logits.clear();
                model.prefill(0, position, tokens, LogitRows::All, &mut logits, &mut || true)?;
                for (row, position) in logits.chunks_exact_mut(vocab_size).zip(position..) {
                    if position + 1 >= self.given {
                        log_probabilities(row).ok_or(Error::NonFiniteLogits { position })?;
                        each(ids[position + 1], row)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Logits to natural logarithms of probabilities; `None` where a logit is no number or all are negative infinity.
fn log_probabilities(row: &mut [f32]) -> Option<()> {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !highest.is_finite() || row.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let sum: f64 = row.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let shift = f64::from(highest) + sum.ln();
    row.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - shift) as f32);
    Some(())
}

/// Mean and standard error of numbers that come one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Mean {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// Standard error of the mean.
    fn error(&self) -> f64 {
        let n = self.count as f64;
        let variance = (self.squares - self.sum * self.sum / n.max(1.0)).max(0.0) / (n - 1.0).max(1.0);
        (variance / n.max(1.0)).sqrt()
    }
}

/// `exp` of the mean of tokens' negative log-probabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity(Mean);

impl Perplexity {
    /// Counts a token of which the model had this log-probability.
    pub fn add(&mut self, logprob: f32) {
        self.0.add(-f64::from(logprob));
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.0.count
    }

    /// The perplexity.
    pub fn value(&self) -> f64 {
        self.0.mean().exp()
    }

    /// Its standard error, to first order.
    pub fn error(&self) -> f64 {
        self.value() * self.0.error()
    }
}

/// KL divergence of a model's probabilities from a source's at each token: `sum of p * (ln p - ln q)`, p the source's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Divergence {
    /// In nats, of each token.
    each: Vec<f64>,
    same_top: usize,
}

impl Divergence {
    /// Counts a token, of which the source had the log-probabilities `source` for all tokens, and the model `own`.
    ///
    /// # Panics
    /// If these are not as many.
    pub fn add(&mut self, source: &[f32], own: &[f32]) {
        assert_eq!(source.len(), own.len(), "probabilities of two vocabularies");
        let part = |(p, q): (&f32, &f32)| match f64::from(*p).exp() {
            // What never comes adds nothing.
            0.0 => 0.0,
            probability => probability * (f64::from(*p) - f64::from(*q)),
        };
        // Rounding may take equal distributions below 0.
        self.each.push(source.iter().zip(own).map(part).sum::<f64>().max(0.0));
        self.same_top += usize::from(best(source) == best(own));
    }

    /// Mean and its standard error.
    pub fn mean(&self) -> (f64, f64) {
        let mut mean = Mean::default();
        self.each.iter().for_each(|value| mean.add(*value));
        (mean.mean(), mean.error())
    }

    /// The least value that `share` of the tokens do not exceed; 1 for the largest.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.each.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
    }

    /// Share of the tokens in whose place both think the same token the most probable.
    pub fn same_top(&self) -> f64 {
        self.same_top as f64 / self.each.len().max(1) as f64
    }
}

/// The most probable token, the first of equals.
fn best(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (id, value)| if *value > row[best] { id } else { best })
}

/// Log-probabilities on their way into a file: safetensors with `tokens`, i32 `[tokens]`, and `log_probabilities`, f32 `[tokens, vocab]`,
/// those of all tokens in the place of each.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    /// Begins a file for all of a text's windows.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path, windows: &Windows, vocab_size: usize) -> Result<Self> {
        let scored = windows.scored();
        let header =
            safetensors::header(&[("tokens", "I32", &[scored]), ("log_probabilities", "F32", &[scored, vocab_size])]);
        let begin = || {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&header)?;
            windows.targets().try_for_each(|id| file.write_all(&id.to_le_bytes()))?;
            Ok(file)
        };
        let file = begin().map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds the next token's.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, row: &[f32]) -> Result<()> {
        let mut write = || row.iter().try_for_each(|value| self.file.write_all(&value.to_le_bytes()));
        write().map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|source| Error::Io { path: self.path, source })
    }
}

/// Log-probabilities that a [`Writer`] left, one token after another.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    bytes: Vec<u8>,
    row: Vec<f32>,
}

impl Reader {
    /// Opens a file, which has to be of the same tokens.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Usage`] for a file of another kind, text or vocabulary.
    pub fn open(path: &Path, windows: &Windows, vocab_size: usize) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let refused = |what: &str| Error::Usage(format!("{}: {what}", path.display()));
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let none = || refused("no log-probabilities of perplexity --save");
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        // Two entries are short.
        let length =
            usize::try_from(u64::from_le_bytes(length)).ok().filter(|length| *length < 4096).ok_or_else(none)?;
        let mut header = vec![0; length];
        file.read_exact(&mut header).map_err(io)?;
        let header: serde_json::Value = serde_json::from_slice(&header).map_err(|_| none())?;
        let shape = |name: &str| header[name]["shape"].as_array().cloned().ok_or_else(none);
        let scored = windows.scored();
        if shape("tokens")? != [scored] {
            return Err(refused("it is of another text, window or tokenizer"));
        }
        if shape("log_probabilities")? != [scored, vocab_size] {
            return Err(refused("it is of another vocabulary"));
        }
        let mut ids = vec![0; 4 * scored];
        file.read_exact(&mut ids).map_err(io)?;
        let ids = ids.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        if !ids.eq(windows.targets()) {
            return Err(refused("it is of another text, window or tokenizer"));
        }
        Ok(Self { path: path.to_owned(), file, bytes: vec![0; 4 * vocab_size], row: vec![0.0; vocab_size] })
    }

    /// The next token's, `[vocab]`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn next_row(&mut self) -> Result<&[f32]> {
        self.file.read_exact(&mut self.bytes).map_err(|source| Error::Io { path: self.path.clone(), source })?;
        for (value, bytes) in self.row.iter_mut().zip(self.bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(&self.row)
    }
}
