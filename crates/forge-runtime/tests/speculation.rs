//! Tokens that are guessed: the text is what it is without, whatever is guessed, and right guesses save steps.

mod common;

use std::collections::BTreeMap;

use common::{Call, HashModel, INFO, text};
use forge_runtime::generation::speculation::{Costs, Grams, Record, Speculation};
use forge_runtime::generation::{Audience, Engine, Finish, Id, Listener, Request, Summary};
use forge_runtime::sampler::Sampling;
use forge_runtime::slots::Tier;
use forge_runtime::{ModelInfo, Result};
use std::time::Duration;

#[derive(Default)]
struct Texts(BTreeMap<Id, Text>);

#[derive(Default)]
struct Text(String);

impl Listener for Text {
    fn text(&mut self, text: &str) -> bool {
        self.0.push_str(text);
        true
    }
}

impl Audience for Texts {
    fn listener(&mut self, id: Id) -> &mut dyn Listener {
        self.0.entry(id).or_default()
    }
}

fn request(prompt: Vec<u32>, tokens: usize, temperature: f32, seed: u64) -> Request {
    let sampling = Sampling { temperature, seed, ..Sampling::default() };
    Request { prompt, max_tokens: Some(tokens), sampling, stop: Vec::new(), continues_prompt: false }
}

/// Runs all of them side by side. Gives texts, what they came to, and steps.
fn run(model: HashModel, speculation: Speculation, requests: &[Request]) -> (Vec<String>, Vec<Summary>, usize) {
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text("demo"));
    engine.speculate(speculation).expect("can be cut back");
    let ids: Vec<Id> = requests.iter().map(|request| engine.take(request).expect("is taken")).collect();
    let (mut texts, mut ended) = (Texts::default(), BTreeMap::<Id, Result<Summary>>::new());
    while !engine.is_idle() {
        ended.extend(engine.turn(&mut texts));
    }
    let steps = counters.calls().iter().filter(|call| matches!(call, Call::Step(_))).count();
    let summaries = ids.iter().map(|id| ended.remove(id).expect("has ended").expect("generates")).collect();
    (ids.iter().map(|id| texts.0.remove(id).unwrap_or_default().0).collect(), summaries, steps)
}

/// A model of few tokens, so that what it draws repeats itself by chance; every choice depends on all before.
fn model(slots: usize) -> HashModel {
    HashModel { context: 512, alphabet: Some(3), ..HashModel::with_info(ModelInfo { slots, few_rows: 8, ..INFO }) }
}

#[test]
fn the_text_is_the_same_with_guesses_and_without() {
    let prompt = |i: u32| -> Vec<u32> { (0..10 + 3 * i).map(|at| 100 + (at * (i + 1)) % 3).collect() };
    let mut right = 0;
    for temperature in [0.0, 0.7, 1.5] {
        let requests: Vec<Request> =
            (0..12).map(|i| request(prompt(i), 40 + i as usize, temperature, u64::from(i))).collect();
        let expected: Vec<(Vec<String>, Vec<Summary>, usize)> =
            requests.iter().map(|one| run(model(1), Speculation::Off, std::slice::from_ref(one))).collect();
        for speculation in [Speculation::Auto, Speculation::Depth(1), Speculation::Depth(3), Speculation::Depth(99)] {
            for (one, (texts, summaries, _)) in requests.iter().zip(&expected) {
                let (found, came, _) = run(model(1), speculation, std::slice::from_ref(one));
                assert_eq!(&found, texts, "{speculation:?} at {temperature}");
                assert_eq!(came[0].completion_tokens, summaries[0].completion_tokens);
                assert!(came[0].right_tokens <= came[0].guessed_tokens);
                right += came[0].right_tokens;
            }
            let (found, _, _) = run(model(4), speculation, &requests);
            assert!(
                found.iter().eq(expected.iter().map(|(texts, ..)| &texts[0])),
                "{speculation:?} at {temperature}, four at a time"
            );
        }
    }
    assert!(right > 100, "{right}");
}

/// The same with a penalty of what occurred, which slots and host both have to know.
#[test]
fn penalties_know_of_tokens_that_were_guessed() {
    let penalized = |mut one: Request| {
        one.sampling.repeat_penalty = 1.3;
        one
    };
    let prompt: Vec<u32> = (0..40).map(|at| 100 + at % 3).collect();
    let requests: Vec<Request> = (0..6).map(|i| penalized(request(prompt.clone(), 60, 0.7, i))).collect();
    let (expected, ..) = run(model(1), Speculation::Off, &requests);
    for slots in [1, 4] {
        let (found, summaries, _) = run(model(slots), Speculation::Depth(2), &requests);
        assert_eq!(found, expected);
        assert!(summaries.iter().any(|summary| summary.guessed_tokens > summary.right_tokens));
    }
}

/// An edit: the answer is the prompt again, with some changes. Steps saved are printed.
#[test]
fn guesses_save_steps_where_texts_repeat() {
    let original: Vec<u32> = (0..150).map(|at| 200 + at * 7 % 150).collect();
    let edited: Vec<u32> =
        original.iter().enumerate().map(|(at, &token)| if at % 40 == 20 { 900 + at as u32 } else { token }).collect();
    let requests = [request(original, 150, 0.0, 1)];
    let info = ModelInfo { slots: 1, few_rows: 8, ..INFO };
    let model = || HashModel { context: 512, script: edited.clone(), ..HashModel::with_info(info) };
    let (plain, _, all) = run(model(), Speculation::Off, &requests);
    for (speculation, most) in
        [(Speculation::Depth(7), all / 4), (Speculation::Depth(3), all / 2), (Speculation::Auto, all - 1)]
    {
        let (texts, summaries, steps) = run(model(), speculation, &requests);
        let Summary { guessed_tokens, right_tokens, finish, .. } = summaries[0];
        println!("{speculation:?}: {steps} of {all} steps, {right_tokens} of {guessed_tokens} guessed tokens right");
        assert_eq!((texts, finish), (plain.clone(), Finish::Length));
        assert_eq!(steps, all - right_tokens, "each right one saves a step");
        assert!(steps <= most, "{speculation:?}: {steps} of {all}");
    }
}

