//! Errors and warnings that no test sees. Every variant of an error, a warning or a `refusals!` list in the crates below is made
//! somewhere, and named by a test; a refusal is made in one place, so that its test is that place's.

use std::collections::BTreeSet;

/// The crates between a checkpoint and the command line.
const CRATES: [&str; 6] = [
    "crates/forge-formats/",
    "crates/forge-frontend/",
    "crates/forge-pack/",
    "crates/forge-plan/",
    "crates/forge-sources/",
    "crates/forge/",
];

/// An enum whose variants are held to the rule.
struct List<'a> {
    file: &'a str,
    name: &'a str,
    variants: Vec<&'a str>,
    /// Whether each is made in one place alone.
    once: bool,
}

/// What the sources and tests of these crates leave out. `files` are names and texts of the whole repository.
pub(super) fn check(files: &[(String, String)]) -> Vec<String> {
    let ours = |name: &str| CRATES.iter().any(|folder| name.starts_with(folder)) && name.ends_with(".rs");
    let mut product: Vec<(&str, &str)> = Vec::new();
    let mut tests: Vec<(&str, &str)> = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| ours(name)) {
        if name.contains("/tests/") {
            tests.push((name, text));
            continue;
        }
        let end = text.find("#[cfg(test)]").unwrap_or(text.len());
        product.push((name, &text[..end]));
        tests.push((name, &text[end..]));
    }
    let mut problems = Vec::new();
    for List { file, name, variants, once } in product.iter().flat_map(|(file, text)| lists(file, text)) {
        let folder = CRATES.iter().find(|folder| file.starts_with(**folder)).copied().unwrap_or_default();
        // Several crates have an `Error`.
        let near = |other: &str| name != "Error" || other.starts_with(folder);
        let tested: BTreeSet<&str> =
            tests.iter().filter(|(other, _)| near(other)).flat_map(|(_, text)| named(text, name)).collect();
        let made: Vec<&str> = product
            .iter()
            .filter(|(other, _)| near(other) && !(once && *other == file))
            .flat_map(|(other, text)| {
                let own = if *other == file { named(text, "Self") } else { Vec::new() };
                named(text, name).into_iter().chain(own)
            })
            .collect();
        for variant in variants {
            let count = made.iter().filter(|other| **other == variant).count();
            if count == 0 {
                problems.push(format!("{file}: {name}::{variant} is made nowhere"));
            }
            if once && count > 1 {
                problems.push(format!("{file}: {name}::{variant} is made in {count} places; each needs its own"));
            }
            if !tested.contains(variant) {
                problems.push(format!("{file}: {name}::{variant} is named by no test"));
            }
        }
    }
    problems
}

/// The errors, warnings and refusals that a source defines.
fn lists<'a>(file: &'a str, text: &'a str) -> Vec<List<'a>> {
    let mut lists = Vec::new();
    for (at, _) in text.match_indices("thiserror::Error") {
        let rest = &text[at..];
        let Some(start) = rest.find("pub enum ") else { continue };
        let rest = &rest[start + "pub enum ".len()..];
        let Some((name, body)) = rest.split_once(" {\n") else { continue };
        let body = body.split("\n}").next().unwrap_or_default();
        lists.push(List { file, name, variants: variants(body), once: false });
    }
    if let Some((_, body)) = text.split_once("\nrefusals! {\n") {
        let body = body.split("\n}").next().unwrap_or_default();
        lists.push(List { file, name: "Refusal", variants: variants(body), once: true });
    }
    lists
}

/// The variants in the body of an enum as rustfmt writes it: attributes and names at four blanks. Left out are those that pass
/// on another error of a list (`transparent`), or one of the refusals.
fn variants(body: &str) -> Vec<&str> {
    let mut variants: Vec<&str> = Vec::new();
    let mut transparent = false;
    for line in body.lines() {
        let word = line.strip_prefix("    ").unwrap_or_default();
        if word.starts_with("#[error(") {
            transparent = word.contains("transparent");
        } else if word.starts_with(char::is_uppercase) && !transparent {
            variants.push(&word[..word.len() - word.trim_start_matches(char::is_alphanumeric).len()]);
        } else if word.trim_start() == "refusal: Refusal," {
            variants.pop();
        }
    }
    variants
}

/// The identifiers that follow `list::` in a text.
fn named<'a>(text: &'a str, list: &str) -> Vec<&'a str> {
    let path = format!("{list}::");
    let whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let name = |at: usize| {
        let rest = &text[at + path.len()..];
        &rest[..rest.len() - rest.trim_start_matches(char::is_alphanumeric).len()]
    };
    text.match_indices(&path).filter(|(at, _)| whole(*at)).map(|(at, _)| name(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::check;

    const ERRORS: &str = "//! E.\n#[derive(Debug, thiserror::Error)]\npub enum AnError {\n    /// A.\n    #[error(\"a\")]\n    A,\n    \
        /// B.\n    #[error(\"b\")]\n    B {\n        /// F.\n        field: u8,\n    },\n    /// C.\n    #[error(transparent)]\n    \
        C(#[from] Other),\n    /// D.\n    \
        #[error(\"d\")]\n    D {\n        /// R.\n        refusal: Refusal,\n    },\n}\n";
    const REFUSALS: &str = "//! R.\nrefusals! {\n    /// X.\n    X,\n    /// Y.\n    Y,\n}\n";

    fn problems(product: &str, test: &str) -> Vec<String> {
        let file = |name: &str, text: &str| (format!("crates/forge-pack/{name}"), text.to_owned());
        check(&[
            file("src/error.rs", ERRORS),
            file("src/refusal.rs", REFUSALS),
            file("src/lib.rs", product),
            file("tests/t.rs", test),
        ])
    }

    #[test]
    fn what_is_made_and_tested_passes() {
        let product = "AnError::A; AnError::B { field: 1 }; Refusal::X; Refusal::Y\n#[cfg(test)]\nRefusal::X";
        assert_eq!(problems(product, "AnError::A AnError::B Refusal::Y"), [""; 0]);
    }

    #[test]
    fn what_is_not_is_named() {
        let found = problems("AnError::A; Refusal::X; Refusal::X; NotRefusal::Y", "AnError::B Refusal::X");
        let expected = [
            "crates/forge-pack/src/error.rs: AnError::A is named by no test",
            "crates/forge-pack/src/error.rs: AnError::B is made nowhere",
            "crates/forge-pack/src/refusal.rs: Refusal::X is made in 2 places; each needs its own",
            "crates/forge-pack/src/refusal.rs: Refusal::Y is made nowhere",
            "crates/forge-pack/src/refusal.rs: Refusal::Y is named by no test",
        ];
        assert_eq!(found, expected);
    }
}
