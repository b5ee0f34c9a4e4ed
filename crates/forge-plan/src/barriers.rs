//! The smallest set of encoder barriers that the steps' dependences need.
//!
//! On a concurrent encoder two dispatches run at once unless a barrier lies between. A step needs one when
//! it touches a buffer that a step since the last barrier touches too, one of them writing. The grid of an indirect dispatch is
//! read from a buffer as its arguments are.

use std::collections::BTreeSet;

use crate::kernel::Kernel;
use crate::plan::{Arg, Choice, KernelTable, Place, SamplerBuffer, Schedule, Visit};

/// What two dispatches may both touch. The host or an earlier command buffer wrote weights, parameters and token ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    Buffer(Place),
    Keys(usize),
    Values(usize),
    Latents(usize),
    State(usize),
    Logits,
    Sampler(SamplerBuffer),
    Chosen,
}

impl Resource {
    fn of(arg: &Arg) -> Option<Self> {
        match *arg {
            Arg::Buffer(place) | Arg::LayerPart { place, .. } => Some(Self::Buffer(place)),
            Arg::Keys(slot) => Some(Self::Keys(slot)),
            Arg::Values(slot) => Some(Self::Values(slot)),
            Arg::Latents(slot) => Some(Self::Latents(slot)),
            Arg::State(slot) => Some(Self::State(slot)),
            Arg::Logits => Some(Self::Logits),
            Arg::Sampler(buffer) => Some(Self::Sampler(buffer)),
            Arg::Chosen => Some(Self::Chosen),
            Arg::Layer(_) | Arg::Model(_) | Arg::NextGamma | Arg::Params => None,
        }
    }
}

/// One dispatch of a walk through a schedule.
struct Dispatch {
    /// The step's number in the schedule.
    step: usize,
    read: Vec<Resource>,
    written: Vec<Resource>,
}

/// Sets [`Step::barrier`](crate::plan::Step::barrier) in a schedule whose layers run the blocks in `order`.
pub fn place(schedule: &mut Schedule, order: &[usize], kernels: &[Kernel], tables: &[KernelTable]) {
    let walks = [false, true].map(|second| walk(schedule, order, kernels, tables, second));
    let mut barriers = vec![false; schedule.steps().count()];
    for walk in &walks {
        complete(walk, &mut barriers);
    }
    // What the second visit of a block needs may have made needless what the first one got.
    for step in 0..barriers.len() {
        let mut without = barriers.clone();
        without[step] = false;
        if walks.iter().all(|walk| !complete(walk, &mut without)) {
            barriers = without;
        }
    }
    for (step, barrier) in schedule.steps_mut().zip(barriers) {
        step.barrier = barrier;
    }
}

/// The dispatches of a schedule that goes the first of its two ways, or the second.
fn walk(
    schedule: &Schedule,
    order: &[usize],
    kernels: &[Kernel],
    tables: &[KernelTable],
    second: bool,
) -> Vec<Dispatch> {
    let runs = |visit: &Visit<'_>| visit.step.when.runs(second);
    let dispatch = |Visit { number, step, .. }: Visit<'_>| {
        let kernel = match step.kernel {
            Choice::Fixed(id) => &kernels[id],
            Choice::PerLayer(table) => &kernels[tables[table].kernels[0]],
        };
        let counts = step.counts.map(|counts| Resource::Buffer(counts.place));
        let mut dispatch = Dispatch { step: number, read: counts.into_iter().collect(), written: Vec::new() };
        for binding in &kernel.bindings {
            let Some(resource) = step.args.get(&binding.role).and_then(Resource::of) else { continue };
            dispatch.read.extend(binding.access.reads().then_some(resource));
            dispatch.written.extend(binding.access.writes().then_some(resource));
        }
        dispatch
    };
    schedule.visits(order).filter(runs).map(dispatch).collect()
}

/// Adds the barriers that a walk lacks, by step; whether it lacked any. Nothing is pending when a command buffer starts.
fn complete(walk: &[Dispatch], barriers: &mut [bool]) -> bool {
    let (mut read, mut written) = (BTreeSet::<Resource>::new(), BTreeSet::<Resource>::new());
    let mut lacked = false;
    for dispatch in walk {
        let conflict = dispatch.read.iter().any(|resource| written.contains(resource))
            || dispatch.written.iter().any(|resource| written.contains(resource) || read.contains(resource));
        let barrier = &mut barriers[dispatch.step];
        if conflict || *barrier {
            lacked |= !*barrier;
            *barrier = true;
            read.clear();
            written.clear();
        }
        read.extend(&dispatch.read);
        written.extend(&dispatch.written);
    }
    lacked
}
