//! Which experts the routers of a model choose: the choice that its kernels leave, for every token.
//!
//! Layers share the memory that a choice is left in. So what was submitted runs a second time, in command buffers that end behind each
//! choice.

use super::super::gpu::{Dispatch, Gpu, REPEATABLE_ROWS, pool};
use super::super::{LanguageModel, Result};
use super::{Checks, Data, Role};

/// What one router chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    /// Experts of a token.
    pub chosen: usize,
    /// `[tokens, chosen]`, in the order in which the kernel chose.
    pub experts: Vec<u32>,
}

/// A kernel that leaves a choice.
struct Router {
    kernel: &'static str,
    /// Index of the argument with the choice.
    argument: usize,
    chosen: usize,
}

/// The choices for a sequence of `tokens` in slot 0, router after router as the model runs them: in `tiles`, or one token at a time.
///
/// # Errors
/// What the model reports.
pub fn choices<M>(model: &mut M, checks: &Checks, tokens: &[u32], tiles: bool) -> Result<Vec<Choices>>
where
    M: LanguageModel + ?Sized,
{
    let mut found: Vec<Choices> = Vec::new();
    let mut position = 0;
    while position < tokens.len() {
        let most =
            if tiles { (tokens.len() - position).min(model.info().prefill_tile).min(REPEATABLE_ROWS) } else { 1 };
        // An odd number, with logits: a tile of which none are asked for ends before the last layer's mixture.
        let rows = (most - 1) / 2 * 2 + 1;
        let Some(recorder) = model.gpu().map(|gpu| gpu.recorder().clone()) else { break };
        let buffers = recorder.record(|| {
            if tiles {
                model.tile(0, position, &tokens[position..position + rows], Some(&mut Vec::new()))
            } else {
                model.decode(0, position, tokens[position], &mut Vec::new())
            }
        })?;
        let Some(gpu) = model.gpu() else { break };
        for (index, choice) in again(gpu, checks, &buffers, rows)?.into_iter().enumerate() {
            match found.get_mut(index) {
                Some(router) => router.experts.extend(choice.experts),
                None => found.push(choice),
            }
        }
        position += rows;
    }
    Ok(found)
}

/// Runs command buffers again, and reads each choice behind the dispatch that makes it.
fn again(gpu: &Gpu, checks: &Checks, buffers: &[Vec<Dispatch>], rows: usize) -> Result<Vec<Choices>> {
    let routers = routers(gpu, checks);
    let mut choices = Vec::new();
    for buffer in buffers {
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let router = |dispatch: &Dispatch| routers.iter().find(|router| router.kernel == dispatch.kernel.name());
            let end = rest.iter().position(|dispatch| router(dispatch).is_some()).map_or(rest.len(), |index| index + 1);
            let (part, after) = rest.split_at(end);
            let pending = pool(|| {
                let mut commands = gpu.commands("choices");
                for dispatch in part {
                    if dispatch.barrier {
                        commands.barrier();
                    }
                    dispatch.encode(&mut commands);
                }
                commands.commit()
            });
            pending.wait()?;
            if let Some((dispatch, router)) = part.last().and_then(|last| Some((last, router(last)?))) {
                let mut experts = dispatch.arguments[router.argument].words();
                experts.truncate(rows * router.chosen);
                choices.push(Choices { chosen: router.chosen, experts });
            }
            rest = after;
        }
    }
    Ok(choices)
}

/// The kernels that leave a choice.
fn routers(gpu: &Gpu, checks: &Checks) -> Vec<Router> {
    let router = |check: &super::KernelCheck| {
        let (argument, left) = check
            .arguments
            .iter()
            .enumerate()
            .find(|(_, argument)| argument.role == Role::Experts && argument.writes)?;
        let chosen = match left.data {
            Data::Words(chosen) => chosen,
            Data::Tensor(_) | Data::Slots(_) | Data::Cache(_) | Data::Positions(_) | Data::State(_) | Data::Params => {
                return None;
            }
        };
        Some(Router { kernel: gpu.kernel(check.kernel).name(), argument, chosen })
    };
    checks.kernels.iter().filter_map(router).collect()
}
