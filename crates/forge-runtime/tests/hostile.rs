//! Hostile chat templates: the attacks that a mutation would not find by chance.

use std::time::{Duration, Instant};

use forge_runtime::chat::ChatTemplate;
use serde_json::{Map, json};

fn render(source: &str) -> Result<String, String> {
    let template = ChatTemplate::new(source, &Map::new()).map_err(|error| error.to_string())?;
    template.render(&[json!({ "role": "user", "content": "x" })], true, &Map::new()).map_err(|error| error.to_string())
}

#[test]
fn a_tag_that_ends_in_its_own_beginning() {
    assert!(render("{%}").is_err());
    assert!(render("{%}{% generation %}x").is_err());
    assert_eq!(render("{% generation %}%}{% endgeneration %}").expect("renders"), "%}");
}

/// A loop that does `work` to `ns.x`, which begins as an empty list, as often as the fuel allows.
fn repeatedly(work: &str, end: &str) -> String {
    format!(
        "{{% set ns = namespace(x=[]) %}}{{% for a in range(3) %}}{{% for b in range(10000) %}}{{% set ns.x = {work} %}}\
         {{% endfor %}}{{% endfor %}}{end}"
    )
}

#[test]
fn values_nested_deeply() {
    assert!(render(&repeatedly("[ns.x]", "done")).expect("dropped").ends_with("done"));
    let written = render(&repeatedly("[ns.x]", "{{ ns.x }}")).expect("written");
    assert_eq!(written.len(), 2 * 30_001);
    assert!(render(&repeatedly("{'k': ns.x}", "{{ ns.x == ns.x }}")).is_ok());
    let error = render(&repeatedly("[ns.x]", "{{ ns.x | tojson }}")).expect_err("too deep");
    assert!(error.contains("tojson writes at most 1000 levels"), "{error}");
}

#[test]
fn prompts_of_any_length() {
    let error = render("{% for a in range(9) %}{{ 'x' * 10000000 }}{% endfor %}").expect_err("too long");
    assert!(error.contains("failed to write output"), "{error}");
    let shared =
        "{% set ns = namespace(x=['x']) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}";
    let error = render(shared).expect_err("too long");
    assert!(error.contains("failed to write output"), "{error}");
    let error = render("{{ messages | tojson(indent=1000000000000) }}").expect_err("too wide");
    assert!(error.contains("tojson indents by at most 64 spaces"), "{error}");
    let error = render(&"x".repeat(2 << 20)).expect_err("too long");
    assert!(error.contains("is longer than 1048576 bytes"), "{error}");
}

#[test]
fn endless_templates_end_soon() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% if n < 60 %}{{ f(n + 1) }}{{ f(n + 1) }}{% endif %}{% endmacro %}{{ f(0) }}",
        "{% for a in [1] recursive %}{{ loop([a]) }}{% endfor %}",
        "{{ range(10 ** 18) }}",
    ] {
        let start = Instant::now();
        assert!(render(source).is_err(), "{source}");
        assert!(start.elapsed() < Duration::from_secs(60), "{source}: {:?}", start.elapsed());
    }
}
