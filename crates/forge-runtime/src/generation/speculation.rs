//! Guesses of what a sequence goes on with, from what it had before: edits, code and quotations repeat long runs of their prompt.
//!
//! A guess is run as rows of one step, and a guessed token is kept where it is the one that the seeded draw gives anyway. So the text
//! is the same with guesses and without; what they cost and save is steps. How many tokens are guessed depends on two things that are
//! measured: how often such guesses would have been right lately, which every token tells whether or not it was guessed, and how long steps
//! of so many rows take. None are where it does not pay.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::Duration;

/// Tokens that have to be alike before a guess is made.
const GRAM: usize = 3;

/// Earlier places that are looked at for the one that is alike for longest.
const PLACES: usize = 8;

/// Tokens alike that are told apart.
const LONGEST: usize = 32;

/// How many tokens to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// None, and no runs of tokens that a form forces.
    #[default]
    Off,
    /// As many as pay.
    Auto,
    /// So many wherever something is known to guess from, as rows of the step allow.
    Depth(usize),
}

impl FromStr for Speculation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => text.parse().map(|depth| if depth == 0 { Self::Off } else { Self::Depth(depth) }),
        }
        .map_err(|_| "auto, off, or a number of tokens".to_owned())
    }
}

/// Where a sequence had the tokens before.
#[derive(Debug, Default)]
pub struct Grams {
    /// The position after the last occurrence of tokens that something follows.
    last: HashMap<[u32; GRAM], u32>,
    /// That after the one before, by position; 0 for none.
    before: Vec<u32>,
}

/// An earlier place that goes on in some way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alike {
    /// Position of what followed there.
    at: usize,
    /// Tokens before it that are alike.
    length: usize,
}

impl Grams {
    /// The earlier place whose tokens are alike for longest with the last of a sequence; of equals the latest. The sequence is the one that was
    /// looked at before, gone on.
    pub fn find(&mut self, tokens: &[u32]) -> Option<Alike> {
        for end in self.before.len()..tokens.len() {
            let gram = end.checked_sub(GRAM).and_then(|begin| tokens[begin..].first_chunk());
            // Position 0 is after nothing, so that it stands for none.
            self.before.push(gram.and_then(|gram| self.last.insert(*gram, end as u32)).unwrap_or(0));
        }
        let gram = tokens.last_chunk::<GRAM>()?;
        let first = self.last.get(gram).copied();
        let places = std::iter::successors(first, |at| Some(self.before[*at as usize]).filter(|at| *at > 0));
        let alike = |at: u32| {
            let at = at as usize;
            let ends = tokens[..at].iter().rev().zip(tokens.iter().rev());
            Alike { at, length: ends.take(LONGEST).take_while(|(a, b)| a == b).count() }
        };
        places.take(PLACES).map(alike).reduce(|best, other| if other.length > best.length { other } else { best })
    }
}

impl Alike {
    /// What a sequence goes on with if it does as it did there; what would follow its end follows from the guess.
    pub fn guess(self, tokens: &[u32], depth: usize) -> Vec<u32> {
        let mut guess: Vec<u32> = Vec::with_capacity(depth);
        for at in self.at..self.at + depth {
            guess.push(tokens.get(at).copied().unwrap_or_else(|| guess[at - tokens.len()]));
        }
        guess
    }

    /// Index of those that are alike for about as long, once so many more tokens are.
    fn class(self, more: usize) -> usize {
        match self.length + more {
            0..6 => 0,
            6..16 => 1,
            _ => 2,
        }
    }
}

/// How often guesses of a sequence would have been right, and how many were made.
#[derive(Debug)]
pub struct Record {
    classes: [Class; 3],
    /// Tokens guessed, and those of them that were right.
    pub guessed: usize,
    /// See above.
    pub right: usize,
}

/// Places that are alike for about as long.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// Share of them that go on as they did before.
    share: f64,
    /// Tokens that this comes from.
    tokens: f64,
}

/// Tokens that a share looks back on, at first and at most.
const NEWS: (f64, f64) = (2.0, 24.0);

impl Default for Record {
    fn default() -> Self {
        let class = |share| Class { share, tokens: NEWS.0 };
        Self { classes: [class(0.3), class(0.5), class(0.7)], guessed: 0, right: 0 }
    }
}

