//! Several answers to one request, log-probabilities and echoed prompts over real sockets, against what the model's logits come to
//! and what each answer would be alone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use crate::{common, dialects, http};
use common::{HashModel, INFO, VOCAB, text};
use dialects::{answering, named_events};
use forge_runtime::assets::Text;
use forge_runtime::batch::{Outcome, Row, Token, Wants};
use forge_runtime::generation::{Engine, Listener, Request, Scored};
use forge_runtime::sampler::Sampling;
use forge_runtime::server::Limits;
use forge_runtime::tokenizer::Tokenizer;
use forge_runtime::{LanguageModel as _, ModelInfo};
use http::{Reply, Server, eventually};
use serde_json::{Value, json};

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// Natural logarithms of probabilities of all tokens behind each of these, `[tokens][vocab]`, by the definition.
fn reference(tokens: &[u32]) -> Vec<Vec<f64>> {
    let mut model = HashModel::new();
    let mut behind = |(position, &token): (usize, &u32)| {
        let row = Row { token: Token::Known(token), slot: 0, position, wants: Wants::Logits };
        let step = model.step(&[row]).expect("runs");
        let outcome = model.finish(step).expect("runs").remove(0);
        let Outcome::Logits(logits) = outcome else { panic!("logits were wanted") };
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        logits.iter().map(|&logit| f64::from(logit) - sum.ln()).collect()
    };
    tokens.iter().enumerate().map(&mut behind).collect()
}

/// The tokens that a prompt goes on with.
fn generated(prompt: &[u32], tokens: usize, sampling: Sampling) -> Vec<u32> {
    #[derive(Default)]
    struct Tokens(Vec<u32>);
    impl Listener for Tokens {
        fn text(&mut self, _: &str) -> bool {
            true
        }

        fn scored(&mut self, scored: Scored, _: usize) {
            self.0.push(scored.token.id);
        }
    }
    let request = Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(tokens),
        sampling,
        continues_prompt: true,
        top_logprobs: Some(0),
        ..Request::default()
    };
    let mut heard = Tokens::default();
    Engine::new(HashModel::new(), text("demo")).generate(&request, &mut heard).expect("generates");
    heard.0
}

/// The demo's, loaded once.
fn tokenizer() -> &'static Tokenizer {
    static TEXT: LazyLock<Arc<Text>> = LazyLock::new(|| text("demo"));
    &TEXT.tokenizer
}

/// A token as completions spell it.
fn spelled(id: u32) -> String {
    let tokenizer = tokenizer();
    let bytes = tokenizer.bytes(id).unwrap_or_else(|| tokenizer.token(id).expect("a token").into_bytes());
    let escaped = || bytes.iter().fold("bytes:".to_owned(), |text, byte| format!("{text}\\x{byte:02x}"));
    std::str::from_utf8(&bytes).map_or_else(|_| escaped(), str::to_owned)
}

fn close(value: &Value, expected: f64) {
    let value = value.as_f64().expect("a number");
    assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
}

/// Log-probabilities of a completion against the reference, for tokens behind the first `known` of a sequence.
fn check_logprobs(logprobs: &Value, sequence: &[u32], known: usize, top: usize) {
    let rows = reference(sequence);
    let count = sequence.len() - known;
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[name].as_array().map(Vec::len), Some(count), "{name}: {logprobs}");
    }
    for (index, &token) in sequence[known..].iter().enumerate() {
        assert_eq!(logprobs["tokens"][index], spelled(token));
        let Some(before) = (known + index).checked_sub(1) else {
            assert_eq!((&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]), (&Value::Null, &Value::Null));
            continue;
        };
        let row = &rows[before];
        close(&logprobs["token_logprobs"][index], row[token as usize]);
        let listed = logprobs["top_logprobs"][index].as_object().expect("an object");
        let mut best: Vec<usize> = (0..VOCAB).collect();
        best.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let listed_ids: Vec<usize> = best[..top].iter().copied().chain([token as usize]).collect();
        for &id in &listed_ids {
            // Some tokens are spelled alike.
            let value = listed[&spelled(id as u32)].as_f64().expect("a number");
            let alike = listed_ids.iter().filter(|&&other| spelled(other as u32) == spelled(id as u32));
            assert!(alike.into_iter().any(|&other| (row[other] - value).abs() < 1e-4), "{value}, not {}", row[id]);
        }
        assert!((1..=top + 1).contains(&listed.len()), "{listed:?}");
    }
}

