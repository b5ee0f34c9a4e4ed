//! The tables of `cargo xtask mutate`, on the terminal and in docs/verification.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result};

use super::{Finished, Mutant, between};
use crate::shell;

const FILE: &str = "docs/verification.md";
const BEGIN: &str = "<!-- cargo xtask mutate --write: begin -->";
const END: &str = "<!-- cargo xtask mutate --write: end -->";

/// The tables of one case, in Markdown.
pub fn table(case: &Finished) -> String {
    let mut text = String::new();
    let mut row = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let header = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let columns = ["removed", "mem_none", "mem_device", "mem_threadgroup"];
    let of_kernels = |outcome: &&super::Outcome| matches!(outcome.mutant, Mutant::Kernel(..));
    if case.outcomes.iter().any(|outcome| of_kernels(&outcome)) {
        row(&[header(&["barrier in", "of", "kernels that reach it"]), header(&columns)].concat());
        row(&vec!["---".to_owned(); 3 + columns.len()]);
    }
    let mut ordinal: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, site) in case.sites.iter().enumerate() {
        let ordinal = ordinal.entry(&site.function).or_default();
        *ordinal += 1;
        let cell = |column: &&str| {
            let outcome = case.outcomes.iter().find(|outcome| {
                matches!(&outcome.mutant, Mutant::Kernel(at, change) if *at == number && change.name() == *column)
            });
            outcome.map_or_else(String::new, |outcome| {
                let silent = case.silent(outcome);
                let noticed = format!("{}/{}", site.kernels.len() - silent.len(), site.kernels.len());
                if silent.is_empty() { noticed } else { format!("{noticed}, not {}", silent.join(", ")) }
            })
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        if cells.iter().all(String::is_empty) {
            continue;
        }
        let kernels: Vec<String> = site.kernels.iter().map(|kernel| format!("`{kernel}`")).collect();
        row(&[vec![format!("`{}` {ordinal}", site.function), site.barrier.clone(), kernels.join(", ")], cells].concat());
    }
    let mut pairs: BTreeMap<(&str, String), (usize, usize)> = BTreeMap::new();
    for outcome in &case.outcomes {
        let Mutant::Schedule(label, index) = outcome.mutant else { continue };
        let pair = match between(&outcome.reports).into_iter().collect::<Vec<_>>() {
            pairs if pairs.is_empty() => format!("barrier {index}"),
            pairs => {
                let shown: BTreeSet<String> =
                    pairs.iter().map(|(first, second)| format!("`{first}` to `{second}`")).collect();
                shown.into_iter().collect::<Vec<_>>().join(", ")
            }
        };
        let (count, noticed) = pairs.entry((label, pair)).or_default();
        *count += 1;
        *noticed += usize::from(case.silent(outcome).is_empty());
    }
    if !pairs.is_empty() {
        text.push('\n');
        let mut row = |cells: &[String]| {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        };
        row(&header(&["command buffer", "barrier between", "left out", "noticed"]));
        row(&vec!["---".to_owned(); 4]);
        for ((label, pair), (count, noticed)) in pairs {
            row(&[label.to_owned(), pair, count.to_string(), noticed.to_string()]);
        }
    }
    text
}

/// Replaces the tables in docs/verification.md.
///
/// # Errors
/// A file that lacks the marks between which they belong.
pub fn write(cases: &[Finished]) -> Result<()> {
    let path = shell::root().join(FILE);
    let old = std::fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let around = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = around.with_context(|| format!("{FILE}: no {BEGIN} and {END}"))?;
    let mut text = format!("{before}{BEGIN}\n");
    for case in cases {
        let noticed = case.outcomes.iter().filter(|outcome| case.silent(outcome).is_empty()).count();
        let _ = write!(
            text,
            "\n### {}: {noticed} of {} mutants noticed\n\n{}",
            case.name,
            case.outcomes.len(),
            table(case)
        );
    }
    let _ = write!(text, "\n{END}{after}");
    std::fs::write(&path, text).with_context(|| format!("cannot write {FILE}"))
}
