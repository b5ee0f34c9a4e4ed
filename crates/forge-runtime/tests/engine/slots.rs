//! Batches of rows, slots and what they hold, and the engine that finds prompts in them.

use std::sync::atomic::Ordering;

use crate::common;
use common::{HashModel, text};
use forge_runtime::batch::{Outcome, Part, Row, Token, Wants, check, parts};
use forge_runtime::generation::{Engine, Listener, Request};
use forge_runtime::sampler::{Sampling, StepSampling};
use forge_runtime::slots::{Miss, Place, Slots};
use forge_runtime::{Error, LanguageModel};

fn row(slot: usize, position: usize, wants: Wants) -> Row {
    Row { token: Token::Known(7), slot, position, wants }
}

fn choice() -> Wants {
    Wants::Choice(StepSampling::new(&Sampling::default()))
}

/// How many rows each part has, tiles of logits as negative numbers.
fn cut(rows: &[Row], few: usize) -> Vec<(char, usize)> {
    let describe = |part: &Part<'_>| match part {
        Part::Step(rows) => ('s', rows.len()),
        Part::Tile(rows) => ('t', rows.len()),
        Part::TileOfLogits(rows) => ('l', rows.len()),
    };
    parts(rows, few).iter().map(describe).collect()
}

#[test]
fn batches_are_cut_into_tiles_and_steps() {
    let run = |slot, from: usize, count: usize| (from..from + count).map(move |at| row(slot, at, Wants::Nothing));
    // A prompt whose last row wants a token.
    let prompt: Vec<Row> = run(0, 0, 30).chain([row(0, 30, choice())]).collect();
    assert_eq!(cut(&prompt, 8), [('t', 30), ('s', 1)]);
    // A short one is one step, and so are rows of several slots.
    let short: Vec<Row> = run(1, 5, 7).chain([row(1, 12, choice())]).collect();
    assert_eq!(cut(&short, 8), [('s', 8)]);
    let others: Vec<Row> = (0..4).map(|slot| row(slot, 3 * slot, choice())).collect();
    assert_eq!(cut(&others, 8), [('s', 4)]);
    // A prompt amid the others' rows, in order.
    let mixed: Vec<Row> = others[..2].iter().cloned().chain(run(5, 0, 20)).chain(others[2..].to_vec()).collect();
    assert_eq!(cut(&mixed, 8), [('s', 2), ('t', 20), ('s', 2)]);
    // Runs of two slots are two tiles; more rows than fit are two steps.
    let two: Vec<Row> = run(0, 0, 10).chain(run(1, 0, 10)).collect();
    assert_eq!(cut(&two, 8), [('t', 10), ('t', 10)]);
    assert_eq!(cut(&two, 16), [('s', 16), ('s', 4)]);
    let logits: Vec<Row> = (0..12).map(|at| row(2, at, Wants::Logits)).collect();
    assert_eq!(cut(&logits, 8), [('l', 12)]);
    assert_eq!(cut(&[], 8), []);
    // Every row is in one part, in order, whatever they are.
    let all: Vec<Row> = mixed.into_iter().chain(prompt).chain(logits).collect();
    for few in 1..40 {
        let parts = parts(&all, few);
        let rows = parts.iter().flat_map(|part| match part {
            Part::Step(rows) | Part::Tile(rows) | Part::TileOfLogits(rows) => rows.iter(),
        });
        assert!(rows.eq(&all), "{few}");
        assert!(parts.iter().all(|part| !matches!(part, Part::Step(rows) if rows.len() > few)), "{few}");
    }
}

#[test]
fn batches_that_make_no_sense_are_refused() {
    let refused = |rows: &[Row]| match check(rows, 100, 10, 2) {
        Err(Error::Batch { row, what }) => format!("{row} {what}"),
        Err(error) => error.to_string(),
        Ok(()) => "ok".to_owned(),
    };
    assert_eq!(refused(&[row(0, 9, choice()), row(1, 0, choice())]), "ok");
    assert_eq!(refused(&[row(2, 0, choice())]), "0 is of a slot that the model does not have");
    assert_eq!(
        refused(&[row(0, 1, Wants::Nothing), row(0, 1, choice())]),
        "1 does not follow the row of its slot before it"
    );
    assert_eq!(refused(&[row(0, 1, choice()), row(0, 2, choice())]), "1 depends on a choice in the same batch");
    let chosen = Row { token: Token::Chosen, ..row(0, 2, choice()) };
    assert_eq!(refused(&[row(0, 1, Wants::Nothing), chosen.clone()]), "1 depends on a choice in the same batch");
    assert_eq!(refused(&[chosen]), "ok");
    assert!(refused(&[row(0, 10, choice())]).contains("11 tokens"), "{}", refused(&[row(0, 10, choice())]));
    let beyond = Row { token: Token::Known(100), ..row(0, 0, choice()) };
    assert_eq!(refused(&[beyond]), "token id 100 is outside the vocabulary of 100");
}

