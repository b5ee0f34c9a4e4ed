//! Several requests at once: each text is what it would be alone, whatever runs beside it, and slots come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common;
use common::{Call, HashModel, INFO, text};
use forge_runtime::generation::{Audience, Engine, Finish, Id, Listener, Request, Summary};
use forge_runtime::sampler::Sampling;
use forge_runtime::slots::Miss;
use forge_runtime::{Error, ModelInfo, Result};

/// Keeps the text, and leaves after so many pieces.
#[derive(Default)]
struct Text {
    text: String,
    pieces: usize,
    leaves_after: Option<usize>,
}

impl Listener for Text {
    fn text(&mut self, text: &str) -> bool {
        self.text.push_str(text);
        self.pieces += 1;
        true
    }

    fn keep_going(&mut self) -> bool {
        self.leaves_after.is_none_or(|after| self.pieces < after)
    }
}

#[derive(Default)]
struct Texts(BTreeMap<Id, Text>);

impl Audience for Texts {
    fn listener(&mut self, id: Id) -> &mut dyn Listener {
        self.0.entry(id).or_default()
    }
}

fn request(prompt: Vec<u32>, tokens: usize, seed: u64) -> Request {
    let sampling = Sampling { temperature: 0.9, repeat_penalty: 1.1, seed, ..Sampling::default() };
    Request {
        prompt,
        max_tokens: Some(tokens),
        sampling,
        stop: Vec::new(),
        continues_prompt: false,
        ..Request::default()
    }
}

fn alone(request: &Request) -> (String, Summary) {
    let mut text = Text::default();
    let summary = Engine::new(HashModel::new(), common::text("demo")).generate(request, &mut text).expect("generates");
    (text.text, summary)
}

/// Runs all of them to their ends, one more joining every `every` turns.
fn together(engine: &mut Engine<HashModel>, requests: &[Request], every: usize) -> (Vec<Id>, Texts, Ended) {
    let (mut ids, mut texts, mut ended) = (Vec::new(), Texts::default(), Ended::new());
    let mut turns = 0;
    while ids.len() < requests.len() || !engine.is_idle() {
        while ids.len() < requests.len() && (turns / every.max(1) >= ids.len() || every == 0) {
            ids.push(engine.take(&requests[ids.len()]).expect("is taken"));
        }
        for (id, result) in engine.turn(&mut texts) {
            assert!(ended.insert(id, result).is_none(), "{id} ended twice");
        }
        turns += 1;
        assert!(turns < 100_000, "no end");
    }
    (ids, texts, ended)
}

type Ended = BTreeMap<Id, Result<Summary>>;

/// Prompts of all lengths, some with beginnings in common, and one that is there twice.
fn requests() -> Vec<Request> {
    let mut requests: Vec<Request> = (0..20)
        .map(|i: u32| {
            let length = [1, 2, 7, 8, 9, 10, 17, 40, 64, 150][i as usize % 10];
            let shared = if i.is_multiple_of(3) { 0 } else { 100 * i };
            let prompt = (0..length).map(|at| if at < 12 { shared + at } else { 31 * i + at }).collect();
            request(prompt, [1, 3, 25, 60][i as usize % 4], u64::from(i))
        })
        .collect();
    requests.push(requests[7].clone());
    requests
}

#[test]
fn each_text_is_what_it_would_be_alone() {
    let requests = requests();
    let expected: Vec<(String, Summary)> = requests.iter().map(alone).collect();
    for (slots, few_rows, every) in [(1, 8, 0), (2, 8, 3), (4, 8, 0), (5, 3, 7), (12, 8, 1), (16, 8, 0), (16, 1, 0)] {
        let mut engine = Engine::new(HashModel::with_info(ModelInfo { slots, few_rows, ..INFO }), text("demo"));
        let (ids, texts, ended) = together(&mut engine, &requests, every);
        for (id, (text, summary)) in ids.iter().zip(&expected) {
            let what = format!("{slots} slots, {few_rows} rows, {every} turns, request {id}");
            let found = ended[id].as_ref().expect("generates");
            assert_eq!(texts.0.get(id).map_or("", |found| &found.text), text, "{what}");
            assert_eq!((found.finish, found.completion_tokens), (summary.finish, summary.completion_tokens), "{what}");
            assert!(found.reused_tokens < found.prompt_tokens);
        }
        assert!(engine.status().iter().all(|slot| slot.request.is_none()));
    }
}

/// Sequences that decode are in steps together, and the step before is heard while the next runs.
#[test]
fn sequences_share_steps() {
    let model = HashModel::of_slots(4);
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text("demo"));
    let requests: Vec<Request> = (0..4).map(|i| request(vec![5 + i, 6], 30, u64::from(i))).collect();
    together(&mut engine, &requests, 0);
    let steps: Vec<usize> =
        counters.calls().into_iter().map(|call| if let Call::Step(slots) = call { slots.len() } else { 0 }).collect();
    // Two rows of a prompt in the first, one a token in the others, and no row for nothing.
    assert_eq!(steps, [[8].as_slice(), &[4; 29]].concat());
}

