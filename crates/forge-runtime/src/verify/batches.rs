//! Whether a row comes to the same whatever stands beside it, and slots hold what they should: the whole model, without a
//! reference of its own. Sequences that run alone, one row at a time, are what all else is compared with, bit for bit.

use std::time::{Duration, Instant};

use super::super::batch::{Outcome, Row, Slot, Token, Wants};
use super::super::prefix::{InSlot, Kept, State};
use super::super::sampler::{Sampling, StepSampling};
use super::super::snapshots::{Folder, Snapshots};
use super::super::{LanguageModel, LogitRows, Result, state};
use super::random::Random;

/// Lengths of what the sequences hold before they are compared: short ones, and one that attention splits.
const LENGTHS: [usize; 4] = [5, 290, 19, 33];
/// Tokens that follow.
const STEPS: usize = 3;
/// How far the logits of a tile may be from those of single rows, in units of the largest of a row: tiles multiply in half
/// precision.
const TILE_BOUND: f32 = 2e-2;

/// One comparison.
#[derive(Debug, Clone)]
pub struct Compared {
    /// What was compared.
    pub what: String,
    /// Numbers compared.
    pub numbers: usize,
    /// Largest difference.
    pub difference: f32,
    /// What is wrong, if anything is.
    pub fault: Option<String>,
}

/// One sequence: what it holds at first, and what follows.
struct Sequence {
    prefix: Vec<u32>,
    next: Vec<u32>,
}

/// Logits of a few rows.
type Logits = Vec<Vec<f32>>;

/// Compares sequences that stand side by side, in any order, in runs, in tiles, copied and cut back, with the same sequences
/// alone.
///
/// # Errors
/// What the model reports.
pub fn batches<M: LanguageModel + ?Sized>(model: &mut M) -> Result<Vec<Compared>> {
    let sequences = sequences(model);
    let mut alone = Vec::new();
    for sequence in &sequences {
        alone.push(one_by_one(model, 0, sequence)?);
    }
    let mut list = Vec::new();
    let slots = model.info().slots.min(sequences.len());
    for order in [(0..slots).collect::<Vec<_>>(), (0..slots).rev().collect()] {
        let mut found = vec![Logits::new(); slots];
        for &slot in &order {
            fill(model, slot, &sequences[slot].prefix)?;
        }
        for step in 0..STEPS {
            let row = |&slot: &usize| {
                let sequence = &sequences[slot];
                logits_row(slot, sequence.prefix.len() + step, sequence.next[step])
            };
            let rows: Vec<Row> = order.iter().map(row).collect();
            for (&slot, logits) in order.iter().zip(run(model, &rows)?) {
                found[slot].push(logits);
            }
        }
        let what = format!("{slots} sequences side by side, slots {order:?}");
        list.push(same(what, found.iter().flatten(), alone[..slots].iter().flatten()));
    }
    for (sequence, alone) in sequences.iter().zip(&alone).take(2) {
        let slot = model.info().slots - 1;
        fill(model, slot, &sequence.prefix)?;
        let position = sequence.prefix.len();
        let rows: Vec<Row> =
            (position..).zip(&sequence.next).map(|(position, &token)| logits_row(slot, position, token)).collect();
        let found = run(model, &rows)?;
        list.push(same(format!("a run of {STEPS} rows at {position}"), found.iter(), alone.iter()));
    }
    list.push(tile(model, &sequences[1])?);
    list.extend(unasked(model, &sequences)?);
    list.extend(copied(model, &sequences, &alone)?);
    list.push(cut_back(model, &sequences)?);
    list.push(chosen(model, &sequences[..slots])?);
    for (sequence, alone) in sequences.iter().zip(&alone) {
        list.push(stored(model, sequence, alone)?);
    }
    Ok(list)
}

