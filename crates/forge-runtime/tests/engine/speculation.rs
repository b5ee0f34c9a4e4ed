//! Tokens that are guessed, or forced: what is heard is what it is without, and right ones save steps.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::common;
use common::{Call, HashModel, INFO};
use forge_runtime::assets::Text;
use forge_runtime::generation::speculation::{Alike, Costs, Grams, Record, Speculation};
use forge_runtime::generation::{Audience, Constraint, Engine, Finish, Id, Listener, Request, Scored, Summary};
use forge_runtime::sampler::Sampling;
use forge_runtime::slots::Tier;
use forge_runtime::{Error, ModelInfo, Result};

/// The text side, read once.
fn demo() -> Arc<Text> {
    static TEXT: LazyLock<Arc<Text>> = LazyLock::new(|| common::text("demo"));
    TEXT.clone()
}

/// What was heard, one by one.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    pieces: Vec<String>,
    /// With where their texts begin.
    scores: Vec<(Scored, usize)>,
    leaves_after: Option<usize>,
}

impl Listener for Heard {
    fn text(&mut self, text: &str) -> bool {
        self.pieces.push(text.to_owned());
        true
    }

    fn scored(&mut self, scored: Scored, at: usize) {
        self.scores.push((scored, at));
    }

    fn keep_going(&mut self) -> bool {
        self.leaves_after.is_none_or(|after| self.pieces.len() < after)
    }
}

#[derive(Default)]
struct All(BTreeMap<Id, Heard>);

impl Audience for All {
    fn listener(&mut self, id: Id) -> &mut dyn Listener {
        self.0.entry(id).or_default()
    }
}

fn request(prompt: Vec<u32>, tokens: usize, temperature: f32, seed: u64) -> Request {
    let sampling = Sampling { temperature, seed, ..Sampling::default() };
    Request { prompt, max_tokens: Some(tokens), sampling, ..Request::default() }
}

/// What requests that ran side by side came to.
struct Run {
    heard: Vec<Heard>,
    summaries: Vec<Summary>,
    steps: usize,
}

impl Run {
    fn of(model: HashModel, speculation: Speculation, requests: &[Request]) -> Self {
        let counters = model.counters.clone();
        let mut engine = Engine::new(model, demo());
        // Where tokens cannot be guessed, forms force them all the same.
        let _ = engine.speculate(speculation);
        let ids: Vec<Id> = requests.iter().map(|request| engine.take(request).expect("is taken")).collect();
        let (mut all, mut ended) = (All::default(), BTreeMap::<Id, Result<Summary>>::new());
        while !engine.is_idle() {
            ended.extend(engine.turn(&mut all));
        }
        let steps = counters.calls().iter().filter(|call| matches!(call, Call::Step(_))).count();
        let summaries = ids.iter().map(|id| ended.remove(id).expect("has ended").expect("generates")).collect();
        Self { heard: ids.iter().map(|id| all.0.remove(id).unwrap_or_default()).collect(), summaries, steps }
    }

    fn alone(slots: usize, speculation: Speculation, request: &Request) -> Self {
        Self::of(model(slots), speculation, std::slice::from_ref(request))
    }

    fn count(&self, of: impl Fn(&Summary) -> usize) -> usize {
        self.summaries.iter().map(of).sum()
    }

    /// What does not depend on guesses.
    fn ends(&self) -> Vec<(usize, Finish, Option<String>)> {
        self.summaries.iter().map(|end| (end.completion_tokens, end.finish, end.stop.clone())).collect()
    }

    fn assert_same(&self, other: &Self, what: &str) {
        assert_eq!(self.heard, other.heard, "{what}");
        assert_eq!(self.ends(), other.ends(), "{what}");
    }
}

/// A model of few tokens, so that what it draws repeats itself by chance; every choice depends on all before.
fn model(slots: usize) -> HashModel {
    HashModel { context: 512, alphabet: Some(3), ..HashModel::with_info(ModelInfo { slots, few_rows: 8, ..INFO }) }
}

/// Prompts in which tokens repeat themselves in ever other ways.
fn prompt(i: u32) -> Vec<u32> {
    (0..8 + i % 40).map(|at| 100 + (at * (i + 1) + at * at * (i / 7)) % 3).collect()
}

