//! Tool calls from the chat template to the API's objects: how a template's form is found, and answers over real sockets.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{common, http};
use common::{HashModel, assets, fixture, read};
use forge_runtime::Assets;
use forge_runtime::assets::Text;
use forge_runtime::server::Limits;
use forge_runtime::server::tools::{CallForm, Style};
use http::{Reply, Server};
use serde_json::{Value, json};

/// The demo's text side with another template, and other names for two of its special tokens.
fn text_with(template: &str, tokens: [&str; 2]) -> Arc<Text> {
    let json = std::str::from_utf8(read("demo", "tokenizer.json")).expect("UTF-8");
    let json = json.replace("<|user|>", tokens[0]).replace("<|assistant|>", tokens[1]);
    let assets = Assets {
        tokenizer: json.into_bytes().leak(),
        chat_template: Some(template.to_owned().leak()),
        ..assets("demo")
    };
    Arc::new(Text::load(&assets).expect("loads"))
}

fn form(template: &str) -> Option<CallForm> {
    CallForm::of(&text_with(template, ["<|user|>", "<|assistant|>"]))
}

fn tagged(open: &str, close: &str) -> CallForm {
    let list = |tag: &str| Some(tag.to_owned()).filter(|tag| !tag.is_empty()).into_iter().collect();
    CallForm { open: list(open), close: list(close), ..CallForm::default() }
}

/// Templates of trained models.
#[test]
fn forms_of_real_templates() {
    let named = |name: &str| form(&std::fs::read_to_string(fixture("chat", name)).expect("a template"));
    for name in ["qwen2.5.jinja", "qwen3.jinja", "granite4.1.jinja"] {
        assert_eq!(named(name), Some(tagged("<tool_call>", "</tool_call>")), "{name}");
    }
    assert_eq!(
        named("qwen3-coder.jinja"),
        Some(CallForm { style: Style::Xml, ..tagged("<tool_call>", "</tool_call>") })
    );
    assert_eq!(named("mistral-nemo.jinja"), Some(tagged("[TOOL_CALLS]", "")));
    assert_eq!(named("gemma4.jinja"), Some(CallForm { style: Style::Pairs, ..tagged("<|tool_call>", "<tool_call|>") }));
    // No calls.
    assert_eq!(named("phi3.5.jinja"), None);
}

/// The least that templates of each form do.
fn template(call: &str) -> String {
    format!(
        "{{{{ bos_token }}}}{{% if tools %}}{{{{ tools | tojson }}}}{{% endif %}}{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n\
         {{{{ m.content or '' }}}}{{% for c in m.tool_calls or [] %}}{{% set f = c.function %}}{call}{{% endfor %}}<|im_end|>\n\
         {{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
    )
}

const HERMES: &str =
    "<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson }}}\n</tool_call>";

#[test]
fn forms_of_small_templates() {
    let of = |call: &str| form(&template(call));
    let bare = CallForm { bare: true, ..CallForm::default() };
    assert_eq!(of(HERMES), Some(tagged("<tool_call>", "</tool_call>")));
    // Whatever the tags are, and for templates that test for arguments that are a string.
    let other = "<|call|>{\"arguments\": {{ f.arguments | tojson }}, \"name\": {{ f.name | tojson }}}<|/call|>";
    assert_eq!(of(other), Some(tagged("<|call|>", "<|/call|>")));
    let string = "<call>{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments if f.arguments is string else f.arguments | tojson }}}</call>";
    assert_eq!(of(string), Some(tagged("<call>", "</call>")));
    assert_eq!(of("{\"name\": \"{{ f.name }}\", \"parameters\": {{ f.arguments | tojson }}}"), Some(bare.clone()));
    assert_eq!(of("{{ m.tool_calls | tojson }}"), Some(bare));
    assert_eq!(of("<|tool_call|>[{{ f | tojson }}]"), Some(tagged("<|tool_call|>", "")));
    assert_eq!(of("[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}"), Some(tagged("[TOOL_CALLS]", "")));
    assert_eq!(
        of("[TOOL_CALLS]{{ f.name }}[CALL_ID]{{ c.id }}[ARGS]{{ f.arguments | tojson }}"),
        Some(tagged("[TOOL_CALLS]", ""))
    );
    let xml = "<tool_call><function={{ f.name }}>{% for k, v in f.arguments | items %}<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function></tool_call>";
    assert_eq!(of(xml), Some(CallForm { style: Style::Xml, ..tagged("<tool_call>", "</tool_call>") }));
    // Forms that are none of these.
    for unknown in [
        "<call {{ f.name }}>{{ f.arguments | tojson }}</call>",
        "{{ f.name }}({{ f.arguments | tojson }})",
        "I call {{ f.name }}.",
    ] {
        assert_eq!(of(unknown), None, "{unknown}");
    }
    assert_eq!(of(""), None, "a template that writes no calls, of a vocabulary without tags");
    assert_eq!(form("{{ raise_exception('no') }}"), None);
}

