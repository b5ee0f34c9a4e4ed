//! `perplexity`: how well the model knows a text, and how far its probabilities are from another program's.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::perplexity::{Divergence, Perplexity, Reader, Windows, Writer};
use super::super::{Error, LanguageModel, Result};
use super::{Program, terminal};

/// Tokens of a window where none are asked for.
const WINDOW: usize = 512;
/// Tokens after which progress is said.
const OFTEN: usize = 16;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  perplexity text.txt                                    of the whole text
  perplexity text.txt --tokens 4096 --save source.safetensors
  perplexity text.txt --tokens 4096 --against source.safetensors

--save takes 4 bytes for each token of the vocabulary at each token of the text. --against compares with such a file of another
program with the same tokenizer, such as the one that this one was quantised from: KL divergence in nats, and how often both think the same
token the most probable.")]
pub(super) struct Options {
    /// A text file.
    text: PathBuf,
    /// Tokens of each sequence that the text is cut into [default: 512, or the context where that is less].
    #[arg(long, value_name = "TOKENS")]
    window: Option<usize>,
    /// Score at most so many tokens, from the beginning.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    tokens: usize,
    /// Write the log-probabilities of all tokens to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    save: Option<PathBuf>,
    /// Compare with the log-probabilities in this file.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// As one line of JSON.
    #[arg(long)]
    json: bool,
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| Error::Usage(format!("{}: not UTF-8", path.display())))
}

pub(super) fn run<M: LanguageModel + 'static>(program: Program<M>, options: &Options) -> Result<()> {
    let text = read(&options.text)?;
    let context = program.load_options()?.context_for(program.info)?;
    let window = options.window.unwrap_or(WINDOW.min(context));
    if window > context {
        return Err(Error::PromptTooLong { tokens: window, context });
    }
    let windows = Windows::new(&program.text()?.tokenizer, &text, window, options.tokens)?;
    let vocab_size = program.info.vocab_size;
    let mut save = options.save.as_ref().map(|path| Writer::create(path, &windows, vocab_size)).transpose()?;
    let mut against = options.against.as_ref().map(|path| Reader::open(path, &windows, vocab_size)).transpose()?;
    let mut model = program.model()?;
    let (mut own, mut source, mut divergence) = (Perplexity::default(), Perplexity::default(), Divergence::default());
    let all = windows.scored();
    windows.run(&mut model, &mut |token, row| {
        own.add(row[token as usize]);
        if let Some(writer) = &mut save {
            writer.add(row)?;
        }
        if let Some(reader) = &mut against {
            let row_of_source = reader.next_row()?;
            source.add(row_of_source[token as usize]);
            divergence.add(row_of_source, row);
        }
        if own.tokens().is_multiple_of(OFTEN) {
            terminal::progress(&format!("{} of {all} tokens, perplexity {:.3}", own.tokens(), own.value()));
        }
        Ok(())
    })?;
    terminal::progress("");
    save.map(Writer::finish).transpose()?;
    let (mean, error) = divergence.mean();
    let [most, largest] = [0.99, 1.0].map(|share| divergence.quantile(share));
    if options.json {
        let compared = options.against.as_ref().map(|_| {
            json!({
                "perplexity": source.value(), "kl_mean": mean, "kl_mean_error": error, "kl_99": most, "kl_max": largest,
                "same_top": divergence.same_top(),
            })
        });
        let measured = json!({
            "tokens": all, "window": window, "perplexity": own.value(), "perplexity_error": own.error(), "against": compared,
        });
        return terminal::print(&format!("{measured}\n"));
    }
    let mut lines =
        format!("{all} tokens in windows of {window}\nperplexity  {:.4} ± {:.4}\n", own.value(), own.error());
    if options.against.is_some() {
        lines += &format!(
            "  against   {:.4}\nKL          mean {mean:.5} ± {error:.5}, 99% {most:.5}, largest {largest:.5} nats\n\
             same top    {:.2}%\n",
            source.value(),
            100.0 * divergence.same_top()
        );
    }
    terminal::print(&lines)
}
