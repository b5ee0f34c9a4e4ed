//! Calls that are held to their form: whatever a model would say, what comes is read as a call with arguments that the tool's schema allows.
//!
//! Schemas are of the kinds that the public JSON Schema test suite has; arguments are checked by the tests' own validator, which knows nothing of grammars.

use std::sync::Arc;

use crate::{common, families, schema};
use common::{fixture, read};
use families::{families, text_of};
use forge_runtime::Assets;
use forge_runtime::assets::Text;
use forge_runtime::generation::Constraint;
use forge_runtime::grammar::{Form, Grammars, Scope};
use forge_runtime::philox::philox;
use forge_runtime::server::tools::{CallForm, CallRest, Part, Reader, Style, Thinking, Tool};
use serde_json::{Map, Value, json};

/// Tokens after which a walk looks for the end, and after which it should have come.
const SOON: usize = 24;
const LATE: usize = 500;

/// A model's text side, how it writes calls, and what holds it.
struct Bench {
    name: String,
    text: Arc<Text>,
    form: CallForm,
    beginning: String,
    rest: CallRest,
    grammars: Grammars,
    words: Vec<Vec<u8>>,
    /// What may stand between a value and the call's end, by the template.
    ends: Vec<String>,
}

impl Bench {
    fn new(name: &str, text: Arc<Text>) -> Self {
        let form = CallForm::of(&text).unwrap_or_else(|| panic!("{name}: no form"));
        let beginning = form.beginning(&text).expect("a beginning");
        let rest = form.rest(&text).unwrap_or_else(|| panic!("{name}: what follows the name is not known"));
        let vocab = text.tokenizer.vocab_size();
        let grammars = Grammars::new(&text, vocab).expect("grammars");
        let word = |id: u32| text.tokenizer.bytes(id).or_else(|| Some(text.tokenizer.token(id)?.as_bytes().to_vec()));
        let words = (0..vocab as u32).map(|id| word(id).unwrap_or_default()).collect();
        // From the template itself: behind a text, behind a number, and of no arguments.
        let user = json!({ "role": "user", "content": "Q" });
        let call = |arguments: Value| {
            let function = json!({ "name": "f", "arguments": arguments });
            let call = json!({ "id": "abcDEF123", "type": "function", "function": function });
            let chat = json!([user, { "role": "assistant", "content": "", "tool_calls": [call] }]);
            let ending = forge_runtime::chat_templates::Ending::Closed;
            text.render_chat(&chat, ending, &Map::new()).unwrap_or_default()
        };
        let behind = |arguments: Value, value: &str| {
            let rendered = call(arguments);
            let behind = rendered.split_once(value).map(|(_, behind)| behind.to_owned()).unwrap_or_default();
            let close = form.close.first().map_or("</function>", String::as_str);
            behind.split_once(close).map(|(rest, _)| format!("{rest}{close}")).unwrap_or_default()
        };
        let mut ends = vec![behind(json!({ "k": "VALUE" }), "VALUE"), behind(json!({ "k": 171 }), "171")];
        ends.retain(|end| !end.is_empty());
        Self { name: name.into(), text, form, beginning, rest, grammars, words, ends }
    }

    fn is_end(&self, id: u32) -> bool {
        self.text.defaults.end_token_ids.contains(&id)
    }

    /// What holds an answer to a call of one of these, behind the beginning; `None` where it cannot be.
    fn hold(&self, tools: &[Tool]) -> Option<Box<dyn Constraint>> {
        let grammar = self.rest.grammar(&self.form, tools, "", None, &self.text, |_| true)?;
        self.grammars.hold(&Form::Grammar(grammar), &Scope::default()).ok()
    }

    /// Says a text, if it may come; whether it is whole then.
    fn say(&self, held: &mut Box<dyn Constraint>, text: &str) -> Option<bool> {
        let mut allowed = vec![0; self.words.len().div_ceil(32)];
        let mut whole = false;
        for id in self.text.tokenizer.encode(text, false).expect("encodes") {
            if whole {
                return None;
            }
            held.allow(&mut allowed).expect("goes on");
            (allowed[id as usize / 32] >> (id % 32) & 1 == 1).then_some(())?;
            whole = held.take(id).expect("may come");
        }
        Some(whole)
    }