#[test]
fn forms_of_templates_that_write_no_calls() {
    let of = |tokens: [&str; 2]| CallForm::of(&text_with(&template(""), tokens));
    assert_eq!(of(["<tool_call>", "</tool_call>"]), Some(tagged("<tool_call>", "</tool_call>")));
    assert_eq!(of(["[TOOL_CALLS]", "[/INST]"]), Some(tagged("[TOOL_CALLS]", "")));
    let llama = CallForm { open: vec!["<|python_tag|>".into()], bare: true, ..CallForm::default() };
    assert_eq!(of(["<|python_tag|>", "<|eom_id|>"]), Some(llama.clone()));
    let instructed =
        template("").replace("{{ tools | tojson }}", "Write <tool_call>JSON</tool_call>. {{ tools | tojson }}");
    assert_eq!(form(&instructed), Some(tagged("<tool_call>", "</tool_call>")));
    // The template's own form comes first.
    let text = text_with(&template("{{ f | tojson }}"), ["<|python_tag|>", "<tool_call>"]);
    assert_eq!(CallForm::of(&text), Some(llama));
}

/// A server whose model answers `answer` to everything. Texts in `special` are tokens.
fn answering(template: &str, answer: &str, special: [&str; 2]) -> Server {
    let text = text_with(template, special);
    let mut script = text.tokenizer.encode(answer, false).expect("encodes");
    assert_eq!(text.tokenizer.decode(&script, false).expect("decodes"), answer);
    script.push(2047);
    Server::with_text(HashModel { context: 480, ..HashModel::scripted(&script) }, text, Limits::default())
}

fn request(fields: &Value) -> Value {
    let function = json!({ "name": "get_weather", "description": "W", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } } });
    let mut body = json!({
        "messages": [{ "role": "user", "content": "Oslo?" }], "temperature": 0, "tool_choice": "auto",
        "tools": [{ "type": "function", "function": function }],
    });
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

fn ask(server: &Server, fields: &Value) -> Reply {
    server.post("/v1/chat/completions", &request(fields))
}

/// The choice of a reply, and the same put together from a stream of it; ids are compared in form only.
fn choice(server: &Server, fields: &Value) -> Value {
    let reply = ask(server, fields);
    assert_eq!(reply.status, 200);
    let whole = reply.json()["choices"][0].clone();
    let mut fields = fields.clone();
    fields["stream"] = true.into();
    let reply = ask(server, &fields);
    assert_eq!(reply.status, 200);
    let streamed = assembled(&reply);
    let mut expected = whole.clone();
    for calls in [&mut expected["message"]["tool_calls"]] {
        for (call, other) in calls
            .as_array_mut()
            .into_iter()
            .flatten()
            .zip(streamed["message"]["tool_calls"].as_array().into_iter().flatten())
        {
            call["id"] = other["id"].clone();
        }
    }
    assert_eq!(streamed["message"]["tool_calls"], expected["message"]["tool_calls"]);
    assert_eq!(streamed["message"]["content"].as_str(), Some(expected["message"]["content"].as_str().unwrap_or("")));
    assert_eq!(streamed["message"]["reasoning_content"], expected["message"]["reasoning_content"]);
    assert_eq!(streamed["finish_reason"], expected["finish_reason"]);
    whole
}