impl Record {
    /// At this place the sequence went on as it did before, or it did not.
    pub fn came(&mut self, alike: Alike, as_before: bool) {
        let class = &mut self.classes[alike.class(0)];
        class.tokens = (class.tokens + 1.0).min(NEWS.1);
        class.share += (f64::from(u8::from(as_before)) - class.share) / class.tokens;
    }

    /// Of a guess of so many tokens the first `right` were.
    pub fn verified(&mut self, guessed: usize, right: usize) {
        self.guessed += guessed;
        self.right += right;
    }

    /// Share of guesses of which the token after `more` is right where those before it are.
    fn share(&self, alike: Alike, more: usize) -> f64 {
        self.classes[alike.class(more)].share
    }

    /// How many tokens to guess at a place, at most `most`, in a step that has `others` rows of other sequences. All that was chosen has
    /// been heard.
    pub fn depth(&self, alike: Alike, most: usize, others: usize, costs: &mut Costs) -> usize {
        costs.decide(false, |costs| self.weigh(alike, None, most, others, costs))
    }

    /// Whether it pays to wait for the token after this place, since something might be guessed after it.
    pub fn is_worth_waiting(&self, alike: Alike, most: usize, others: usize, costs: &mut Costs) -> bool {
        let hit = self.share(alike, 0);
        costs.decide(true, |costs| self.weigh(alike, Some(hit), most, others, costs)) > 0
    }

    /// The depth of the most tokens in a time: of a guess at this place, or, with the share of places at which one token more is alike, of one that
    /// is made there after it.
    fn weigh(&self, alike: Alike, hit: Option<f64>, most: usize, others: usize, costs: &Costs) -> usize {
        let (more, hit) = (usize::from(hit.is_some()), hit.unwrap_or(1.0));
        // Tokens that are expected, those that come anyway included.
        let (mut tokens, mut likely) = (1.0 + others as f64, hit);
        let miss = (1.0 - hit) * costs.of(others + 1, true);
        let rates = (1..=costs.most(most, others)).map(|depth| {
            likely *= self.share(alike, more + depth - 1);
            tokens += likely;
            tokens / (hit * costs.of(others + 1 + depth, true) + miss)
        });
        best(costs.plain(others), rates)
    }
}

/// The depth of the highest rate, from 1 on; 0 where none is worth leaving the plain one for.
fn best(plain: f64, rates: impl Iterator<Item = f64>) -> usize {
    let all = std::iter::once(plain * WORTH).chain(rates).enumerate();
    all.reduce(|best, other| if other.1 > best.1 { other } else { best }).map_or(0, |(depth, _)| depth)
}

/// What steps take by their rows, and by whether the step before had to be heard first or ran beside the host. What is
/// learnt of one kind of step moves all, since contexts grow and other programs come and go.
#[derive(Debug, Clone)]
pub struct Costs {
    /// Natural logarithm of seconds; none before the first step.
    level: Option<f64>,
    /// What steps take beyond the level, by their rows: of those that run beside the host, and of the others.
    kinds: [BTreeMap<usize, Seen>; 2],
    /// Steps beside the host that are to be seen before anything is guessed.
    plain: u32,
    /// Steps of the other kind since the last of those.
    since: u32,
    /// Times that guesses would have paid if a row cost as little as is thought at first.
    passed: u32,
    /// And how many are let go by before that is tried again.
    patience: u32,
    /// It is being tried: a token was waited for.
    trying: bool,
    /// Nothing is known, and it is taken as it is thought at first.
    hoped: bool,
}

/// What was seen of a kind of step.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// What it takes beyond the level, as a logarithm.
    beyond: f64,
    /// Steps that this comes from.
    steps: f64,
}

/// Steps that what is known of a kind looks back on.
const STEPS: f64 = 12.0;
/// How far the level goes with a step.
const LEVEL: f64 = 0.1;
/// By how much a row more is thought to make a step longer, until that is known.
const ROW: f64 = 0.08;
/// How much faster guesses have to be than none.
const WORTH: f64 = 1.03;
/// Chances that are let go by once steps of more rows are known to be too slow, at first and at most.
const PATIENCE: (u32, u32) = (32, 1024);
/// One step tells no more than this, as a logarithm: something else may have held it up.
const FARTHEST: f64 = 0.7;
/// Plain steps that are seen at first, and again after so many others.
const PLAIN: (u32, u32, u32) = (3, 2, 64);