/// Sequences as long as the context allows.
fn sequences<M: LanguageModel + ?Sized>(model: &M) -> Vec<Sequence> {
    let mut random = Random::new("batches", 0);
    let (vocab, room) = (model.info().vocab_size, model.context().saturating_sub(2 * STEPS + 1));
    let mut ids = |count: usize| -> Vec<u32> { (0..count).map(|_| random.below(vocab) as u32).collect() };
    LENGTHS.iter().map(|&length| Sequence { prefix: ids(length.min(room).max(1)), next: ids(STEPS) }).collect()
}

fn fill<M: LanguageModel + ?Sized>(model: &mut M, slot: Slot, tokens: &[u32]) -> Result<()> {
    model.prefill(slot, 0, tokens, LogitRows::None, &mut Vec::new(), &mut || true)
}

fn logits_row(slot: Slot, position: usize, token: u32) -> Row {
    Row { token: Token::Known(token), slot, position, wants: Wants::Logits }
}

fn run<M: LanguageModel + ?Sized>(model: &mut M, rows: &[Row]) -> Result<Logits> {
    let submitted = model.submit(rows)?;
    let outcomes = model.wait(submitted)?.into_iter();
    Ok(outcomes.filter_map(|outcome| if let Outcome::Logits(row) = outcome { Some(row) } else { None }).collect())
}

/// The sequence alone, one row at a time.
fn one_by_one<M: LanguageModel + ?Sized>(model: &mut M, slot: Slot, sequence: &Sequence) -> Result<Logits> {
    fill(model, slot, &sequence.prefix)?;
    go_on(model, slot, sequence.prefix.len(), &sequence.next)
}

fn go_on<M: LanguageModel + ?Sized>(model: &mut M, slot: Slot, position: usize, tokens: &[u32]) -> Result<Logits> {
    let mut found = Logits::new();
    for (position, &token) in (position..).zip(tokens) {
        found.extend(run(model, &[logits_row(slot, position, token)])?);
    }
    Ok(found)
}

/// The last rows of a tile and the same rows one by one.
fn tile<M: LanguageModel + ?Sized>(model: &mut M, sequence: &Sequence) -> Result<Compared> {
    let count = sequence.prefix.len().min(32);
    let tokens = &sequence.prefix[..count];
    let (mut tile, mut steps) = (Vec::new(), Logits::new());
    if count > model.info().few_rows {
        model.tile(0, 0, tokens, Some(&mut tile))?;
        steps = go_on(model, 0, 0, tokens)?;
    }
    let mut compared = Compared {
        what: format!("a tile of {count} rows and single rows"),
        numbers: tile.len(),
        difference: 0.0,
        fault: None,
    };
    for (tile, step) in tile.chunks_exact(model.info().vocab_size).zip(&steps) {
        let largest = step.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let difference = tile.iter().zip(step).map(|(a, b)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY });
        let relative = difference.fold(0.0, f32::max) / largest.max(1e-6);
        compared.difference = compared.difference.max(relative);
    }
    if compared.difference > TILE_BOUND {
        compared.fault = Some(format!("off by {:.1e} of the largest logit", compared.difference));
    }
    Ok(compared)
}

/// A tile whose logits nobody asks for leaves what one leaves whose logits are asked for: both go on alike.
fn unasked<M: LanguageModel + ?Sized>(model: &mut M, sequences: &[Sequence]) -> Result<Option<Compared>> {
    let sequence = &sequences[1];
    let count = sequence.prefix.len().min(32);
    if count <= model.info().few_rows {
        return Ok(None);
    }
    model.tile(0, 0, &sequence.prefix[..count], Some(&mut Vec::new()))?;
    let asked = go_on(model, 0, count, &sequence.next)?;
    fill(model, 0, &sequences[2].prefix)?;
    model.tile(0, 0, &sequence.prefix[..count], None)?;
    let unasked = go_on(model, 0, count, &sequence.next)?;
    Ok(Some(same(format!("after a tile of {count} rows with logits and without"), unasked.iter(), asked.iter())))
}

