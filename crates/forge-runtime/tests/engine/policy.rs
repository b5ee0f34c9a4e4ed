//! Whose turn it is, on a simulated clock: a thousand random traces hold the bounds on gaps and on waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use forge_runtime::generation::policy::{Bounds, Id, Policy, Turn};

/// Random numbers (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What is to come of a request.
struct Request {
    came: Duration,
    tokens: usize,
    /// Rows of its first step.
    rows: usize,
    steps: usize,
    /// It is cancelled at this time.
    cancelled: Option<Duration>,
}

/// What has come of it.
#[derive(Default)]
struct State {
    placed: Option<Duration>,
    tiled: usize,
    steps: usize,
    last: Option<Duration>,
    ended: Option<Duration>,
}

/// A machine: what steps and tiles take.
struct Machine {
    slots: usize,
    step: Duration,
    tile: Duration,
    token: Duration,
}

/// The longest gap between two steps of a sequence beyond what is promised, and all states.
fn simulate(bounds: Bounds, machine: &Machine, requests: &[Request]) -> Vec<State> {
    let mut policy = Policy::new(bounds);
    let mut states: Vec<State> = requests.iter().map(|_| State::default()).collect();
    let (mut now, mut next, mut busy) = (Duration::ZERO, 0, 0);
    let mut placed: Vec<Id> = Vec::new();
    loop {
        while next < requests.len() && requests[next].came <= now {
            policy.arrive(next as Id, requests[next].tokens, requests[next].came);
            next += 1;
        }
        for id in 0..next {
            let state = &mut states[id];
            if state.ended.is_none() && requests[id].cancelled.is_some_and(|at| at <= now) {
                state.ended = Some(now);
                policy.leave(id as Id);
                busy -= usize::from(state.placed.is_some());
            }
        }
        while busy < machine.slots
            && let Some(id) = policy.next_for_slot(now, |_| true)
        {
            let request = &requests[id as usize];
            policy.place(id, request.tokens, request.rows);
            states[id as usize].placed = Some(now);
            placed.push(id);
            busy += 1;
        }
        assert!(busy <= machine.slots);
        match policy.next() {
            Turn::Idle => {
                assert_eq!(busy, 0, "slots are taken, and nothing is run");
                assert_eq!(policy.waiting().count(), 0, "slots are free, and requests wait");
                match requests.get(next) {
                    Some(request) => now = request.came,
                    None => return states,
                }
            }
            Turn::Tile { id, tokens } => {
                let (request, state) = (&requests[id as usize], &mut states[id as usize]);
                assert!(tokens > 0 && state.tiled + tokens <= request.tokens && tokens <= bounds.tile);
                let took = machine.tile + machine.token * tokens as u32;
                now += took;
                state.tiled += tokens;
                policy.tiled(id, tokens, took, request.rows);
            }
            Turn::Step(ids) => {
                now += machine.step;
                policy.stepped(&ids);
                let mut rows = 0;
                for id in ids {
                    let (request, state) = (&requests[id as usize], &mut states[id as usize]);
                    assert!(state.placed.is_some() && state.ended.is_none() && state.tiled == request.tokens);
                    rows += if state.steps == 0 { request.rows } else { 1 };
                    if let Some(last) = state.last {
                        let gap = now - last;
                        assert!(gap <= longest_gap(bounds, machine), "{id} waited {gap:?} for its next token");
                    }
                    state.last = Some(now);
                    state.steps += 1;
                    if state.steps == request.steps {
                        state.ended = Some(now);
                        policy.leave(id);
                        busy -= 1;
                    }
                }
                assert!((1..=bounds.few_rows).contains(&rows), "{rows} rows");
            }
        }
    }
}

/// Between two rows of a sequence: a row of every other, as long steps as may be, and a tile that keeps the gap or is the shortest.
fn longest_gap(bounds: Bounds, machine: &Machine) -> Duration {
    // First steps have several rows, so that as many steps as sequences may be needed.
    let steps = machine.step * machine.slots as u32;
    let shortest = machine.tile + machine.token * 32.min(bounds.tile) as u32;
    steps + bounds.gap.max(shortest)
}

