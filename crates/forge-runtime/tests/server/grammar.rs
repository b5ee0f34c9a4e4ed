//! Structured output: whatever a model would say, what comes is what the schema allows.
//!
//! Schemas are of the kinds that the public JSON Schema test suite has. Values are checked by a small validator of its own, which knows nothing of
//! grammars.

use std::collections::BTreeMap;

use crate::{common, schema};
use common::{HashModel, INFO};
use forge_runtime::ModelInfo;
use forge_runtime::assets::Text;
use forge_runtime::generation::speculation::Speculation;
use forge_runtime::generation::{Audience, Constraint, Engine, Finish, Id, Listener, Request, Summary};
use forge_runtime::grammar::{Form, Grammars, MAX_FORM_BYTES, Opening, Scope};
use forge_runtime::philox::philox;
use forge_runtime::sampler::Sampling;
use serde_json::{Value, json};

/// Tokens after which a walk looks for the end.
const SOON: usize = 40;
/// Tokens after which it should have come.
const LATE: usize = 600;

/// Whether a JSON text ends inside of a string.
fn is_inside_string(json: &[u8]) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
    }
    inside
}

/// A JSON text without the exponents of more than two digits: 1e400 is a number of JSON, and none of a parser's.
fn without_long_exponents(json: &str) -> String {
    let mut out: Vec<u8> = Vec::new();
    let (mut exponent, mut digits) = (false, 0);
    for byte in json.bytes() {
        let number = !is_inside_string(&out) && out.last().is_some_and(u8::is_ascii_digit);
        match byte {
            b'e' | b'E' if number => (exponent, digits) = (true, 0),
            b'0'..=b'9' if exponent => digits += 1,
            b'+' | b'-' if exponent => {}
            _ => exponent = false,
        }
        if !(exponent && digits > 2) {
            out.push(byte);
        }
    }
    String::from_utf8(out).expect("what it was")
}

struct Bench {
    text: std::sync::Arc<Text>,
    grammars: Grammars,
    words: Vec<Vec<u8>>,
}

impl Bench {
    fn new(model: &str) -> Self {
        let text = common::text(model);
        let vocab = text.tokenizer.vocab_size();
        let grammars = Grammars::new(&text, vocab).expect("grammars");
        let words = (0..vocab as u32).map(|id| text.tokenizer.bytes(id).unwrap_or_default()).collect();
        Self { text, grammars, words }
    }

    fn hold(&self, schema: &Value) -> Box<dyn Constraint> {
        let held = self.grammars.hold(&Form::Schema(schema.clone()), &Scope::default());
        held.unwrap_or_else(|error| panic!("{schema}: {error}"))
    }

    fn is_end(&self, id: usize) -> bool {
        self.text.defaults.end_token_ids.contains(&(id as u32))
    }

