//! Reading answers with tool calls: every form, wherever the text is cut, and whatever a model does wrong.

use forge_runtime::philox::philox;
use forge_runtime::server::tools::{CallForm, Part, Reader, Style, Thinking, Tool};
use serde_json::{Value, json};

fn form(open: &[&str], close: &[&str], bare: bool, xml: bool) -> CallForm {
    let list = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
    let style = if xml { Style::Xml } else { Style::Json };
    CallForm { open: list(open), close: list(close), bare, style, ..CallForm::default() }
}

fn hermes() -> CallForm {
    form(&["<tool_call>"], &["</tool_call>"], false, false)
}

fn coder() -> CallForm {
    form(&["<tool_call>"], &["</tool_call>"], false, true)
}

fn mistral() -> CallForm {
    form(&["[TOOL_CALLS]"], &[], false, false)
}

fn llama() -> CallForm {
    form(&["<|python_tag|>"], &[], true, false)
}

fn gemma() -> CallForm {
    CallForm { style: Style::Pairs, ..form(&["<|tool_call>"], &["<tool_call|>"], false, false) }
}

fn tools() -> Vec<Tool> {
    let parameters = json!({ "type": "object", "properties": {
        "city": { "type": "string" }, "days": { "type": "integer" }, "exact": { "type": "boolean" },
        "factor": { "type": ["number", "null"] }, "tags": { "anyOf": [{ "type": "array" }, { "type": "null" }] },
        "options": { "type": "object" }, "anything": {},
    } });
    vec![
        Tool { name: "weather".into(), parameters, strict: false },
        Tool { name: "now".into(), parameters: Value::Null, strict: false },
    ]
}

/// Parts with neighbours of a kind joined.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    for part in parts {
        match (out.last_mut(), part) {
            (Some(Part::Content(last)), Part::Content(next)) | (Some(Part::Reasoning(last)), Part::Reasoning(next)) => {
                last.push_str(&next);
            }
            (_, part) => out.push(part),
        }
    }
    out
}

fn read(form: &CallForm, pieces: &[&str]) -> Vec<Part> {
    let mut reader = Reader::new(Some(form.clone()), tools(), &Thinking::default(), false);
    let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
    parts.extend(reader.finish());
    joined(parts)
}

/// The same, cut at every place, at all places at once, and at random ones.
#[track_caller]
fn read_cut(form: &CallForm, text: &str) -> Vec<Part> {
    let whole = read(form, &[text]);
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    for &at in &places {
        assert_eq!(read(form, &[&text[..at], &text[at..]]), whole, "{text:?} cut at {at}");
    }
    let characters: Vec<&str> = places.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect();
    assert_eq!(read(form, &characters), whole, "{text:?} cut everywhere");
    for seed in 0..20 {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (number, &at) in (0..).zip(&places) {
            if philox([number, seed, 0, 0], [1, 1])[0].is_multiple_of(4) {
                pieces.push(&text[start..at]);
                start = at;
            }
        }
        pieces.push(&text[start..]);
        assert_eq!(read(form, &pieces), whole, "{text:?} cut into {pieces:?}");
    }
    for part in &whole {
        if let Part::Content(content) = part {
            for tag in form.open.iter().chain(&form.close) {
                assert!(!content.contains(tag.as_str()), "{tag} in {content:?}");
            }
            assert!(!content.is_empty());
        }
    }
    whole
}

fn call(name: &str, arguments: &str) -> Part {
    Part::Call { name: name.into(), arguments: arguments.into() }
}

fn content(text: &str) -> Part {
    Part::Content(text.into())
}

const OSLO: &str = r#"{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}"#;