/// Three long answers, then short ones: a short one waits for its prompt's tiles and its own steps, not for the others' ends.
#[test]
fn short_answers_do_not_wait_for_long_ones() {
    let model = HashModel::of_slots(4);
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text("demo"));
    let mut texts = Texts::default();
    let long: Vec<Id> = (0..3).map(|i| engine.take(&request(vec![9 + i; 20], 200, 1)).expect("is taken")).collect();
    for _ in 0..20 {
        assert!(engine.turn(&mut texts).is_empty());
    }
    for i in 0..4 {
        let before = counters.calls().len();
        let short = engine.take(&request(vec![70 + i; 60], 8, 2)).expect("is taken");
        let mut ended = Vec::new();
        while ended.is_empty() {
            ended = engine.turn(&mut texts);
        }
        assert_eq!((ended[0].0, ended.len()), (short, 1));
        // Seven tiles of 8, each with a step of the others between, and eight steps.
        let calls = counters.calls().len() - before;
        assert!(calls <= 2 * 7 + 8 + 2, "{calls} pieces of work");
    }
    assert!(long.iter().all(|id| texts.0[id].pieces < 200), "the long ones run still");
}

/// Between two rows of a sequence there is at most one tile of a prompt.
#[test]
fn prompts_are_worked_on_between_steps() {
    let model = HashModel::of_slots(3);
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text("demo"));
    let requests = [request(vec![9; 3], 80, 1), request(vec![8; 200], 5, 2), request(vec![7; 250], 5, 3)];
    together(&mut engine, &requests, 0);
    let calls = counters.calls();
    let first = calls.iter().position(|call| matches!(call, Call::Step(_))).expect("a step");
    let last = calls.iter().rposition(|call| matches!(call, Call::Step(slots) if slots.contains(&0))).expect("a step");
    let tiles = |call: &Call| matches!(call, Call::Tile(..));
    assert!(calls[first..last].windows(2).all(|pair| !pair.iter().all(tiles)), "{calls:?}");
    assert!(calls[first..last].iter().filter(|call| tiles(call)).count() > 50);
    // The shorter prompt is done first, and only then is the longer one begun.
    let of = |slot| calls.iter().position(|call| matches!(call, Call::Tile(tile, _) if *tile == slot));
    let end = calls.iter().rposition(|call| matches!(call, Call::Tile(1, _)));
    assert!(of(1) < end && end < of(2), "{calls:?}");
}

#[test]
fn a_listener_that_leaves_frees_its_slot_at_once() {
    let model = HashModel::of_slots(2);
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text("demo"));
    let mut texts = Texts::default();
    let requests = [request(vec![9; 3], 200, 1), request(vec![8; 3], 200, 2), request(vec![7; 3], 5, 3)];
    let ids: Vec<Id> = requests.iter().map(|request| engine.take(request).expect("is taken")).collect();
    texts.0.entry(ids[0]).or_default().leaves_after = Some(10);
    let mut ended = Vec::new();
    while ended.len() < 2 {
        ended.extend(engine.turn(&mut texts));
    }
    assert_eq!(ended.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    let summary = ended[0].1.as_ref().expect("no error");
    assert_eq!((summary.finish, texts.0[&ids[0]].pieces), (Finish::Cancelled, 10));
    let heard = summary.completion_tokens;
    assert_eq!(texts.0[&ids[2]].text, alone(&requests[2]).0);
    // Those of the first, one that had been started, and 5 of the third.
    let steps = counters.calls().len();
    assert!(steps <= heard + 1 + 5 + 1, "{steps}");
    // The third had its slot; what that had come to is reused.
    let again = request([&[7; 3][..], &[1, 2]].concat(), 1, 1);
    let id = engine.take(&again).expect("is taken");
    let ended = loop {
        let ended: Vec<_> = engine.turn(&mut texts).into_iter().filter(|(ended, _)| *ended == id).collect();
        if let Some((_, result)) = ended.into_iter().next() {
            break result.expect("generates");
        }
        texts.0.entry(ids[1]).or_default().leaves_after = Some(0);
    };
    assert_eq!(ended.reused_tokens, 3);
    // One that leaves before it had a slot has not begun.
    let (one, two) = (engine.take(&requests[0]).expect("is taken"), engine.take(&requests[1]).expect("is taken"));
    let third = engine.take(&requests[2]).expect("is taken");
    texts.0.entry(third).or_default().leaves_after = Some(0);
    let ended = engine.turn(&mut texts);
    assert!(matches!(ended.as_slice(), [(id, Err(Error::Cancelled))] if *id == third), "{ended:?}");
    assert_eq!(engine.reset(), [one, two]);
    assert!(engine.is_idle());
}