    /// The text of a model that says anything that it may, and after a while what is most likely to come to an end.
    fn walk(&self, constraint: &mut dyn Constraint, seed: u32) -> String {
        let mut bytes = Vec::new();
        let mut allowed = vec![0; self.words.len().div_ceil(32)];
        for step in 0..LATE as u32 {
            constraint.allow(&mut allowed).expect("goes on");
            let ids: Vec<usize> = (0..self.words.len()).filter(|id| allowed[id / 32] >> (id % 32) & 1 == 1).collect();
            let random = |purpose: u32, below: usize| philox([step, purpose, 0, 0], [seed, 0])[0] as usize % below;
            let inside = is_inside_string(&bytes);
            let closing = |id: &usize| match self.words[*id].first() {
                _ if self.is_end(*id) => 0,
                Some(b'"') if inside => 0,
                Some(b'}' | b']') if !inside => 1,
                Some(b'"') => 2,
                // Numbers end with what follows them.
                Some(b',' | b':') if !inside => 3,
                _ => 4,
            };
            let hurry = step as usize > SOON || random(0, 3) == 0;
            let best = ids.iter().map(closing).min().expect("a token may come");
            let ids = if hurry { ids.into_iter().filter(|id| closing(id) == best).collect() } else { ids };
            let id = ids[random(1, ids.len())];
            if self.is_end(id) {
                return String::from_utf8(bytes).expect("whole characters");
            }
            assert!(!self.words[id].is_empty(), "a special token is no text");
            bytes.extend_from_slice(&self.words[id]);
            if constraint.take(id as u32).expect("may come") {
                return String::from_utf8(bytes).expect("whole characters");
            }
        }
        panic!("no end: {}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn whatever_comes_is_valid() {
    let bench = Bench::new("demo");
    let schemas = schema::all();
    assert!(schemas.len() >= 300, "{} schemas", schemas.len());
    let mut values = std::collections::BTreeSet::new();
    for schema in &schemas {
        let held = bench.hold(schema);
        for seed in 0..3 {
            let text = bench.walk(&mut *held.fork(), seed);
            let parsed = serde_json::from_str(&without_long_exponents(&text));
            let value: Value = parsed.unwrap_or_else(|error| panic!("{schema}: {text}: {error}"));
            assert!(schema::is_valid(schema, schema, &value), "{schema}: {text}");
            values.insert(value.to_string());
        }
    }
    // The walks are not all the same.
    assert!(values.len() > schemas.len(), "{} values", values.len());
}

#[test]
fn the_validator_knows_wrong_values() {
    for (schema, wrong) in schema::wrong() {
        assert!(!schema::is_valid(&schema, &schema, &wrong), "{schema}: {wrong}");
    }
}

/// A value that the schema allows can be said, token by token, and one that it does not cannot.
#[test]
fn what_is_wrong_does_not_come() {
    let bench = Bench::new("demo");
    let says = |schema: &Value, text: &str| {
        let mut held = bench.hold(schema);
        let mut allowed = vec![0; bench.words.len().div_ceil(32)];
        let mut whole = false;
        for id in bench.text.tokenizer.encode(text, false).expect("encodes") {
            if whole {
                return false;
            }
            held.allow(&mut allowed).expect("goes on");
            if allowed[id as usize / 32] >> (id % 32) & 1 == 0 {
                return false;
            }
            whole = held.take(id).expect("may come");
        }
        if whole {
            return true;
        }
        held.allow(&mut allowed).expect("goes on");
        bench.text.defaults.end_token_ids.iter().all(|id| allowed[*id as usize / 32] >> (id % 32) & 1 == 1)
    };
    for (schema, wrong) in schema::wrong() {
        assert!(!says(&schema, &wrong.to_string()), "{schema}: {wrong}");
    }
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"] });
    for text in [r#"{"a": 5}"#, "{\n  \"a\": -12\n}", r#"{"a":0,"b":[1,{"c":null}]}"#] {
        assert!(says(&schema, text), "{text}");
    }
    for text in ["{}", r#"{"a": 5"#, r#"{"a": "5"}"#, "5", r#" {"a": 5} and"#] {
        assert!(!says(&schema, text), "{text}");
    }
}

#[test]
fn what_cannot_be_held_is_refused() {
    let bench = Bench::new("demo");
    let long: Vec<String> = (0..10_000).map(|i| format!("value{i}")).collect();
    for schema in [
        json!({ "type": "string", "not": { "const": "a" } }),
        json!({ "type": "array", "uniqueItems": true }),
        json!({ "type": "array", "contains": { "type": "integer" } }),
        json!({ "if": { "type": "object" }, "then": { "required": ["a"] } }),
        json!({ "type": "object", "dependentRequired": { "a": ["b"] } }),
        json!({ "type": "object", "dependentSchemas": { "a": { "required": ["b"] } } }),
        json!({ "type": "object", "propertyNames": { "maxLength": 3 } }),
        json!({ "type": "object", "unevaluatedProperties": false }),
        json!({ "$ref": "https://example.com/schema.json" }),
        json!({ "$ref": "#/$defs/missing" }),
        json!({ "$ref": "#/$defs/missing", "$defs": { "other": {} } }),
        json!({ "type": "strin" }),
        json!({ "type": 5 }),
        json!({ "type": "string", "pattern": "(?=a)b" }),
        json!({ "type": "string", "pattern": "(a)\\1" }),
        json!({ "type": "string", "pattern": "(" }),
        json!({ "type": "string", "format": "no-such-format" }),
        json!({ "type": "integer", "minimum": 5, "maximum": 1 }),
        json!({ "type": "string", "minLength": 5, "maxLength": 1 }),
        json!({ "type": "array", "minItems": 5, "maxItems": 1 }),
        json!({ "enum": [] }),
        json!({ "properties": 3 }),
        json!({ "required": "a" }),
        json!(false),
        json!("string"),
        json!(null),
        json!({ "enum": long }),
    ] {
        let held = bench.grammars.hold(&Form::Schema(schema.clone()), &Scope::default());
        let error = held.expect_err(&schema.to_string());
        assert!(error.to_string().starts_with("the form of the answer cannot be held: "), "{error}");
    }
    assert!(json!({ "enum": long }).to_string().len() > MAX_FORM_BYTES);
}

/// Schemas that are meant to be hard: refused, or held, and soon in either case.
#[test]
fn hostile_schemas_do_no_harm() {
    let bench = Bench::new("demo");
    let mut nested = json!({ "type": "integer" });
    for _ in 0..200 {
        nested = json!({ "type": "array", "items": nested });
    }
    let mut wide = serde_json::Map::new();
    for i in 0..1000 {
        wide.insert(format!("property{i}"), json!({ "type": "string", "pattern": format!("^a{{{i}}}b*$") }));
    }
    for schema in [
        json!({ "type": "string", "pattern": "^(a|b|ab)*(c|d|cd)*$" }),
        json!({ "type": "string", "pattern": "^(((a{1,100}){1,100}){1,100}){1,100}$" }),
        json!({ "type": "string", "pattern": "^.{0,5000}x.{0,5000}$" }),
        json!({ "type": "string", "maxLength": 1_000_000_000 }),
        json!({ "type": "array", "items": { "type": "integer" }, "minItems": 100_000 }),
        json!({ "type": "object", "properties": wide }),
        json!({ "$ref": "#" }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
        json!({ "anyOf": vec![json!({ "type": "object", "properties": { "a": { "type": "string" } } }); 500] }),
        nested,
    ] {
        let Ok(mut held) = bench.grammars.hold(&Form::Schema(schema), &Scope::default()) else { continue };
        let mut allowed = vec![0; bench.words.len().div_ceil(32)];
        for _ in 0..20 {
            if held.allow(&mut allowed).is_err() {
                break;
            }
            let Some(id) = (0..bench.words.len()).find(|id| allowed[id / 32] >> (id % 32) & 1 == 1) else { break };
            if bench.is_end(id) || held.take(id as u32).unwrap_or(true) {
                break;
            }
        }
    }
}

#[test]
fn forms_begin_after_thought() {
    let bench = Bench::new("demo");
    let encode = |text: &str| bench.text.tokenizer.encode(text, false).expect("encodes");
    let scope = Scope { after: Some("</think>".into()), ..Scope::default() };
    let mut held = bench.grammars.hold(&Form::object(), &scope).expect("holds");
    let mut allowed = vec![0; bench.words.len().div_ceil(32)];
    for id in encode("Well, {this} </thin ] </think>") {
        held.allow(&mut allowed).expect("goes on");
        assert!(allowed[id as usize / 32] >> (id % 32) & 1 == 1, "anything may come");
        // But no end.
        assert!(bench.text.defaults.end_token_ids.iter().all(|id| allowed[*id as usize / 32] >> (id % 32) & 1 == 0));
        assert!(!held.take(id).expect("may come"));
    }
    let text = bench.walk(&mut *held, 5);
    assert!(serde_json::from_str::<Value>(&text).expect("JSON").is_object(), "{text}");
}

#[test]
fn an_answer_may_begin_with_thought() {
    let bench = Bench::new("demo");
    let open = bench.text.tokenizer.id("<|user|>").expect("a special token");
    let scope = Scope { unless: Some((open, "</think>".into())), ..Scope::default() };
    let held = bench.grammars.hold(&Form::object(), &scope).expect("holds");
    let mut allowed = vec![0; bench.words.len().div_ceil(32)];
    let mut thinks = held.fork();
    thinks.allow(&mut allowed).expect("goes on");
    let free = |id: u32, allowed: &[u32]| allowed[id as usize / 32] >> (id % 32) & 1 == 1;
    let brace = bench.text.tokenizer.encode("{", false).expect("encodes")[0];
    let word = bench.text.tokenizer.encode("word", false).expect("encodes")[0];
    assert!(free(open, &allowed) && free(brace, &allowed) && !free(word, &allowed));
    thinks.take(open).expect("may come");
    thinks.allow(&mut allowed).expect("goes on");
    assert!(free(word, &allowed));
    let mut answers = held.fork();
    answers.take(brace).expect("may come");
    answers.allow(&mut allowed).expect("goes on");
    assert!(!free(open, &allowed) && !free(word, &allowed));
}

/// What a text begins is held from its last byte on, in whatever tokens it came; no token goes on beyond that.
#[test]
fn a_text_begins_a_call() {
    let bench = Bench::new("demo");
    let form = Form::Grammar("start: \"(\" /[0-9]{1,3}/ \")\"".into());
    let free = |held: &mut dyn Constraint, id: u32| {
        let mut allowed = vec![0; bench.words.len().div_ceil(32)];
        held.allow(&mut allowed).expect("goes on");
        allowed[id as usize / 32] >> (id % 32) & 1 == 1
    };
    for text in ["the", "he", "and", "ed t"] {
        let calls = [(Opening::Text(text.into()), form.clone())];
        let held = bench.grammars.hold_calls(None, &calls, &Scope::default()).expect("holds");
        // Mostly tokens that have a part of it, so that it comes.
        let likely = |id: &usize| {
            let mut parts = text.as_bytes().windows(2).chain([text.as_bytes()]);
            parts.any(|part| bench.words[*id].windows(part.len()).any(|own| own == part))
        };
        let of_it: Vec<usize> = (0..bench.words.len()).filter(likely).collect();
        let (mut begun, mut refused) = (0, 0);
        for seed in 0..20_u32 {
            let (mut held, mut said) = (held.fork(), Vec::new());
            for step in 0..60_u32 {
                let random = |purpose: u32, below: usize| philox([step, purpose, 3, 0], [seed, 9])[0] as usize % below;
                let id =
                    if random(0, 4) > 0 { of_it[random(1, of_it.len())] } else { random(1, bench.words.len()) } as u32;
                if bench.words[id as usize].is_empty() || bench.is_end(id as usize) {
                    continue;
                }
                if !free(&mut *held, id) {
                    refused += 1;
                    continue;
                }
                held.take(id).expect("may come");
                said.extend_from_slice(&bench.words[id as usize]);
            }
            // Behind each of them is a call, or the beginning of one.
            let said = String::from_utf8_lossy(&said).into_owned();
            for (at, _) in said.match_indices(text) {
                let behind: Vec<char> = said[at + text.len()..].chars().take(5).collect();
                let digits = behind.iter().skip(1).take_while(|c| c.is_ascii_digit()).count();
                let is_call = behind.is_empty()
                    || behind[0] == '('
                        && digits <= 3
                        && behind.get(digits + 1).is_none_or(|c| *c == ')' && digits > 0);
                assert!(is_call, "{text:?} in {said:?}");
                begun += 1;
            }
        }
        assert!(begun > 0 && refused > 0, "{text:?}: {begun} begun, {refused} refused");
    }
}

/// Keeps texts.
#[derive(Default)]
struct Texts(BTreeMap<Id, Heard>);

impl Audience for Texts {
    fn listener(&mut self, id: Id) -> &mut dyn Listener {
        self.0.entry(id).or_default()
    }
}

#[derive(Default)]
struct Heard(String);

impl Listener for Heard {
    fn text(&mut self, text: &str) -> bool {
        self.0.push_str(text);
        true
    }
}

/// Runs all of them side by side, and gives their texts and what they came to.
fn run(slots: usize, few_rows: usize, speculation: Speculation, requests: &[Request]) -> Vec<(String, Summary)> {
    let model = HashModel::with_info(ModelInfo { slots, few_rows, ..INFO });
    let mut engine = Engine::new(model, common::text("demo"));
    if few_rows > 1 {
        engine.speculate(speculation).expect("can be cut back");
    }
    let ids: Vec<Id> = requests.iter().map(|request| engine.take(request).expect("is taken")).collect();
    let (mut texts, mut ended) = (Texts::default(), BTreeMap::new());
    while !engine.is_idle() {
        ended.extend(engine.turn(&mut texts).into_iter().map(|(id, summary)| (id, summary.expect("generates"))));
    }
    let came = |id| (texts.0.remove(&id).unwrap_or_default().0, ended.remove(&id).expect("has ended"));
    ids.into_iter().map(came).collect()
}

/// Texts, how they ended, and tokens.
fn ends(came: &[(String, Summary)]) -> Vec<(&str, Finish, usize)> {
    came.iter().map(|(text, end)| (text.as_str(), end.finish, end.completion_tokens)).collect()
}

/// Held or not, a text is what it would be alone, whatever runs beside it; and what is held is valid.
#[test]
fn neighbours_change_nothing() {
    let bench = Bench { words: Vec::new(), ..Bench::new("demo") };
    let bench = Bench { grammars: Grammars::new(&bench.text, common::VOCAB).expect("grammars"), ..bench };
    let schema = json!({
        "type": "object",
        "properties": { "color": { "enum": ["red", "green"] }, "count": { "type": "integer", "minimum": 0, "maximum": 50 }, "ok": { "type": "boolean" } },
        "required": ["color", "count", "ok"],
        "additionalProperties": false,
    });
    let requests: Vec<Request> = (0..12)
        .map(|i: u32| Request {
            prompt: (0..[1, 3, 9, 20][i as usize % 4]).map(|at| 40 * i + at).collect(),
            max_tokens: if i % 3 == 1 { None } else { Some(30) },
            sampling: Sampling { temperature: 0.9, repeat_penalty: 1.1, seed: i.into(), ..Sampling::default() },
            constraint: (i % 3 == 1).then(|| bench.hold(&schema)),
            ..Request::default()
        })
        .collect();
    let alone: Vec<(String, Summary)> =
        requests.iter().flat_map(|request| run(1, 1, Speculation::Off, std::slice::from_ref(request))).collect();
    for (request, (text, end)) in requests.iter().zip(&alone) {
        if request.constraint.is_some() {
            assert_eq!(end.finish, Finish::Stop, "{text}");
            let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(schema::is_valid(&schema, &schema, &value), "{text}");
        }
    }
    for (slots, few_rows) in [(1, 8), (2, 8), (4, 8), (5, 3), (12, 8)] {
        for speculation in [Speculation::Off, Speculation::Auto, Speculation::Depth(2)] {
            let found = run(slots, few_rows, speculation, &requests);
            assert_eq!(ends(&found), ends(&alone), "{slots} slots, {few_rows} rows, {speculation:?}");
        }
    }
}

/// What schemas leave no choice of is run as rows of one step, and said as it is without. Steps saved are printed.
#[test]
fn what_schemas_force_is_run_together() {
    let bench = Bench { words: Vec::new(), ..Bench::new("demo") };
    let bench = Bench { grammars: Grammars::new(&bench.text, common::VOCAB).expect("grammars"), ..bench };
    let number = json!({ "type": "integer", "minimum": 0, "maximum": 99 });
    let schemas = [
        json!({
            "type": "object", "additionalProperties": false, "required": ["temperature_celsius", "conditions"],
            "properties": { "temperature_celsius": number, "conditions": { "enum": ["thunderstorm", "light_snow"] } },
        }),
        json!({
            "type": "object", "additionalProperties": false, "required": ["firstname", "birthyear"],
            "properties": { "firstname": { "type": "string", "maxLength": 8 }, "birthyear": number },
        }),
        json!({ "const": { "a long name of a property": ["and a long value", "and another one", 12345.5, null] } }),
        json!({ "type": "array", "minItems": 2, "maxItems": 4, "items": { "enum": ["elephant", "hippopotamus"] } }),
    ];
    for schema in &schemas {
        let requests: Vec<Request> = (0..6)
            .map(|i: u32| Request {
                prompt: (0..9).map(|at| 40 * i + at).collect(),
                max_tokens: Some([200, 12][i as usize % 2]),
                sampling: Sampling { temperature: 0.9, seed: i.into(), ..Sampling::default() },
                constraint: Some(bench.hold(schema)),
                ..Request::default()
            })
            .collect();
        let plain = run(1, 8, Speculation::Off, &requests);
        let value: Value = serde_json::from_str(&plain[0].0).expect("JSON");
        assert!(schema::is_valid(schema, schema, &value), "{value}");
        for (slots, few_rows) in [(1, 8), (4, 8), (3, 4)] {
            let found = run(slots, few_rows, Speculation::Auto, &requests);
            assert_eq!(ends(&found), ends(&plain), "{schema}: {slots} slots, {few_rows} rows");
            let (tokens, forced) = (found[0].1.completion_tokens, found[0].1.forced_tokens);
            if slots == 1 {
                println!("{value}: {} steps in place of {tokens}", tokens - forced);
                assert!(forced > 0, "{value}");
            }
        }
    }
}

/// What is forced is cut into tokens as the tokenizer cuts it, and once it has begun it stays that.
#[test]
fn forced_tokens_are_the_tokenizers() {
    for model in ["demo", "gemma3", "llama", "qwen3"] {
        let bench = Bench::new(model);
        let words = "Wolfeschlegelstein\u{e9} is the longest name, isn't it? 1234567";
        let mut held =
            bench.hold(&json!({ "const": serde_json::from_str::<Value>(&format!("\"{words}\"")).expect("JSON") }));
        let (mut bytes, mut tokens, mut runs) = (Vec::new(), Vec::new(), 0);
        let mut allowed = vec![0; bench.words.len().div_ceil(32)];
        for _ in 0..200 {
            let forced = held.forced().to_vec();
            held.allow(&mut allowed).expect("goes on");
            let ids: Vec<u32> =
                (0..bench.words.len() as u32).filter(|id| allowed[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
            if let Some(&only) = forced.first() {
                assert_eq!(ids, [only], "{model}");
                runs += usize::from(forced.len() > 1);
            }
            // Where there is a choice it is of how the beginning of the rest is cut; the longest is what a tokenizer takes.
            let longest = ids.iter().copied().max_by_key(|id| bench.words[*id as usize].len()).expect("one may come");
            if bench.is_end(longest as usize) {
                break;
            }
            tokens.push(longest);
            bytes.extend_from_slice(&bench.words[longest as usize]);
            let rest = forced.get(1..).unwrap_or_default().to_vec();
            let whole = held.take(longest).expect("may come");
            if whole {
                break;
            }
            assert!(held.forced().starts_with(&rest), "{model}: what is forced changes");
        }
        let said: Value = serde_json::from_slice(&bytes).expect("JSON");
        let text = String::from_utf8(bytes).expect("whole characters");
        assert_eq!(said, serde_json::from_str::<Value>(&format!("\"{words}\"")).expect("JSON"));
        assert!(runs > 0, "{model}: nothing is forced of {text}");
        let own = bench.text.tokenizer.encode(&text, false).expect("encodes");
        let count = own.iter().filter(|id| !bench.words[**id as usize].iter().all(|byte| *byte == b' ')).count();
        assert!(tokens.len() <= count + 2, "{model}: {} tokens, {count} of the tokenizer's", tokens.len());
    }
}

/// What every tokenizer here says of its tokens' bytes is what it decodes them to.
#[test]
fn bytes_of_tokens_are_those_of_texts() {
    for model in ["demo", "gemma3", "llama", "qwen3"] {
        let text = common::text(model);
        for words in ["Once upon a time, {\"a\": [1, 2.5e3]}\n\n  ", "na\u{ef}ve \u{2603} caf\u{e9} \u{1f600}!", " x"] {
            let ids = text.tokenizer.encode(words, false).expect("encodes");
            let bytes: Vec<u8> = ids.iter().flat_map(|id| text.tokenizer.bytes(*id).unwrap_or_default()).collect();
            let joined = String::from_utf8(bytes).expect("whole characters");
            // Some put a blank before a text, and their decoders take it away again.
            assert_eq!(joined.trim_start_matches(' '), words.trim_start_matches(' '), "{model}");
        }
    }
}