/// A copied slot goes on as its source does, and both as the sequence alone.
fn copied<M: LanguageModel + ?Sized>(
    model: &mut M,
    sequences: &[Sequence],
    alone: &[Logits],
) -> Result<Option<Compared>> {
    let slots = model.info().slots;
    if slots < 2 {
        return Ok(None);
    }
    let (sequence, alone) = (&sequences[1], &alone[1]);
    let position = sequence.prefix.len();
    fill(model, 0, &sequence.prefix)?;
    fill(model, slots - 1, &sequences[0].prefix)?;
    model.copy_slot(0, slots - 1, position)?;
    let mut found = go_on(model, slots - 1, position, &sequence.next)?;
    found.extend(go_on(model, 0, position, &sequence.next)?);
    Ok(Some(same("a copied slot and its source".to_owned(), found.iter(), alone.iter().chain(alone))))
}

/// A sequence whose state went through a file goes on as one that never left its slot.
fn stored<M: LanguageModel + ?Sized>(model: &mut M, sequence: &Sequence, alone: &Logits) -> Result<Compared> {
    let (slot, position) = (model.info().slots - 1, sequence.prefix.len());
    let marked = model.info().rewind.is_some();
    let place = std::env::temp_dir().join(format!("forge-verify-{}-{position}", std::process::id()));
    let folder = Folder { path: place.clone(), bytes: u64::MAX, model: model.info().name.to_owned() };
    let layout = state::layout(&model.states());
    let open = || Snapshots::open(&folder, &layout, position, marked);
    fill(model, 0, &sequence.prefix)?;
    let mut kept = Kept { tokens: sequence.prefix.clone(), ..Kept::default() };
    for range in Kept::ranges(position, 0) {
        let mut rows = Vec::new();
        InSlot { model, slot: 0 }.read_rows(range, &mut rows)?;
        kept.blocks.push(rows.into());
    }
    if marked {
        let mut mark = Vec::new();
        model.read_mark(0, position, &mut mark)?;
        kept.marks.push((position, mark.into()));
    }
    let mut snapshots = open()?;
    snapshots.save(kept);
    snapshots.finish(Instant::now() + Duration::from_secs(600));
    // The next program's, in a slot that held something else.
    let mut snapshots = open()?;
    fill(model, slot, &sequence.next)?;
    let found = snapshots.find(&[&sequence.prefix[..], &sequence.next].concat());
    let restored = snapshots.restore(&found, &mut InSlot { model, slot })?;
    // Left behind it does no harm.
    let _ = std::fs::remove_dir_all(&place);
    let what = format!("a sequence of {position} that went through a file");
    if restored != position {
        // Files are for sequences that are worth it.
        let is_short = restored == 0 && position < Snapshots::SHORTEST;
        let fault = (!is_short).then(|| format!("{restored} of {position} positions came back"));
        return Ok(Compared { what, numbers: 0, difference: 0.0, fault });
    }
    let found = go_on(model, slot, position, &sequence.next)?;
    Ok(same(what, found.iter(), alone.iter()))
}

/// A sequence that is cut back goes on as one that never went further. Rows that a step ahead of the host ran are cut back
/// the same way.
fn cut_back<M: LanguageModel + ?Sized>(model: &mut M, sequences: &[Sequence]) -> Result<Compared> {
    let slot = model.info().slots - 1;
    let sequence = &sequences[0];
    let position = sequence.prefix.len();
    let other: Vec<u32> = sequences[1].next.clone();
    let expected = {
        fill(model, slot, &sequence.prefix)?;
        go_on(model, slot, position, &other)?
    };
    fill(model, slot, &sequence.prefix)?;
    let mut left = STEPS;
    model.generate(slot, position, sequence.next[0], &Sampling::default(), &[], &mut |_| {
        left -= 1;
        left > 0
    })?;
    let found = match model.info().rewind {
        Some(rewind) if rewind < STEPS + 1 => {
            fill(model, slot, &sequence.prefix)?;
            go_on(model, slot, position, &other)?
        }
        _ => go_on(model, slot, position, &other)?,
    };
    Ok(same("a sequence cut back".to_owned(), found.iter(), expected.iter()))
}