    /// The text of a model that says anything that it may, and after a while comes to an end.
    fn walk(&self, constraint: &dyn Constraint, seed: u32) -> String {
        let mut held = constraint.fork();
        let mut bytes = Vec::new();
        let mut allowed = vec![0; self.words.len().div_ceil(32)];
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("whole characters");
        for step in 0..LATE as u32 {
            let random = |purpose: u32, below: usize| philox([step, purpose, 0, 0], [seed, 1])[0] as usize % below;
            if step as usize > SOON {
                // The call's end, or else that of a text.
                let of_text = |end: &String| end.find('>').map(|at| end[..=at].to_owned());
                let values = self.ends.iter().filter_map(of_text).filter(|_| random(3, 2) == 0);
                for end in self.ends.iter().cloned().chain(values) {
                    let mut other = held.fork();
                    match self.say(&mut other, &end) {
                        Some(true) => {
                            bytes.extend_from_slice(end.as_bytes());
                            return text(bytes);
                        }
                        Some(false) if !self.ends.contains(&end) => {
                            bytes.extend_from_slice(end.as_bytes());
                            held = other;
                            break;
                        }
                        Some(false) | None => {}
                    }
                }
            }
            held.allow(&mut allowed).expect("goes on");
            let mut ids: Vec<usize> =
                (0..self.words.len()).filter(|id| allowed[id / 32] >> (id % 32) & 1 == 1).collect();
            // A number with a long exponent is none of a parser's.
            let exponent = |id: &usize| {
                bytes.last().is_some_and(u8::is_ascii_digit) && matches!(self.words[*id].first(), Some(b'e' | b'E'))
            };
            if !ids.iter().all(exponent) {
                ids.retain(|id| !exponent(id));
            }
            let quotes = self.beginning.bytes().chain(bytes.iter().copied()).filter(|byte| *byte == b'"').count();
            let inside = quotes % 2 == 1;
            let closing = |id: &usize| match self.words[*id].first() {
                _ if self.is_end(*id as u32) => 0,
                Some(b'"') if inside => 0,
                Some(b'}' | b']' | b')') if !inside => 1,
                Some(b'"') => 2,
                Some(b',' | b':') if !inside => 3,
                _ => 4,
            };
            let hurry = step as usize > SOON && random(2, 8) > 0 || random(0, 3) == 0;
            let best = ids.iter().map(closing).min().expect("a token may come");
            let ids = if hurry { ids.into_iter().filter(|id| closing(id) == best).collect() } else { ids };
            let id = ids[random(1, ids.len())];
            if self.is_end(id as u32) {
                return text(bytes);
            }
            bytes.extend_from_slice(&self.words[id]);
            if held.take(id as u32).expect("may come") {
                return text(bytes);
            }
        }
        panic!("{}: no end: {}", self.name, String::from_utf8_lossy(&bytes));
    }

    /// What an answer is read as.
    fn parts(&self, answer: &str, tools: &[Tool]) -> Vec<Part> {
        let thinking = if self.form.style == Style::Channels { Thinking::Channels } else { Thinking::default() };
        let mut reader = Reader::new(Some(self.form.clone()), tools.to_vec(), &thinking, false);
        let mut parts = reader.push(answer);
        parts.extend(reader.finish());
        parts
    }

    /// The arguments of the one call that an answer is, which is of the tool of this name.
    #[track_caller]
    fn arguments(&self, answer: &str, tools: &[Tool], name: &str) -> Value {
        let parts = self.parts(answer, tools);
        let [Part::Call { name: called, arguments }] = &parts[..] else {
            panic!("{}: {answer:?}: {parts:?}", self.name)
        };
        assert_eq!(called, name, "{answer:?}");
        serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{}: {answer:?}: {error}", self.name))
    }
}

/// The families whose arguments come one after the other, and one with JSON in channels; tags of two are special tokens.
fn benches() -> Vec<Bench> {
    let real = |name: &str, tokens: [(&str, &str); 2]| {
        let template = std::fs::read_to_string(fixture("chat", name)).expect("a template");
        let mut json = std::str::from_utf8(read("demo", "tokenizer.json")).expect("UTF-8").to_owned();
        tokens.iter().for_each(|(from, to)| json = json.replace(from, to));
        let assets = Assets {
            tokenizer: json.into_bytes().leak(),
            chat_template: Some(template.leak()),
            ..common::assets("demo")
        };
        Bench::new(name, Arc::new(Text::load(&assets).expect("loads")))
    };
    let mut benches = vec![
        real("qwen3-coder.jinja", [("<|user|>", "<tool_call>"), ("<|assistant|>", "</tool_call>")]),
        real("gemma4.jinja", [("<|user|>", "<|\\\"|>"), ("<|assistant|>", "<|tool_call>")]),
        real("gemma4.jinja", [("<|user|>", "<tool_call|>"), ("<|assistant|>", "<|tool_call>")]),
    ];
    let own = ["GLM", "DeepSeek V3.2", "MiniMax M2", "LFM2", "gpt-oss"];
    benches.extend(
        families()
            .iter()
            .filter(|family| own.contains(&family.name))
            .map(|family| Bench::new(family.name, text_of(&family.template))),
    );
    // The tag that ends a value is a token.
    let glm = &families()[0].template;
    let json = std::str::from_utf8(read("demo", "tokenizer.json")).expect("UTF-8");
    let json = json.replace("<|user|>", "</arg_value>").replace("<|assistant|>", "<arg_key>");
    let assets = Assets {
        tokenizer: json.into_bytes().leak(),
        chat_template: Some(glm.clone().leak()),
        ..common::assets("demo")
    };
    benches.push(Bench::new("GLM with tokens", Arc::new(Text::load(&assets).expect("loads"))));
    benches
}