/// 200 prompts, at three temperatures, alone and four at a time.
#[test]
fn what_is_heard_is_the_same_with_guesses_and_without() {
    for temperature in [0.0, 0.7, 1.5] {
        let requests: Vec<Request> =
            (0..200).map(|i| request(prompt(i), 12 + i as usize % 30, temperature, u64::from(i))).collect();
        let plain = Run::of(model(1), Speculation::Off, &requests);
        for speculation in [Speculation::Auto, Speculation::Depth(3)] {
            for slots in [1, 4] {
                let found = Run::of(model(slots), speculation, &requests);
                let (guessed, right) = (found.count(|end| end.guessed_tokens), found.count(|end| end.right_tokens));
                found.assert_same(&plain, &format!("{speculation:?} at {temperature}, {slots} slots"));
                println!(
                    "{temperature} {slots} {speculation:?}: {right} of {guessed}, {} of {} steps",
                    found.steps, plain.steps
                );
                assert!(speculation == Speculation::Auto || (right > 300 && guessed > right), "{right} of {guessed}");
            }
        }
    }
}

/// Everything that a choice depends on, at every depth: penalties, biases, filters, log-probabilities, limits.
#[test]
fn choices_depend_on_what_they_depend_on_without_guesses() {
    let changes: [fn(&mut Request); 8] = [
        |one| one.sampling.repeat_penalty = 1.3,
        |one| (one.sampling.presence_penalty, one.sampling.frequency_penalty) = (0.9, 0.4),
        |one| (one.sampling.repeat_penalty, one.sampling.frequency_penalty) = (1.2, -0.7),
        |one| one.sampling.logit_bias = vec![(100, 1.5), (102, -2.0)],
        |one| (one.sampling.top_k, one.sampling.top_p, one.sampling.min_p) = (2, 0.8, 0.05),
        |one| one.top_logprobs = Some(3),
        |one| one.max_tokens = Some(6),
        |one| one.max_tokens = None,
    ];
    for (which, change) in changes.into_iter().enumerate() {
        let requests: Vec<Request> = (0..8)
            .map(|i| {
                let mut one = request(prompt(3 * i), 60, [0.0, 0.8][i as usize % 2], u64::from(i));
                change(&mut one);
                one
            })
            .collect();
        // To the end of the context, where there is no limit.
        let context = if which == 7 { 72 } else { 512 };
        let model = |slots| HashModel { context, ..model(slots) };
        let plain = Run::of(model(1), Speculation::Off, &requests);
        let mut guessed = 0;
        for depth in [1, 3, 99] {
            for slots in [1, 4] {
                let found = Run::of(model(slots), Speculation::Depth(depth), &requests);
                found.assert_same(&plain, &format!("change {which}, depth {depth}, {slots} slots"));
                guessed += found.count(|end| end.guessed_tokens);
            }
        }
        assert!(guessed > 8, "change {which}: {guessed} guessed");
        assert!(which != 5 || plain.heard[0].scores.len() == 60, "log-probabilities of every token");
    }
}

/// Stop strings and end tokens in the midst of what was guessed right, and of what was not.
#[test]
fn ends_are_where_they_are_without_guesses() {
    let end = *demo().defaults.end_token_ids.first().expect("an end token");
    let period: Vec<u32> = (0..9).map(|at| 300 + at).collect();
    let script = |ends_at: usize| -> Vec<u32> {
        let run = period.iter().copied().cycle().take(200);
        run.enumerate().map(|(at, token)| if at == ends_at { end } else { token }).collect()
    };
    let word = |token: u32| demo().tokenizer.decode(&[token], false).expect("decodes");
    for ends_at in 20..30 {
        for stop in [None, Some(word(305)), Some(word(304) + &word(305))] {
            let info = ModelInfo { slots: 1, few_rows: 8, ..INFO };
            let model = || HashModel { context: 512, script: script(ends_at), ..HashModel::with_info(info) };
            let mut one = request(period.repeat(2), 120, 0.0, 1);
            one.stop.extend(stop.clone());
            let plain = Run::of(model(), Speculation::Off, std::slice::from_ref(&one));
            assert_eq!(plain.summaries[0].finish, Finish::Stop);
            for depth in [2, 7] {
                let found = Run::of(model(), Speculation::Depth(depth), std::slice::from_ref(&one));
                found.assert_same(&plain, &format!("end at {ends_at}, stop {stop:?}, depth {depth}"));
                assert!(stop.is_some() || found.summaries[0].right_tokens > 10, "{:?}", found.summaries[0]);
            }
        }
    }
}