/// What an OpenAI client makes of a stream.
fn assembled(reply: &Reply) -> Value {
    let events = reply.events();
    let (done, events) = events.split_last().expect("events");
    assert_eq!(done, "[DONE]");
    let (mut content, mut reasoning, mut finish) = (String::new(), None::<String>, Value::Null);
    let mut calls: Vec<Value> = Vec::new();
    for event in events {
        let chunk: Value = serde_json::from_str(event).expect("JSON");
        let choice = &chunk["choices"][0];
        assert!(finish.is_null(), "nothing follows the finish reason");
        finish = choice["finish_reason"].clone();
        content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if let Some(piece) = choice["delta"]["reasoning_content"].as_str() {
            reasoning.get_or_insert_default().push_str(piece);
        }
        for delta in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = delta["index"].as_u64().expect("an index") as usize;
            if index == calls.len() {
                let mut call = delta.clone();
                call.as_object_mut().expect("a call").remove("index");
                calls.push(call);
            } else {
                let more = delta["function"]["arguments"].as_str().expect("arguments");
                let so_far = calls[index]["function"]["arguments"].as_str().expect("arguments").to_owned();
                calls[index]["function"]["arguments"] = (so_far + more).into();
                assert!(delta.get("id").is_none() && delta["function"].get("name").is_none());
            }
        }
    }
    let mut message = json!({ "content": content });
    if let Some(reasoning) = reasoning {
        message["reasoning_content"] = reasoning.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    json!({ "message": message, "finish_reason": finish })
}

const USUAL: [&str; 2] = ["<|user|>", "<|assistant|>"];
const CALL: &str = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

#[track_caller]
fn assert_call(call: &Value, arguments: &str) {
    assert_eq!(call["type"], "function");
    assert_eq!(call["function"], json!({ "name": "get_weather", "arguments": arguments }));
    assert!(call["id"].as_str().is_some_and(|id| id.len() >= 9), "{call}");
}

#[test]
fn a_call_comes_back_as_a_call() {
    let server = answering(&template(HERMES), CALL, USUAL);
    let choice = choice(&server, &json!({}));
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 1);
    assert_call(&calls[0], "{\"city\": \"Oslo\"}");
    assert!(ask(&server, &json!({})).header("x-forge-warning").is_none());
}

#[test]
fn a_template_without_calls_goes_by_the_vocabulary() {
    let choice = choice(&answering(&template(""), CALL, ["<tool_call>", "</tool_call>"]), &json!({}));
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_call(&choice["message"]["tool_calls"][0], "{\"city\": \"Oslo\"}");
}