/// A tool with two arguments, one of them of a schema.
fn tool_of(schema: &Value) -> Tool {
    let mut own = schema.clone();
    let definitions = own.as_object_mut().and_then(|fields| fields.remove("$defs"));
    let mut parameters = json!({
        "type": "object", "properties": { "value": own, "note": { "type": "string" } }, "required": ["value"], "additionalProperties": false,
    });
    if let Some(definitions) = definitions {
        parameters["$defs"] = definitions;
    }
    Tool { name: "set".into(), parameters, strict: true }
}

#[test]
fn whatever_comes_is_a_call_of_the_schema() {
    let schemas = schema::all();
    assert!(schemas.len() >= 300, "{} schemas", schemas.len());
    for (number, bench) in benches().iter().enumerate() {
        // All of them in every notation; of a notation's other families every fifth.
        let step = if [0, 1, 6].contains(&number) { 1 } else { 5 };
        let (mut held, mut refused) = (0, Vec::new());
        for (at, schema) in schemas.iter().enumerate().skip(number % step).step_by(step) {
            let tools = [tool_of(schema)];
            let Some(constraint) = bench.hold(&tools) else {
                refused.push(schema.to_string());
                continue;
            };
            held += 1;
            let answer = format!("{}{}", bench.beginning, bench.walk(&*constraint, at as u32));
            let arguments = bench.arguments(&answer, &tools, "set");
            let parameters = &tools[0].parameters;
            assert!(
                schema::is_valid(parameters, parameters, &arguments),
                "{}: {schema}: {answer:?}: {arguments}",
                bench.name
            );
        }
        println!("{}: {held} schemas held, {} not: {refused:#?}", bench.name, refused.len());
        assert!(held * 10 >= 7 * (held + refused.len()), "{}: {held} held, not {refused:#?}", bench.name);
    }
}

/// Arguments of every shape: none, some, others than those named, and those of a schema elsewhere.
#[test]
fn arguments_of_every_shape() {
    let benches = benches();
    let flag = json!({ "type": "object", "properties": { "x": { "type": "boolean" } }, "required": ["x"], "additionalProperties": false });
    let three =
        json!({ "zeta": { "type": "integer" }, "Beta": { "type": "string" }, "alpha": { "enum": [true, null, "no"] } });
    for (parameters, most) in [
        (json!({ "type": "object", "properties": {}, "additionalProperties": false }), 0),
        (flag.clone(), 1),
        (json!({ "$ref": "#/$defs/flag", "$defs": { "flag": flag } }), 1),
        (json!({ "allOf": [flag, { "title": "a flag" }] }), 1),
        (json!({ "type": "object", "properties": three }), 3),
        (json!({ "type": "object", "properties": three, "required": ["zeta", "Beta", "alpha"] }), 3),
        (
            json!({ "type": "object", "properties": three, "required": ["other"], "additionalProperties": { "type": "null" } }),
            4,
        ),
        (json!({ "type": "object", "additionalProperties": { "type": "integer" } }), usize::MAX),
        (json!({ "type": "object" }), usize::MAX),
        (Value::Null, usize::MAX),
    ] {
        let tools = [Tool { name: "set".into(), parameters: parameters.clone(), strict: true }];
        for bench in &benches {
            let held = bench.hold(&tools).unwrap_or_else(|| panic!("{}: {parameters} is not held", bench.name));
            for seed in 0..4 {
                let answer = format!("{}{}", bench.beginning, bench.walk(&*held, seed));
                let arguments = bench.arguments(&answer, &tools, "set");
                let fields = arguments.as_object().expect("an object");
                let is_json = matches!(bench.rest, CallRest::Object { .. });
                assert!(fields.len() <= most || is_json, "{}: {parameters}: {answer:?}", bench.name);
                let is_valid =
                    parameters.is_null() || schema::is_valid(&parameters, &without_words(&parameters), &arguments);
                assert!(is_valid, "{}: {parameters}: {answer:?}: {arguments}", bench.name);
            }
        }
    }
}