fn oslo() -> Part {
    call("weather", r#"{"city": "Oslo", "days": 3}"#)
}

#[test]
fn calls_between_tags() {
    let read = |text: &str| read_cut(&hermes(), text);
    assert_eq!(read(&format!("<tool_call>\n{OSLO}\n</tool_call>")), [oslo()]);
    assert_eq!(read(&format!("<tool_call>{OSLO}</tool_call>")), [oslo()]);
    assert_eq!(read(&format!("\n\n<tool_call>{OSLO}")), [oslo()], "the end of the answer ends the call too");
    assert_eq!(
        read(&format!(
            "Let me see.\n<tool_call>\n{OSLO}\n</tool_call>\n<tool_call>\n{{\"name\": \"now\"}}\n</tool_call>"
        )),
        [content("Let me see."), oslo(), call("now", "{}")]
    );
    assert_eq!(
        read(&format!("A <tool_call>{OSLO}</tool_call> B <tool_call>{OSLO}</tool_call> C ")),
        [content("A"), oslo(), content("B"), oslo(), content("C ")]
    );
    // Several in one pair of tags, and a list.
    assert_eq!(read(&format!("<tool_call>{OSLO}\n{OSLO}</tool_call>")), [oslo(), oslo()]);
    assert_eq!(read(&format!("<tool_call>[{OSLO}, {OSLO}]</tool_call>x")), [oslo(), oslo(), content("x")]);
}

#[test]
fn arguments_are_a_json_object_as_the_model_wrote_it() {
    for (written, arguments) in [
        (r#"{"name":"f","arguments":{}}"#, "{}"),
        (
            r#"{"arguments": {"a": 1.0, "b": 12345678901234567890123}, "name": "f"}"#,
            r#"{"a": 1.0, "b": 12345678901234567890123}"#,
        ),
        (r#"{"name": "f", "parameters": {"x": [1, {"y": null}]}}"#, r#"{"x": [1, {"y": null}]}"#),
        (r#"{"name": "f", "arguments": null}"#, "{}"),
        (r#"{"name": "f", "arguments": "{\"q\": \"a\\\"b\"}"}"#, r#"{"q": "a\"b"}"#),
        (
            r#"{"name": "f", "arguments": {"html": "</tool_call><tool_call>{", "t": "}]\\"}, "id": 7}"#,
            r#"{"html": "</tool_call><tool_call>{", "t": "}]\\"}"#,
        ),
        (
            r#"{"type": "function", "function": {"name": "f", "arguments": {"ü": "日本 \ud83d\ude00"}}}"#,
            r#"{"ü": "日本 \ud83d\ude00"}"#,
        ),
    ] {
        serde_json::from_str::<serde_json::Map<String, Value>>(arguments).expect("an object");
        assert_eq!(read_cut(&hermes(), &format!("<tool_call>\n{written}\n</tool_call>")), [call("f", arguments)]);
        assert_eq!(read_cut(&mistral(), &format!("[TOOL_CALLS] [{written}]")), [call("f", arguments)]);
    }
}

#[test]
fn what_is_no_call_is_content() {
    let read = |text: &str| read_cut(&hermes(), text);
    for plain in [
        "Hello, world!",
        " <b>5 < 6</b> \n",
        "{\"name\": 1}",
        "<tool_cal",
        "a <tool_ call> b",
        "<",
        "\n\n",
        "[TOOL_CALLS]",
    ] {
        assert_eq!(read(plain), [content(plain)]);
    }
    assert_eq!(read(""), []);
    for (text, left) in [
        ("<tool_call>\nnot JSON\n</tool_call>", "not JSON"),
        (
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>",
            "{\"name\": \"f\", \"arguments\": {\"a\": 1}",
        ),
        ("<tool_call>{\"nam\": \"f\"}</tool_call>", "{\"nam\": \"f\"}"),
        ("<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>", "{\"name\": \"\", \"arguments\": {}}"),
        ("<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>", "{\"name\": \"f\", \"arguments\": [1]}"),
        ("<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}</tool_call>", "{\"name\": \"f\", \"arguments\": \"x\"}"),
        ("<tool_call>{'name': 'f'}</tool_call>", "{'name': 'f'}"),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1e999}}</tool_call>",
            "{\"name\": \"f\", \"arguments\": {\"a\": 1e999}}",
        ),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": tru}}</tool_call>",
            "{\"name\": \"f\", \"arguments\": {\"a\": tru}}",
        ),
        ("<tool_call>{\"name\": \"f\", \"argu", "{\"name\": \"f\", \"argu"),
        ("<tool_call>[1, 2]</tool_call>", "[1, 2]"),
        ("<tool_call>", ""),
        ("<tool_call></tool_call>", ""),
        ("</tool_call>", ""),
    ] {
        let left: Vec<Part> = Some(left).filter(|left| !left.is_empty()).map(content).into_iter().collect();
        assert_eq!(read(text), left, "{text}");
    }
    // What is wrong does not take what is right with it, even where a string is never closed.
    let text = format!("<tool_call>{{\"name\": \"f</tool_call>\n<tool_call>{OSLO}</tool_call>");
    assert_eq!(read(&text), [content("{\"name\": \"f"), oslo()]);
    let text = format!("<tool_call>nothing</tool_call><tool_call>{OSLO}</tool_call>");
    assert_eq!(read(&text), [content("nothing"), oslo()]);
}

#[test]
fn calls_in_a_list_after_a_tag() {
    let read = |text: &str| read_cut(&mistral(), text);
    let id = r#"{"name": "now", "arguments": {}, "id": "aB3dE6gH9"}"#;
    assert_eq!(read(&format!("[TOOL_CALLS][{OSLO}]")), [oslo()]);
    assert_eq!(read(&format!("[TOOL_CALLS] [{OSLO}, {id}]")), [oslo(), call("now", "{}")]);
    assert_eq!(read(&format!("Well. [TOOL_CALLS]{OSLO}")), [content("Well."), oslo()]);
    assert_eq!(read("[TOOL_CALLS] nothing"), [content("nothing")]);
    assert_eq!(read(&format!("[TOOL_CALLS][{OSLO}, 5]")), [oslo(), content("5]")]);
}

#[test]
fn names_and_arguments_after_a_tag() {
    let read = |text: &str| read_cut(&mistral(), text);
    let arguments = r#"{"city": "Oslo", "days": 3}"#;
    assert_eq!(read(&format!("[TOOL_CALLS]weather[ARGS]{arguments}")), [oslo()]);
    assert_eq!(read(&format!("[TOOL_CALLS]weather{arguments}")), [oslo()]);
    assert_eq!(
        read(&format!("[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{arguments}[TOOL_CALLS]now[ARGS]{{}}")),
        [oslo(), call("now", "{}")]
    );
    for malformed in
        ["weather", "weather[ARGS]", "weather[ARGS]5", "weather[CALL_ID]x", "weather[ARGS]{\"a\" 1}", "weather[X]{}"]
    {
        assert_eq!(read(&format!("[TOOL_CALLS]{malformed}")), [content(malformed)]);
    }
}

#[test]
fn answers_that_are_calls() {
    let read = |text: &str| read_cut(&llama(), text);
    let oslo_written = r#"{"name": "weather", "parameters": {"city": "Oslo", "days": 3}}"#;
    assert_eq!(read(oslo_written), [oslo()]);
    assert_eq!(read(&format!("\n{oslo_written}\n")), [oslo()]);
    assert_eq!(
        read(&format!("{oslo_written}; {{\"name\": \"now\", \"parameters\": {{}}}}")),
        [oslo(), call("now", "{}")]
    );
    assert_eq!(read(&format!("<|python_tag|>{oslo_written}")), [oslo()]);
    assert_eq!(read(&format!("[{oslo_written}, {oslo_written}]")), [oslo(), oslo()]);
    // Not those of functions that nobody offered, nor of text that only has one in it.
    for plain in [
        "{\"name\": \"Ada\", \"parameters\": {}}",
        " {\"a\": 1} and more",
        "{\"name\": \"weather\", \"parameters\": {",
        "[1, 2]",
        "{",
        &format!("This is it: {oslo_written}"),
    ] {
        assert_eq!(read(plain), [content(plain)]);
    }
    assert_eq!(read("<|python_tag|>print(1)"), [content("print(1)")]);
}

#[test]
fn calls_in_xml() {
    let read = |text: &str| read_cut(&coder(), text);
    let text = "Now.\n\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n\
         </function>\n</tool_call>";
    assert_eq!(read(text), [content("Now."), call("weather", r#"{"city":"Oslo","days":3}"#)]);
    // Without its tags, as the model writes at times, and without parameters.
    assert_eq!(read("<function=now>\n</function>\n</tool_call>"), [call("now", "{}")]);
    assert_eq!(
        read("<tool_call><function=now></function><function=now></function></tool_call>."),
        [call("now", "{}"), call("now", "{}"), content(".")]
    );
    // JSON between the same tags.
    assert_eq!(read(&format!("<tool_call>{OSLO}</tool_call>")), [oslo()]);
    for (malformed, left) in [
        ("<tool_call>\n<function=weather>\nOslo\n</function>\n</tool_call>", "weather>\nOslo\n</function>"),
        ("<tool_call><function=weather><parameter=city>Os", "weather><parameter=city>Os"),
        ("<function=>", ">"),
        ("<function=a<b", "a<b"),
    ] {
        assert_eq!(read(malformed), [content(left)]);
    }
}

#[test]
fn xml_values_are_what_the_schema_says() {
    let arguments = |parameter: &str, value: &str| {
        let text =
            format!("<tool_call><function=weather><parameter={parameter}>{value}</parameter></function></tool_call>");
        match read_cut(&coder(), &text).as_slice() {
            [Part::Call { arguments, .. }] => {
                serde_json::from_str::<Value>(arguments).expect("JSON")[parameter].clone()
            }
            other => panic!("{other:?}"),
        }
    };
    for (parameter, value, expected) in [
        ("city", "3", json!("3")),
        ("city", "\n  two\n lines\n\n", json!("  two\n lines\n")),
        ("city", "null", json!("null")),
        ("city", "", json!("")),
        ("city", "a </parameter> b </function> c", json!("a </parameter> b </function> c")),
        ("days", "\n3\n", json!(3)),
        ("days", "-7", json!(-7)),
        ("days", "3.5", json!("3.5")),
        ("days", "three", json!("three")),
        ("exact", "true", json!(true)),
        ("exact", "False", json!(false)),
        ("exact", "1", json!("1")),
        ("factor", "2", json!(2)),
        ("factor", "0.5", json!(0.5)),
        ("factor", "None", json!(null)),
        ("tags", "[\"a\", 1]", json!(["a", 1])),
        ("tags", "null", json!(null)),
        ("options", "{\"deep\": {\"er\": []}}", json!({ "deep": { "er": [] } })),
        ("options", "{broken", json!("{broken")),
        ("anything", "5", json!("5")),
        ("unheard_of", "5", json!("5")),
    ] {
        assert_eq!(arguments(parameter, value), expected, "{parameter}: {value:?}");
    }
}

#[test]
fn calls_in_pairs() {
    let read = |text: &str| read_cut(&gemma(), text);
    for (written, arguments) in [
        ("{}", "{}"),
        ("{city:<|\"|>Oslo<|\"|>,days:3}", r#"{"city":"Oslo","days":3}"#),
        ("{a:true,b:None,c:null,d:-1.5,e:[],f:{}}", r#"{"a":true,"b":null,"c":null,"d":-1.5,"e":[],"f":{}}"#),
        (
            "{a:[1,<|\"|>x,]}<|\"|>,{<|\"|>k<|\"|>:[[2]]}], b:{c:word}}",
            r#"{"a":[1,"x,]}",{"k":[[2]]}],"b":{"c":"word"}}"#,
        ),
        ("{q:<|\"|>a \"quote\" <tool_call|> and\nü<|\"|>}", r#"{"q":"a \"quote\" <tool_call|> and\nü"}"#),
    ] {
        let text = format!("Now. <|tool_call>call:weather{written}<tool_call|><|tool_call>call:now{{}}<tool_call|>");
        assert_eq!(read(&text), [content("Now."), call("weather", arguments), call("now", "{}")]);
    }
    let deep = "[".repeat(1000);
    for malformed in [
        "weather",
        "call:",
        "call:weather",
        "call:weather{",
        "call:weather{city}",
        "call:weather{a:1 b:}",
        "call:weather{a:[1}",
    ] {
        assert_eq!(read(&format!("<|tool_call>{malformed}<tool_call|>")), [content(malformed)]);
    }
    assert_eq!(read(&format!("<|tool_call>call:now{{a:{deep}")), [content(&format!("call:now{{a:{deep}"))]);
}

#[test]
fn reasoning_is_apart_and_holds_no_calls() {
    let read = |text: &str| read_cut(&hermes(), text);
    let reasoning = |text: &str| Part::Reasoning(text.into());
    assert_eq!(
        read(&format!("<think>\nI could <tool_call>{OSLO}</tool_call>\n</think>\n\n<tool_call>{OSLO}</tool_call>")),
        [reasoning(&format!("I could <tool_call>{OSLO}</tool_call>")), oslo()]
    );
    assert_eq!(read("<think>\n\n</think>\n\nHi. <think>x</think>"), [content("Hi. <think>x</think>")]);
    assert_eq!(read("<think>never done </thin"), [reasoning("never done </thin")]);
    assert_eq!(read("<thinking>"), [content("<thinking>")]);
    // A prompt may have begun it.
    let mut reader = Reader::new(None, Vec::new(), &Thinking::default(), true);
    let mut parts = reader.push("\nSo </th");
    parts.extend(reader.push("ink>\n\nHi"));
    parts.extend(reader.finish());
    assert_eq!(joined(parts), [reasoning("So"), content("Hi")]);
    // Without tools, text passes as it comes.
    let mut reader = Reader::new(None, Vec::new(), &Thinking::default(), false);
    assert_eq!(reader.push("Hello \n"), [content("Hello \n")]);
    assert_eq!(reader.push("<tool_call>"), [content("<tool_call>")]);
    assert_eq!(reader.finish(), []);
}

/// Texts made of what calls are made of: nothing panics, nothing hangs, cuts change nothing, and tags never come out.
#[test]
fn any_text_reads_the_same_wherever_it_is_cut() {
    const WORDS: [&str; 33] = [
        "<|tool_call>",
        "<tool_call|>",
        "<|\"|>",
        "call:now{",
        "a:",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "<function=now>",
        "</function>",
        "<parameter=city>",
        "</parameter>",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ";",
        " ",
        "\n",
        "<",
        "ä",
        "x",
        "\\",
        OSLO,
        "{\"name\": \"now\"}",
        "[ARGS]",
        "[CALL_ID]",
        "now",
        "<think>",
        "</think>",
    ];
    for seed in 0..600 {
        let text: String =
            (0..seed % 12 + 1).map(|i| WORDS[philox([i, seed, 0, 0], [2, 2])[0] as usize % WORDS.len()]).collect();
        for form in [hermes(), coder(), mistral(), llama(), gemma()] {
            read_cut(&form, &text);
        }
    }
}

#[test]
fn content_comes_as_soon_as_it_is_certain() {
    let mut reader = Reader::new(Some(hermes()), tools(), &Thinking::default(), false);
    assert_eq!(reader.push("Hello"), [content("Hello")]);
    assert_eq!(reader.push(" wor"), [content(" wor")]);
    assert_eq!(reader.push("ld <t"), [content("ld")], "the blank may stand before a tag");
    assert_eq!(reader.push("d>"), [content(" <td>")]);
    assert_eq!(reader.push("<tool_call>"), []);
    let (first, second) = OSLO.split_at(20);
    assert_eq!(reader.push(first), []);
    assert_eq!(reader.push(second), [oslo()], "a call comes when it is whole, before its tag is closed");
}

/// Long answers cost no more than their length.
#[test]
fn long_arguments_are_read_once() {
    let code = "let x = [\\\"<a>\\\"];\\n".repeat(20_000);
    let text = format!("<tool_call>{{\"name\": \"weather\", \"arguments\": {{\"city\": \"{code}\"}}}}</tool_call>");
    let start = std::time::Instant::now();
    let pieces: Vec<&str> = text.as_bytes().chunks(4).map(|piece| std::str::from_utf8(piece).expect("ASCII")).collect();
    assert_eq!(read(&hermes(), &pieces), [call("weather", &format!("{{\"city\": \"{code}\"}}"))]);
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_header_in_channels_that_does_not_end_is_content() {
    let form = CallForm { style: Style::Channels, ..CallForm::default() };
    let endless = "x".repeat(700);
    assert_eq!(read_cut(&form, &format!("<|channel|>{endless}")), [content(&endless)]);
    let first = "<|channel|>final<|message|>well";
    assert_eq!(
        read_cut(&form, &format!("{first}<|channel|>{endless}<|message|>too late")),
        [content(&format!("well{endless}too late"))]
    );
}
