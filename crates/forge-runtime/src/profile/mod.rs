//! Where the GPU's time goes: each kernel's share of a decode step and of a prompt, next to the bytes it moves.
//!
//! Apple GPUs report no dependable times of single dispatches, so whole command buffers are timed. The model runs once
//! while its dispatches are recorded; then all dispatches of one kernel (its role in every layer, with every layer's
//! weights, so that no cache holds them) run again by themselves, with the barriers that the schedule has between them.
//! They write over the model's activations, which hold nothing of value here.

mod bandwidth;
mod document;
mod trace;

pub use bandwidth::measure_bandwidth;
pub use document::{Device, document};
pub use trace::trace;

use super::batch::{Row, Token, Wants};
use super::gpu::{Dispatch, Gpu, pool};
use super::sampler::{Sampling, StepSampling};
pub use super::spec::Cost;
use super::verify::{Checks, Dim, KernelCheck, Operation};
use super::{LanguageModel, LogitRows, Result};

/// Seconds that a timed command buffer should at least take: what a command buffer costs by itself is little then.
const LONG_ENOUGH: f64 = 0.005;
/// Most dispatches of a command buffer.
const MOST_DISPATCHES: usize = 4096;
/// Seconds to spend on the runs of one kernel, and how many those are at most.
const BUDGET: f64 = 0.25;
const RUNS: usize = 9;

/// Size of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Tokens in the step.
    pub rows: usize,
    /// Position of the first of them, of each sequence.
    pub position: usize,
    /// Sequences that they are of, as many of each.
    pub sequences: usize,
}

impl Cost {
    /// Bytes and operations of one dispatch of a kernel at a size.
    pub fn at(&self, size: Size, check: &KernelCheck) -> (u64, u64) {
        let split = check.operation.split();
        let window = match check.operation {
            Operation::Attention(attention) => attention.window,
            _ => split.and_then(|split| split.window),
        };
        let rows = size.rows / size.sequences;
        let tiles = check.grid.iter().find_map(|dim| match dim {
            Dim::RowTiles(tile) => Some(size.rows.div_ceil(*tile)),
            Dim::PositionTiles(positions) => Some((size.position + rows).div_ceil(*positions)),
            Dim::Const(_) | Dim::Rows | Dim::Parts | Dim::Indirect { .. } => None,
        });
        let seen = |position: usize| (position + 1).min(window.unwrap_or(usize::MAX));
        // Of one sequence.
        let positions = || size.position..size.position + rows;
        let parts: usize = positions().map(|position| split.map_or(1, |split| split.parts(position))).sum();
        let pairs: usize = positions().map(seen).sum();
        let sum = |[fixed, row, tile, position, part]: [u64; 5], positions: usize| {
            let of_sequence = position * positions as u64 + part * parts as u64;
            let of_rows = row * size.rows as u64 + tile * tiles.unwrap_or(0) as u64;
            fixed + of_rows + of_sequence * size.sequences as u64
        };
        (sum(self.bytes, rows - 1 + seen(size.position)), sum(self.flops, pairs))
    }
}

/// All dispatches of one kernel in a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// The kernel's name.
    pub kernel: &'static str,
    /// What kind of work it does: [`Operation::kind`].
    pub kind: &'static str,
    /// Dispatches.
    pub dispatches: usize,
    /// Seconds of all of them.
    pub seconds: f64,
    /// Bytes that all of them read and write.
    pub bytes: u64,
    /// Operations of all of them.
    pub flops: u64,
}

/// One decode step, or one tile of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// Its size.
    pub size: Size,
    /// Seconds of its command buffers, as the schedule has them.
    pub seconds: f64,
    /// Its kernels, in the order in which they first run.
    pub roles: Vec<Role>,
    /// Index into `roles` of each dispatch, in order.
    pub order: Vec<usize>,
}

/// The dispatches of a step of `rows` sequences, each after `position` tokens, the choice of their next tokens included. Command
/// buffer by command buffer.
///
/// # Errors
/// As [`LanguageModel::step`].
pub fn record_step<M: LanguageModel>(model: &mut M, rows: usize, position: usize) -> Result<Vec<Vec<Dispatch>>> {
    let Some(recorder) = model.gpu().map(|gpu| gpu.recorder().clone()) else { return Ok(Vec::new()) };
    (0..rows).for_each(|slot| model.observe(slot, &[], &[], &Sampling::default()));
    let wants = Wants::Choice(StepSampling::new(&Sampling::default()));
    let row = |slot| Row { token: Token::Known(0), slot, position, wants: wants.clone() };
    let rows: Vec<Row> = (0..rows).map(row).collect();
    recorder.record(|| {
        let step = model.step(&rows)?;
        model.finish(step).map(drop)
    })
}

