//! Guesses of what a sequence goes on with, from what it had before: edits, code and quotations repeat long runs of their prompt.
//!
//! A guess is run as rows of one step, and a guessed token is kept where it is the one that the seeded draw gives anyway. So the text
//! is the same with guesses and without; what they cost and save is steps. How many tokens are guessed depends on how guesses did so far and on
//! how long steps of so many rows took, which is measured; none are where it does not pay.

use std::collections::HashMap;
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
    /// None.
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
    /// The earlier place whose tokens are alike for longest with the last of a sequence; of equals the latest.
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

    /// Index of those that are alike for about as long.
    fn class(self) -> usize {
        match self.length {
            0..6 => 0,
            6..16 => 1,
            _ => 2,
        }
    }
}

/// How guesses of a sequence did.
#[derive(Debug)]
pub struct Record {
    classes: [Class; 3],
    /// Tokens guessed, and those of them that were right.
    pub guessed: usize,
    /// See above.
    pub right: usize,
}

/// Guesses from places that are alike for about as long.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// Share of tokens that are right where those before them are.
    share: f64,
    /// Chances to guess that were let go by since the last guess.
    passed: u32,
    /// And how many are before it is tried again.
    patience: u32,
}

/// Weight of one more token in the share of those that are right.
const NEWS: f64 = 0.15;
/// Chances that are let go by once guesses do not pay, at first and at most.
const PATIENCE: (u32, u32) = (16, 1024);

impl Default for Record {
    fn default() -> Self {
        let class = |share| Class { share, passed: 0, patience: PATIENCE.0 };
        Self { classes: [class(0.4), class(0.6), class(0.8)], guessed: 0, right: 0 }
    }
}

impl Record {
    /// How many tokens to guess at a place, at most `most`, in a step that has `others` rows of other sequences.
    pub fn depth(&mut self, alike: Alike, most: usize, others: usize, costs: &Costs) -> usize {
        let class = &mut self.classes[alike.class()];
        let depth = costs.best_depth(class.share, most, others);
        if depth > 0 {
            class.passed = 0;
            return depth;
        }
        class.passed += 1;
        if class.passed < class.patience {
            return 0;
        }
        // Whether it has become better.
        class.passed = 0;
        class.patience = (2 * class.patience).min(PATIENCE.1);
        most.min(2)
    }

    /// Whether [`Record::depth`] may say anything but none.
    pub fn may_guess(&self, alike: Alike, others: usize, costs: &Costs) -> bool {
        let class = &self.classes[alike.class()];
        class.passed + 1 >= class.patience || costs.best_depth(class.share, LONGEST, others) > 0
    }

    /// Of a guess of so many tokens the first `right` were.
    pub fn verified(&mut self, alike: Alike, guessed: usize, right: usize) {
        let class = &mut self.classes[alike.class()];
        (0..right).for_each(|_| class.share += NEWS * (1.0 - class.share));
        if right < guessed {
            class.share -= NEWS * class.share;
        } else {
            class.patience = PATIENCE.0;
        }
        self.guessed += guessed;
        self.right += right;
    }
}

/// What steps take by their rows.
#[derive(Debug, Clone, Default)]
pub struct Costs(Vec<Option<f64>>);

/// Weight of one more step.
const NEW_COST: f64 = 0.1;
/// By how much a row more is thought to make a step longer, until that is known.
const ROW: f64 = 0.08;
/// How much faster guesses have to be than none.
const WORTH: f64 = 1.03;

impl Costs {
    /// A step of so many rows took so long, from the end of the one before to its own.
    pub fn note(&mut self, rows: usize, took: Duration) {
        if self.0.len() <= rows {
            self.0.resize(rows + 1, None);
        }
        let took = took.as_secs_f64();
        let known = self.0[rows].unwrap_or(took);
        // One that something else held up says little.
        self.0[rows] = Some(known + NEW_COST * (took.min(2.0 * known) - known));
    }

    /// Seconds of a step of so many rows; those of which nothing is known are thought to take a little longer than those with fewer.
    fn of(&self, rows: usize) -> f64 {
        let known = (1..=rows).rev().find_map(|fewer| Some((fewer, (*self.0.get(fewer)?)?)));
        known.map_or(1.0, |(fewer, seconds)| seconds * (1.0 + ROW * (rows - fewer) as f64))
    }

    /// How many tokens to guess, each right with this probability if those before it are, so that all sequences of the step get the most
    /// tokens in a time.
    fn best_depth(&self, share: f64, most: usize, others: usize) -> usize {
        // Tokens that a guess is expected to give, the one that comes anyway included.
        let mut tokens = 1.0;
        let mut likely = 1.0;
        let plain = (others + 1) as f64 / self.of(others + 1);
        let mut best = (plain * WORTH, 0);
        for depth in 1..=most {
            likely *= share;
            tokens += likely;
            let rate = (others as f64 + tokens) / self.of(others + 1 + depth);
            if rate > best.0 {
                best = (rate, depth);
            }
        }
        best.1
    }
}