/// Memory of a prompt's beginning is shared: what another sequence is at this moment, too.
#[test]
fn beginnings_are_copied_from_sequences_that_run() {
    // None ends by itself.
    let model = || HashModel { script: vec![70; 99], ..HashModel::of_slots(3) };
    let first = model();
    let counters = first.counters.clone();
    let mut engine = Engine::new(first, text("demo"));
    let system: Vec<u32> = (100..160).collect();
    let requests: Vec<Request> =
        (0..3).map(|i| request([&system[..], &[i, i]].concat(), 60, 10 + u64::from(i))).collect();
    // The second and the third come while the first is decoding.
    let (ids, texts, ended) = together(&mut engine, &requests, 12);
    for (id, request) in ids.iter().zip(&requests) {
        let mut text = Text::default();
        Engine::new(model(), common::text("demo")).generate(request, &mut text).expect("generates");
        assert_eq!(texts.0[id].text, text.text);
    }
    let reused: Vec<usize> = ids.iter().map(|id| ended[id].as_ref().expect("generates").reused_tokens).collect();
    assert_eq!(reused, [0, 60, 60]);
    assert_eq!(counters.copies.load(Ordering::SeqCst), 2, "{ended:?}");
    let misses: Vec<Option<Miss>> = ids.iter().map(|id| ended[id].as_ref().expect("generates").miss).collect();
    assert_eq!(misses, [Some(Miss::New), Some(Miss::Parted { at: 60 }), Some(Miss::Parted { at: 60 })]);
}

/// A prompt of which nothing is to be generated only fills its slot.
#[test]
fn prompts_alone() {
    let mut engine = Engine::new(HashModel::of_slots(2), text("demo"));
    for length in [1, 2, 9, 10, 40, 255] {
        let prompt: Vec<u32> = (0..length).map(|at| at + 300).collect();
        let summary = engine.generate(&request(prompt, 0, 1), &mut Text::default()).expect("runs");
        assert_eq!((summary.finish, summary.completion_tokens), (Finish::Length, 0), "{length}");
    }
    assert!(engine.status().iter().any(|slot| slot.tokens == 254), "{:?}", engine.status());
}

/// The context's last position is run, and what is chosen after it is heard.
#[test]
fn contexts_are_filled() {
    let text = text("demo");
    let mut engine =
        Engine::new(HashModel { context: 32, script: vec![70; 99], ..HashModel::of_slots(2) }, text.clone());
    let requests: Vec<Request> =
        [1, 20, 31].map(|length| Request { max_tokens: None, ..request(vec![5; length], 0, 1) }).into();
    let (ids, _, ended) = together(&mut engine, &requests, 0);
    let found: Vec<_> = ids
        .iter()
        .map(|id| ended[id].as_ref().map(|summary| (summary.finish, summary.completion_tokens)).expect("generates"))
        .collect();
    assert_eq!(found, [(Finish::Length, 32), (Finish::Length, 13), (Finish::Length, 2)]);
    let _: Arc<_> = text;
}

/// A fault while a slot is looked for costs the one request, not those that wait with it.
#[test]
fn a_fault_while_a_slot_is_found_costs_one_request() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let mut engine = Engine::new(HashModel { panic_on_observed: Some(77), ..HashModel::of_slots(1) }, text("demo"));
    let mut texts = Texts::default();
    let ids: Vec<Id> =
        [77, 8].map(|token| engine.take(&request(vec![token; 3], 5, 1)).expect("is taken")).into_iter().collect();
    let mut ended = BTreeMap::new();
    let mut lost = Vec::new();
    for _ in 0..100 {
        match catch_unwind(AssertUnwindSafe(|| engine.turn(&mut texts))) {
            Ok(now) => ended.extend(now),
            Err(_) => lost.extend(engine.reset()),
        }
    }
    assert_eq!(lost, [ids[0]]);
    assert!(ended.len() == 1 && ended[&ids[1]].is_ok(), "{ended:?}");
    assert!(engine.is_idle() && engine.waiting() == 0);
}

/// A slot whose state came back from memory has reached what came back, not what it held before: so it is kept again when it is lost.
#[test]
fn slots_have_reached_what_was_brought_back() {
    let info = ModelInfo { slots: 1, few_rows: 8, rewind: Some(4), ..INFO };
    let mut engine = Engine::new(HashModel { script: vec![70; 99], ..HashModel::with_info(info) }, text("demo"));
    engine.keep_in_memory(1 << 20);
    let system: Vec<u32> = (100..160).collect();
    let with = |more: &[u32]| [&system[..], more].concat();
    // A long one, whose beginning is kept on its way; then another from that mark, in the same slot.
    let long = with(&[9; 120]);
    let ask = |engine: &mut Engine<HashModel>, prompt: Vec<u32>| {
        engine.generate(&request(prompt, 3, 1), &mut Text::default()).expect("generates")
    };
    ask(&mut engine, system.clone());
    ask(&mut engine, long);
    let other = with(&[8; 40]);
    let first = ask(&mut engine, other.clone());
    assert!(first.reused_tokens >= 50, "{first:?}");
    ask(&mut engine, vec![3; 30]);
    let again = ask(&mut engine, [&other[..], &[70, 70]].concat());
    assert!(again.reused_tokens >= 90, "{again:?}");
}