/// Tokens chosen side by side, each with its own sampling, and those of each sequence alone.
fn chosen<M: LanguageModel + ?Sized>(model: &mut M, sequences: &[Sequence]) -> Result<Compared> {
    let sampling = |slot: usize| Sampling {
        temperature: 0.7 * slot as f32,
        top_k: if slot.is_multiple_of(2) { 0 } else { 40 },
        repeat_penalty: 1.2,
        frequency_penalty: 0.25 * (slot % 3) as f32,
        logit_bias: if slot == 1 { vec![(0, 1.5)] } else { Vec::new() },
        seed: slot as u64,
        ..Sampling::default()
    };
    let mut expected = Vec::new();
    for (slot, sequence) in sequences.iter().enumerate() {
        fill(model, slot, &sequence.prefix)?;
        let (mut tokens, start) = (Vec::new(), sequence.prefix.len());
        model.generate(slot, start, sequence.next[0], &sampling(slot), &sequence.prefix, &mut |token| {
            tokens.push(token);
            tokens.len() < STEPS
        })?;
        expected.push(tokens);
    }
    let mut found = vec![Vec::new(); sequences.len()];
    let mut steps = Vec::new();
    for (slot, sequence) in sequences.iter().enumerate() {
        fill(model, slot, &sequence.prefix)?;
        model.observe(slot, &sequence.prefix, &[], &sampling(slot));
        steps.push(StepSampling::new(&sampling(slot)));
    }
    for step in 0..STEPS {
        let row = |(slot, sequence): (usize, &Sequence)| Row {
            token: if step == 0 { Token::Known(sequence.next[0]) } else { Token::Chosen },
            slot,
            position: sequence.prefix.len() + step,
            wants: Wants::Choice(steps[slot].clone()),
        };
        let rows: Vec<Row> = sequences.iter().enumerate().map(row).collect();
        let submitted = model.submit(&rows)?;
        for (slot, outcome) in model.wait(submitted)?.into_iter().enumerate() {
            if let Outcome::Choice(Some(token)) = outcome {
                found[slot].push(token);
            }
        }
        steps.iter_mut().for_each(StepSampling::advance);
    }
    let fault = (found != expected).then(|| format!("{found:?} rather than {expected:?}"));
    let numbers = expected.iter().map(Vec::len).sum();
    Ok(Compared { what: format!("tokens that {} sequences choose", sequences.len()), numbers, difference: 0.0, fault })
}

/// Compares rows bit for bit.
fn same<'a>(
    what: String,
    found: impl Iterator<Item = &'a Vec<f32>>,
    expected: impl Iterator<Item = &'a Vec<f32>>,
) -> Compared {
    let (found, expected): (Vec<_>, Vec<_>) = (found.collect(), expected.collect());
    let mut compared = Compared { what, numbers: 0, difference: 0.0, fault: None };
    let lengths = |rows: &[&Vec<f32>]| rows.iter().map(|row| row.len()).collect::<Vec<_>>();
    if expected.is_empty() || lengths(&found) != lengths(&expected) {
        compared.fault = Some(format!("{} rows rather than {}", found.len(), expected.len()));
        return compared;
    }
    let mut others = 0;
    for (found, expected) in found.into_iter().flatten().zip(expected.into_iter().flatten()) {
        compared.numbers += 1;
        if !expected.is_finite() {
            compared.fault = Some("a logit that is not finite".to_owned());
        }
        if found.to_bits() != expected.to_bits() {
            others += 1;
            compared.difference = compared.difference.max((found - expected).abs());
        }
    }
    if others > 0 {
        let (numbers, difference) = (compared.numbers, compared.difference);
        compared.fault = Some(format!("{others} of {numbers} logits differ, by up to {difference:.1e}"));
    }
    compared
}
