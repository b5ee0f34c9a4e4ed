//! Kernel families, one a file: what a kernel is bound to, how it is launched, what it computes and costs. All else that is
//! known of a kernel (its arguments' sizes and comments, bytes, checks) follows from these.

mod attention;
mod embed;
mod expert_tiles;
mod experts;
mod gated_delta;
mod gemm;
mod gemv;
mod head_gate;
mod latent_append;
mod latent_attention;
mod latent_expand;
mod latent_heads;
mod layer_inputs;
mod norm;
mod projection;
mod rope_append;
mod route;
mod row_scale;
mod sample;
mod short_conv;

use forge_spec::{Dim, Matrix, Operation, SortExperts, Split};

pub use attention::{Attend, AttentionCombine, AttentionDecode, AttentionPart, AttentionTile};
pub use embed::Embed;
pub use expert_tiles::{ExpertsDownTile, ExpertsSum, ExpertsUpTile, expert_tile};
pub use experts::{ExpertsDown, ExpertsUp};
pub use gated_delta::GatedDelta;
pub use gemm::{GEMM_ROWS, GEMM_TOKENS, Gemm, Operands};
pub use gemv::{FEW_TOKENS, Gemv, ROOMS, Tokens};
pub use head_gate::HeadGate;
pub use latent_append::LatentAppend;
pub use latent_attention::{LatentAttention, LatentRows};
pub use latent_expand::{LatentExpand, LatentRotate};
pub use latent_heads::{LatentQueries, LatentValues};
pub use layer_inputs::LayerInputs;
pub use norm::{LayerNorm, PostNorm, RmsNorm};
pub use projection::{Epilogue, NextNorm, NormScale};
pub use rope_append::{HeadNorm, RopeAppend};
pub use route::{Route, Router};
pub use row_scale::RowScale;
pub use sample::{Sample, SampleBest, SampleCollect, SampleDraw};
pub use short_conv::ShortConv;

use crate::binding::Binding;
use crate::call::{Call, Position, Value};
use crate::linear::Linear;

/// Threads of the kernels that work on whole rows.
const ROW_THREADS: u32 = 256;
/// Heads (simdgroups) that one threadgroup of the kernels that work on heads handles.
const GROUP_HEADS: usize = 4;
/// Elements that one threadgroup of the embedding and post-norm kernels handles.
pub const ROW_ELEMENTS: usize = 1024;

/// Where a thread is in a kernel whose threadgroups work on shares of rows: along the first axis the share, along the second the
/// row.
const SHARE_POSITIONS: [Value; 4] = [
    Value::At(Position::Group2),
    Value::At(Position::Thread),
    Value::At(Position::Simdgroup),
    Value::At(Position::Lane),
];

/// Where a thread is in a kernel whose threadgroups work on a row each.
const ROW_POSITIONS: [Value; 4] = [
    Value::At(Position::Group),
    Value::At(Position::Thread),
    Value::At(Position::Simdgroup),
    Value::At(Position::Lane),
];

/// How a kernel is dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Threads per threadgroup.
    pub threads: u32,
    /// Bytes of threadgroup memory; at most 32 768.
    pub threadgroup_bytes: u32,
    /// Threadgroups.
    pub grid: [Dim; 3],
}

impl Launch {
    /// Whether a buffer says how many threadgroups there are.
    pub fn is_indirect(&self) -> bool {
        self.grid.iter().any(|dim| dim.is_indirect())
    }
}

/// How many rows a kernel works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One.
    One,
    /// One to [`FEW_TOKENS`], each of a sequence and at a position of its own.
    Few,
    /// Any number, in tiles or one by one.
    Any,
}

