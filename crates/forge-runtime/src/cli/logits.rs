//! `logits`: the numbers behind the text, as tensor `logits`, f32 [tokens, vocab], in a safetensors file; or the experts that were chosen.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::batch::{Outcome, Row, Token, Wants};
use super::super::generation::check_prompt;
use super::super::verify::{Choices, choices};
use super::super::{Error, LanguageModel, LogitRows, Result, safetensors};
use super::{Program, terminal};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Token ids, separated by commas.
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// Run one token at a time instead of tiles of them.
    #[arg(long)]
    decode: bool,
    /// Run so many sequences side by side, each in a slot of its own, one token of each at a time; each begins one token later
    /// than the one before and goes round. The logits are those of the first.
    #[arg(long, value_name = "N", conflicts_with_all = ["decode", "last"])]
    side_by_side: Option<usize>,
    /// Only the logits after the last token, computed as generation does: tiles, then one token.
    #[arg(long, conflicts_with = "decode")]
    last: bool,
    /// Write which experts each router chose instead, as tensors `0.experts`, `1.experts`, .., i32 [tokens, experts of a
    /// token].
    #[arg(long, conflicts_with_all = ["side_by_side", "last"])]
    experts: bool,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let (vocab_size, checks) = (program.info.vocab_size, program.checks);
    let mut model = program.model()?;
    // One more than for a prompt: no token is generated after these.
    check_prompt(&options.ids, vocab_size, model.context() + 1)?;
    if options.experts {
        let all = choices(&mut model, checks, &options.ids, !options.decode)?;
        if all.is_empty() {
            return Err(Error::Usage("this model has no experts to choose".to_owned()));
        }
        return write_experts(&options.output, &all);
    }
    let mut logits = Vec::new();
    if options.decode {
        let mut row = Vec::new();
        for (position, &token) in options.ids.iter().enumerate() {
            model.decode(0, position, token, &mut row)?;
            logits.extend_from_slice(&row);
        }
    } else if let Some(sequences) = options.side_by_side {
        for position in 0..options.ids.len() {
            let token = |slot: usize| Token::Known(options.ids[(position + slot) % options.ids.len()]);
            let row = |slot| Row { token: token(slot), slot, position, wants: Wants::Logits };
            let submitted = model.submit(&(0..sequences).map(row).collect::<Vec<_>>())?;
            if let Some(Outcome::Logits(row)) = model.wait(submitted)?.first() {
                logits.extend_from_slice(row);
            }
        }
    } else {
        let rows = if options.last { LogitRows::Last } else { LogitRows::All };
        model.prefill(0, 0, &options.ids, rows, &mut logits, &mut || true)?;
    }
    let rows = logits.len() / vocab_size;
    let data = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    write_tensors(
        &options.output,
        &[Tensor { name: "logits".to_owned(), dtype: "F32", shape: [rows, vocab_size], data }],
    )?;
    terminal::note(&format!("wrote logits [{rows}, {vocab_size}] to {}", options.output.display()));
    Ok(())
}

fn write_experts(path: &Path, all: &[Choices]) -> Result<()> {
    let tensor = |(index, choices): (usize, &Choices)| Tensor {
        name: format!("{index}.experts"),
        dtype: "I32",
        shape: [choices.experts.len() / choices.chosen, choices.chosen],
        data: choices.experts.iter().flat_map(|expert| expert.to_le_bytes()).collect(),
    };
    write_tensors(path, &all.iter().enumerate().map(tensor).collect::<Vec<_>>())?;
    terminal::note(&format!("wrote the choices of {} routers to {}", all.len(), path.display()));
    Ok(())
}

/// A tensor of a safetensors file.
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: [usize; 2],
    data: Vec<u8>,
}

fn write_tensors(path: &Path, tensors: &[Tensor]) -> Result<()> {
    let entries: Vec<safetensors::Tensor<'_>> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.dtype, &tensor.shape[..])).collect();
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&safetensors::header(&entries))?;
        tensors.iter().try_for_each(|tensor| file.write_all(&tensor.data))?;
        file.flush()
    };
    write().map_err(|source| Error::Io { path: path.to_owned(), source })
}
