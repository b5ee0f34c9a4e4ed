//! Whose turn it is: which waiting request gets a slot, and whether the next work is a step of those that decode or a tile of a prompt.
//!
//! Time comes in as a number and nothing else does, so that whole days of traffic are tried in a moment. Two promises:
//!
//! * *Gap.* Between two tokens of a sequence there is at most one row of every other that decodes, and one tile; the tile is cut so that it
//!   takes about [`Bounds::gap`] at most.
//! * *Ageing.* What has the fewest uncached tokens gets a slot first, but a second of waiting counts as [`Bounds::ageing`] tokens: a
//!   request of `n` uncached tokens is overtaken by none that comes more than `n / ageing` seconds after it. Of the prompts that have
//!   slots the one with the fewest tokens left goes first, and every fourth tile is of the one that came first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A request, in the order in which they came.
pub type Id = u64;

/// What is asked of the policy.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most rows of a step.
    pub few_rows: usize,
    /// Most tokens of a tile.
    pub tile: usize,
    /// Time that a tile may take where others wait for their next token.
    pub gap: Duration,
    /// Tokens that a second of waiting counts for.
    pub ageing: f64,
}

/// Every so many tiles one is of the prompt that came first, whatever is left of it.
const OLDEST_SHARE: u64 = 4;

/// Tokens of the shortest tile: that of a threadgroup's share of a matrix product, below which nothing is saved.
const SHORTEST_TILE: usize = 32;

impl Bounds {
    /// The usual bounds for a model of steps and tiles of these sizes.
    pub fn new(few_rows: usize, tile: usize) -> Self {
        Self { few_rows, tile, gap: Duration::from_millis(100), ageing: 200.0 }
    }
}

/// What to run next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// A step of the next rows of these.
    Step(Vec<Id>),
    /// So many tokens at most of a prompt.
    Tile {
        /// Whose.
        id: Id,
        /// How many.
        tokens: usize,
    },
    /// Nothing that has a slot has anything to run.
    Idle,
}

/// What a request has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A slot.
    Waiting,
    /// The tiles of its prompt.
    Prompt,
    /// Its next token, whose step has so many rows; how many rows had been given when it last had one.
    Decoding { rows: usize, served: u64 },
}

#[derive(Debug)]
struct Job {
    stage: Stage,
    /// Tokens that are to be run in tiles, as far as is known.
    left: usize,
    since: Duration,
}

/// The state of all requests, as far as it decides on turns.
#[derive(Debug)]
pub struct Policy {
    bounds: Bounds,
    jobs: BTreeMap<Id, Job>,
    /// Those that decode and had no row since the last tile.
    round: BTreeSet<Id>,
    /// Who has been served so far, each time counted.
    clock: u64,
    /// Tiles so far.
    tiled: u64,
    /// What tiles took lately, by their size: `SHORTEST_TILE << index` tokens, the last no more than there may be.
    tiles: Vec<Option<Duration>>,
}

impl Policy {
    /// No request yet.
    pub fn new(bounds: Bounds) -> Self {
        let sizes = 1 + bounds.tile.div_ceil(SHORTEST_TILE).next_power_of_two().ilog2() as usize;
        Self { bounds, jobs: BTreeMap::new(), round: BTreeSet::new(), clock: 0, tiled: 0, tiles: vec![None; sizes] }
    }

    /// A request comes, of so many tokens that are not cached, as far as is known.
    pub fn arrive(&mut self, id: Id, uncached: usize, now: Duration) {
        self.jobs.insert(id, Job { stage: Stage::Waiting, left: uncached, since: now });
    }

