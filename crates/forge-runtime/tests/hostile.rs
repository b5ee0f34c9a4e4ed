//! Hostile chat templates: a bounded, deterministic run of the fuzz target, and the attacks that a mutation would not find by
//! chance.

#[path = "../../../fuzz/src/bounded.rs"]
#[allow(dead_code, reason = "rendering is bounded by the program's own allocator")]
mod bounded;
#[path = "../../../fuzz/src/template.rs"]
mod template;

use std::time::{Duration, Instant};

use forge_runtime::Error;
use forge_runtime::chat::{ChatTemplate, MOST_GIVEN_UP};
use forge_runtime::memory::Allocator;
use serde_json::{Map, json};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

#[test]
fn mutated_templates() {
    let (seeds, mutations) = bounded::run("template", 8000, template::render);
    assert!(seeds >= 8 && mutations >= 250, "{seeds} seeds and {mutations} mutations were accepted");
}

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

/// Sources as long as they may be, made of what the translation to the engine's syntax rewrites.
#[test]
fn long_sources_are_translated_in_time() {
    for (before, part, after) in [
        ("{{ 1", " % 2", " }}"),
        ("{{ 'a'", " * messages", " }}"),
        ("{{ 'a'", " + 'b'|safe", " }}"),
        ("{{ messages", "[::1]", " }}"),
        ("{{ ", "(", " }}"),
        ("{{ ", "[[[[1 % 2 % 3], 4 % 5], 6][::1]] + ", "1 }}"),
        ("{{ '", "\\x41\\101", "' }}"),
        ("", "{% raw %}", ""),
        ("", "{% raw %}{% endraw %}", ""),
        ("", "{% macro m(a, b=a) %}{% endmacro %}", ""),
        ("{% macro m(a", ", b=a", ") %}{% endmacro %}"),
        ("", "{", ""),
    ] {
        let start = Instant::now();
        let count = (1 << 20) / part.len() - 20;
        let _ = ChatTemplate::new(&format!("{before}{}{after}", part.repeat(count)), &Map::new());
        assert!(start.elapsed() < Duration::from_secs(60), "{part}: {:?}", start.elapsed());
        println!("{part}: {:?}", start.elapsed());
    }
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
        "{% set ns = namespace(x='ab') %}{% for i in range(255) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ '%1099511627775d' | format(1) }}",
        "{{ messages[0].content | indent(width=1099511627775) }}{{ '\n' | indent(1099511627775, true) }}",
    ] {
        let start = Instant::now();
        assert!(render(source).is_err(), "{source}");
        assert!(start.elapsed() < Duration::from_secs(60), "{source}: {:?}", start.elapsed());
    }
}

/// What slow templates get here.
const SOON: Duration = Duration::from_secs(2);

/// A few instructions that each take long: only the clock stops those. Others of the same template go on meanwhile.
#[test]
fn slow_templates_are_given_up() {
    let source = "{% if messages[0].content == 'x' %}{% for a in range(99999) %}{% for b in range(99999) %}\
        {% if messages[0].content * 9000000 == 'y' %}{% endif %}{% endfor %}{% endfor %}{% endif %}done";
    let template = ChatTemplate::new(source, &Map::new()).expect("parses").given_up_after(SOON);
    let render = |content: &str| template.render(&[json!({ "role": "user", "content": content })], true, &Map::new());
    let error = render("x").expect_err("too slow").to_string();
    assert!(error.contains("took longer than 2 seconds"), "{error}");
    assert_eq!(template.given_up(), 1);
    assert_eq!(render("z").expect("renders"), "done");
}

/// What takes too long and writes ends once nobody waits for it.
#[test]
fn slow_templates_that_write_end() {
    let source =
        "{% for a in range(99999) %}{% if messages[0].content * 9000000 == 'y' %}{% endif %}{{ a }}{% endfor %}";
    let template = ChatTemplate::new(source, &Map::new()).expect("parses").given_up_after(SOON);
    let render = || template.render(&[json!({ "role": "user", "content": "x" })], true, &Map::new());
    assert!(render().expect_err("too slow").to_string().contains("took longer than"));
    while template.given_up() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A rendering that asks for too much memory keeps what it has; only so many may.
#[test]
fn greedy_templates_are_given_up() {
    let source = "{% if messages[0].content == 'x' %}{% set a = 'x' * 90000000 %}{{ (a ~ a ~ a ~ a ~ a ~ a) | length }}{% endif %}done";
    let template = ChatTemplate::new(source, &Map::new()).expect("parses");
    let render = |content: &str| template.render(&[json!({ "role": "user", "content": content })], true, &Map::new());
    for count in 1..=MOST_GIVEN_UP {
        assert_eq!(render("z").expect("renders"), "done");
        assert!(render("x").expect_err("too much").to_string().contains("more than 512 MiB"));
        assert_eq!(template.given_up(), count);
    }
    assert!(matches!(render("z"), Err(Error::RenderingsGivenUp { renderings: MOST_GIVEN_UP })));
}
