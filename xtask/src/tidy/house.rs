//! Invariants of planning, rendering and references (ARCHITECTURE.md): no decision from a name, no source text in a plan, no
//! family or operation that a match passes over.

/// Crates that the rules below are about.
const ROOMS: [&str; 3] = ["crates/forge-plan/src/", "crates/forge-codegen/src/", "crates/forge-runtime/src/verify/"];
/// Files whose matter is text: names at the ends, and the analysis of sources.
const TEXT: [&str; 5] = [
    "crates/forge-plan/src/roles.rs",
    "crates/forge-codegen/src/naming.rs",
    "crates/forge-codegen/src/reachable.rs",
    "crates/forge-codegen/src/sources.rs",
    "crates/forge-codegen/src/manifest.rs",
];
/// Enums of which every match names every variant.
const CLOSED: [&str; 5] = ["Family::", "Operation::", "Fused::", "Op::", "Outcome::"];

/// A line for each place that breaks one.
pub(super) fn check(files: &[(String, String)]) -> Vec<String> {
    let mut problems = Vec::new();
    let rooms = files.iter().filter(|(name, _)| ROOMS.iter().any(|room| name.starts_with(room)));
    for (name, text) in rooms.filter(|(name, _)| !TEXT.contains(&name.as_str())) {
        // Tests of a module stand at its end.
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines: Vec<&str> = product.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let mut problem = |what: &str| problems.push(format!("{name}:{}: {what}", number + 1));
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("== \"") || code.contains("!= \"") {
                problem("a decision from a name");
            }
            if name.starts_with(ROOMS[0])
                && ["\"float\"", "\"half\"", "\"uchar\""].iter().any(|word| code.contains(word))
            {
                problem("MSL in a plan");
            }
            if code.contains("decode: bool") {
                problem("rows are Rows, not a flag");
            }
            if code.trim_start().starts_with("_ =>") && is_of_closed(&lines[..number], code) {
                problem("a match on families or operations names every one");
            }
        }
    }
    problems
}

/// Whether the arms before one at this indentation name a variant of a closed enum.
fn is_of_closed(before: &[&str], arm: &str) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(arm);
    let arms = before.iter().rev().take_while(|line| line.trim().is_empty() || indent(line) >= own);
    let patterns = arms.filter(|line| indent(line) == own).map(|line| line.trim_start().trim_start_matches("| "));
    patterns.into_iter().any(|pattern| CLOSED.iter().any(|name| pattern.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn each_rule_finds_its_place() {
        let file = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
        let found = |name: &str, text: &str| check(&file(name, text));
        let plan = "crates/forge-plan/src/x.rs";
        assert_eq!(found(plan, "if role == \"lm_head\" {"), [format!("{plan}:1: a decision from a name")]);
        assert_eq!(found(plan, "let element = \"half\";"), [format!("{plan}:1: MSL in a plan")]);
        assert!(found("crates/forge-codegen/src/x.rs", "let element = \"half\";").is_empty());
        assert_eq!(found(plan, "fn f(decode: bool) {}"), [format!("{plan}:1: rows are Rows, not a flag")]);
        let matched = "match op {\n    Op::Add => 1,\n    Op::Scale { .. }\n    | Op::Rope => 2,\n    _ => 3,\n}";
        assert_eq!(found(plan, matched), [format!("{plan}:5: a match on families or operations names every one")]);
        let inner = "match op {\n    Op::Add => match width {\n        1 => 2,\n        _ => 3,\n    },\n}";
        assert!(found(plan, inner).is_empty());
        assert!(found(plan, "#[cfg(test)]\nmod tests { fn f() { assert!(x == \"y\") } }").is_empty());
        assert!(found("crates/forge/src/x.rs", "if name == \"x\" {}").is_empty());
    }
}