    /// Better knowledge of what a waiting request has to run.
    pub fn estimate(&mut self, id: Id, uncached: usize) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left = uncached;
        }
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> impl Iterator<Item = Id> {
        self.at(Stage::Waiting).map(|(id, _)| id)
    }

    /// The request that is to get the next free slot, of those that are `ready` for one.
    pub fn next_for_slot(&self, now: Duration, ready: impl Fn(Id) -> bool) -> Option<Id> {
        let worth = |job: &Job| job.left as f64 - self.bounds.ageing * now.saturating_sub(job.since).as_secs_f64();
        let waiting = self.at(Stage::Waiting).filter(|(id, _)| ready(*id));
        waiting.min_by(|(_, a), (_, b)| worth(a).total_cmp(&worth(b))).map(|(id, _)| id)
    }

    /// The prompt that is to get the next tile.
    fn next_for_tile(&self) -> Option<Id> {
        let prompts = self.at(Stage::Prompt);
        let next = if self.tiled % OLDEST_SHARE == OLDEST_SHARE - 1 {
            prompts.min_by_key(|(_, job)| job.since)
        } else {
            prompts.min_by_key(|(_, job)| (job.left, job.since))
        };
        next.map(|(id, _)| id)
    }

    /// Requests at a stage.
    fn at(&self, stage: Stage) -> impl Iterator<Item = (Id, &Job)> {
        self.jobs.iter().filter(move |(_, job)| job.stage == stage).map(|(&id, job)| (id, job))
    }

    /// A request has a slot, and so many tokens to run in tiles before a first step of `rows` rows.
    pub fn place(&mut self, id: Id, tokens: usize, rows: usize) {
        self.clock += 1;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left = tokens;
            job.stage = if tokens > 0 { Stage::Prompt } else { Stage::Decoding { rows, served: self.clock } };
        }
    }

    /// A request is no more.
    pub fn leave(&mut self, id: Id) {
        self.jobs.remove(&id);
        self.round.remove(&id);
    }

    /// What to run next.
    pub fn next(&self) -> Turn {
        let decodes = |job: &Job| matches!(job.stage, Stage::Decoding { .. });
        let others = self.jobs.values().any(decodes);
        if let Some(id) = self.next_for_tile()
            && self.round.is_empty()
        {
            let most = if others { self.short_tile() } else { self.bounds.tile };
            return Turn::Tile { id, tokens: most.min(self.jobs[&id].left) };
        }
        // Those that had no row for longest, as many as fit; whoever does not fit is the first of the next step.
        let mut decoding: Vec<(u64, Id, usize)> = Vec::new();
        for (&id, job) in &self.jobs {
            if let Stage::Decoding { rows, served } = job.stage {
                decoding.push((served, id, rows));
            }
        }
        decoding.sort_unstable();
        let mut room = self.bounds.few_rows;
        let mut step = Vec::new();
        for (_, id, rows) in decoding {
            match room.checked_sub(rows) {
                Some(rest) => room = rest,
                None => break,
            }
            step.push(id);
        }
        if step.is_empty() { Turn::Idle } else { Turn::Step(step) }
    }

    /// A step of these was started; that of whoever comes next has one row.
    pub fn stepped(&mut self, ids: &[Id]) {
        for id in ids {
            self.clock += 1;
            self.round.remove(id);
            if let Some(job) = self.jobs.get_mut(id) {
                job.stage = Stage::Decoding { rows: 1, served: self.clock };
            }
        }
    }

    /// A tile of so many tokens was run in `took`; once none is left, the first step has `rows` rows.
    pub fn tiled(&mut self, id: Id, tokens: usize, took: Duration, rows: usize) {
        self.clock += 1;
        self.tiled += 1;
        // The ends of prompts say nothing of whole tiles.
        if let Some(size) = (0..self.tiles.len()).find(|&size| self.tokens_of(size) == tokens) {
            // With what was known before, since contexts grow, and other programs come and go.
            let before = self.tiles[size].unwrap_or(took);
            self.tiles[size] = Some((before + took) / 2);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.left = job.left.saturating_sub(tokens);
            if job.left == 0 {
                job.stage = Stage::Decoding { rows, served: self.clock };
            }
        }
        let decodes = |(&id, job): (&Id, &Job)| matches!(job.stage, Stage::Decoding { .. }).then_some(id);
        self.round = self.jobs.iter().filter_map(decodes).collect();
    }

    /// Tokens of the tiles at an index.
    fn tokens_of(&self, size: usize) -> usize {
        (SHORTEST_TILE << size).min(self.bounds.tile)
    }

    /// Tokens of the longest tile that keeps the gap, or of the shortest. Twice as many tokens take at most twice as long, so that
    /// longer tiles are tried as soon as shorter ones allow it.
    fn short_tile(&self) -> usize {
        let mut size = 0;
        let mut took = self.tiles[0];
        while let Some(shorter) = took
            && size + 1 < self.tiles.len()
        {
            let longer = self.tiles[size + 1].map_or(shorter * 2, |known| known.min(shorter * 2));
            if longer > self.bounds.gap {
                break;
            }
            (size, took) = (size + 1, Some(longer));
        }
        self.tokens_of(size)
    }
}