/// What was guessed wrong is no part of what a slot holds.
#[test]
fn slots_hold_what_was_heard() {
    for rewind in [None, Some(20)] {
        let info = ModelInfo { slots: 1, few_rows: 8, rewind, ..INFO };
        let mut engine =
            Engine::new(HashModel { context: 512, alphabet: Some(3), ..HashModel::with_info(info) }, text("demo"));
        engine.speculate(Speculation::Depth(5)).expect("can be cut back");
        let mut prompt: Vec<u32> = (0..30).map(|at| 100 + at % 3).collect();
        for turn in 0..6 {
            let one = request(prompt.clone(), 20, 0.9, turn);
            let mut listener = Text::default();
            let summary = engine.generate(&one, &mut listener).expect("generates");
            let plain = run(model(1), Speculation::Off, std::slice::from_ref(&one));
            assert_eq!(listener.0, plain.0[0], "rewind {rewind:?}, turn {turn}");
            if turn > 0 {
                assert_eq!(summary.tier, Some(Tier::Slot), "rewind {rewind:?}: {summary:?}");
            }
            let held = engine.status()[0].tokens;
            assert!(held < prompt.len() + 20 && held + 1 >= prompt.len(), "{held}");
            prompt.extend([100, 101]);
        }
    }
}

#[test]
fn states_that_cannot_be_cut_back_are_not_guessed_at() {
    for (rewind, recurrent_bytes, few_rows, words) in [
        (Some(0), 8, 8, "a recurrent state cannot be cut back"),
        (Some(3), 0, 8, "windows keep too little to be cut back"),
        (None, 0, 1, "steps have one row"),
    ] {
        let info = ModelInfo { slots: 1, few_rows, rewind, recurrent_bytes, ..INFO };
        let mut engine = Engine::new(HashModel::with_info(info), text("demo"));
        assert_eq!(engine.speculate(Speculation::Auto), Err(words));
        assert_eq!(engine.speculate(Speculation::Off), Ok(()));
        engine.speculate(Speculation::Depth(3)).expect_err("as above");
        let summary = engine.generate(&request(vec![5; 30], 20, 0.0, 1), &mut Text::default()).expect("generates");
        assert_eq!(summary.guessed_tokens, 0);
    }
}

/// The longest of the latest places, against all of them.
#[test]
fn what_is_alike_for_longest_is_found() {
    let mut seed = 7_u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    let (mut tokens, mut grams, mut found) = (Vec::<u32>::new(), Grams::default(), 0);
    for _ in 0..400 {
        tokens.push(below(5) as u32);
        let alike =
            |at: usize| tokens[..at].iter().rev().zip(tokens.iter().rev()).take(32).take_while(|(a, b)| a == b).count();
        let places: Vec<usize> = (3..tokens.len()).rev().filter(|&at| alike(at) >= 3).take(8).collect();
        // Of equals the latest, which comes first.
        let best = places.iter().copied().reduce(|best, at| if alike(at) > alike(best) { at } else { best });
        let guess = grams.find(&tokens).map(|alike| alike.guess(&tokens, 6));
        let expected = best.map(|at| {
            let mut all = tokens.clone();
            for next in at..at + 6 {
                all.push(all[next]);
            }
            all[tokens.len()..].to_vec()
        });
        assert_eq!(guess, expected);
        found += usize::from(guess.is_some());
    }
    assert!(found > 100);
}

/// Depth from what steps cost and how guesses did; none where it does not pay, and a try now and then.
#[test]
fn nothing_is_guessed_where_it_does_not_pay() {
    let mut costs = Costs::default();
    (0..50).for_each(|_| (1..=8).for_each(|rows| costs.note(rows, Duration::from_micros(1000 + 50 * rows as u64))));
    let tokens: Vec<u32> = (0..60).map(|at| at % 20).collect();
    let alike = Grams::default().find(&tokens).expect("is there");
    let mut record = Record::default();
    // Cheap rows and a good record: all there are.
    (0..20).for_each(|_| record.verified(alike, 7, 7));
    assert_eq!(record.depth(alike, 7, 0, &costs), 7);
    // Rows that cost what steps do.
    let mut dear = Costs::default();
    (0..50).for_each(|_| (1..=8).for_each(|rows| dear.note(rows, Duration::from_millis(rows as u64))));
    assert_eq!(record.depth(alike, 7, 0, &dear), 0);
    // A bad record.
    let mut record = Record::default();
    (0..40).for_each(|_| record.verified(alike, 7, 0));
    let tries = (0..4096).filter(|_| record.depth(alike, 7, 0, &costs) > 0).count();
    assert!((3..12).contains(&tries), "{tries}");
    // And it becomes better.
    (0..20).for_each(|_| record.verified(alike, 2, 2));
    assert!(record.depth(alike, 7, 0, &costs) > 3);
}
