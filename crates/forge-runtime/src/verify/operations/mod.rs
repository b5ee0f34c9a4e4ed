//! What every operation computes, once more, one file each: in f64 and simple loops, with the error that the kernel's
//! arithmetic may make. Nothing here is shared with the kernels, nor is a plan's size or cost read: an operation is said anew.

mod attention;
mod embed;
mod experts;
mod gated_delta;
mod head_gate;
mod latent;
mod layer_inputs;
mod next_norm;
mod norms;
mod project;
mod rope_append;
mod route;
mod row_scale;
mod sample;
mod short_conv;

use super::compare::Comparison;
use super::run::{Case, Input, Run};
use super::table::{Format, Matrix, Operation, Role};
pub(super) use sample::Draw;

/// What `verify` knows of one operation.
pub(super) trait Reference {
    /// Sizes, for the report: `[4096, 4096] q8_0`.
    fn describe(&self) -> String;

    /// What a kernel is run with for `rows` rows, of a model that was trained for `context` tokens: where positions matter
    /// several of them, and all kinds of draws.
    fn cases(&self, rows: usize, _context: usize) -> Vec<Case> {
        vec![Case::at(rows, 0, None)]
    }

    /// What the arguments that a kernel may read hold before, beside tensors and the step's parameters.
    fn inputs(&self, case: &Case) -> Vec<(Role, Input)>;

    /// Compares what the kernel left with the operation's result.
    fn check(&self, run: &Run<'_>, out: &mut Comparison);
}

/// The reference of an operation.
pub(super) fn reference<'a>(operation: &Operation<'a>) -> Box<dyn Reference + 'a> {
    match *operation {
        Operation::Embed { table, scale, norm_eps } => Box::new(embed::Embed { table, scale, norm_eps }),
        Operation::LayerInputs { table, layers, eps, scale, factor } => {
            Box::new(layer_inputs::LayerInputs { table, layers, eps, scale, factor })
        }
        Operation::Project(projection) => Box::new(projection),
        Operation::RopeAppend(rope) => Box::new(rope),
        Operation::ShortConv { channels, taps } => Box::new(short_conv::ShortConv { channels, taps }),
        Operation::GatedDelta(delta) => Box::new(delta),
        Operation::HeadGate { heads, head_dim, first, stride, width } => {
            Box::new(head_gate::HeadGate { heads, head_dim, first, stride, width })
        }
        Operation::Attention(attention) => Box::new(attention),
        Operation::AttentionCombine { heads, head_dim, split } => {
            Box::new(attention::Combine { heads, head_dim, split })
        }
        Operation::LatentAppend(append) => Box::new(append),
        Operation::LatentQueries(queries) => Box::new(queries),
        Operation::LatentAttention(attention) => Box::new(attention),
        Operation::LatentExpand(expand) => Box::new(expand),
        Operation::LatentRotate(rotate) => Box::new(rotate),
        Operation::LatentValues(values) => Box::new(values),
        Operation::RowScale { width, each } => Box::new(row_scale::RowScale { width, each }),
        Operation::RmsNorm { width, eps } => Box::new(norms::RmsNorm { width, eps }),
        Operation::LayerNorm { width, eps } => Box::new(norms::LayerNorm { width, eps }),
        Operation::PostNorm { width, eps, factor } => Box::new(norms::PostNorm { width, eps, factor }),
        Operation::Route { routing, shared } => Box::new(route::Route { routing, shared }),
        Operation::SortExperts(sort) => Box::new(sort),
        Operation::ExpertsUp(experts) => Box::new(experts),
        Operation::ExpertsDown(experts) => Box::new(experts),
        Operation::ExpertsSum { width, chosen, shared, factor } => {
            Box::new(experts::Sum { width, chosen, shared, factor })
        }
        Operation::SampleBest(vocabulary) => Box::new(sample::Best(vocabulary)),
        Operation::SampleCollect(vocabulary) => Box::new(sample::Collect(vocabulary)),
        Operation::SampleDraw(vocabulary) => Box::new(sample::Choice(vocabulary)),
    }
}

impl Operation<'_> {
    /// Sizes, for the report: `[4096, 4096] q8_0`.
    pub fn describe(&self) -> String {
        reference(self).describe()
    }
}

impl Matrix {
    /// `[4096, 4096] q8_0`.
    fn describe(&self) -> String {
        let format = match self.format {
            Format::Affine { bits, group, .. } => format!("affine{bits}_g{group}"),
            other => format!("{other:?}").to_lowercase(),
        };
        format!("[{}, {}] {format}", self.rows, self.cols)
    }
}
