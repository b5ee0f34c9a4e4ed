//! Beginnings that are kept in memory: what is found, what it costs, what is given up, and that what comes back is what was there.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::{common, plain};
use common::{HashModel, INFO, text};
use forge_runtime::ModelInfo;
use forge_runtime::generation::{Engine, Listener, Request};
use forge_runtime::prefix::Prefixes;
use forge_runtime::sampler::Sampling;
use forge_runtime::slots::{Miss, Tier};
use plain::Plain;

fn restored(prefixes: &mut Prefixes, prompt: &[u32]) -> Plain {
    let (found, mut state) = (prefixes.find(prompt), Plain::default());
    prefixes.bring(&found).restore(&mut state).expect("restores");
    assert_eq!(state.tokens, prompt[..found.positions]);
    state
}

#[test]
fn what_sequences_have_in_common_is_kept_once() {
    let mut prefixes = Prefixes::new(1 << 20, false);
    let system: Vec<u32> = (1000..1200).collect();
    let one: Vec<u32> = [&system[..], &[1; 100]].concat();
    let two: Vec<u32> = [&system[..], &[2; 50]].concat();
    let mut state = Plain::of(&one);
    prefixes.keep(&one, None, &mut state).expect("keeps");
    assert_eq!((prefixes.tokens(), state.read, prefixes.bytes()), (300, 300, 12 * 300));
    // Three blocks of 64 are there, and what is left of the fourth is of its own.
    let mut state = Plain::of(&two);
    prefixes.keep(&two, None, &mut state).expect("keeps");
    assert_eq!((prefixes.tokens(), state.read), (300 + 58, 58));
    // Nothing of what is there is read again, and one that goes on makes its last block longer.
    let longer = [&two[..], &[3; 4]].concat();
    let mut state = Plain::of(&longer);
    prefixes.keep(&two[..230], None, &mut state).expect("keeps");
    assert_eq!(state.read, 0);
    prefixes.keep(&longer, None, &mut state).expect("keeps");
    assert_eq!((prefixes.tokens(), state.read), (300 + 62, 62));
    for (prompt, positions) in [
        (&one[..], 299),
        (&longer, 253),
        (&[&one[..], &[9]].concat(), 300),
        (&[&system[..], &[7; 9]].concat(), 200),
        (&[&system[..10], &[7; 9]].concat(), 10),
        (&[5, 5], 0),
        (&[1000], 0),
        (&[], 0),
    ] {
        assert_eq!(restored(&mut prefixes, prompt).tokens.len(), positions);
    }
}

#[test]
fn what_was_used_longest_ago_is_given_up() {
    let mut prefixes = Prefixes::new(12 * 1000, false);
    let sequence = |i: u32| -> Vec<u32> { (0..200).map(|at| 1000 * i + at).collect() };
    let found = |prefixes: &Prefixes, i: u32| prefixes.find(&sequence(i)).positions;
    for i in 0..5 {
        prefixes.keep(&sequence(i), None, &mut Plain::of(&sequence(i))).expect("keeps");
    }
    assert_eq!((prefixes.tokens(), prefixes.bytes()), (1000, 12 * 1000));
    restored(&mut prefixes, &sequence(0));
    prefixes.keep(&sequence(5), None, &mut Plain::of(&sequence(5))).expect("keeps");
    assert!(prefixes.bytes() <= 12 * 1000);
    // The second had to go, from its end on; the first was used since.
    assert_eq!((found(&prefixes, 0), found(&prefixes, 5)), (199, 199));
    assert!(found(&prefixes, 1) < 64, "{}", found(&prefixes, 1));
    prefixes.shrink(12 * 200);
    assert!(prefixes.bytes() <= 12 * 200);
    assert_eq!(found(&prefixes, 5), 199);
    prefixes.shrink(0);
    assert_eq!((prefixes.bytes(), prefixes.tokens(), found(&prefixes, 5)), (0, 0, 0));
    prefixes.keep(&sequence(5), None, &mut Plain::of(&sequence(5))).expect("keeps");
    assert_eq!(prefixes.bytes(), 0);
}