impl Default for Costs {
    fn default() -> Self {
        Self {
            level: None,
            kinds: Default::default(),
            plain: PLAIN.0,
            since: 0,
            passed: 0,
            patience: PATIENCE.0,
            trying: false,
            hoped: false,
        }
    }
}

impl Costs {
    /// A step of so many rows took so long, from the end of the one before to its own. That was `heard` before it was started, or not.
    pub fn note(&mut self, rows: usize, heard: bool, took: Duration) {
        let took = took.as_secs_f64().max(1e-9).ln();
        let level = *self.level.get_or_insert(took);
        let thought = self.beyond(rows, heard);
        let news = (took - level - thought).clamp(-FARTHEST, FARTHEST);
        let seen = self.kinds[usize::from(heard)].entry(rows).or_insert(Seen { beyond: thought, steps: 0.0 });
        seen.steps = (seen.steps + 1.0).min(STEPS);
        seen.beyond = thought + news / seen.steps;
        self.level = Some(level + LEVEL * news);
        self.since = if heard { self.since + 1 } else { 0 };
        if !heard {
            self.plain = self.plain.saturating_sub(1);
        } else if self.since == PLAIN.2 {
            (self.plain, self.since) = (PLAIN.1, 0);
        }
    }

    /// What a step takes beyond the level, as a logarithm. One of which nothing is known is between those of fewer and of more rows, or goes on from those
    /// of fewer; one that waits is thought to take as long as one that does not.
    fn beyond(&self, rows: usize, heard: bool) -> f64 {
        let [beside, waited] = &self.kinds;
        let known = |rows: usize| waited.get(&rows).filter(|_| heard).or_else(|| beside.get(&rows));
        let seconds = |rows: usize| Some((rows as f64, known(rows)?.beyond.exp()));
        let mut fewer = (1..=rows).rev().filter_map(seconds);
        let last = waited.keys().chain(beside.keys()).copied().max().unwrap_or(0);
        let more = (rows + 1..=last).find_map(seconds);
        let at = rows as f64;
        let found = match (fewer.next(), more) {
            (None, None) => 1.0 + ROW * (at - 1.0),
            (None, Some((_, cost))) => cost,
            (Some((from, cost)), Some((to, end))) => cost + (end - cost) * (at - from) / (to - from),
            (Some((from, cost)), None) => {
                let hoped = ROW * cost;
                // Half of it as before, so that a step that was held up does not keep all longer ones from being tried.
                let slope = fewer
                    .next()
                    .map_or(hoped, |(first, less)| 0.5 * (((cost - less) / (from - first)).max(0.0) + hoped));
                cost + slope * (at - from)
            }
        };
        found.ln()
    }

    /// Seconds of a step.
    fn of(&self, rows: usize, heard: bool) -> f64 {
        (self.level.unwrap_or(0.0) + self.beyond(rows, heard)).exp()
    }

    /// Tokens in a second without guesses.
    fn plain(&self, others: usize) -> f64 {
        (others + 1) as f64 / self.of(others + 1, false)
    }

    /// How many of `most` tokens may be guessed: none before something is known of plain steps, and at first no steps of more than twice the
    /// rows of those that are known.
    fn most(&self, most: usize, others: usize) -> usize {
        if self.hoped {
            return most;
        }
        if self.plain > 0 {
            return 0;
        }
        let known = self.kinds[1].keys().copied().max().unwrap_or(0).max(others + 1);
        most.min(2 * known - others - 1)
    }

    /// What `depth` says, or, now and then, what it says of costs of which nothing is known. `waits` if this is of a token that has to be waited
    /// for first.
    fn decide(&mut self, waits: bool, depth: impl Fn(&Self) -> usize) -> usize {
        let known = depth(self);
        if known > 0 {
            (self.passed, self.patience, self.trying) = (0, PATIENCE.0, false);
            return known;
        }
        if self.plain > 0 {
            return 0;
        }
        let hoped = depth(&Self { hoped: true, ..Self::default() }).min(2);
        if hoped > 0 && std::mem::take(&mut self.trying) {
            return hoped;
        }
        self.passed += u32::from(hoped > 0);
        if self.passed < self.patience {
            return 0;
        }
        self.passed = 0;
        self.patience = (2 * self.patience).min(PATIENCE.1);
        self.trying = waits;
        hoped
    }
}