/// The chunks of a stream.
fn chunks(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let events = reply.events();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

/// Lists of a field of streamed choices, one behind the other.
fn joined(chunks: &[Value], list: &str) -> Value {
    chunks
        .iter()
        .flat_map(|chunk| chunk["choices"][0].pointer(list).and_then(Value::as_array))
        .flatten()
        .cloned()
        .collect()
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|at| 300 + at * 7 % 900).collect()
}

#[test]
fn logprobs_of_a_completion_are_the_models() {
    let server = Server::start(HashModel::new(), Limits::default());
    let prompt = prompt(9);
    // Neither temperature nor penalties count.
    let sampling = Sampling { temperature: 1.5, repeat_penalty: 1.3, seed: 5, ..Sampling::default() };
    let sequence = [&prompt[..], &generated(&prompt, 20, sampling)].concat();
    let mut body = json!({
        "prompt": prompt, "max_tokens": 20, "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0, "repeat_penalty": 1.3,
        "seed": 5, "logprobs": 3,
    });
    let whole = server.post(COMPLETIONS, &body).json();
    let choice = &whole["choices"][0];
    check_logprobs(&choice["logprobs"], &sequence, prompt.len(), 3);
    body["stream"] = true.into();
    let streamed = chunks(&server.post(COMPLETIONS, &body));
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(joined(&streamed, &format!("/logprobs/{name}")), choice["logprobs"][name], "{name}");
    }
    // Offsets count characters of the text.
    let said: Vec<char> = choice["text"].as_str().expect("text").chars().collect();
    for (token, offset) in choice["logprobs"]["tokens"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(choice["logprobs"]["text_offset"].as_array().expect("a list"))
    {
        let (token, offset) = (token.as_str().expect("a token"), offset.as_u64().expect("a count") as usize);
        if !token.starts_with("bytes:") && tokenizer().id(token).is_none_or(|id| !tokenizer().is_special(id)) {
            assert!(said[offset..].iter().collect::<String>().starts_with(token), "{token:?} at {offset}");
        }
    }
    // Of none but the tokens themselves, and of nothing.
    body["stream"] = false.into();
    body["logprobs"] = 0.into();
    let bare = &server.post(COMPLETIONS, &body).json()["choices"][0]["logprobs"];
    assert_eq!((&bare["token_logprobs"], &bare["top_logprobs"]), (&choice["logprobs"]["token_logprobs"], &Value::Null));
    body["logprobs"] = Value::Null;
    assert_eq!(server.post(COMPLETIONS, &body).json()["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn prompts_are_echoed_with_their_logprobs() {
    // Prompts in tiles, in the rows of a step, and in both.
    for (length, few_rows) in [(40, 8), (5, 8), (43, 1), (1, 8)] {
        let model = HashModel::with_info(ModelInfo { few_rows, ..INFO });
        let server = Server::start(model, Limits::default());
        let prompt = prompt(length);
        let sequence =
            [&prompt[..], &generated(&prompt, 6, Sampling { temperature: 0.0, ..Sampling::default() })].concat();
        let mut body = json!({ "prompt": prompt, "max_tokens": 6, "temperature": 0, "logprobs": 2, "echo": true });
        // What was run is run again: state alone says nothing of what came before.
        for _ in 0..2 {
            let reply = server.post(COMPLETIONS, &body).json();
            check_logprobs(&reply["choices"][0]["logprobs"], &sequence, 0, 2);
            assert_eq!(reply["usage"]["prompt_tokens"], prompt.len());
            body["stream"] = true.into();
            let streamed = chunks(&server.post(COMPLETIONS, &body));
            let tokens = joined(&streamed, "/logprobs/token_logprobs");
            assert_eq!(tokens, reply["choices"][0]["logprobs"]["token_logprobs"]);
            let said: String =
                streamed.iter().map(|chunk| chunk["choices"][0]["text"].as_str().expect("text")).collect();
            assert_eq!(said, reply["choices"][0]["text"].as_str().expect("text"));
            body["stream"] = false.into();
        }
        // The prompt alone, as evaluations ask for it.
        body["max_tokens"] = 0.into();
        let alone = server.post(COMPLETIONS, &body).json();
        check_logprobs(&alone["choices"][0]["logprobs"], &prompt, 0, 2);
        assert_eq!(
            (&alone["usage"]["completion_tokens"], &alone["choices"][0]["finish_reason"]),
            (&json!(0), &json!("length"))
        );
    }
    let server = Server::start(HashModel::new(), Limits::default());
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0 });
    let plain = server.post(COMPLETIONS, &body).json();
    let echoed = server.post(COMPLETIONS, &dialects::with(body, json!({ "echo": true }))).json();
    let said = plain["choices"][0]["text"].as_str().expect("text");
    assert_eq!(echoed["choices"][0]["text"], format!("Once upon a time{said}"));
    assert_eq!(echoed["choices"][0]["logprobs"], Value::Null);
}