#[test]
fn marked_sequences_go_on_from_marks_alone() {
    let mut prefixes = Prefixes::new(1 << 20, true);
    let tokens: Vec<u32> = (0..150).collect();
    for at in [10, 64, 100, 150] {
        prefixes.keep(&tokens[..at], Some(vec![at as u8; 5]), &mut Plain::of(&tokens)).expect("keeps");
    }
    assert_eq!((prefixes.tokens(), prefixes.bytes()), (150, 12 * 150 + 4 * 5));
    let other = |shared: usize| [&tokens[..shared], &[900, 901]].concat();
    for (shared, mark) in [(9, 0), (10, 10), (63, 10), (64, 64), (99, 64), (100, 100), (149, 100), (150, 150)] {
        let prompt = other(shared);
        let found = prefixes.find(&prompt);
        assert_eq!((found.shared, found.positions), (shared, mark));
        let state = restored(&mut prefixes, &prompt);
        assert_eq!(state.mark, (mark > 0).then(|| (mark, vec![mark as u8; 5])));
    }
}

/// Random sequences against a plain list of all that was kept.
#[test]
fn what_is_found_is_what_a_list_would_find() {
    let mut seed = 1_u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for _ in 0..20 {
        let (mut prefixes, mut kept) = (Prefixes::new(usize::MAX, false), Vec::<Vec<u32>>::new());
        for _ in 0..60 {
            // Often the beginning of another.
            let mut tokens: Vec<u32> = match kept.get(below(kept.len() as u64 + 3) as usize) {
                Some(other) => other[..below(other.len() as u64 + 1) as usize].to_vec(),
                None => Vec::new(),
            };
            tokens.extend((0..below(150)).map(|_| below(3) as u32));
            let shared = |other: &Vec<u32>| other.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
            let expected = kept.iter().map(shared).max().unwrap_or(0).min(tokens.len().saturating_sub(1));
            assert_eq!(restored(&mut prefixes, &tokens).tokens.len(), expected);
            prefixes.keep(&tokens, None, &mut Plain::of(&tokens)).expect("keeps");
            kept.push(tokens);
        }
        let distinct: BTreeMap<&[u32], ()> =
            kept.iter().flat_map(|tokens| (1..=tokens.len()).map(|end| (&tokens[..end], ()))).collect();
        // Of blocks that part from each other within, each has all of its tokens.
        assert!((distinct.len()..=distinct.len() + 64 * kept.len()).contains(&prefixes.tokens()));
    }
}

struct Silent;

impl Listener for Silent {
    fn text(&mut self, _: &str) -> bool {
        true
    }
}

/// One slot, three conversations in turns: each goes on where it was, and writes what it would have.
#[test]
fn conversations_survive_the_loss_of_their_slot() {
    for rewind in [None, Some(30), Some(0)] {
        let info = ModelInfo { slots: 1, few_rows: 8, rewind, ..INFO };
        let text = text("demo");
        let mut engine = Engine::new(HashModel::with_info(info), text.clone());
        engine.keep_in_memory(1 << 20);
        let mut prompts: Vec<Vec<u32>> = (0..3).map(|i| (0..40 + i).map(|at| 100 * i + at).collect()).collect();
        for turn in 0..4 {
            for prompt in &mut prompts {
                let sampling = Sampling { temperature: 1.0, seed: turn, ..Sampling::default() };
                let request = Request {
                    prompt: prompt.clone(),
                    max_tokens: Some(9),
                    sampling,
                    stop: Vec::new(),
                    continues_prompt: false,
                    ..Request::default()
                };
                let summary = engine.generate(&request, &mut Silent).expect("generates");
                let fresh = Engine::new(HashModel::new(), text.clone()).generate(&request, &mut Silent);
                assert_eq!(summary.completion_tokens, fresh.expect("generates").completion_tokens);
                if turn > 0 {
                    // All but what was added since; the answer is not part of it here.
                    let known = summary.prompt_tokens - summary.reused_tokens;
                    assert!(known <= 16, "rewind {rewind:?}, turn {turn}: {summary:?}");
                } else {
                    assert_eq!(summary.miss, Some(Miss::New));
                }
                prompt.extend([7, 8, 9]);
            }
        }
        assert!(engine.kept_bytes() > 0);
    }
}