/// A schema without what the tests' validator does not know.
fn without_words(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(parts) = schema.get_mut("allOf").and_then(Value::as_array_mut) {
        parts.retain(|part| part.get("title").is_none());
    }
    schema
}

/// What cannot be said in a form is not held in it, rather than held to something else.
#[test]
fn what_has_no_grammar_is_not_held() {
    let benches = benches();
    for (value, of_text, of_pairs) in [
        (json!({ "type": "string", "not": { "const": "a" } }), false, false),
        (json!({ "type": "string", "format": "hostname" }), false, false),
        (json!({ "type": "string", "pattern": "a|^b" }), false, false),
        (json!({ "type": "string", "pattern": "x$y" }), false, false),
        (json!({ "type": "string", "pattern": "a\\b" }), false, false),
        (json!({ "type": ["string", "array"], "items": { "type": "integer" } }), false, true),
        (json!({ "type": "array", "uniqueItems": true }), false, false),
        (
            json!({ "type": "array", "prefixItems": [{ "type": "integer" }], "items": false, "minItems": 1 }),
            true,
            false,
        ),
        (json!({ "type": "object", "properties": { "a b": { "type": "integer" } }, "required": ["a b"] }), true, true),
        (json!({ "enum": ["</parameter>", "<|\"|>"] }), false, false),
        (json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] }), false, false),
        (json!({ "$ref": "#/properties/note" }), true, true),
        (json!({ "$ref": "#/$defs/no" }), false, false),
    ] {
        let tools = [tool_of(&value)];
        let [xml, pairs] = [&benches[0], &benches[1]];
        assert_eq!((xml.hold(&tools).is_some(), pairs.hold(&tools).is_some()), (of_text, of_pairs), "{value}");
    }
    // Names that could be read otherwise.
    for (number, name) in [(0, "a>b"), (1, "a:b"), (6, "a-b"), (3, "a<b"), (4, "a\"b")] {
        let parameters = json!({ "type": "object", "properties": { name: { "type": "string" } } });
        let tools = [Tool { name: "set".into(), parameters, strict: true }];
        assert!(benches[number].hold(&tools).is_none(), "{name}");
    }
}

/// Values of text are what the schema says, as far as it does.
#[test]
fn what_is_written_as_text_is_typed() {
    let bench = &benches()[0];
    for (schema, written, value) in [
        (json!({ "type": "string" }), "5", json!("5")),
        (json!({ "type": "integer" }), "5", json!(5)),
        (json!({ "type": "integer" }), "5.0", json!(5.0)),
        (json!({ "type": "integer" }), "5.5", json!("5.5")),
        (json!({ "type": ["integer", "null"] }), " None ", json!(null)),
        (json!({ "enum": [1, "one", [2], null] }), "1", json!(1)),
        (json!({ "enum": [1, "one", [2], null] }), "one", json!("one")),
        (json!({ "enum": [1, "1"] }), "1", json!("1")),
        (json!({ "enum": [1, "one", [2], null] }), "[2]", json!([2])),
        (json!({ "const": 42 }), "42", json!(42)),
        (json!({ "const": 42 }), "43", json!(43)),
        (json!({ "const": 42 }), "x", json!("x")),
        (json!({ "properties": { "a": {} } }), "{\"a\": 1}", json!({ "a": 1 })),
        (json!({ "items": {} }), "[1]", json!([1])),
        (json!({ "allOf": [{ "type": "boolean" }] }), "True", json!(true)),
        (json!({ "$ref": "#/$defs/n", "$defs": { "n": { "type": "number" } } }), "1e3", json!(1e3)),
        (json!({ "$ref": "#/$defs/n", "$defs": { "n": { "$ref": "#/$defs/n" } } }), "1e3", json!("1e3")),
        (json!({ "anyOf": vec![json!({ "$ref": "#/properties/value" }); 300] }), "x", json!("x")),
    ] {
        let tools = [tool_of(&schema)];
        let answer =
            format!("{}set>\n<parameter=value>\n{written}\n</parameter>\n</function>\n</tool_call>", bench.beginning);
        assert_eq!(bench.arguments(&answer, &tools, "set")["value"], value, "{schema}");
    }
}
