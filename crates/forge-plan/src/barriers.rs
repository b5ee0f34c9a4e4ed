//! The smallest set of encoder barriers that the steps' dependences need.
//!
//! On a concurrent encoder two dispatches run at once unless a barrier lies between. A step needs one when
//! it touches a buffer that a step since the last barrier touches too, one of them writing.

use std::collections::BTreeSet;

use crate::kernel::Kernel;
use crate::plan::{Arg, Choice, KernelTable, Place, SamplerBuffer, Schedule, Step, When};

#[derive(Default, Clone, PartialEq)]
struct Pending {
    /// Steps that do not run in this walk.
    skipped: When,
    read: BTreeSet<Resource>,
    written: BTreeSet<Resource>,
}

/// What two dispatches may both touch. The host or an earlier command buffer wrote weights, parameters and token ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    Buffer(Place),
    Keys(usize),
    Values(usize),
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
            Arg::State(slot) => Some(Self::State(slot)),
            Arg::Logits => Some(Self::Logits),
            Arg::Sampler(buffer) => Some(Self::Sampler(buffer)),
            Arg::Chosen => Some(Self::Chosen),
            Arg::Layer(_) | Arg::Model(_) | Arg::NextGamma | Arg::Params => None,
        }
    }
}

/// Sets [`Step::barrier`] in a schedule whose layers run the blocks in `order`.
pub fn place(schedule: &mut Schedule, order: &[usize], kernels: &[Kernel], tables: &[KernelTable]) {
    for skipped in [When::Split, When::OnePart] {
        // Nothing is pending when a command buffer starts; what differs between visits of a block is kept.
        let mut pending = Pending { skipped, ..Pending::default() };
        pending.run(&mut schedule.embed, kernels, tables);
        for &block in order {
            pending.run(&mut schedule.blocks[block], kernels, tables);
        }
        pending.run(&mut schedule.head, kernels, tables);
        pending.run(&mut schedule.sample, kernels, tables);
    }
}

impl Pending {
    fn run(&mut self, steps: &mut [Step], kernels: &[Kernel], tables: &[KernelTable]) {
        for step in steps.iter_mut().filter(|step| step.when == When::Always || step.when != self.skipped) {
            let kernel = match step.kernel {
                Choice::Fixed(id) => &kernels[id],
                Choice::PerLayer(table) => &kernels[tables[table].kernels[0]],
            };
            let (mut read, mut written) = (Vec::new(), Vec::new());
            for binding in &kernel.bindings {
                let Some(resource) = step.args.get(&binding.role).and_then(Resource::of) else { continue };
                if binding.access.reads() {
                    read.push(resource);
                }
                if binding.access.writes() {
                    written.push(resource);
                }
            }
            let conflict = read.iter().any(|resource| self.written.contains(resource))
                || written.iter().any(|resource| self.written.contains(resource) || self.read.contains(resource));
            if conflict || step.barrier {
                step.barrier = true;
                self.read.clear();
                self.written.clear();
            }
            self.read.extend(read);
            self.written.extend(written);
        }
    }
}
