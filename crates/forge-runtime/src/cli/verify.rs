//! `verify`: the weights file is read whole and its hash compared.

use super::super::weights::{Weights, verify};
use super::super::{LanguageModel, Result};
use super::{Program, terminal};

pub(super) fn run<M: LanguageModel + 'static>(program: &Program<M>) -> Result<()> {
    let options = program.load_options()?;
    Weights::open(&options.weights, program.info)?;
    let (digest, compared) = verify(&options.weights, |_| {})?;
    let verdict = if compared { "matches its record" } else { "no record to compare with" };
    terminal::print(&format!("{}: length and header match; sha256 {digest}, {verdict}\n", options.weights.display()))
}