/// The body of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// A call of one function of the family.
    Call(Call),
    /// A text that depends on the sizes.
    Gemv(&'a Gemv),
    /// Likewise.
    Gemm(&'a Gemm),
    /// Likewise.
    RopeAppend(&'a RopeAppend),
}

/// What a family knows of a kernel with given constants.
pub trait KernelFamily {
    /// Buffer arguments in order.
    fn bindings(&self) -> Vec<Binding>;
    /// Threads, threadgroup memory and grid.
    fn launch(&self) -> Launch;
    /// What it is, for whoever reads `kernels.metal`.
    fn title(&self) -> String;
    /// Its body.
    fn body(&self) -> Body<'_>;
    /// Whether its threadgroup memory holds `uint` rather than `float`.
    fn shared_integers(&self) -> bool {
        false
    }
    /// The Metal sources that it needs, besides those of its matrices' formats.
    fn sources(&self) -> &'static [&'static str];
    /// The source of the table that it keeps in threadgroup memory, where it has one.
    fn table_source(&self) -> Option<&'static str> {
        None
    }
    /// What it computes; `tables` are the plan's tables of RoPE frequencies.
    fn operation<'a>(&'a self, tables: &'a [Vec<f32>]) -> Operation<'a>;
    /// Multiplications and additions of matrix products and attention.
    fn flops(&self) -> Linear {
        Linear::default()
    }
    /// Packed matrices that it reads.
    fn matrices(&self) -> &[Matrix] {
        &[]
    }
    /// Rows it works on.
    fn rows(&self) -> Rows {
        Rows::Any
    }
    /// Positions that a row sees at most, where it looks at the cache.
    fn window(&self) -> Option<usize> {
        None
    }
    /// How it cuts a long context into parts, if it does.
    fn split(&self) -> Option<Split> {
        None
    }
    /// Rows and columns of a projection, which tell kernels of one name apart.
    fn projection(&self) -> Option<[usize; 2]> {
        None
    }
}

macro_rules! families {
    ($($(#[$doc:meta])* $family:ident),* $(,)?) => {
        /// A kernel's family with its constants.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Family {
            $($(#[$doc])* $family($family),)*
        }

        impl Family {
            /// The family's name, as its type has it: `AttentionDecode`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$family(_) => stringify!($family),)*
                }
            }
        }

        impl std::ops::Deref for Family {
            type Target = dyn KernelFamily;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$family(family) => family,)*
                }
            }
        }

        $(impl From<$family> for Family {
            fn from(family: $family) -> Self {
                Self::$family(family)
            }
        })*
    };
}
families!(
    /// Token id to residual stream; in steps also `x * gamma` and partial sums of squares.
    Embed,
    /// Matrix times vector with a fused prologue and epilogue.
    Gemv,
    /// Matrix times a tile of tokens.
    Gemm,
    /// Head norms, RoPE and KV append, any number of rows.
    RopeAppend,
    /// Short convolution between gates, of a few rows or a tile.
    ShortConv,
    /// Gated delta rule, of a few rows or a tile.
    GatedDelta,
    /// Gates of attention's result, any number of rows.
    HeadGate,
    /// Causal attention of a tile of tokens over the cache.
    AttentionTile,
    /// Attention of rows of any sequences, each over its whole context.
    AttentionDecode,
    /// The same over one part of the context.
    AttentionPart,
    /// Puts the parts together.
    AttentionCombine,
    /// Append to a cache of latents, any number of rows.
    LatentAppend,
    /// Queries over latents, of a few rows or a tile.
    LatentQueries,
    /// Attention over latents, of a few rows or a tile.
    LatentAttention,
    /// Values of latents, of a few rows or a tile.
    LatentValues,
    /// Keys or values of heads, of all latents that a tile sees.
    LatentExpand,
    /// Queries over those keys.
    LatentRotate,
    /// Every layer's own input, from a projection of the embedding and a table, any number of rows.
    LayerInputs,
    /// Powers of two that take the rows of a tile into the range of halves.
    RowScale,
    /// RMS norm of each row of a tile.
    RmsNorm,
    /// Norm of each row less its mean.
    LayerNorm,
    /// `x += norm(y)` after a projection with a post-norm.
    PostNorm,
    /// Choice of each row's experts.
    Route,
    /// Rows in order of their experts.
    SortExperts,
    /// Choice of a row's experts, gate and up of each.
    ExpertsUp,
    /// Down of a row's experts, and their weighted sum.
    ExpertsDown,
    /// Gate and up of experts, each over its rows of a tile.
    ExpertsUpTile,
    /// Down of experts, each over its rows of a tile.
    ExpertsDownTile,
    /// Weighted sum of the results of each row's experts.
    ExpertsSum,
    /// Choice of the next token, step 1: the best of each share of the vocabulary.
    SampleBest,
    /// Step 2: tokens that may be drawn.
    SampleCollect,
    /// Step 3: filters and draw.
    SampleDraw,
);

/// One threadgroup.
const ONE: Dim = Dim::Const(1);