#[test]
fn prompts_go_to_the_slot_that_holds_the_most_of_them() {
    let mut slots = Slots::new(3, None);
    let place = |slots: &mut Slots, prompt: &[u32], held: &[u32]| {
        let place = slots.place(prompt).expect("one is free");
        slots.keep(place.slot, held.to_vec());
        (place.slot, place.reused, place.copied_from)
    };
    assert_eq!(place(&mut slots, &[1, 2, 3], &[1, 2, 3, 4]), (0, 0, None));
    // Nothing in common: the next slot.
    assert_eq!(place(&mut slots, &[9, 9], &[9, 9, 8]), (1, 0, None));
    // The next turn stays where the conversation is.
    assert_eq!(place(&mut slots, &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6, 7]), (0, 4, None));
    // One that parts from it gets a copy of what they share; both stay.
    assert_eq!(place(&mut slots, &[1, 2, 3, 9, 9], &[1, 2, 3, 9, 9, 1]), (2, 3, Some(0)));
    assert_eq!(slots.tokens(0), [1, 2, 3, 4, 5, 6, 7]);
    // The last token of a prompt is always run: the same prompt again reuses all others.
    assert_eq!(place(&mut slots, &[9, 9, 8], &[9, 9, 8]), (1, 2, None));
    // Of two that hold as much, the one used last; the slot that was not used for longest is given up.
    assert_eq!(place(&mut slots, &[5], &[5]), (0, 0, None));
    assert_eq!(slots.count(), 3);
    assert!(slots.truncate(2, 2) && slots.tokens(2) == [1, 2]);
    slots.drop_slot(2);
    assert!(slots.tokens(2).is_empty());
    slots.clear();
    assert_eq!(slots.place(&[9, 9, 8, 7]).map(|place| place.reused), Some(0));
}

#[test]
fn sequences_are_cut_back_only_as_far_as_their_state_allows() {
    let tokens: Vec<u32> = (0..50).collect();
    let other = |shared: usize| -> Vec<u32> { tokens[..shared].iter().copied().chain([99, 98]).collect() };
    for (rewind, shared, reused) in [(None, 3, 3), (Some(10), 41, 41), (Some(10), 40, 40), (Some(10), 39, 0)] {
        let mut slots = Slots::new(1, rewind);
        slots.place(&tokens);
        slots.keep(0, tokens.clone());
        // Where the state is not there any more, that is what is missed.
        let miss = Some(if reused == 0 { Miss::State { at: shared } } else { Miss::Parted { at: shared } });
        let place = Place { slot: 0, reused, copied_from: None, miss };
        assert_eq!(slots.place(&other(shared)), Some(place), "{rewind:?} {shared}");
    }
    // What was cut back once counts as reached still.
    let mut slots = Slots::new(1, Some(10));
    slots.place(&tokens);
    slots.keep(0, tokens.clone());
    slots.place(&other(45));
    slots.keep(0, other(45));
    assert_eq!(slots.place(&other(39)).map(|place| place.reused), Some(0));
    // So it is in a copy, which there is where more than half would be left behind.
    let mut slots = Slots::new(2, Some(30));
    slots.place(&tokens);
    slots.keep(0, tokens.clone());
    let miss = Some(Miss::Parted { at: 23 });
    assert_eq!(slots.place(&other(23)), Some(Place { slot: 1, reused: 23, copied_from: Some(0), miss }));
    slots.keep(1, other(23));
    assert!(slots.truncate(1, 20));
    assert!(!slots.truncate(1, 19) && slots.tokens(1).is_empty());
}

