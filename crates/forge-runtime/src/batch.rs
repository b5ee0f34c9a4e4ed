//! What a model is asked to do at once: rows, each a token of some sequence at some position, and what is wanted of it.

use super::gpu::Pending;
use super::sampler::StepSampling;
use super::spec::StepParams;
use super::{Error, Result};

/// Index of a sequence whose state the model holds; below [`ModelInfo::slots`](super::ModelInfo::slots).
pub type Slot = usize;

/// The token of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// This one.
    Known(u32),
    /// What the row's slot chose in its last step, which need not have ended yet.
    Chosen,
}

/// What is wanted of a row, beside its state.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Wants {
    /// Nothing.
    #[default]
    Nothing,
    /// Its logits.
    Logits,
    /// The token that follows, chosen so.
    Choice(StepSampling),
}

/// One token of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The token.
    pub token: Token,
    /// Its sequence.
    pub slot: Slot,
    /// Its position in the sequence, from 0.
    pub position: usize,
    /// What is wanted of it.
    pub wants: Wants,
}

impl Row {
    /// Known tokens of one sequence from `position` on, of which nothing is wanted.
    pub fn run(slot: Slot, position: usize, tokens: &[u32]) -> Vec<Self> {
        let row = |(position, &token)| Self { token: Token::Known(token), slot, position, wants: Wants::Nothing };
        (position..).zip(tokens).map(row).collect()
    }

    /// The row's record in a step of `rows` rows, of a model with `context` positions a slot.
    pub fn params(&self, rows: usize, context: usize) -> StepParams {
        let sampling = match &self.wants {
            Wants::Choice(sampling) => sampling.clone(),
            Wants::Nothing | Wants::Logits => StepSampling::default(),
        };
        StepParams {
            position: self.position as u32,
            slot: self.slot as u32,
            rows: rows as u32,
            context: context as u32,
            token: self.known(),
            chooses: matches!(self.wants, Wants::Choice(_)).into(),
            ..sampling.params()
        }
    }

    /// The token as records have it.
    pub(super) fn known(&self) -> u32 {
        match self.token {
            Token::Known(id) => id,
            Token::Chosen => StepParams::CHOSEN,
        }
    }

    /// Whether `next` goes on where this one ends.
    fn goes_on(&self, next: &Self) -> bool {
        next.slot == self.slot && next.position == self.position + 1
    }
}

/// What came of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing was wanted.
    Nothing,
    /// `[vocab]` f32.
    Logits(Vec<f32>),
    /// The token that follows; `None` where no logit was finite, or none of a token that is allowed.
    Choice(Option<u32>),
    /// The same, and the logits, `[vocab]` f32, before bias and penalties.
    Scored(Option<u32>, Vec<f32>),
}

impl Outcome {
    /// The token that was chosen, if one was to be.
    pub fn choice(&self) -> Option<Option<u32>> {
        match self {
            Self::Choice(token) | Self::Scored(token, _) => Some(*token),
            Self::Nothing | Self::Logits(_) => None,
        }
    }
}

/// Whether the host is to have logits of a step of these rows.
pub fn wants_logits(rows: &[Row]) -> bool {
    rows.iter().any(|row| match &row.wants {
        Wants::Nothing => false,
        Wants::Logits => true,
        Wants::Choice(sampling) => sampling.scored,
    })
}

/// Whether the tokens of a step of these rows are chosen in a second call, among those that are allowed by then.
pub fn is_open(rows: &[Row]) -> bool {
    rows.iter().any(|row| matches!(&row.wants, Wants::Choice(sampling) if sampling.masked))
}

/// A step on its way, or what came of it.
#[must_use = "a step has to be waited for"]
pub enum Step {
    /// On the GPU.
    Running {
        /// Its command buffers, in their order; none of a model that has none.
        pending: Vec<Pending>,
        /// Where the model finds its results.
        number: usize,
        /// Its rows.
        rows: Vec<Row>,
        /// Whether it is on the GPU as far as logits. Its tokens are chosen once its slots have been told among which:
        /// [`LanguageModel::allow`](super::LanguageModel::allow), then [`LanguageModel::choose`](super::LanguageModel::choose).
        open: bool,
    },
    /// Done.
    Done(Vec<Outcome>),
}

impl Step {
    /// Whether its tokens are still to be chosen.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Running { open: true, .. })
    }
}

/// What rows become: long runs of one sequence in tiles, all else in steps of a few rows.
#[derive(Debug, PartialEq)]
pub enum Part<'a> {
    /// Known tokens of one sequence of which nothing is wanted.
    Tile(&'a [Row]),
    /// The same, with the logits of all of them.
    TileOfLogits(&'a [Row]),
    /// Any rows.
    Step(&'a [Row]),
}

/// Cuts a batch into what a model runs one after the other: tiles where more than `few` known tokens of one sequence
/// follow one another, of which nothing is wanted or the logits of all, and steps of up to `few` rows for the rest.
pub fn parts(rows: &[Row], few: usize) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut step = 0;
    let mut at = 0;
    while at < rows.len() {
        let alike = |a: &Row, b: &Row| {
            let known = matches!(b.token, Token::Known(_));
            known && a.goes_on(b) && std::mem::discriminant(&a.wants) == std::mem::discriminant(&b.wants)
        };
        let tileable = matches!(rows[at].token, Token::Known(_)) && !matches!(rows[at].wants, Wants::Choice(_));
        let run =
            if tileable { 1 + rows[at..].windows(2).take_while(|pair| alike(&pair[0], &pair[1])).count() } else { 1 };
        if run > few {
            parts.extend(rows[step..at].chunks(few).map(Part::Step));
            let tile = &rows[at..at + run];
            parts.push(if tile[0].wants == Wants::Logits { Part::TileOfLogits(tile) } else { Part::Tile(tile) });
            step = at + run;
        }
        at += run;
    }
    parts.extend(rows[step..].chunks(few).map(Part::Step));
    parts
}

/// Refuses rows that a model cannot run.
///
/// # Errors
/// [`Error::TokenOutOfRange`], [`Error::PromptTooLong`] and [`Error::Batch`].
pub fn check(rows: &[Row], vocab_size: usize, context: usize, slots: usize) -> Result<()> {
    for (index, row) in rows.iter().enumerate() {
        if let Token::Known(id) = row.token
            && id as usize >= vocab_size
        {
            return Err(Error::TokenOutOfRange { id, vocab_size });
        }
        if row.position >= context {
            return Err(Error::PromptTooLong { tokens: row.position + 1, context });
        }
        if row.slot >= slots {
            return Err(Error::Batch { row: index, what: "is of a slot that the model does not have" });
        }
        let own = rows[..index].iter().rev().find(|other| other.slot == row.slot);
        if own.is_some_and(|before| !before.goes_on(row)) {
            return Err(Error::Batch { row: index, what: "does not follow the row of its slot before it" });
        }
        if own.is_some_and(|before| matches!(before.wants, Wants::Choice(_)) || row.token == Token::Chosen) {
            return Err(Error::Batch { row: index, what: "depends on a choice in the same batch" });
        }
    }
    Ok(())
}
