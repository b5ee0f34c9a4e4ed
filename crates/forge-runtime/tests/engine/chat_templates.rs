//! From the messages that clients send to prompts: which template, what it is given, how the prompt ends.

use std::path::Path;

use crate::common;
use forge_runtime::assets::Text;
use forge_runtime::chat_templates::{ChatTemplates, Ending};
use forge_runtime::messages::check_messages;
use forge_runtime::{Assets, Error};
use serde_json::{Map, Value, json};

fn templates(sources: &[(&'static str, &'static str)]) -> ChatTemplates {
    ChatTemplates::new(sources.iter().copied(), &Map::new())
}

fn render(templates: &ChatTemplates, fields: &Value) -> Result<String, String> {
    let mut fields = fields.as_object().expect("fields").clone();
    let messages = fields.remove("messages").expect("messages");
    let ending = Ending::of(&fields, &messages, false).map_err(|error| error.to_string())?;
    templates.render(&messages, ending, &fields).map_err(|error| error.to_string())
}

#[test]
fn reported_templates_render_as_in_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat_reports");
    for name in ["crlf-chat-template", "tojson-separators", "tool-arguments-json-string", "unparsable-template"] {
        let source = std::fs::read_to_string(folder.join(name).join("chat_template.jinja")).expect("a template");
        let case = std::fs::read(folder.join(name).join("case.json")).expect("a case");
        let case: Value = serde_json::from_slice(&case).expect("JSON");
        let templates = ChatTemplates::new([("default", source.as_str())], &Map::new());
        let found = render(&templates, &case["chat"]);
        match case["rendered"].as_str() {
            Some(expected) => assert_eq!(found.as_deref(), Ok(expected), "{name}"),
            None => assert!(found.expect_err(name).contains("unknown statement trans (line 7)"), "{name}"),
        }
    }
}

#[test]
fn line_ends_of_every_kind() {
    for source in [
        "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n{{ 'x\r\ny' }}\r\n",
        "a\r{% if true %}\rb\r{% endif %}\r{{ 'x\ry' }}\r",
    ] {
        let templates = ChatTemplates::new([("default", source)], &Map::new());
        assert_eq!(
            render(&templates, &json!({ "messages": [{ "role": "user", "content": "" }] })).as_deref(),
            Ok("a\nb\nx\ny")
        );
    }
}

