//! The smallest set of encoder barriers that the steps' dependences need.
//!
//! On a concurrent encoder two dispatches run at once unless a barrier lies between. A step needs one when
//! it touches a buffer that a step since the last barrier touches too, one of them writing.

use std::collections::BTreeSet;

use crate::kernel::Kernel;
use crate::plan::{Arg, Choice, KernelTable, Schedule, Step, When};

#[derive(Default, Clone, PartialEq)]
struct Pending {
    /// Steps that do not run in this walk.
    skipped: When,
    read: BTreeSet<String>,
    written: BTreeSet<String>,
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
            for (arg, binding) in step.args.iter().zip(&kernel.bindings) {
                let name = match arg {
                    Arg::Buffer(name) | Arg::LayerPart { buffer: name, .. } => name.clone(),
                    Arg::Keys(slot) => format!("keys {slot}"),
                    Arg::Values(slot) => format!("values {slot}"),
                    Arg::Logits => "logits".into(),
                    Arg::Sampler(name) => format!("sampler {name}"),
                    Arg::Chosen => "chosen".into(),
                    // The host or an earlier command buffer wrote these.
                    Arg::Layer(_) | Arg::Model(_) | Arg::NextGamma | Arg::Params | Arg::Tokens => {
                        continue;
                    }
                };
                if binding.access.reads() {
                    read.push(name.clone());
                }
                if binding.access.writes() {
                    written.push(name);
                }
            }
            let conflict = read.iter().any(|name| self.written.contains(name))
                || written.iter().any(|name| self.written.contains(name) || self.read.contains(name));
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
