//! Chat templates: what transformers' dialect of Jinja does.

use forge_runtime::chat::ChatTemplate;
use forge_runtime::messages::check_messages;

use serde_json::{Map, Value, json};

fn render_with(source: &str, messages: &Value, extra: &Value) -> Result<String, String> {
    let mut tokens = Map::new();
    tokens.insert("bos_token".into(), "<s>".into());
    tokens.insert("pad_token".into(), Value::Null);
    let template = ChatTemplate::new(source, &tokens).map_err(|error| error.to_string())?;
    let messages = check_messages(messages).map_err(|error| error.to_string())?;
    let extra = extra.as_object().cloned().unwrap_or_default();
    template.render(&messages, true, &extra).map_err(|error| error.to_string())
}

fn render(source: &str) -> String {
    let messages = json!([{ "role": "user", "content": " Hi <you> & 'me' " }]);
    render_with(source, &messages, &json!({})).expect("renders")
}

#[test]
fn whitespace_as_transformers_sets_it() {
    assert_eq!(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"), "a\nb\nc");
    assert_eq!(render("{%- for m in messages %}\n{{ m.role }}\n{% endfor %}\n"), "user\n");
}

#[test]
fn python_methods_and_literals() {
    assert_eq!(render("{{ messages[0]['content'].strip().upper() }}"), "HI <YOU> & 'ME'");
    assert_eq!(render("{{ 'a,b'.split(',')[-1] }}{{ 'abc'[::-1] }}{{ [1,2,3][1:] }}"), "bcba[2, 3]");
    assert_eq!(render("{{ {'a': 1}.items() | list }}{{ {'b': none}.get('b') }}{{ true }}"), "[('a', 1)]NoneTrue");
    assert_eq!(render("{{ 'x'.startswith('x') and 'xy'.endswith('y') }}{{ 'a-b'.replace('-', '+') }}"), "Truea+b");
    assert_eq!(
        render("{{ messages[0] is mapping }}{{ messages[0].content is string }}{{ tools is none }}"),
        "TrueTrueTrue"
    );
    assert_eq!(render("{{ bos_token }}{{ pad_token }}{{ eos_token is defined }}"), "<s>False");
    assert_eq!(
        render("{{ tools is iterable }}{{ 'a' is iterable }}{{ messages is iterable }}{{ 1 is iterable }}"),
        "FalseTrueTrueFalse"
    );
    assert_eq!(render("{{ {'b': [1, 'x']} }}"), "{'b': [1, 'x']}");
}

#[test]
fn loop_controls_namespaces_macros() {
    assert_eq!(
        render(
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        ),
        "023"
    );
    assert_eq!(
        render("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"),
        "6"
    );
    assert_eq!(render("{% macro f(a, b='!') %}{{ a ~ b }}{% endmacro %}{{ f('x') }}"), "x!");
}

#[test]
fn generation_blocks_are_transparent() {
    assert_eq!(render("a {%- generation -%} b {%- endgeneration %} c"), "ab c");
    assert_eq!(render("{% generation %}\nx\n{% endgeneration %}\ny"), "x\ny");
}

#[test]
fn tojson_is_json_dumps() {
    let extra = json!({ "tools": [{ "z": "é<&'\"\n", "a": [1, 2.0, 1e20, 1e-7, true, null], "e": {}, "l": [] }] });
    let messages = json!([{ "role": "user", "content": "x" }]);
    let plain = render_with("{{ tools | tojson }}", &messages, &extra).expect("renders");
    assert_eq!(plain, r#"[{"z": "é<&'\"\n", "a": [1, 2.0, 1e+20, 1e-07, true, null], "e": {}, "l": []}]"#);
    let indented = render_with("{{ tools[0].a[:2] | tojson(indent=2) }}", &messages, &extra).expect("renders");
    assert_eq!(indented, "[\n  1,\n  2.0\n]");
    let extra = json!({ "value": { "b": "é🙂", "a": 0.1 } });
    let ascii =
        render_with("{{ value | tojson(ensure_ascii=true, sort_keys=true) }}", &messages, &extra).expect("renders");
    assert_eq!(ascii, r#"{"a": 0.1, "b": "\u00e9\ud83d\ude42"}"#);
}

#[test]
fn templates_can_refuse() {
    let messages = json!([{ "role": "user", "content": "x" }]);
    let error =
        render_with("{{ raise_exception('roles must alternate') }}", &messages, &json!({})).expect_err("refuses");
    assert_eq!(error, "chat template: roles must alternate (line 1)");
    assert!(render_with("{% if %}", &messages, &json!({})).is_err());
}

#[test]
fn dates() {
    let year = render("{{ strftime_now('%Y') }}");
    assert!(year.len() == 4 && year.starts_with("20"), "{year}");
    let date = render("{{ strftime_now('%d %b %Y, é') }}");
    assert!(date.len() == 15 && date.ends_with(", é"), "{date}");
    assert_eq!(render("{{ strftime_now('') }}"), "");
    let messages = json!([{ "role": "user", "content": "x" }]);
    assert!(render_with("{{ strftime_now('%Y' * 100000) }}", &messages, &json!({})).is_err());
}

#[test]
fn endless_templates_end() {
    let messages = json!([{ "role": "user", "content": "x" }]);
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(10 ** 12) %}{% endfor %}",
    ] {
        assert!(render_with(source, &messages, &json!({})).is_err(), "{source}");
    }
}

#[test]
fn message_forms() {
    let parts =
        json!([{ "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] }]);
    assert_eq!(check_messages(&parts).expect("text parts")[0]["content"], parts[0]["content"]);
    let call = json!([{ "role": "assistant", "content": null, "tool_calls": [] }]);
    assert!(check_messages(&call).expect("null content")[0]["content"].is_null());
    for (bad, words) in [
        (json!([]), "messages is empty"),
        (json!("hi"), "messages is not a list"),
        (json!([1]), "messages[0] is not an object"),
        (json!([{ "content": "x" }]), "messages[0].role is not a string"),
        (json!([{ "role": "user" }]), "messages[0].content is missing"),
        (json!([{ "role": "user", "content": 3 }]), "messages[0].content is neither a string nor a list of parts"),
        (
            json!([{ "role": "user", "content": [{ "type": "image_url" }] }]),
            "messages[0].content has a part that is not text",
        ),
    ] {
        assert_eq!(check_messages(&bad).expect_err("bad").to_string(), words);
    }
}
