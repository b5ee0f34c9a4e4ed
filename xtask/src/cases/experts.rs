//! The experts that a program's routers choose against those that transformers chose (`tests/python/expert_choices.py`), token
//! by token and router by router.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors};

use super::files::{self, Case};
use crate::shell;

/// What one router chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Choices {
    /// Experts of a token.
    pub chosen: usize,
    /// `[tokens, chosen]`.
    pub experts: Vec<u32>,
    /// How clear each token's choice was, in units of what experts are chosen by; of references alone.
    pub margins: Vec<f32>,
}

/// How many choices were compared, and a line for each that differs.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Choices of a router for a token.
    pub checks: usize,
    /// Those that are the same.
    pub same: usize,
    /// Those that differ, or may because they were closer than the bound, and how close.
    pub close: Vec<f32>,
    /// What differed though it was clear.
    pub failures: Vec<String>,
}

impl Outcome {
    /// As a cell of the table: `56/56`, and the closest of the choices that are close.
    pub fn cell(&self) -> String {
        let least = self.close.iter().copied().reduce(f32::min);
        let least = least.map_or_else(String::new, |least| format!(" ({} by {least:.0e})", self.close.len()));
        if self.checks == 0 { String::new() } else { format!("{}/{}{least}", self.same, self.checks) }
    }
}

/// Runs the case's prompt in tiles and token by token, and compares every choice. One that is clearer than `bound` has to be the same.
/// Nothing where there is no reference.
///
/// # Errors
/// An unreadable reference, a program that fails, routers of other numbers.
pub fn run(case: &Case, program: &Path, ids: &[u32], bound: f32) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(path) = reference(case) else { return Ok(outcome) };
    let expected = read(&path).with_context(|| path.display().to_string())?;
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("experts.safetensors");
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    for (path, flags) in [("prefill", &[][..]), ("decode", &["--decode"][..])] {
        let mut command = Command::new(program);
        command.args(["logits", "--experts", "--ids", &list]).args(flags).arg("-o").arg(&file);
        shell::capture(&mut command)?;
        compare(path, &expected, &read(&file)?, bound, &mut outcome)?;
    }
    Ok(outcome)
}

/// The case's own file, or that of this repository for a case of this name.
fn reference(case: &Case) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/experts");
    let files = [case.path.join("experts.safetensors"), here.join(format!("{}.safetensors", case.name))];
    files.into_iter().find(|path| path.is_file())
}

fn read(path: &Path) -> Result<Vec<Choices>> {
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut all = Vec::new();
    while let Ok(tensor) = tensors.tensor(&format!("{}.experts", all.len())) {
        let [_, chosen] = tensor.shape() else { anyhow::bail!("{:?} is no matrix", tensor.shape()) };
        let experts = files::words(&tensors, &format!("{}.experts", all.len()), Dtype::I32)?;
        let margin = format!("{}.margin", all.len());
        let margins =
            if tensors.tensor(&margin).is_ok() { files::words(&tensors, &margin, Dtype::F32)? } else { Vec::new() };
        all.push(Choices { chosen: *chosen, experts, margins: margins.into_iter().map(f32::from_bits).collect() });
    }
    Ok(all)
}

fn compare(path: &str, expected: &[Choices], found: &[Choices], bound: f32, outcome: &mut Outcome) -> Result<()> {
    ensure!(expected.len() == found.len(), "{} routers chose, not {}", found.len(), expected.len());
    for (router, (expected, found)) in expected.iter().zip(found).enumerate() {
        let shape = |choices: &Choices| (choices.experts.len(), choices.chosen);
        ensure!(
            shape(expected) == shape(found),
            "router {router}: {:?} chosen, not {:?}",
            shape(found),
            shape(expected)
        );
        let tokens = expected.experts.chunks(expected.chosen).zip(found.experts.chunks(found.chosen));
        for (token, ((expected, found), &margin)) in tokens.zip(&expected.margins).enumerate() {
            let set = |experts: &[u32]| std::collections::BTreeSet::from_iter(experts.iter().copied());
            let same = set(expected) == set(found);
            outcome.checks += 1;
            outcome.same += usize::from(same);
            if margin <= bound {
                outcome.close.push(margin);
            } else if !same {
                outcome.failures.push(format!(
                    "{path}: router {router}, token {token}: experts {found:?}, expected {expected:?} by {margin:.1e}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Choices, Outcome, compare};

    fn choices(experts: &[u32], margins: &[f32]) -> Vec<Choices> {
        vec![Choices { chosen: 2, experts: experts.to_vec(), margins: margins.to_vec() }]
    }

    #[test]
    fn choices_are_sets_and_clear_ones_count() {
        let expected = choices(&[0, 3, 1, 2, 5, 4], &[0.5, 1e-4, 0.1]);
        let mut outcome = Outcome::default();
        compare("decode", &expected, &choices(&[3, 0, 1, 7, 5, 4], &[]), 1e-3, &mut outcome).unwrap();
        assert_eq!((outcome.checks, outcome.same, outcome.cell()), (3, 2, "2/3 (1 by 1e-4)".to_owned()));
        assert_eq!(outcome.failures, [""; 0], "a choice that is close may differ");
        compare("decode", &expected, &choices(&[3, 0, 1, 2, 5, 6], &[]), 1e-3, &mut outcome).unwrap();
        assert_eq!(outcome.failures, ["decode: router 0, token 2: experts [5, 6], expected [5, 4] by 1.0e-1"]);
        assert!(
            compare("decode", &expected, &choices(&[3, 0], &[]), 1e-3, &mut outcome).is_err(),
            "another number of tokens"
        );
        assert!(compare("decode", &expected, &[], 1e-3, &mut outcome).is_err(), "no routers");
    }
}
