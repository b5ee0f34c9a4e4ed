//! `imatrix`: which columns of each matrix a text needs most, for `forge gen --quantize auto:BITS --imatrix FILE`.

use std::path::PathBuf;

use clap::Args;

use super::super::imatrix::{Imatrix, TILE};
use super::super::perplexity::Windows;
use super::super::weights::Weights;
use super::super::{Error, LanguageModel, Result};
use super::{Program, terminal};

/// Tokens of a sequence, where the context holds so many: eight tiles.
const WINDOW: usize = 8 * TILE;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  imatrix text.txt -o imatrix.gguf
  imatrix text.txt --tokens 20000 -o imatrix.gguf

The file is llama.cpp's. Run it with the weights that are to be quantised. The text should be what the model is to be used for; some
ten thousand tokens do.")]
pub(super) struct Options {
    /// A text file.
    text: PathBuf,
    /// Run at most so many tokens, from the beginning.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    tokens: usize,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let text = super::perplexity::read(&options.text)?;
    let load = program.load_options()?;
    let window = WINDOW.min(load.context_for(program.info)?);
    let windows = Windows::new(&program.text()?.tokenizer, &text, window, options.tokens)?;
    let weights = Weights::open(&load.weights, program.info)?;
    let checks = program.checks;
    let mut model = program.model()?;
    let mut imatrix = Imatrix::new(checks, &weights);
    let (all, mut done) = (windows.ids.iter().map(Vec::len).sum::<usize>(), 0);
    for ids in &windows.ids {
        terminal::progress(&format!("{done} of {all} tokens"));
        imatrix.run(&mut model, ids)?;
        done += ids.len();
    }
    terminal::progress("");
    let matrices = imatrix.entries().len();
    if matrices == 0 {
        return Err(Error::Usage("this program says of no matrix what it is".to_owned()));
    }
    let name = options.text.file_name().unwrap_or_default().to_string_lossy();
    imatrix.write(&options.output, &name)?;
    terminal::note(&format!(
        "wrote the inputs of {matrices} matrices over {all} tokens to {}",
        options.output.display()
    ));
    Ok(())
}