/// Characters of several tokens, and a stop string that cuts through tokens.
#[test]
fn bytes_of_half_characters() {
    let said = "A 🦊 saw 狐狸 …";
    let mut script = tokenizer().encode(said, false).expect("encodes");
    script.push(2047);
    let server = Server::start(HashModel::scripted(&script), Limits::default());
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "temperature": 0, "logprobs": true, "top_logprobs": 2 });
    let whole = server.post(CHAT, &body).json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], said);
    let tokens = choice["logprobs"]["content"].as_array().expect("a list");
    assert_eq!(tokens.len(), script.len() - 1, "{tokens:?}");
    let bytes = |token: &Value| -> Vec<u8> {
        token["bytes"].as_array().expect("bytes").iter().map(|byte| byte.as_u64().expect("a byte") as u8).collect()
    };
    assert_eq!(tokens.iter().flat_map(bytes).collect::<Vec<u8>>(), said.as_bytes());
    for (token, id) in tokens.iter().zip(&script) {
        assert_eq!(Some(bytes(token)), tokenizer().bytes(*id));
        match String::from_utf8(bytes(token)) {
            Ok(text) => assert_eq!(token["token"], text),
            Err(_) => assert!(token["token"].as_str().expect("a token").starts_with("\\x"), "{token}"),
        }
        // A script is next to certain.
        assert!(token["logprob"].as_f64().expect("a number").abs() < 1e-3, "{token}");
        assert_eq!(token["top_logprobs"][0]["bytes"], token["bytes"]);
        assert_eq!(token["top_logprobs"].as_array().map(Vec::len), Some(2));
    }
    let streamed = chunks(&server.post(CHAT, &dialects::with(body.clone(), json!({ "stream": true }))));
    assert_eq!(joined(&streamed, "/logprobs/content"), choice["logprobs"]["content"]);
    // What a stop string takes with it is not among them.
    let stopped = server.post(CHAT, &dialects::with(body, json!({ "stop": "aw 狐" }))).json();
    let (text, tokens) = (&stopped["choices"][0]["message"]["content"], &stopped["choices"][0]["logprobs"]["content"]);
    assert_eq!(text, "A 🦊 s");
    let kept: Vec<u8> = tokens.as_array().expect("a list").iter().flat_map(bytes).collect();
    assert!(
        said.as_bytes().starts_with(&kept) && kept.starts_with("A 🦊 s".as_bytes()) && kept.len() < said.len(),
        "{tokens}"
    );
}