/// What is kept to make room must not take what is being brought back: one slot, two conversations, and room for one of them.
#[test]
fn what_is_brought_back_is_not_what_room_is_made_of() {
    for (rewind, room) in [(None, 8 * 250), (None, 8 * 150), (None, 8 * 110), (Some(0), 8 * 250)] {
        let info = ModelInfo { slots: 1, few_rows: 8, rewind, ..INFO };
        let text = text("demo");
        let mut engine = Engine::new(HashModel { script: vec![70; 99], ..HashModel::with_info(info) }, text.clone());
        engine.keep_in_memory(room);
        let mut prompts: Vec<Vec<u32>> = (0..2).map(|i| (0..80).map(|at| 100 * i + at).collect()).collect();
        for turn in 0..4 {
            for prompt in &mut prompts {
                let request = Request {
                    prompt: prompt.clone(),
                    max_tokens: Some(20),
                    sampling: Sampling::default(),
                    stop: Vec::new(),
                    continues_prompt: false,
                    ..Request::default()
                };
                // The model refuses positions that do not follow one another, and marks of other tokens.
                let summary = engine.generate(&request, &mut Silent).expect("generates");
                if turn > 0 {
                    assert_eq!(summary.tier, Some(Tier::Memory), "rewind {rewind:?}, room {room}, turn {turn}");
                }
                assert!(engine.kept_bytes() <= room, "{room}");
                prompt.extend([7, 8, 9]);
            }
        }
    }
}

/// Positions whose state is read while a first sequence runs; those that are read beside as many while a second does, and the tokens that a third
/// run, of the first's prompt, reuses.
fn reads(slots: usize, room: usize) -> [usize; 3] {
    let model = HashModel { script: vec![70; 300], ..HashModel::with_info(ModelInfo { slots, few_rows: 8, ..INFO }) };
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text("demo"));
    engine.keep_in_memory(room);
    let mut generate = |first: u32| {
        let prompt = (first..first + 40).collect();
        let request = Request { prompt, max_tokens: Some(200), ..Request::default() };
        let before = counters.rows_read.load(Ordering::SeqCst);
        let summary = engine.generate(&request, &mut Silent).expect("generates");
        (counters.rows_read.load(Ordering::SeqCst) - before, summary.reused_tokens)
    };
    let (running, _) = generate(100);
    let (after, _) = generate(200);
    // The first again; what its slot holds now comes to memory in its turn.
    let (_, reused) = generate(100);
    [running, after.saturating_sub(running), reused]
}

#[test]
fn what_a_slot_may_lose_is_copied_while_the_device_is_at_work() {
    // Of 239 positions three blocks are copied on the way, and the rest when the slot is lost.
    assert_eq!(reads(1, 1 << 20), [192, 239 - 192, 39]);
    // Where there is a free slot that holds nothing, who comes next takes that. Then the one with the first is the next to be taken, and is
    // copied while the second runs beside it.
    assert_eq!(reads(2, 1 << 20), [0, 192, 39]);
    // Nothing is given up for what slots hold: here there is room for a sequence, and not for two.
    let [running, _, reused] = reads(1, 8 * 300);
    assert!(running < 192, "{running}");
    assert_eq!(reused, 39);
    assert_eq!(reads(1, 0), [0, 0, 0]);
}