#[test]
fn a_thousand_traces_hold_the_bounds() {
    let mut tiles = BTreeMap::new();
    for seed in 0..1000 {
        let mut random = Random(seed);
        let micros = |random: &mut Random, from: u64, to: u64| Duration::from_micros(from + random.below(to - from));
        let machine = Machine {
            slots: 1 + random.below(12) as usize,
            step: micros(&mut random, 500, 50_000),
            tile: micros(&mut random, 100, 5_000),
            token: micros(&mut random, 20, 2_000),
        };
        let bounds = Bounds::new(1 + random.below(8) as usize, [8, 32, 100, 256, 512][random.below(5) as usize]);
        let mut came = Duration::ZERO;
        let requests: Vec<Request> = (0..5 + random.below(60))
            .map(|_| {
                // Bursts, and quiet between.
                came += micros(&mut random, 0, 1) + Duration::from_millis(random.below(3) * random.below(2_000));
                let tokens = [0, random.below(40), random.below(600), random.below(20_000)][random.below(4) as usize];
                Request {
                    came,
                    tokens: tokens as usize,
                    rows: 1 + random.below(bounds.few_rows as u64) as usize,
                    steps: 1 + random.below(200) as usize,
                    cancelled: (random.below(8) == 0).then(|| came + Duration::from_millis(random.below(3_000))),
                }
            })
            .collect();
        let states = simulate(bounds, &machine, &requests);
        for (id, (request, state)) in requests.iter().zip(&states).enumerate() {
            let ended = state.ended.expect("all end");
            if request.cancelled.is_none() {
                assert_eq!((state.tiled, state.steps), (request.tokens, request.steps), "{seed}: {id}");
            }
            // Nobody who comes much later goes first.
            let patience = Duration::from_secs_f64(request.tokens as f64 / bounds.ageing);
            let begun = state.placed.unwrap_or(ended);
            for (other, later) in requests.iter().zip(&states).skip(id + 1) {
                if other.came > request.came + patience + Duration::from_micros(1) {
                    let first = later.placed.unwrap_or(Duration::MAX);
                    assert!(first >= begun, "{seed}: {id} was overtaken after {:?}", other.came - request.came);
                }
            }
        }
        *tiles.entry(bounds.tile).or_insert(0) += states.iter().filter(|state| state.tiled > 0).count();
    }
    assert!(tiles.values().all(|&prompts| prompts > 100), "{tiles:?}");
}

/// Of prompts side by side the shortest goes first, and one tile in four is of the one that came first.
#[test]
fn the_first_prompt_has_its_share_of_tiles() {
    let mut policy = Policy::new(Bounds::new(8, 256));
    for (id, tokens) in [(0, 100_000), (1, 50_000), (2, 400)] {
        policy.arrive(id, tokens, Duration::from_secs(id));
        policy.place(id, tokens, 1);
    }
    let mut turns = Vec::new();
    for _ in 0..14 {
        let Turn::Tile { id, tokens } = policy.next() else { panic!("a tile") };
        policy.tiled(id, tokens, Duration::from_millis(10), 1);
        turns.push(id);
        if turns == [2, 2] {
            policy.leave(2);
        }
    }
    assert_eq!(turns, [2, 2, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1]);
}

/// A title beside a long prompt is not kept waiting, and the long prompt comes to its end beside ever new titles.
#[test]
fn short_prompts_go_first_and_long_ones_do_not_starve() {
    let machine = Machine {
        slots: 4,
        step: Duration::from_millis(20),
        tile: Duration::from_millis(2),
        token: Duration::from_millis(1),
    };
    let bounds = Bounds::new(8, 256);
    let long = Request { came: Duration::ZERO, tokens: 100_000, rows: 1, steps: 10, cancelled: None };
    let title = |at: u64| Request { came: Duration::from_millis(at), tokens: 60, rows: 4, steps: 8, cancelled: None };
    let requests: Vec<Request> = [long].into_iter().chain((1..3_000).map(|i| title(300 * i))).collect();
    let states = simulate(bounds, &machine, &requests);
    for (request, state) in requests.iter().zip(&states).skip(1) {
        let took = state.ended.expect("ended") - request.came;
        // Eight steps, tiles between them, and what stood before it.
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let last = requests.last().expect("a request").came;
    assert!(states[0].ended.expect("ended") < last, "the long prompt waited for all others");
}

#[test]
fn steps_are_shared_fairly() {
    let mut policy = Policy::new(Bounds::new(8, 256));
    for id in 0..20 {
        policy.arrive(id, 0, Duration::ZERO);
        policy.place(id, 0, 1);
    }
    let mut rows = BTreeMap::new();
    for _ in 0..50 {
        let Turn::Step(ids) = policy.next() else { panic!("a step") };
        assert_eq!(ids.len(), 8);
        policy.stepped(&ids);
        ids.iter().for_each(|id| *rows.entry(*id).or_insert(0) += 1);
    }
    assert!(rows.values().all(|&rows| rows == 20), "{rows:?}");
}

/// Tiles grow as far as the gap allows while others wait for tokens, and are whole where nobody does.
#[test]
fn tiles_are_cut_by_what_they_took() {
    let bounds = Bounds::new(8, 256);
    let lengths = |token: Duration| -> Vec<usize> {
        let mut policy = Policy::new(bounds);
        policy.arrive(0, 0, Duration::ZERO);
        policy.place(0, 0, 1);
        policy.arrive(1, 10_000, Duration::ZERO);
        policy.place(1, 10_000, 1);
        let mut lengths = Vec::new();
        while lengths.len() < 8 {
            match policy.next() {
                Turn::Step(ids) => policy.stepped(&ids),
                Turn::Tile { id, tokens } => {
                    lengths.push(tokens);
                    policy.tiled(id, tokens, token * tokens as u32, 1);
                }
                Turn::Idle => panic!("there is work"),
            }
        }
        policy.leave(0);
        let Turn::Tile { tokens, .. } = policy.next() else { panic!("a tile") };
        assert_eq!(tokens, 256);
        lengths
    };
    assert_eq!(lengths(Duration::from_micros(100)), [32, 256, 256, 256, 256, 256, 256, 256]);
    assert_eq!(lengths(Duration::from_millis(1)), [32, 64, 64, 64, 64, 64, 64, 64]);
    assert_eq!(lengths(Duration::from_secs(1)), [32; 8]);
}
