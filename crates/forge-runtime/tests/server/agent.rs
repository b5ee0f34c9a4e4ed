//! An agent's work over real sockets: turns, titles, side questions, retries and edits; no prompt is processed twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::{common, http};
use common::{Counters, HashModel, INFO};
use forge_runtime::ModelInfo;
use forge_runtime::assets::Text;
use forge_runtime::chat_templates::Ending;
use forge_runtime::server::Options;
use forge_runtime::snapshots::Folder;
use http::Server;
use serde_json::{Map, Value, json};

/// What an agent asks for, and what of it is new.
struct Agent {
    server: Option<Server>,
    text: Arc<Text>,
    /// All sequences so far, answers included.
    known: Vec<Vec<u32>>,
    processed: usize,
    new: usize,
    whole: usize,
}

impl Agent {
    fn ask(&mut self, messages: &[Value]) -> String {
        let messages = Value::Array(messages.to_vec());
        let body = json!({ "messages": messages, "max_tokens": 12, "temperature": 1.0, "seed": self.whole });
        let reply = self.server.as_ref().expect("runs").post("/v1/chat/completions", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let reply = reply.json();
        let answer = reply["choices"][0]["message"]["content"].as_str().expect("content").to_owned();
        let prompt = self.text.render_chat(&messages, Ending::Opened, &Map::new()).expect("renders");
        let prompt = self.text.tokenizer.encode(&prompt, false).expect("encodes");
        let count = |value: &Value| value.as_u64().expect("a count") as usize;
        let usage = &reply["usage"];
        assert_eq!(count(&usage["prompt_tokens"]), prompt.len());
        self.processed += prompt.len() - count(&usage["prompt_tokens_details"]["cached_tokens"]);
        let shared = |known: &Vec<u32>| known.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
        let most = self.known.iter().map(shared).max().unwrap_or(0);
        // The last token of a prompt is always run.
        self.new += (prompt.len() - most).max(1);
        self.whole += prompt.len();
        let written = self.text.tokenizer.encode(&answer, false).expect("encodes");
        self.known.push([prompt, written].concat());
        answer
    }
}

/// What a program knows: `restarts` before these turns, all of it from files.
/// Each message has so many words more than its question, as those of agents, which carry files, have.
fn trace(model: impl Fn() -> HashModel, restarts: &[usize], words: usize) -> (usize, usize, usize, Vec<Value>) {
    let text = common::text("demo");
    let place = tempfile::tempdir().expect("a folder");
    let folder = Folder { path: place.path().to_owned(), bytes: 1 << 20, model: "a model".into() };
    let mut counters: Vec<Arc<Counters>> = Vec::new();
    let mut start = || {
        let model = model();
        counters.push(model.counters.clone());
        let folder = Some(folder.clone()).filter(|_| !restarts.is_empty());
        Some(Server::with_text(model, text.clone(), Options { folder, ..Options::default() }))
    };
    let server = start();
    let mut agent = Agent { server, text: text.clone(), known: Vec::new(), processed: 0, new: 0, whole: 0 };
    let user = |question: String| {
        let file: String = (0..words).map(|at| format!(" {}{at}", question.len())).collect();
        json!({ "role": "user", "content": question + &file })
    };
    let rules: String = (0..words).map(|at| format!(" Rule {at}: be kind.")).collect();
    let instructions = format!("You help with a small program. Say what you change and why.{rules}");
    let system = json!({ "role": "system", "content": instructions });
    let mut messages = vec![system.clone()];
    for turn in 0..8 {
        if restarts.contains(&turn) {
            // The old one first writes what it knows.
            agent.server = None;
            agent.server = start();
        }
        messages.push(user(format!("Step {turn}: read the next file and mend what is wrong in it.")));
        let answer = agent.ask(&messages);
        if turn == 2 || turn == 5 {
            // The client gave up waiting, and asks again.
            agent.ask(&messages);
        }
        if turn == 4 {
            let edited = [&messages[..messages.len() - 1], &[user("No, leave that file alone.".into())]].concat();
            agent.ask(&edited);
        }
        agent.ask(&[system.clone(), user(format!("A title for step {turn}, please."))]);
        if turn % 2 == 1 {
            agent.ask(&[user(format!("An unrelated question, number {turn}."))]);
        }
        messages.push(json!({ "role": "assistant", "content": answer }));
    }
    let Agent { processed, new, whole, .. } = agent;
    let run: usize = counters.iter().map(|counters| counters.prefilled_tokens.load(Ordering::SeqCst)).sum();
    assert!(run <= processed, "{run} tokens were run, {processed} are said to have been");
    (processed, new, whole, messages)
}

#[test]
fn an_agents_prompts_are_processed_once() {
    let mut texts: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for (slots, rewind, restarts, words, most) in [
        (1, None, &[][..], 0, 1.1),
        (2, None, &[], 0, 1.1),
        (4, None, &[], 0, 1.1),
        // Of messages of twenty tokens each, what they begin with alike is a large part.
        (2, Some(40), &[], 0, 1.2),
        (2, Some(0), &[], 0, 1.2),
        (1, None, &[4], 0, 1.1),
        (2, None, &[1, 4, 5], 0, 1.1),
        (2, Some(0), &[4], 0, 1.2),
        (2, None, &[], 40, 1.1),
        (2, Some(40), &[], 40, 1.1),
        (2, Some(0), &[], 40, 1.1),
        (1, Some(0), &[4], 40, 1.1),
    ] {
        let context = 4096;
        let info = ModelInfo { slots, rewind, few_rows: 8, prefill_tile: 32, trained_context: context, ..INFO };
        let model = || HashModel { context, ..HashModel::with_info(info) };
        let (processed, new, whole, messages) = trace(model, restarts, words);
        // Whatever was brought back, and from where: the answers are the same.
        assert_eq!(
            texts.entry(words).or_insert_with(|| messages.clone()),
            &messages,
            "{slots} slots, rewind {rewind:?}"
        );
        let share = processed as f64 / new as f64;
        println!(
            "{slots} slots, rewind {rewind:?}, restarts {restarts:?}, {words} words more: {processed} of {whole} tokens processed, {new} new: {share:.2}"
        );
        assert!(share <= most, "{slots} slots, rewind {rewind:?}: {processed} processed, {new} new, {whole} in all");
    }
}