/// Tokens of thoughts, calls and tags are no content.
#[test]
fn logprobs_are_those_of_content() {
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>";
    let server = answering(&format!("<think>\nHm, so.\n</think>\n\nLet me look. {call}"));
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
    let mut body = json!({
        "messages": [{ "role": "user", "content": "Hi" }], "tools": tools, "logprobs": true, "temperature": 0,
    });
    let whole = server.post(CHAT, &body).json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], "Let me look.");
    assert_eq!(choice["message"]["tool_calls"].as_array().map(Vec::len), Some(1), "{choice}");
    let spelled = |tokens: &Value| -> String {
        tokens.as_array().expect("a list").iter().map(|token| token["token"].as_str().expect("a token")).collect()
    };
    // A token that has a blank beside the content comes whole.
    assert_eq!(spelled(&choice["logprobs"]["content"]).trim(), "Let me look.");
    body["stream"] = true.into();
    let streamed = chunks(&server.post(CHAT, &body));
    assert_eq!(joined(&streamed, "/logprobs/content"), choice["logprobs"]["content"]);

    let body =
        json!({ "input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 1, "temperature": 0 });
    let whole = server.post("/v1/responses", &body).json();
    assert_eq!(whole["top_logprobs"], 1);
    let part = &whole["output"][1]["content"][0];
    assert!(part["text"].as_str().expect("text").starts_with("Let me look."), "{whole}");
    assert_eq!(spelled(&part["logprobs"]).trim(), part["text"].as_str().expect("text").trim());
    assert_eq!(part["logprobs"][0]["top_logprobs"].as_array().map(Vec::len), Some(1));
    let events = named_events(&server.post("/v1/responses", &dialects::with(body, json!({ "stream": true }))));
    let of =
        |kind: &str| events.iter().filter(|(name, _)| name == kind).map(|(_, event)| event.clone()).collect::<Vec<_>>();
    let deltas: Value = of("response.output_text.delta")
        .iter()
        .flat_map(|event| event["logprobs"].as_array().expect("a list").clone())
        .collect();
    assert_eq!(deltas, part["logprobs"]);
    assert_eq!(of("response.output_text.done")[0]["logprobs"], part["logprobs"]);
    let plain = server.post("/v1/responses", &json!({ "input": "Hi", "temperature": 0 })).json();
    assert_eq!(plain["output"][1]["content"][0]["logprobs"], json!([]));
}

#[test]
fn choices_are_what_each_would_be_alone() {
    let prompt = prompt(120);
    let request = |seed: u64| json!({ "prompt": prompt, "max_tokens": 12, "temperature": 1, "seed": seed });
    let alone = |seed: u64| {
        let server = Server::start(HashModel::of_slots(1), Limits::default());
        server.post(COMPLETIONS, &request(seed)).json()["choices"][0].clone()
    };
    let expected: Vec<Value> = (7..12).map(alone).collect();
    for slots in [1, 2, 8] {
        let model = HashModel::of_slots(slots);
        let counters = model.counters.clone();
        let server = Server::start(model, Limits::default());
        let body = dialects::with(request(7), json!({ "n": 5 }));
        let whole = server.post(COMPLETIONS, &body).json();
        let choices = whole["choices"].as_array().expect("a list");
        assert_eq!(choices.len(), 5);
        let mut tokens = 0;
        for (index, (choice, expected)) in choices.iter().zip(&expected).enumerate() {
            assert_eq!(choice["index"], index);
            assert_eq!((&choice["text"], &choice["finish_reason"]), (&expected["text"], &expected["finish_reason"]));
            tokens += 12;
        }
        assert_eq!(whole["usage"]["completion_tokens"], tokens);
        assert_eq!(
            (&whole["usage"]["prompt_tokens"], &whole["usage"]["total_tokens"]),
            (&json!(120), &json!(120 + tokens))
        );
        // The prompt was run once, but for each choice's last token of it.
        let ran = counters.prefilled_tokens.load(Ordering::SeqCst);
        assert!((119..140).contains(&ran), "{slots} slots: {ran} tokens of a prompt of 120");

        let body = dialects::with(body, json!({ "stream": true, "stream_options": { "include_usage": true } }));
        let mut said = vec![String::new(); 5];
        let mut ended = [0; 5];
        let all = chunks(&server.post(COMPLETIONS, &body));
        let (usage, chunks) = all.split_last().expect("chunks");
        for chunk in chunks {
            let choice = &chunk["choices"][0];
            let index = choice["index"].as_u64().expect("an index") as usize;
            assert_eq!(ended[index], 0, "nothing comes after an end");
            said[index] += choice["text"].as_str().expect("text");
            ended[index] += usize::from(!choice["finish_reason"].is_null());
        }
        assert_eq!(ended, [1; 5]);
        assert_eq!(said, expected.iter().map(|choice| choice["text"].as_str().expect("text")).collect::<Vec<_>>());
        assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(tokens)));
        eventually("slots are free", || {
            let slots = server.get("/slots").json();
            slots["slots"].as_array().is_some_and(|list| list.iter().all(|slot| slot["is_processing"] == false))
        });
    }
}