#[test]
fn several_calls_and_text() {
    let answer = format!("Let me look.\n{CALL}\n{}", CALL.replace("Oslo", "Rome"));
    let server = answering(&template(HERMES), &answer, USUAL);
    let all = choice(&server, &json!({}));
    assert_eq!(all["message"]["content"], "Let me look.");
    let calls = all["message"]["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 2);
    assert_call(&calls[1], "{\"city\": \"Rome\"}");
    let one = choice(&server, &json!({ "parallel_tool_calls": false }));
    assert_eq!(one["message"]["tool_calls"].as_array().map(Vec::len), Some(1));
    let ids: Vec<Value> = (0..20)
        .flat_map(|_| {
            let reply = ask(&server, &json!({})).json();
            reply["choices"][0]["message"]["tool_calls"]
                .as_array()
                .expect("calls")
                .iter()
                .map(|call| call["id"].clone())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(ids.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), 40, "{ids:?}");
}

#[test]
fn tags_that_are_special_tokens() {
    let mistral = "[TOOL_CALLS][{{ f | tojson }}]";
    let answer = "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}]";
    let server = answering(&template(mistral), answer, ["[TOOL_CALLS]", "[/INST]"]);
    let called = choice(&server, &json!({}));
    assert_eq!(called["finish_reason"], "tool_calls");
    assert_call(&called["message"]["tool_calls"][0], "{\"city\": \"Oslo\"}");
    let id = called["message"]["tool_calls"][0]["id"].as_str().expect("an id");
    assert!(id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric()), "templates of this form insist: {id}");
    // Where no calls are asked for, special tokens stay out of the text.
    let plain = choice(&server, &json!({ "tools": null }));
    assert_eq!(plain["message"]["content"], "[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}]");

    let llama = "{\"name\": \"{{ f.name }}\", \"parameters\": {{ f.arguments | tojson }}}";
    let answer = "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}";
    let called = choice(&answering(&template(llama), answer, ["<|python_tag|>", "<|eom_id|>"]), &json!({}));
    assert_call(&called["message"]["tool_calls"][0], "{\"city\": \"Oslo\"}");
}

#[test]
fn xml_arguments_are_json() {
    let xml = "<tool_call><function={{ f.name }}>{% for k, v in f.arguments | items %}<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function></tool_call>";
    let answer = "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>";
    let called = choice(&answering(&template(xml), answer, USUAL), &json!({}));
    assert_call(&called["message"]["tool_calls"][0], "{\"city\":\"Oslo\",\"days\":2}");
}

#[test]
fn pairs_between_special_tokens() {
    // The quote is a special token, and so would the tags be.
    let pairs = "<|call>call:{{ f.name }}{{ '{' }}{% for k, v in f.arguments | items %}{{ k }}:<|\"|>{{ v }}<|\"|>{% endfor %}{{ '}' }}<call|>";
    let answer = "<|call>call:get_weather{city:<|\"|>Oslo<|\"|>}<call|>";
    let called = choice(&answering(&template(pairs), answer, ["<|call>", "<call|>"]), &json!({}));
    assert_call(&called["message"]["tool_calls"][0], "{\"city\":\"Oslo\"}");
    let called = choice(&answering(&template(pairs), answer, ["<|\\\"|>", "<call|>"]), &json!({}));
    assert_call(&called["message"]["tool_calls"][0], "{\"city\":\"Oslo\"}");
}

#[test]
fn malformed_calls_are_content() {
    for (answer, content) in [
        (
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}\n</tool_call>",
            "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}",
        ),
        ("<tool_call>weather please</tool_call>", "weather please"),
        ("<tool_call>{\"name\": 5}", "{\"name\": 5}"),
    ] {
        let choice = choice(&answering(&template(HERMES), answer, USUAL), &json!({}));
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("stop"), &json!(content)));
        assert!(choice["message"].get("tool_calls").is_none());
    }
    // Cut off by a limit.
    let choice = choice(&answering(&template(HERMES), CALL, USUAL), &json!({ "max_tokens": 30 }));
    assert_eq!(choice["finish_reason"], "length");
    assert!(choice["message"]["content"].as_str().is_some_and(|text| text.starts_with("{\"name\"")), "{choice}");
}

#[test]
fn choices_of_tools() {
    let server = answering(&template(HERMES), CALL, USUAL);
    for fields in [json!({ "tool_choice": "none" }), json!({ "tools": [] }), json!({ "tools": null })] {
        let choice = choice(&server, &fields);
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("stop"), &json!(CALL)),
            "{fields}"
        );
    }
    let named = json!({ "type": "function", "function": { "name": "get_weather" } });
    let other = json!({ "type": "function", "function": { "name": "get_time" } });
    for (fields, param) in [
        (json!({ "tool_choice": "required", "tools": [] }), "tool_choice"),
        (json!({ "tool_choice": named, "tools": null }), "tool_choice"),
        (json!({ "tool_choice": other }), "tool_choice"),
        (json!({ "tool_choice": "always" }), "tool_choice"),
        (json!({ "tool_choice": { "type": "allowed_tools" } }), "tool_choice"),
        (json!({ "tools": [1] }), "tools[0]"),
        (
            json!({ "tools": [{ "type": "function", "function": { "name": "a" } }, { "type": "web_search" }] }),
            "tools[1]",
        ),
        (json!({ "tools": [{ "type": "function", "function": { "name": "" } }] }), "tools[0]"),
        (json!({ "parallel_tool_calls": "no" }), "parallel_tool_calls"),
        (json!({ "functions": [{ "name": "a" }] }), "functions"),
    ] {
        let reply = ask(&server, &fields);
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{fields}");
    }
}

