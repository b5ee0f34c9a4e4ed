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
                let reached = site.kernels.len() - outcome.reports.unreached.len();
                let noticed = format!("{}/{reached}", reached - silent.len());
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

/// Puts the tables of a case into docs/verification.md, in place of those that it has there, else as the last.
///
/// # Errors
/// A file that lacks the marks between which they belong.
pub fn write(case: &Finished) -> Result<()> {
    let path = shell::root().join(FILE);
    let old = std::fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let noticed = case.outcomes.iter().filter(|outcome| case.silent(outcome).is_empty()).count();
    let slots = if case.slots == 1 { "1 slot".to_owned() } else { format!("{} slots", case.slots) };
    let name = format!("{}, {slots}", case.name);
    let section = format!("{name}: {noticed} of {} mutants noticed\n\n{}\n", case.outcomes.len(), table(case));
    let new = replaced(&old, &name, &section).with_context(|| format!("{FILE}: no {BEGIN} and {END}"))?;
    std::fs::write(&path, new).with_context(|| format!("cannot write {FILE}"))
}

/// `old` with this section in place of the one of that name; `None` without the marks.
fn replaced(old: &str, name: &str, section: &str) -> Option<String> {
    const HEADING: &str = "### ";
    let (before, rest) = old.split_once(BEGIN)?;
    let (tables, after) = rest.split_once(END)?;
    let mut sections: Vec<&str> = tables.split(HEADING).map(str::trim_start).filter(|text| !text.is_empty()).collect();
    let place = sections.iter().position(|text| text.split(':').next() == Some(name));
    match place {
        Some(place) => sections[place] = section,
        None => sections.push(section),
    }
    let sections: Vec<String> = sections.iter().map(|text| format!("\n{HEADING}{}\n", text.trim_end())).collect();
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", sections.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_or_added() {
        let document = |sections: &str| format!("before\n{BEGIN}\n{sections}\n{END}\nafter\n");
        let one = replaced(&document(""), "a, 1 slot", "a, 1 slot: 2 of 2\n\n| x |\n").unwrap();
        assert_eq!(one, document("\n### a, 1 slot: 2 of 2\n\n| x |\n"));
        let two = replaced(&one, "a, 2 slots", "a, 2 slots: 3 of 3\n\n| y |\n").unwrap();
        let again = replaced(&two, "a, 1 slot", "a, 1 slot: 4 of 4\n").unwrap();
        assert_eq!(again, document("\n### a, 1 slot: 4 of 4\n\n### a, 2 slots: 3 of 3\n\n| y |\n"));
        assert_eq!(replaced("no marks", "a", "a: 1"), None);
    }
}
