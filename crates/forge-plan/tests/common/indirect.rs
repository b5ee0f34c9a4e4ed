//! Plans with indirect grids, which no graph makes yet: a counting kernel, and kernels of the plan whose grids it counts.
#![allow(dead_code, reason = "each test file uses its part")]

use forge_plan::binding::{Access, Binding, Element, Extent, Touch};
use forge_plan::families::{Launch, RmsNorm};
use forge_plan::plan::{Arg, BufferPlan, Choice, Counts, Dim, Place, Step, When};
use forge_plan::{Kernel, KernelId, Plan};
use forge_spec::Role;

/// Words of the buffer of threadgroups; the counts are its last three.
pub const WORDS: usize = 8;
pub const COUNTS: Counts = Counts { place: Place::Threadgroups, word: 5 };
/// The grid's first axis.
pub const INDIRECT: Dim = Dim::Indirect { per_row: 3, most: 100 };

/// A kernel that writes threadgroups from the step's parameters.
pub fn counting_kernel() -> Kernel {
    let binding = |role, element, extent, access| Binding { role, element, extent, access, touch: Touch::All };
    Kernel {
        bindings: vec![
            binding(Role::Step, Element::Params, Extent::Fixed(Vec::new()), Access::Read),
            binding(Role::Count, Element::U32, Extent::Fixed(vec![WORDS]), Access::Write),
        ],
        launch: Launch { threads: 32, threadgroup_bytes: 0, grid: [Dim::Const(1); 3] },
        ..Kernel::new("count_rows".into(), RmsNorm { width: 32, eps: 0.0 }.into())
    }
}

/// A step that runs it.
pub fn counting_step(kernel: KernelId) -> Step {
    Step {
        kernel: Choice::Fixed(kernel),
        args: [(Role::Step, Arg::Params), (Role::Count, Arg::Buffer(Place::Threadgroups))].into(),
        barrier: false,
        when: When::Always,
        few: None,
        counts: None,
    }
}

/// Makes the grid of prefill's `kernel`, and of whatever steps run it, indirect; room for the counts, and the kernel that
/// counts them, are added but scheduled nowhere yet. Gives the counting kernel.
pub fn make_indirect(plan: &mut Plan, kernel: KernelId) -> KernelId {
    plan.kernels[kernel].launch.grid[0] = INDIRECT;
    plan.kernels.push(counting_kernel());
    plan.prefill_buffers.push(BufferPlan { place: Place::Threadgroups, width: WORDS });
    for step in plan.prefill.steps_mut().filter(|step| step.kernel == Choice::Fixed(kernel)) {
        step.counts = Some(COUNTS);
    }
    plan.kernels.len() - 1
}