#[test]
fn separators_of_every_form() {
    let rendered = |options: &str| {
        let source = format!("{{{{ tools | tojson({options}) }}}}");
        let templates = ChatTemplates::new([("default", source.as_str())], &Map::new());
        let messages = json!([{ "role": "user", "content": "x" }]);
        render(&templates, &json!({ "messages": messages, "tools": [{ "b": "é", "a": [] }] }))
    };
    for (options, expected) in [
        ("", r#"[{"b": "é", "a": []}]"#),
        ("separators=(',', ':')", r#"[{"b":"é","a":[]}]"#),
        ("separators=[';', '=']", r#"[{"b"="é";"a"=[]}]"#),
        ("separators=none", r#"[{"b": "é", "a": []}]"#),
        ("indent=1, separators=(',', ': ')", "[\n {\n  \"b\": \"é\",\n  \"a\": []\n }\n]"),
        ("indent=1, separators=(' ,', ':')", "[\n {\n  \"b\":\"é\" ,\n  \"a\":[]\n }\n]"),
        ("indent='\\t'", "[\n\t{\n\t\t\"b\": \"é\",\n\t\t\"a\": []\n\t}\n]"),
        ("indent=0", "[\n{\n\"b\": \"é\",\n\"a\": []\n}\n]"),
        ("true", r#"[{"b": "\u00e9", "a": []}]"#),
        ("true, none, (',', ':'), true", r#"[{"a":[],"b":"\u00e9"}]"#),
    ] {
        assert_eq!(rendered(options).as_deref(), Ok(expected), "{options}");
    }
    assert!(rendered("separators=','").is_err() && rendered("seps=1").is_err() && rendered("1, 2, 3, 4, 5").is_err());
}

#[test]
fn arguments_of_tool_calls_are_objects() {
    let arguments = |arguments: Value| {
        let call = json!({ "type": "function", "function": { "name": "f", "arguments": arguments } });
        let messages = json!([{ "role": "assistant", "content": null, "tool_calls": [call] }]);
        check_messages(&messages).expect("a call")[0]["tool_calls"][0]["function"]["arguments"].clone()
    };
    assert_eq!(arguments(json!("{\"b\": [1, 2.50], \"a\": null}")).to_string(), r#"{"b":[1,2.5],"a":null}"#);
    for same in [json!({ "a": 1 }), json!(""), json!("[1]"), json!("{\"a\":"), json!("hi"), json!(null)] {
        assert_eq!(arguments(same.clone()), same);
    }
    // The form of older clients, and calls without "function".
    let old = json!([{ "role": "assistant", "function_call": { "name": "f", "arguments": "{\"a\": 1}" } },
        { "role": "assistant", "tool_calls": [{ "name": "f", "arguments": "{\"a\": 1}" }] }]);
    let old = check_messages(&old).expect("calls");
    assert_eq!(old[0]["function_call"]["arguments"], json!({ "a": 1 }));
    assert_eq!(old[1]["tool_calls"][0]["arguments"], json!({ "a": 1 }));
}

#[test]
fn messages_as_transformers_normalizes_them() {
    let messages = json!([
        { "role": "assistant", "content": null, "tool_calls": null, "reasoning": "r" },
        { "role": "assistant", "content": "", "thinking": "t", "reasoning_content": "c" },
    ]);
    let checked = check_messages(&messages).expect("messages");
    let written: Vec<String> = checked.iter().map(Value::to_string).collect();
    assert_eq!(written[0], r#"{"thinking":"r","role":"assistant","reasoning":"r","reasoning_content":"r"}"#);
    assert_eq!(written[1], r#"{"thinking":"t","role":"assistant","content":"","reasoning_content":"c"}"#);
}

#[test]
fn a_template_that_does_not_parse_leaves_the_rest() {
    let assets = Assets { chat_template: Some("{% trans %}x{% endtrans %}"), ..common::assets("demo") };
    let text = Text::load(&assets).expect("loads");
    assert_eq!(
        text.tokenizer.encode("hello", true).expect("encodes"),
        common::text("demo").tokenizer.encode("hello", true).expect("encodes")
    );
    let messages = json!([{ "role": "user", "content": "hello" }]);
    let error = text.render_chat(&messages, Ending::Opened, &Map::new()).expect_err("needs the template");
    assert!(matches!(error, Error::Template(_)) && error.to_string().contains("unknown statement trans"), "{error}");
}

#[test]
fn requests_choose_among_named_templates() {
    let all = [("default", "D"), ("tool_use", "T{{ tools | length }}"), ("rag", "R"), ("other", "O")];
    let named = templates(&all);
    let messages = json!([{ "role": "user", "content": "x" }]);
    let with = |fields: Value| {
        let mut all = json!({ "messages": messages });
        all.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
        all
    };
    for (fields, expected) in [
        (json!({}), "D"),
        (json!({ "tools": [] }), "D"),
        (json!({ "tools": [{}] }), "T1"),
        (json!({ "documents": [{}] }), "R"),
        (json!({ "tools": [{}], "documents": [{}] }), "T1"),
        (json!({ "tools": [{}], "chat_template": "other" }), "O"),
        (json!({ "chat_template": null }), "D"),
    ] {
        assert_eq!(render(&named, &with(fields.clone())).as_deref(), Ok(expected), "{fields}");
    }
    let unknown = render(&named, &with(json!({ "chat_template": "x" }))).expect_err("unknown");
    assert_eq!(unknown, "chat template: there is none named \"x\", but default, other, rag, tool_use");
    let alone = templates(&all[1..3]);
    assert_eq!(render(&alone, &with(json!({ "tools": [{}] }))).as_deref(), Ok("T1"));
    assert!(render(&alone, &with(json!({}))).expect_err("no default").contains("there is no default one"));
    assert!(render(&templates(&[]), &with(json!({}))).is_err());
    // One that does not parse does not matter to who needs another.
    let broken = templates(&[("default", "D"), ("tool_use", "{% x %}")]);
    assert_eq!(render(&broken, &with(json!({}))).as_deref(), Ok("D"));
    assert!(render(&broken, &with(json!({ "tools": [{}] }))).is_err());
}

#[test]
fn named_templates_come_from_generation_json() {
    let generation = r#"{ "bos_token": "<s>", "chat_templates": { "tool_use": "{{ bos_token }}T" } }"#;
    let text = Text::load(&Assets { generation, ..common::assets("demo") }).expect("loads");
    let messages = json!([{ "role": "user", "content": "x" }]);
    let tools = Map::from_iter([("tools".to_owned(), json!([{}]))]);
    assert_eq!(text.render_chat(&messages, Ending::Opened, &tools).expect("renders"), "<s>T");
    assert_eq!(text.render_chat(&messages, Ending::Closed, &Map::new()).expect("renders"), "<s><|user|>\nx<|end|>\n");
}

#[test]
fn developers_are_systems_where_a_template_knows_none() {
    let plain = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
    let knowing = "{% for m in messages %}{% if m.role == 'developer' %}!{% endif %}{{ m.role }};{% endfor %}";
    let fields = json!({ "messages": [{ "role": "developer", "content": "a" }, { "role": "user", "content": "b" }] });
    assert_eq!(render(&templates(&[("default", plain)]), &fields).as_deref(), Ok("system:a;user:b;"));
    assert_eq!(render(&templates(&[("default", knowing)]), &fields).as_deref(), Ok("!developer;user;"));
}

#[test]
fn contents_have_the_form_that_the_template_takes() {
    let strings = "{% for m in messages %}{{ m.content }}|{% endfor %}";
    let either = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}|{% endfor %}";
    let parts =
        "{% for m in messages %}{% for p in m.content if p.type == 'text' %}[{{ p.text }}]{% endfor %}|{% endfor %}";
    let users = "{% for m in messages %}{% if m.role == 'user' and m.content is not string %}{{ m.content[0].text }}{% else %}{{ m.content }}{% endif %}|{% endfor %}";
    let list = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
    let fields = json!({ "messages": [{ "role": "system", "content": list }, { "role": "user", "content": list }, { "role": "user", "content": "c" }] });
    for (source, expected) in
        [(strings, "a\nb|a\nb|c|"), (either, "ab|ab|c|"), (parts, "[a][b]|[a][b]|[c]|"), (users, "a\nb|a|c|")]
    {
        assert_eq!(render(&templates(&[("default", source)]), &fields).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn the_last_message_can_be_continued() {
    let keeping = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let stripping = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}";
    let first = "{{ messages[0].content }}";
    let chat = |content: Value, more: Value| {
        let mut fields =
            json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": content }] });
        fields.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        fields
    };
    let continued = json!({ "continue_final_message": true });
    let keeping = templates(&[("default", keeping)]);
    let stripping = templates(&[("default", stripping)]);
    let ends = "<user>x</><assistant>Well, ";
    assert_eq!(render(&keeping, &chat(json!("Well, "), continued.clone())).as_deref(), Ok(ends));
    assert_eq!(
        render(&keeping, &chat(json!([{ "type": "text", "text": "Well, " }]), continued.clone())).as_deref(),
        Ok(ends)
    );
    assert_eq!(
        render(&stripping, &chat(json!("Well, "), continued.clone())).as_deref(),
        Ok("<user>x</><assistant>Well,")
    );
    assert_eq!(render(&keeping, &chat(json!("a"), json!({}))).as_deref(), Ok("<user>x</><assistant>a</><assistant>"));
    let closed = json!({ "add_generation_prompt": false });
    assert_eq!(render(&keeping, &chat(json!("a"), closed)).as_deref(), Ok("<user>x</><assistant>a</>"));
    let both = json!({ "continue_final_message": true, "add_generation_prompt": true });
    assert!(render(&keeping, &chat(json!("a"), both)).expect_err("both").contains("exclude each other"));
    assert!(
        render(&templates(&[("default", first)]), &chat(json!("a"), continued.clone()))
            .expect_err("left out")
            .contains("does not render")
    );
    assert!(
        render(&keeping, &chat(Value::Null, continued))
            .expect_err("no text")
            .contains("messages[1].content has no text")
    );
    assert!(render(&keeping, &chat(json!("a"), json!({ "continue_final_message": 1 }))).is_err());
}

#[test]
fn answers_continue_a_last_message_of_the_assistant() {
    let of = |last: Value, fields: Value| {
        let messages = json!([{ "role": "user", "content": "x" }, last]);
        Ending::of(fields.as_object().expect("fields"), &messages, true).expect("an ending")
    };
    let assistant = json!({ "role": "assistant", "content": "a" });
    assert_eq!(of(assistant.clone(), json!({})), Ending::Continued);
    assert_eq!(of(assistant.clone(), json!({ "add_generation_prompt": true })), Ending::Opened);
    assert_eq!(of(assistant.clone(), json!({ "add_generation_prompt": false })), Ending::Closed);
    assert_eq!(of(assistant, json!({ "continue_final_message": false })), Ending::Opened);
    assert_eq!(of(json!({ "role": "user", "content": "a" }), json!({})), Ending::Opened);
    assert_eq!(of(json!({ "role": "assistant", "content": "a", "tool_calls": [{}] }), json!({})), Ending::Opened);
    assert_eq!(of(json!({ "role": "assistant", "content": null }), json!({})), Ending::Opened);
}