/// Who leaves in the midst of a guess hears nothing more.
#[test]
fn listeners_are_asked_at_every_token() {
    for after in 1..30 {
        let mut heard = Vec::new();
        for speculation in [Speculation::Off, Speculation::Depth(7)] {
            let info = ModelInfo { slots: 1, few_rows: 8, ..INFO };
            let script: Vec<u32> = (300..309).cycle().take(100).collect();
            let model = HashModel { context: 512, script: script.clone(), ..HashModel::with_info(info) };
            let mut engine = Engine::new(model, demo());
            engine.speculate(speculation).expect("can be cut back");
            let mut listener = Heard { leaves_after: Some(after), ..Heard::default() };
            let summary = engine.generate(&request(script[..18].to_vec(), 60, 0.0, 1), &mut listener).expect("ends");
            assert_eq!((summary.finish, listener.pieces.len()), (Finish::Cancelled, after), "{speculation:?}");
            heard.push(listener);
        }
        assert_eq!(heard[0], heard[1]);
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
    let plain = Run::of(model(), Speculation::Off, &requests);
    for (speculation, most) in [(Speculation::Depth(7), plain.steps * 3 / 10), (Speculation::Depth(3), plain.steps / 2)]
    {
        let found = Run::of(model(), speculation, &requests);
        let Summary { guessed_tokens, right_tokens, finish, .. } = found.summaries[0];
        println!(
            "{speculation:?}: {} of {} steps, {right_tokens} of {guessed_tokens} guessed tokens right",
            found.steps, plain.steps
        );
        found.assert_same(&plain, "edit");
        assert_eq!(finish, Finish::Length);
        assert_eq!(found.steps, plain.steps - right_tokens, "each right one saves a step");
        assert!(found.steps <= most, "{speculation:?}: {} of {}", found.steps, plain.steps);
    }
}

/// What was guessed wrong is no part of what a slot holds.
#[test]
fn slots_hold_what_was_heard() {
    for rewind in [None, Some(20)] {
        let info = ModelInfo { slots: 1, few_rows: 8, rewind, ..INFO };
        let mut engine =
            Engine::new(HashModel { context: 512, alphabet: Some(3), ..HashModel::with_info(info) }, demo());
        engine.speculate(Speculation::Depth(5)).expect("can be cut back");
        let mut prompt: Vec<u32> = (0..30).map(|at| 100 + at % 3).collect();
        for turn in 0..6 {
            let one = request(prompt.clone(), 20, 0.9, turn);
            let mut listener = Heard::default();
            let summary = engine.generate(&one, &mut listener).expect("generates");
            let plain = Run::alone(1, Speculation::Off, &one);
            assert_eq!(listener, plain.heard[0], "rewind {rewind:?}, turn {turn}");
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
        let mut engine = Engine::new(HashModel::with_info(info), demo());
        assert_eq!(engine.speculate(Speculation::Auto), Err(words));
        assert_eq!(engine.speculate(Speculation::Off), Ok(()));
        engine.speculate(Speculation::Depth(3)).expect_err("as above");
        let summary = engine.generate(&request(vec![5; 30], 20, 0.0, 1), &mut Heard::default()).expect("generates");
        assert_eq!(summary.guessed_tokens, 0);
    }
}

/// A form of words of one alphabet each, of which the first token is chosen, and the rest follows from it.
#[derive(Debug, Clone, Default)]
struct Words {
    /// What follows the token that was chosen last.
    forced: Vec<u32>,
    /// Tokens so far, and how many there are.
    tokens: usize,
    whole: usize,
    /// Whether the next may be known.
    tells: bool,
}

impl Constraint for Words {
    fn allow(&mut self, allowed: &mut [u32]) -> Result<()> {
        allowed.fill(0);
        let ids = if let Some(&only) = self.forced.first() { only..only + 1 } else { 100..103 };
        ids.for_each(|id| allowed[id as usize / 32] |= 1 << (id % 32));
        Ok(())
    }

    fn forced(&mut self) -> &[u32] {
        if self.tells { &self.forced } else { &[] }
    }

    fn take(&mut self, token: u32) -> Result<bool> {
        self.tokens += 1;
        if self.forced.is_empty() {
            // A word of up to 22 tokens.
            let length = [0, 1, 2, 5, 7, 8, 21][self.tokens % 7];
            self.forced = (0..length).map(|at| 400 + 10 * (token - 100) + at % 10).collect();
        } else if self.forced.remove(0) != token {
            return Err(Error::Constraint("another had to come".into()));
        }
        Ok(self.tokens >= self.whole)
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// What a form forces is run as rows of one step; what is heard is the same, at any room, with guesses and without.
#[test]
fn forced_tokens_are_run_together() {
    let requests = |tells: bool, change: &dyn Fn(&mut Request)| -> Vec<Request> {
        (0..8)
            .map(|i| {
                let mut one = request(prompt(i), 20 + 9 * i as usize, [0.0, 1.1][i as usize % 2], u64::from(i));
                let form = Words { tells, whole: [usize::MAX, 40][i as usize / 4], ..Words::default() };
                one.constraint = (i != 5).then(|| Box::new(form) as Box<dyn Constraint>);
                change(&mut one);
                one
            })
            .collect()
    };
    let stop = demo().tokenizer.decode(&[404, 405], false).expect("decodes");
    type Change<'a> = (bool, &'a dyn Fn(&mut Request));
    let changes: [Change<'_>; 5] = [
        (true, &|_| {}),
        (true, &|one| one.stop.push(stop.clone())),
        (true, &|one| one.sampling.logit_bias = vec![(101, 1.0)]),
        (false, &|one| one.sampling.frequency_penalty = 0.6),
        (false, &|one| one.top_logprobs = Some(2)),
    ];
    for (which, (together, change)) in changes.into_iter().enumerate() {
        let plain = Run::of(model(1), Speculation::Off, &requests(true, change));
        for (slots, few_rows, rewind) in [(1, 8, None), (4, 8, None), (3, 2, None), (1, 8, Some(0)), (4, 8, Some(0))] {
            let info = ModelInfo { slots, few_rows, rewind, recurrent_bytes: u64::from(rewind.is_some()), ..INFO };
            for speculation in [Speculation::Auto, Speculation::Depth(4)] {
                let model = HashModel { context: 512, alphabet: Some(500), ..HashModel::with_info(info) };
                let what = format!("change {which}, {slots} slots, {few_rows} rows, {speculation:?}, {rewind:?}");
                let found = Run::of(model, speculation, &requests(true, change));
                let same = HashModel { context: 512, alphabet: Some(500), ..HashModel::with_info(info) };
                let expected = Run::of(same, Speculation::Off, &requests(true, change));
                found.assert_same(&expected, &what);
                let forced = found.count(|end| end.forced_tokens);
                assert!((forced > 0) == together || few_rows == 2, "{what}: {forced}");
                if slots == 1 && speculation == Speculation::Auto && rewind.is_some() {
                    println!("{what}: {} of {} steps", found.steps, expected.steps);
                    // Of each request one step may have been started for nothing.
                    assert!((found.steps + forced).abs_diff(expected.steps) <= 8, "{what}");
                }
            }
        }
        // The form is the same where it does not tell.
        let silent = Run::of(model(1), Speculation::Depth(4), &requests(false, change));
        silent.assert_same(&plain, "a form that does not tell");
        assert_eq!(silent.count(|end| end.forced_tokens), 0);
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

/// A place that is alike for long.
fn alike() -> Alike {
    let tokens: Vec<u32> = (0..60).map(|at| at % 20).collect();
    Grams::default().find(&tokens).expect("is there")
}

/// Costs of steps that take as long as that says of their rows.
fn costs(micros: impl Fn(u64) -> u64) -> Costs {
    let mut costs = Costs::default();
    for _ in 0..50 {
        for rows in 1..=8 {
            let took = Duration::from_micros(micros(rows));
            costs.note(rows as usize, true, took);
            costs.note(rows as usize, false, took);
        }
    }
    costs
}

/// How much faster or slower a record makes things, by its own doing: a simulated sequence that goes on as before with a probability.
fn ratio(share: f64, micros: impl Fn(u64, bool) -> u64) -> f64 {
    let mut seed = 11_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let (mut record, mut costs, place) = (Record::default(), Costs::default(), alike());
    let (mut time, mut tokens) = (0_u64, 0_usize);
    let step = |costs: &mut Costs, rows: usize, heard: bool, time: &mut u64| {
        let took = micros(rows as u64, heard);
        costs.note(rows, heard, Duration::from_micros(took));
        *time += took;
    };
    while tokens < 4000 {
        if !record.is_worth_waiting(place, 7, 0, &mut costs) {
            step(&mut costs, 1, false, &mut time);
            record.came(place, random() < share);
            tokens += 1;
            continue;
        }
        // The one that was waited for.
        let depth = record.depth(place, 7, 0, &mut costs);
        step(&mut costs, 1 + depth, true, &mut time);
        let right = (0..depth).take_while(|_| random() < share).count();
        (0..right).for_each(|_| record.came(place, true));
        if right < depth {
            record.came(place, false);
        }
        record.verified(depth, right);
        tokens += right + 1;
    }
    (tokens as u64 * micros(1, false)) as f64 / time as f64
}

/// Depth from what steps cost and how guesses did; none where it does not pay.
#[test]
fn nothing_is_guessed_where_it_does_not_pay() {
    // Cheap rows and a good record: all there are.
    let (mut cheap, mut record) = (costs(|rows| 1000 + 50 * rows), Record::default());
    (0..20).for_each(|_| record.came(alike(), true));
    assert_eq!(record.depth(alike(), 7, 0, &mut cheap), 7);
    assert_eq!(record.depth(alike(), 3, 0, &mut cheap), 3);
    assert!(record.is_worth_waiting(alike(), 7, 0, &mut cheap));
    // Where rows are dearer from some number on, no more than that.
    let mut stairs = costs(|rows| if rows <= 4 { 1000 } else { 4000 });
    assert_eq!(record.depth(alike(), 7, 0, &mut stairs), 3);
    // Others fill the step: what is left is used while it pays.
    assert_eq!(record.depth(alike(), 2, 5, &mut cheap), 2);
    assert_eq!(record.depth(alike(), 3, 2, &mut stairs), 1);
    // Rows that cost what steps do: one try in many.
    let mut dear = costs(|rows| 1000 * rows);
    let tries = (0..2048).filter(|_| record.depth(alike(), 7, 0, &mut dear) > 0).count();
    assert!((1..=7).contains(&tries), "{tries}");
    // A bad record: none at all, since every token says whether it has become better.
    let mut record = Record::default();
    (0..40).for_each(|_| record.came(alike(), false));
    assert!((0..2048).all(|_| record.depth(alike(), 7, 0, &mut cheap) == 0));
    assert!(!record.is_worth_waiting(alike(), 7, 0, &mut cheap));
    (0..40).for_each(|_| record.came(alike(), true));
    assert!(record.depth(alike(), 7, 0, &mut cheap) > 3);
}

/// On a clock that is made up: whatever steps cost and however often guesses are right, hardly anything is lost, and much is won where much can be.
#[test]
fn guesses_cost_next_to_nothing() {
    // What a step of some rows takes, and more where it was waited for.
    type Machine = (&'static str, fn(u64, bool) -> u64);
    let machines: [Machine; 4] = [
        ("cheap rows", |rows, heard| 10_000 + 300 * rows + 300 * u64::from(heard)),
        ("rows by halves", |rows, heard| 5_000 + 5_000 * rows + 500 * u64::from(heard)),
        ("every row a step", |rows, heard| 10_000 * rows + 500 * u64::from(heard)),
        ("waiting is dear", |rows, heard| 10_000 + 300 * rows + 3_000 * u64::from(heard)),
    ];
    for (name, micros) in machines {
        for share in [0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97] {
            let ratio = ratio(share, micros);
            println!("{name}, {share} right: {ratio:.3} of plain speed");
            assert!(ratio > 0.975, "{name}, {share}: {ratio}");
            assert!(name != "cheap rows" || share < 0.9 || ratio > 2.5, "{name}, {share}: {ratio}");
        }
    }
}
