//! Cutting a pack plan into pieces of bounded size that workers take in file order.

use std::ops::Range;

use forge_plan::pack::PackPart;
use forge_plan::{PackPlan, PackedTensor};

/// About how many bytes of the weights file one job makes: what stays in a core's cache between packing and writing.
const JOB_BYTES: usize = 512 << 10;

/// Some rows of one part of a packed tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// Index into the plan's tensors.
    pub tensor: usize,
    /// What the rows come from.
    pub part: PackPart,
    /// Rows of the part. A vector is one row.
    pub rows: Range<usize>,
    /// Where the part begins: a row of the packed tensor, or an element of a packed vector.
    pub first: usize,
}

/// All jobs of a plan, in file order. `part_len` gives a part's rows (elements, for a vector).
pub(crate) fn jobs(plan: &PackPlan, part_len: impl Fn(&PackedTensor, &PackPart) -> usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (tensor, packed) in plan.tensors.iter().enumerate() {
        let mut first = 0;
        for &part in &packed.parts {
            let len = part_len(packed, &part);
            if packed.is_vector() {
                jobs.push(Job { tensor, part, rows: 0..1, first });
            } else {
                let bytes = (super::header::packed_bytes(packed) as usize / packed.rows).max(1);
                let step = (JOB_BYTES / bytes).max(1);
                for begin in (0..len).step_by(step) {
                    jobs.push(Job { tensor, part, rows: begin..len.min(begin + step), first });
                }
            }
            first += len;
        }
    }
    jobs
}
