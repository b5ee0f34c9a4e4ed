//! Answers in the forms of further families: how a template's form is found, what is read, wherever it is cut and whatever is wrong
//! with it, and conversations over real sockets. The templates are of the families' forms, written for these tests.

use crate::{common, families, http};
use common::HashModel;
use families::{families, tags, template, text_of};
use forge_runtime::philox::philox;
use forge_runtime::server::Limits;
use forge_runtime::server::tools::{CallForm, Part, Reader, Style, Thinking, Tool};
use http::{Reply, Server};
use serde_json::{Value, json};

#[test]
fn forms_are_found_in_templates() {
    for family in families() {
        let text = text_of(&family.template);
        assert_eq!(CallForm::of(&text), Some(family.form.clone()), "{}", family.name);
        assert!(!family.form.describe().is_empty());
    }
}

/// What a call begins with, by the template.
#[test]
fn beginnings_are_found_in_templates() {
    for (family, beginning) in families().iter().zip([
        "<tool_call>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"",
        "<minimax:tool_call>\n<invoke name=\"",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.",
        "<|tool_call_start|>[",
        "<|channel|>commentary to=functions.",
    ]) {
        let found = family.form.beginning(&text_of(&family.template));
        assert_eq!(found.as_deref(), Some(beginning), "{}", family.name);
    }
}