/// The prompt has the call's beginning, and the answer goes on from there.
#[test]
fn calls_that_are_asked_for_are_begun() {
    let named = json!({ "type": "function", "function": { "name": "get_weather" } });
    let rest = "\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
    for (template, answer) in [
        (template(HERMES), rest),
        // What the prompt has begun to think is ended first.
        (template(HERMES).replace("assistant\n{% endif", "assistant\n<think>\n{% endif"), rest),
        (
            template("{\"name\": \"{{ f.name }}\", \"parameters\": {{ f.arguments | tojson }}}"),
            "\", \"parameters\": {\"city\": \"Oslo\"}}",
        ),
        (
            template(
                "<tool_call><function={{ f.name }}>{% for k, v in f.arguments | items %}<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function></tool_call>",
            ),
            "><parameter=city>Oslo</parameter></function></tool_call>",
        ),
    ] {
        let server = answering(&template, answer, USUAL);
        let plain = ask(&server, &json!({})).json()["usage"]["prompt_tokens"].as_u64().expect("a count");
        // One of one is as good as named.
        for choose in [&named, &json!("required")] {
            let called = choice(&server, &json!({ "tool_choice": choose }));
            assert_eq!(called["finish_reason"], "tool_calls", "{template}: {called}");
            let call = &called["message"]["tool_calls"][0]["function"];
            assert_eq!(call["name"], "get_weather");
            let arguments: Value = serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
            assert_eq!(arguments, json!({ "city": "Oslo" }));
            let forced = ask(&server, &json!({ "tool_choice": choose })).json();
            assert!(forced["usage"]["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > plain));
        }
    }
    // Which of two is the model's to say.
    let two = json!([
        { "type": "function", "function": { "name": "get_time" } }, { "type": "function", "function": { "name": "get_weather" } },
    ]);
    let server = answering(&template(HERMES), &format!("get_weather{rest}"), USUAL);
    let called = choice(&server, &json!({ "tool_choice": "required", "tools": two }));
    assert_call(&called["message"]["tool_calls"][0], "{\"city\": \"Oslo\"}");
    // One that is not there cannot come, nor a value of another type.
    let integer = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": {
        "type": "object", "properties": { "days": { "type": "integer", "minimum": 1, "maximum": 9 } }, "required": ["days"], "additionalProperties": false } } },
        { "type": "function", "function": { "name": "get_nothing", "parameters": { "type": "object", "properties": {}, "additionalProperties": false } } }]);
    let server = answering(&template(HERMES), &format!("get_news{rest}"), USUAL);
    let held = choice(&server, &json!({ "tool_choice": "required", "tools": integer }));
    assert_eq!(held["finish_reason"], "tool_calls", "{held}");
    let call = &held["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
    match call["name"].as_str() {
        Some("get_weather") => assert!((1..=9).contains(&arguments["days"].as_i64().expect("a number"))),
        name => assert_eq!((name, arguments), (Some("get_nothing"), json!({}))),
    }
    // A schema that cannot be held is said to be none.
    let odd = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": { "type": "object", "not": {} } } }]);
    let reply = ask(&answering(&template(HERMES), rest, USUAL), &json!({ "tool_choice": "required", "tools": odd }));
    assert!(reply.header("x-forge-warning").is_some_and(|text| text.contains("a schema cannot be held")));
    assert_call(&reply.json()["choices"][0]["message"]["tool_calls"][0], "{\"city\": \"Oslo\"}");
    // So is a strict one where there need be no call, and what begins one may begin an answer as well.
    let bare = "{\"name\": \"{{ f.name }}\", \"parameters\": {{ f.arguments | tojson }}}";
    let strict = json!([{ "type": "function", "function": { "name": "get_weather", "strict": true, "parameters": { "type": "object" } } }]);
    let reply = ask(&answering(&template(bare), "No.", USUAL), &json!({ "tools": strict }));
    assert!(reply.header("x-forge-warning").is_some_and(|text| text.contains("strict is held where")));
    // Where calls are no JSON, they are held as well, with and without schemas.
    let xml = "<tool_call><function={{ f.name }}>{% for k, v in f.arguments | items %}<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function></tool_call>";
    let server = answering(&template(xml), " and so on", USUAL);
    let called = choice(&server, &json!({ "tool_choice": "required", "tools": integer }));
    assert_eq!(called["finish_reason"], "tool_calls", "{called}");
    let call = &called["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().expect("text")).expect("JSON");
    match call["name"].as_str() {
        Some("get_weather") => assert!((1..=9).contains(&arguments["days"].as_i64().expect("a number"))),
        name => assert_eq!((name, arguments), (Some("get_nothing"), json!({}))),
    }
    let odd_xml = ask(
        &answering(&template(xml), "></function></tool_call>", USUAL),
        &json!({ "tool_choice": "required", "tools": odd }),
    );
    assert!(odd_xml.header("x-forge-warning").is_some_and(|text| text.contains("a schema cannot be held")));
    assert_call(&odd_xml.json()["choices"][0]["message"]["tool_calls"][0], "{}");
    // A template that tells nothing of what follows the name.
    let untold = "<tool_call><function={{ f.name }}>{% for k, v in f.arguments | items %}<parameter={{ k }}>{{ v }}</parameter>{% endfor %}{{ 1 / (f.arguments | length) }}</function></tool_call>";
    let reply = ask(&answering(&template(untold), " and so on", USUAL), &json!({ "tool_choice": named }));
    assert!(
        reply.header("x-forge-warning").is_some_and(|text| text.contains("nothing holds it")),
        "{:?}",
        reply.header("x-forge-warning")
    );
    // What comes of it all the same is content, with what the prompt had of it.
    let content = reply.json()["choices"][0]["message"]["content"].as_str().expect("content").to_owned();
    assert!(content.ends_with("get_weather and so on"), "{content}");
    // Where no call's beginning is known, nobody can write it.
    let server = answering(&template("I call {{ f.name }}."), CALL, USUAL);
    let refused = ask(&server, &json!({ "tool_choice": "required" }));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tool_choice")));
}

#[test]
fn tools_without_a_known_form_are_said_to_be_so() {
    let server = answering(&template("I call {{ f.name }}."), CALL, USUAL);
    let choice = choice(&server, &json!({}));
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("stop"), &json!(CALL)));
    for stream in [false, true] {
        let reply = ask(&server, &json!({ "stream": stream }));
        assert!(reply.header("x-forge-warning").is_some_and(|text| text.starts_with("tools: ")));
        let reply = ask(&server, &json!({ "stream": stream, "tools": null }));
        assert!(reply.header("x-forge-warning").is_none());
    }
}

#[test]
fn reasoning_has_its_own_field() {
    let answer = format!("<think>\nWeather, so a call.\n</think>\n\n{CALL}");
    let called = choice(&answering(&template(HERMES), &answer, USUAL), &json!({}));
    assert_eq!(called["message"]["reasoning_content"], "Weather, so a call.");
    assert_eq!(called["finish_reason"], "tool_calls");
    // Begun by the prompt.
    let begun = template(HERMES).replace("assistant\n{% endif", "assistant\n<think>\n{% endif");
    let thought = choice(&answering(&begun, "Hm.\n</think>\n\nYes.", USUAL), &json!({ "tools": null }));
    assert_eq!(
        thought["message"],
        json!({ "role": "assistant", "content": "Yes.", "refusal": null, "reasoning_content": "Hm." })
    );
}