/// Each choice has calls and an end of its own.
#[test]
fn choices_of_a_chat() {
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>";
    let server = answering(&format!("Let me look. {call}{call}"));
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
    let mut body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "tools": tools, "temperature": 0, "n": 2, "best_of": 2 });
    let whole = server.post(CHAT, &body).json();
    let ids = |index: usize| -> Vec<String> {
        let calls = whole["choices"][index]["message"]["tool_calls"].as_array().expect("calls");
        calls.iter().map(|call| call["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!((ids(0).len(), ids(1).len()), (2, 2), "{whole}");
    assert!(ids(0).iter().all(|id| !ids(1).contains(id)));
    body["stream"] = true.into();
    let chunks = chunks(&server.post(CHAT, &body));
    for index in 0..2 {
        let own: Vec<&Value> =
            chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index).collect();
        assert_eq!(own[0]["delta"]["role"], "assistant");
        let begun = own.iter().filter_map(|choice| choice["delta"]["tool_calls"][0]["id"].as_str()).count();
        assert_eq!(begun, 2);
        let last: Vec<u64> =
            own.iter().filter_map(|choice| choice["delta"]["tool_calls"][0]["index"].as_u64()).collect();
        assert_eq!(last, [0, 0, 1, 1]);
        assert_eq!(own.last().expect("chunks")["finish_reason"], "tool_calls");
    }
}

#[test]
fn what_is_asked_for_has_limits() {
    let server = Server::start(HashModel::of_slots(2), Limits { queue: 4, ..Limits::default() });
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    for (url, fields, param) in [
        (CHAT, json!({ "n": 0 }), "n"),
        (CHAT, json!({ "n": 129 }), "n"),
        (CHAT, json!({ "n": 1.5 }), "n"),
        // More than two that run and four that wait.
        (CHAT, json!({ "n": 7 }), "n"),
        (CHAT, json!({ "n": 2, "best_of": 3 }), "best_of"),
        (CHAT, json!({ "logprobs": 2 }), "logprobs"),
        (CHAT, json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (CHAT, json!({ "top_logprobs": 2 }), "top_logprobs"),
        (CHAT, json!({ "echo": true }), "echo"),
        (COMPLETIONS, json!({ "logprobs": 6 }), "logprobs"),
        (COMPLETIONS, json!({ "logprobs": true }), "logprobs"),
        (COMPLETIONS, json!({ "top_logprobs": 2 }), "top_logprobs"),
        (COMPLETIONS, json!({ "echo": 1 }), "echo"),
        (COMPLETIONS, json!({ "best_of": 2 }), "best_of"),
        ("/v1/responses", json!({ "top_logprobs": 21 }), "top_logprobs"),
    ] {
        let body = json!({ "messages": messages, "prompt": "Hi", "input": "Hi", "max_tokens": 1 });
        let body = match url {
            CHAT => json!({ "messages": messages, "max_tokens": 1 }),
            COMPLETIONS => json!({ "prompt": "Hi", "max_tokens": 1 }),
            _ => json!({ "input": body["input"] }),
        };
        let reply = server.post(url, &dialects::with(body, fields.clone()));
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{fields}: {}", reply.text());
    }
    let six = json!({ "messages": messages, "max_tokens": 1, "n": 6 });
    assert_eq!(server.post(CHAT, &six).json()["choices"].as_array().map(Vec::len), Some(6));
}