fn tools() -> Vec<Tool> {
    let parameters =
        json!({ "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } });
    vec![
        Tool { name: "weather".into(), parameters, strict: false },
        Tool { name: "now".into(), parameters: Value::Null, strict: false },
    ]
}

fn thinking(form: &CallForm) -> Thinking {
    if form.style == Style::Channels { Thinking::Channels } else { Thinking::default() }
}

/// Content, reasoning, and calls with their arguments parsed.
type Taken = (String, String, Vec<(String, Value)>);

fn taken(form: &CallForm, pieces: &[&str]) -> Taken {
    let mut reader = Reader::new(Some(form.clone()), tools(), &thinking(form), false);
    let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
    parts.extend(reader.finish());
    let mut all = Taken::default();
    for part in parts {
        match part {
            Part::Content(piece) => all.0 += &piece,
            Part::Reasoning(piece) => all.1 += &piece,
            Part::Call { name, arguments } => {
                let arguments: Value = serde_json::from_str(&arguments).expect("arguments are JSON");
                assert!(arguments.is_object());
                all.2.push((name, arguments));
            }
        }
    }
    all
}

/// Cut at every place, everywhere, and at random places: all give what the whole gives.
#[track_caller]
fn taken_cut(form: &CallForm, text: &str) -> Taken {
    let whole = taken(form, &[text]);
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    for &at in &places {
        assert_eq!(taken(form, &[&text[..at], &text[at..]]), whole, "{text:?} cut at {at}");
    }
    let characters: Vec<&str> = places.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect();
    assert_eq!(taken(form, &characters), whole, "{text:?} cut everywhere");
    for seed in 0..5 {
        let (mut pieces, mut start) = (Vec::new(), 0);
        for (number, &at) in (0..).zip(&places) {
            if philox([number, seed, 0, 0], [5, 5])[0].is_multiple_of(6) {
                pieces.push(&text[start..at]);
                start = at;
            }
        }
        pieces.push(&text[start..]);
        assert_eq!(taken(form, &pieces), whole, "{text:?} cut into {pieces:?}");
    }
    whole
}

#[test]
fn answers_are_read_wherever_they_are_cut() {
    let calls = vec![("weather".to_owned(), json!({ "city": "Oslo", "days": 3 })), ("now".to_owned(), json!({}))];
    for family in families() {
        let (content, reasoning, found) = taken_cut(&family.form, family.answer);
        assert_eq!((content.as_str(), reasoning.as_str()), (family.content, ""), "{}", family.name);
        assert_eq!(found, calls, "{}", family.name);
    }
}

/// An answer that breaks off anywhere, or has something wrong in it: what calls were whole come out, the rest is content, tags never.
#[test]
fn whatever_is_wrong_is_content() {
    for family in families() {
        let ends: Vec<usize> = family.answer.char_indices().map(|(at, _)| at).collect();
        for &end in &ends {
            let (content, _, calls) = taken(&family.form, &[&family.answer[..end]]);
            assert!(calls.len() <= 2, "{}", family.name);
            if calls.is_empty() {
                // Nothing that a reader could miss was dropped: the argument's value is there once it was written.
                let written = &family.answer[..end];
                assert_eq!(
                    content.contains("Oslo"),
                    written.contains("Oslo"),
                    "{}: {written:?}: {content:?}",
                    family.name
                );
            }
        }
        for (wrong, right) in
            [("Oslo", "Os\u{0}lo"), ("weather", "we at her"), ("3", "{"), ("city", "c\"it'y"), ("name", "")]
        {
            let broken = family.answer.replace(wrong, right);
            taken_cut(&family.form, &broken);
        }
        // Broken in the first call: the second comes.
        let (content, _, calls) = taken_cut(&family.form, &family.answer.replacen("weather", "wea<ther", 1));
        assert!(content.contains("Oslo") || !calls.is_empty(), "{}: {content:?}", family.name);
    }
}

#[test]
fn any_text_reads_the_same_wherever_it_is_cut() {
    const WORDS: [&str; 44] = [
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "weather",
        "now",
        "\n",
        " ",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "'",
        ",",
        "=",
        ":",
        "3",
        "x",
        "ä",
        "<",
        "```",
        "json",
        "{\"city\": \"Oslo\"}",
        "functions.now:0",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<invoke name=\"now\">",
        "</invoke>",
        "<parameter name=\"city\">",
        "</parameter>",
        "<|tool_call_start|>",
        "<|tool_call_end|>",
        "<|channel|>",
        "<|message|>",
        "<|end|>",
        "<|start|>assistant",
        " to=functions.now ",
    ];
    for family in families() {
        for seed in 0..150 {
            let length = seed % 11 + 1;
            let word = |i| WORDS[philox([i, seed, 7, 0], [3, 3])[0] as usize % WORDS.len()];
            let text: String = (0..length).map(word).collect();
            let (content, ..) = taken_cut(&family.form, &text);
            for tag in family.form.open.iter().chain(&family.form.close) {
                assert!(!content.contains(tag.as_str()), "{}: {tag} in {content:?} of {text:?}", family.name);
            }
        }
    }
}

#[test]
fn values_of_python() {
    let form = tags("<|tool_call_start|>", &["<|tool_call_end|>"], Style::Python);
    for (written, arguments) in [
        ("", json!({})),
        ("a=1, b=-2.5, c=1e3, d=+4, e=1_000", json!({ "a": 1, "b": -2.5, "c": 1e3, "d": 4, "e": 1000 })),
        ("a=True, b=False, c=None, d=true, e=null", json!({ "a": true, "b": false, "c": null, "d": true, "e": null })),
        (r#"a='it\'s', b="a \"b\"\n\tü\u00fc\\", c='\d'"#, json!({ "a": "it's", "b": "a \"b\"\n\tüü\\", "c": "\\d" })),
        (
            "a=[1, [], ('x', 2), ], b={'k': {\"l\": [None]}, }",
            json!({ "a": [1, [], ["x", 2]], "b": { "k": { "l": [null] } } }),
        ),
        ("a = 'x' , b='),(]'", json!({ "a": "x", "b": "),(]" })),
        (r#"a='\ud83d\ude00', b="\u00e9""#, json!({ "a": "😀", "b": "é" })),
    ] {
        let text = format!("<|tool_call_start|>[now({written})]<|tool_call_end|>");
        assert_eq!(
            taken_cut(&form, &text),
            (String::new(), String::new(), vec![("now".into(), arguments)]),
            "{written}"
        );
    }
    let deep = "[".repeat(1000);
    for wrong in [
        "1",
        "a",
        "a=",
        "a=b",
        "a=1 b=2",
        "a='x",
        "=1",
        "a={1: 2}",
        "a='\\ud800'",
        "a='\\ud83dx'",
        "a='\\ud83d\\u0041'",
        "a=1..2",
        &format!("a={deep}"),
    ] {
        let (content, _, calls) = taken_cut(&form, &format!("<|tool_call_start|>[now({wrong})]<|tool_call_end|>"));
        assert!(calls.is_empty() && content.contains("now("), "{wrong}: {content:?}");
    }
}

#[test]
fn channels_are_told_apart() {
    let form = CallForm { style: Style::Channels, ..CallForm::default() };
    let analysis = "<|channel|>analysis<|message|>The user\n\nasks.<|end|>";
    for (text, content, reasoning) in [
        (
            format!("{analysis}<|start|>assistant<|channel|>final<|message|> It rains.<|return|>"),
            "It rains.",
            "The user\n\nasks.",
        ),
        (analysis.replace("<|end|>", ""), "", "The user\n\nasks."),
        ("no channels at all".into(), "no channels at all", ""),
        ("<|channel|>final<|message|>a < b <| c".into(), "a < b <| c", ""),
        ("<|channel|>final".into(), "", ""),
        ("".into(), "", ""),
        // A tool that nobody offered, and a call whose arguments are none.
        ("<|channel|>commentary to=python<|message|>print(1)<|call|>".into(), "print(1)", ""),
        ("<|channel|>commentary to=functions.now <|constrain|>json<|message|>{\"a\": <|call|>".into(), "{\"a\":", ""),
        // Tags of headers in messages, and in a call that is none.
        ("<|channel|>final<|message|>a<|constrain|>b<|message|> c".into(), "ab c", ""),
        ("<|channel|>commentary to=functions.now<|message|>{<|message|>}<|call|>".into(), "{}", ""),
    ] {
        assert_eq!(taken_cut(&form, &text), (content.into(), reasoning.into(), vec![]), "{text}");
    }
    // Without tools, channels are still told apart.
    let mut reader = Reader::new(None, Vec::new(), &Thinking::Channels, false);
    let mut parts = reader.push(&format!("{analysis}<|start|>assistant<|channel|>final<|message|>Hi"));
    parts.extend(reader.finish());
    assert_eq!(parts, [Part::Reasoning("The user\n\nasks.".into()), Part::Content("Hi".into())]);
}

#[test]
fn reasoning_has_the_templates_own_marks() {
    let marked = |open: &str, close: &str| {
        template("").replace("{{ m.content or '' }}", &format!("{{% if m.reasoning_content %}}{open}{{{{ m.reasoning_content }}}}{close}{{% endif %}}{{{{ m.content or '' }}}}"))
    };
    for (open, close) in [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<|channel>thought\n", "\n<channel|>"),
        ("<seed:think>", "</seed:think>"),
    ] {
        let text = text_of(&marked(open, close));
        let found = Thinking::of(&text);
        assert_eq!(found, Thinking::Tags { open: open.trim().into(), close: close.trim().into() });
        assert!(found.is_open_at_end_of(&format!("x{open}\n")) && !found.is_open_at_end_of("x"));
        let mut reader = Reader::new(None, Vec::new(), &found, false);
        let mut parts = reader.push(&format!("{open}Hm.{close}\n\nHi."));
        parts.extend(reader.finish());
        assert_eq!(parts, [Part::Reasoning("Hm.".into()), Part::Content("Hi.".into())]);
    }
    assert_eq!(Thinking::of(&text_of(&template(""))), Thinking::default());
}

fn ask(server: &Server, messages: &Value, stream: bool) -> Reply {
    let tool = |name: &str, parameters: Value| json!({ "type": "function", "function": { "name": name, "parameters": parameters } });
    let offered: Vec<Value> = tools().into_iter().map(|offered| tool(&offered.name, offered.parameters)).collect();
    server.post(
        "/v1/chat/completions",
        &json!({ "messages": messages, "tools": offered, "stream": stream, "temperature": 0 }),
    )
}

/// Both turns of an agent: the call, and the history with it, arguments as a string as OpenAI's clients send them.
#[test]
fn conversations_with_calls_in_every_form() {
    for family in families() {
        let text = text_of(&family.template);
        let mut script = text.tokenizer.encode(family.answer, false).expect("encodes");
        script.push(2047);
        let context = 4096;
        let server = Server::with_text(HashModel { context, ..HashModel::scripted(&script) }, text, Limits::default());
        let user = json!({ "role": "user", "content": "Oslo?" });
        let reply = ask(&server, &json!([user]), false);
        assert_eq!(reply.status, 200, "{}: {}", family.name, reply.json());
        let choice = reply.json()["choices"][0].clone();
        assert_eq!(choice["finish_reason"], "tool_calls", "{}: {choice}", family.name);
        let calls = choice["message"]["tool_calls"].as_array().expect("calls");
        let names: Vec<&str> = calls.iter().filter_map(|call| call["function"]["name"].as_str()).collect();
        assert_eq!(names, ["weather", "now"], "{}", family.name);
        if family.form.named_ids {
            assert_eq!((&calls[0]["id"], &calls[1]["id"]), (&json!("functions.weather:0"), &json!("functions.now:1")));
        }
        let results = calls.iter().map(|call| json!({ "role": "tool", "tool_call_id": call["id"], "content": "5" }));
        let mut messages = vec![user, json!({ "role": "assistant", "content": family.content, "tool_calls": calls })];
        messages.extend(results);
        let second = ask(&server, &json!(messages), true);
        assert_eq!(second.status, 200, "{}: {}", family.name, second.text());
        assert!(second.text().contains("\"finish_reason\":\"tool_calls\""), "{}: {}", family.name, second.text());
        if family.form.named_ids {
            assert!(second.text().contains("functions.weather:2"), "ids go on: {}", second.text());
        }
    }
}

/// A tool whose arguments are few.
fn held_tool() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": { "city": { "enum": ["Oslo", "Rome"] }, "days": { "type": "integer", "minimum": 1, "maximum": 9 } },
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    json!([{ "type": "function", "function": { "name": "weather", "strict": true, "parameters": parameters } }])
}

/// The calls of an answer of a model that would like to say this, all of which have to be of [`held_tool`], and its content.
fn held_calls(family: &families::Family, wanted: &str, choice: &str, seed: usize) -> (usize, String) {
    let text = text_of(&family.template);
    let script = text.tokenizer.encode(wanted, false).expect("encodes");
    let server =
        Server::with_text(HashModel { context: 1024, ..HashModel::scripted(&script) }, text, Limits::default());
    let body = json!({
        "messages": [{ "role": "user", "content": "Oslo?" }], "tools": held_tool(), "tool_choice": choice,
        "max_tokens": 200, "temperature": 1, "seed": seed,
    });
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 200, "{}: {}", family.name, reply.text());
    assert_eq!(reply.header("x-forge-warning"), None, "{}", family.name);
    let message = reply.json()["choices"][0]["message"].clone();
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    for call in &calls {
        assert_eq!(call["function"]["name"], "weather", "{}: {message}", family.name);
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().expect("text")).expect("JSON");
        let is_right = ["Oslo", "Rome"].contains(&arguments["city"].as_str().unwrap_or_default())
            && (1..=9).contains(&arguments["days"].as_i64().unwrap_or(0))
            && arguments.as_object().is_some_and(|fields| fields.len() == 2);
        assert!(is_right, "{}: {arguments}", family.name);
    }
    (calls.len(), message["content"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn calls_that_are_asked_for_are_held_in_every_form() {
    for family in families() {
        for seed in 0..3 {
            let (calls, content) = held_calls(&family, " and so on, no call at all", "required", seed);
            assert_eq!((calls, content.as_str()), (1, ""), "{}", family.name);
        }
    }
}

/// From what begins a call on: a token, or a text of several.
#[test]
fn strict_tools_are_held_in_every_form() {
    for family in families() {
        let begins = family.form.beginning(&text_of(&family.template)).expect("a beginning");
        let said = match family.form.style {
            Style::Channels => "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant",
            _ => "Let me look.",
        };
        let mut ways = vec![format!("{said}{begins}")];
        if family.form.style == Style::Channels {
            ways.push("<|channel|>analysis<|message|>Let me look.<|end|><|start|>assistant to=functions.".into());
        }
        for (way, seed) in ways.iter().zip(5..) {
            let (calls, content) = held_calls(&family, &format!("{way} nonsense, no call at all"), "auto", seed);
            assert_eq!(calls, 1, "{}: {content:?}", family.name);
            assert!(seed > 5 || content.starts_with("Let me look."), "{}: {content:?}", family.name);
        }
    }
}

/// Where an id has no name in it, it is the name, as far as it goes.
#[test]
fn calls_have_names() {
    let families = families();
    let kimi = families.iter().find(|family| family.form.named_ids).expect("Kimi's form");
    for (id, name) in [("functions.now:0", "now"), ("functions.", "functions."), ("functions.:0", ":0")] {
        let text = format!("<|tool_call_begin|>{id}<|tool_call_argument_begin|>{{}}<|tool_call_end|>");
        assert_eq!(taken_cut(&kimi.form, &text).2, [(name.to_owned(), json!({}))], "{id}");
    }
}