/// The dispatches of a tile of a prompt.
///
/// # Errors
/// As [`LanguageModel::prefill`].
pub fn record_prefill<M: LanguageModel>(model: &mut M, tokens: &[u32], position: usize) -> Result<Vec<Vec<Dispatch>>> {
    let Some(recorder) = model.gpu().map(|gpu| gpu.recorder().clone()) else { return Ok(Vec::new()) };
    recorder.record(|| model.prefill(0, position, tokens, LogitRows::None, &mut Vec::new(), &mut || true))
}

/// Times the dispatches of `buffers`, whole and by kernel; `progress` is told each kernel's name before its turn.
///
/// # Errors
/// What the device reports.
pub fn profile(
    gpu: &Gpu,
    checks: &Checks,
    buffers: &[Vec<Dispatch>],
    size: Size,
    progress: &mut dyn FnMut(&str),
) -> Result<Pass> {
    let mut roles: Vec<Role> = Vec::new();
    let mut order = Vec::new();
    for dispatch in buffers.iter().flatten() {
        let kernel = dispatch.kernel.name();
        let index = roles.iter().position(|role| role.kernel == kernel).unwrap_or_else(|| {
            roles.push(Role { kernel, kind: "", dispatches: 0, seconds: 0.0, bytes: 0, flops: 0 });
            roles.len() - 1
        });
        let (kind, bytes, flops) = cost(gpu, checks, kernel, size);
        let role = &mut roles[index];
        role.kind = kind;
        role.dispatches += 1;
        role.bytes += bytes;
        role.flops += flops;
        order.push(index);
    }
    let all: Vec<Vec<&Dispatch>> = buffers.iter().map(|buffer| buffer.iter().collect()).collect();
    progress("the whole step");
    let seconds = time(gpu, &all)?;
    for role in &mut roles {
        progress(role.kernel);
        let own = |buffer: &Vec<Dispatch>| -> Vec<Dispatch> {
            let own = buffer.iter().filter(|dispatch| dispatch.kernel.name() == role.kernel);
            // Alone they follow one another over the same activations.
            own.map(|dispatch| Dispatch { barrier: true, ..dispatch.clone() }).collect()
        };
        let own: Vec<Vec<Dispatch>> = buffers.iter().map(own).filter(|buffer| !buffer.is_empty()).collect();
        role.seconds = time(gpu, &own.iter().map(|buffer| buffer.iter().collect()).collect::<Vec<_>>())?;
    }
    Ok(Pass { size, seconds, roles, order })
}

/// What kind of work the kernel of this name does, and bytes and operations of one dispatch of it.
fn cost(gpu: &Gpu, checks: &Checks, name: &str, size: Size) -> (&'static str, u64, u64) {
    let mut entries = checks.kernels.iter().zip(checks.costs);
    let entry = entries.find(|(check, _)| gpu.kernel(check.kernel).name() == name);
    entry.map_or(("", 0, 0), |(check, cost)| {
        let (bytes, flops) = cost.at(size, check);
        (check.operation.kind(), bytes, flops)
    })
}

/// Median seconds of one run of all `buffers`, each a command buffer: in several runs, and where those would be short as
/// often in a row as makes them long enough.
///
/// # Errors
/// What the device reports.
pub fn time(gpu: &Gpu, buffers: &[Vec<&Dispatch>]) -> Result<f64> {
    // The first run is slower: nothing is resident.
    run(gpu, buffers, 1)?;
    let first = run(gpu, buffers, 1)?.max(1e-7);
    let dispatches = buffers.iter().map(Vec::len).sum::<usize>().max(1);
    let most = (MOST_DISPATCHES / dispatches).max(1) as f64;
    let times = if buffers.len() == 1 { (LONG_ENOUGH / first).ceil().clamp(1.0, most) as usize } else { 1 };
    let runs = (BUDGET / (first * times as f64)) as usize;
    let mut seconds = vec![first];
    for _ in 0..runs.min(RUNS) {
        seconds.push(run(gpu, buffers, times)? / times as f64);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

fn run(gpu: &Gpu, buffers: &[Vec<&Dispatch>], times: usize) -> Result<f64> {
    let mut seconds = 0.0;
    for buffer in buffers {
        let pending = pool(|| {
            let mut commands = gpu.commands("profile");
            for time in 0..times {
                for (index, dispatch) in buffer.iter().enumerate() {
                    if dispatch.barrier || (index == 0 && time > 0) {
                        commands.barrier();
                    }
                    dispatch.encode(&mut commands);
                }
            }
            commands.commit()
        });
        seconds += pending.wait()?.seconds;
    }
    Ok(seconds)
}