#[test]
fn busy_slots_are_copied_from_and_left_alone() {
    let mut slots = Slots::new(3, None);
    let (one, two): (Vec<u32>, Vec<u32>) = ((0..20).collect(), (0..25).collect());
    assert_eq!(slots.place(&one), Some(Place { slot: 0, reused: 0, copied_from: None, miss: Some(Miss::New) }));
    slots.push(0, &one);
    // All of what is held, and then more: nothing is missed.
    assert_eq!(slots.place(&two), Some(Place { slot: 1, reused: 20, copied_from: Some(0), miss: None }));
    assert!(slots.is_busy(0) && slots.is_busy(1) && slots.any_free());
    slots.push(1, &two[20..]);
    slots.release(0);
    // Of equals the free one.
    let again = slots.place(&[&one[..], &[99]].concat());
    assert_eq!(again, Some(Place { slot: 0, reused: 20, copied_from: None, miss: None }));
    assert_eq!(slots.reusable(&two), 24);
    assert!(slots.place(&[7]).is_some_and(|place| place.slot == 2 && place.miss == Some(Miss::New)));
    assert!(!slots.any_free());
    assert_eq!(slots.place(&two), None);
    slots.release(1);
    // The same prompt again, but for its last token.
    assert_eq!(slots.place(&two), Some(Place { slot: 1, reused: 24, copied_from: None, miss: None }));
}

/// Keeps the text.
#[derive(Default)]
struct Text(String);

impl Listener for Text {
    fn text(&mut self, text: &str) -> bool {
        self.0.push_str(text);
        true
    }
}

fn request(prompt: &[u32]) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(6),
        sampling: Sampling::default(),
        stop: Vec::new(),
        continues_prompt: false,
        ..Request::default()
    }
}

#[test]
fn conversations_in_turns_are_each_run_once() {
    let text = text("demo");
    let model = HashModel::with_slots(2, None);
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text.clone());
    let fresh = |prompt: &[u32]| {
        let mut listener = Text::default();
        let mut engine = Engine::new(HashModel::new(), text.clone());
        engine.generate(&request(prompt), &mut listener).expect("generates");
        listener.0
    };
    let mut run = |prompt: &[u32]| {
        let mut listener = Text::default();
        let summary = engine.generate(&request(prompt), &mut listener).expect("generates");
        (listener.0, summary.reused_tokens)
    };
    let (one, two): (Vec<u32>, Vec<u32>) = ((0..40).collect(), (100..130).collect());
    let follow_up = |prompt: &[u32]| [prompt, &[3, 4, 5]].concat();
    assert_eq!(run(&one), (fresh(&one), 0));
    assert_eq!(run(&two), (fresh(&two), 0));
    // Each goes on where it was, though the other came between.
    let (answer, reused) = run(&follow_up(&one));
    assert!(answer == fresh(&follow_up(&one)) && reused >= 40, "{reused}");
    let (answer, reused) = run(&follow_up(&two));
    assert!(answer == fresh(&follow_up(&two)) && reused >= 30, "{reused}");
    // A third has the beginning of the first.
    let third = [&one[..20], &[77; 10]].concat();
    let copies = counters.copies.load(Ordering::SeqCst);
    assert_eq!(run(&third), (fresh(&third), 20));
    assert_eq!(counters.copies.load(Ordering::SeqCst) - copies, 0, "its slot was the older one: cut back");
    // And the second is there still.
    let (answer, reused) = run(&follow_up(&two));
    assert!(answer == fresh(&follow_up(&two)) && reused >= 30, "{reused}");
}

#[test]
fn rows_of_several_slots_choose_what_each_would_alone() {
    let mut model = HashModel::with_slots(3, None);
    let prompts: [&[u32]; 3] = [&[1, 2, 3], &[4], &[5, 6]];
    let alone: Vec<u32> = prompts
        .iter()
        .map(|prompt| {
            let mut model = HashModel::new();
            let rows: Vec<Row> = Row::run(0, 0, prompt);
            let last = rows.len() - 1;
            let rows: Vec<Row> = rows
                .into_iter()
                .enumerate()
                .map(|(i, row)| if i == last { Row { wants: choice(), ..row } } else { row })
                .collect();
            model.observe(0, &[], &[], &Sampling::default());
            let submitted = model.submit(&rows).expect("runs");
            match model.wait(submitted).expect("runs").pop() {
                Some(Outcome::Choice(Some(token))) => token,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let mut rows = Vec::new();
    for (slot, prompt) in prompts.iter().enumerate() {
        model.observe(slot, &[], &[], &Sampling::default());
        rows.extend(Row::run(slot, 0, prompt));
        rows.last_mut().expect("a row").wants = choice();
    }
    let submitted = model.submit(&rows).expect("runs");
    let outcomes = model.wait(submitted).expect("runs");
    assert_eq!(outcomes.len(), rows.len());
    let chosen =
        outcomes.into_iter().filter_map(|outcome| if let Outcome::Choice(token) = outcome { token } else { None });
    assert_eq!(chosen.collect::<Vec<_>>(), alone);
}
