//! Rust text of values that plan and generated program share, from the types themselves: a field that is missing here
//! does not compile.

use forge_spec::{
    Activation, Argument, Attention, CacheType, Cost, Data, Dim, Epilogue, ExpertResults, ExpertsDown, ExpertsOf,
    ExpertsUp, Format, GatedDelta, Gates, GroupScore, Groups, HeadMatrix, HeadNorm, LatentAppend, LatentAttention,
    LatentExpand, LatentQueries, LatentRotate, LatentSizes, LatentValues, Matrix, Operation, PositionScale, Projection,
    RopeAppend, Routing, Scores, SharedExpert, SharedWeight, SortExperts, Split, Vocabulary,
};

use crate::naming::{grouped, variant};

/// Indentation of the lines of a literal that is broken into several.
const PAD: &str = "            ";

/// A value as a Rust expression. Slices that are tables of RoPE frequencies are named rather than repeated.
pub trait Literal {
    /// The expression.
    fn literal(&self, tables: &[Vec<f32>]) -> String;
}

/// Name of a table of RoPE frequencies.
pub fn table_name(index: usize) -> String {
    format!("INV_FREQ_{index}")
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Literal for $type {
            fn literal(&self, _: &[Vec<f32>]) -> String {
                format!("{self:?}")
            }
        }
    )*};
}
plain!(bool, usize, f32, Option<f32>, Option<usize>);

impl Literal for Format {
    fn literal(&self, _: &[Vec<f32>]) -> String {
        format!("Format::{self:?}")
    }
}

/// `Name { a: .., b: .. }` on one line.
macro_rules! record {
    ($type:ident { $($field:ident),* }) => {
        impl Literal for $type {
            fn literal(&self, tables: &[Vec<f32>]) -> String {
                let $type { $($field),* } = self;
                let fields = [$(format!("{}: {}", stringify!($field), $field.literal(tables))),*];
                format!("{} {{ {} }}", stringify!($type), fields.join(", "))
            }
        }
    };
}

/// `Name { .. }` with groups of fields on lines of their own.
macro_rules! block {
    ($type:ident<'_> { $($($field:ident),*);* }) => {
        impl Literal for $type<'_> {
            block!(@body $type { $($($field),*);* });
        }
    };
    ($type:ident { $($($field:ident),*);* }) => {
        impl Literal for $type {
            block!(@body $type { $($($field),*);* });
        }
    };
    (@body $type:ident { $($($field:ident),*);* }) => {
        fn literal(&self, tables: &[Vec<f32>]) -> String {
            let $type { $($($field),*),* } = self;
            let lines = [$([$(format!("{}: {}", stringify!($field), $field.literal(tables))),*].join(", ")),*];
            let lines: String = lines.iter().map(|line| format!("{PAD}{line},\n")).collect();
            format!("{} {{\n{lines}        }}", stringify!($type))
        }
    };
}

/// `Name::Variant`, with or without what it holds.
macro_rules! choice {
    ($type:ident$(<$lifetime:lifetime>)? { $($variant:ident $(($inner:ident))? $({ $($field:ident),* })?),* }) => {
        impl Literal for $type$(<$lifetime>)? {
            #[allow(unused_variables, reason = "an enum of names alone needs no tables")]
            fn literal(&self, tables: &[Vec<f32>]) -> String {
                match self {
                    $(Self::$variant $(($inner))? $({ $($field),* })? => {
                        #[allow(unused_mut, reason = "not every variant holds something")]
                        let mut text = format!("{}::{}", stringify!($type), stringify!($variant));
                        $(text += &format!("({})", $inner.literal(tables));)?
                        $(
                            let fields = [$(format!("{}: {}", stringify!($field), $field.literal(tables))),*];
                            text += &format!(" {{ {} }}", fields.join(", "));
                        )?
                        text
                    })*
                }
            }
        }
    };
}

impl Literal for CacheType {
    fn literal(&self, _: &[Vec<f32>]) -> String {
        format!("CacheType::{self:?}")
    }
}

choice!(Activation { Silu, GeluTanh, ReluSquared, Xielu, ClampedSwiglu { alpha, limit } });
choice!(Dim { Const(count), Rows, RowTiles(rows), PositionTiles(positions), Parts, Indirect { per_row, most } });
choice!(Data<'_> { Tensor(name), Words(count), Slots(count), Cache(width), Positions(width), State(width), Params });
choice!(Epilogue {
    Store { softcap }, Residual { factor }, Activated(activation), Gated(activation), GatedBy(activation)
});
choice!(Operation<'_> {
    Embed { table, scale, norm_eps }, LayerInputs { table, layers, eps, scale, factor }, Project(projection), RopeAppend(rope),
    ShortConv { channels, taps }, GatedDelta(delta), HeadGate { heads, head_dim, first, stride, width },
    Attention(attention), AttentionCombine { heads, head_dim, split }, LatentAppend(append), LatentQueries(queries),
    LatentAttention(attention), LatentExpand(expand), LatentRotate(rotate), LatentValues(values),
    RowScale { width, each }, RmsNorm { width, eps },
    LayerNorm { width, eps },
    PostNorm { width, eps, factor }, Route { routing, shared }, SortExperts(sort), ExpertsUp(experts), ExpertsDown(experts),
    ExpertsSum { width, chosen, shared, factor }, SampleBest(vocabulary), SampleCollect(vocabulary), SampleDraw(vocabulary)
});
choice!(Gates { None, ByHead, Last });
choice!(Scores { Softmax, SoftmaxOfChosen, Sigmoid });
choice!(GroupScore { Best, BestTwo });
record!(Groups { count, chosen, judged_by });
record!(Routing { experts, chosen, scores, groups, normalised, scale });
record!(SortExperts { experts, chosen, tile, columns });
choice!(ExpertsOf { Rows(routing), Tiles(pairs) });
choice!(ExpertResults { Summed { factor }, Tiles(pairs) });
choice!(SharedWeight { One, Gate });
record!(SharedExpert { matrix, weight });
block!(ExpertsDown { matrix; experts, chosen; shared; results });
block!(ExpertsUp<'_> { matrices; experts, chosen, width; of; shared; activation, norm_eps, half_operands });
record!(GatedDelta { key_heads, value_heads, key_dim, value_dim, taps, tiled_heads, eps });
record!(LatentSizes { heads, latent, rope, nope, value });
block!(LatentAppend<'_> { before, norms_queries; latent, rope, eps; inv_freq, interleaved, magnitude; cache });
block!(LatentQueries<'_> { sizes; width; keys, by_key; inv_freq, interleaved, magnitude });
block!(LatentAttention { heads, latent, rope; scale; cache; half_operands, split });
block!(LatentExpand { sizes; heads; cache, half_operands });
block!(LatentRotate<'_> { sizes; width; inv_freq, interleaved, magnitude });
block!(LatentValues { sizes; values });
choice!(HeadMatrix { Keys { matrix, by_key }, Values(matrix) });
record!(Matrix { format, rows, cols });
record!(HeadNorm { eps, across_heads });
record!(Split { above, positions, most, window });
record!(Vocabulary { tokens, groups });
record!(PositionScale { beta, original_context });
block!(Projection<'_> { matrices; norm_eps; half_operands; epilogue });
block!(RopeAppend<'_> {
    heads, kv_heads, head_dim, keys_as_values, gates;
    norms, norms_last;
    inv_freq, interleaved, magnitude;
    query_scale, cache, wrap
});
block!(Attention { heads, kv_heads, head_dim, value_dim; scale, softcap, window; cache, wrap; half_operands, split });

impl Literal for &str {
    fn literal(&self, _: &[Vec<f32>]) -> String {
        format!("{self:?}")
    }
}

impl Literal for &[Matrix] {
    fn literal(&self, tables: &[Vec<f32>]) -> String {
        let list: Vec<String> = self.iter().map(|matrix| matrix.literal(tables)).collect();
        format!("&[{}]", list.join(", "))
    }
}

impl Literal for &[f32] {
    fn literal(&self, tables: &[Vec<f32>]) -> String {
        match tables.iter().position(|table| table == self) {
            Some(index) => format!("&{}", table_name(index)),
            None => format!("&{self:?}"),
        }
    }
}

impl<T: Literal, const N: usize> Literal for [T; N] {
    fn literal(&self, tables: &[Vec<f32>]) -> String {
        format!("[{}]", self.iter().map(|item| item.literal(tables)).collect::<Vec<_>>().join(", "))
    }
}

macro_rules! optional {
    ($($type:ty),*) => {$(
        impl Literal for Option<$type> {
            fn literal(&self, tables: &[Vec<f32>]) -> String {
                self.as_ref().map_or_else(|| "None".to_owned(), |value| format!("Some({})", value.literal(tables)))
            }
        }
    )*};
}
optional!(HeadNorm, PositionScale, Split, Groups, SharedWeight, SharedExpert, Matrix);

/// An argument as a call of the constructor for its access.
impl Literal for Argument<'_> {
    fn literal(&self, tables: &[Vec<f32>]) -> String {
        let Argument { role, reads, writes, data } = self;
        let access = match (reads, writes) {
            (true, true) => "update",
            (false, true) => "write",
            (_, false) => "read",
        };
        format!("Argument::{access}(Role::{}, {})", variant(role.name()), data.literal(tables))
    }
}

/// Numbers of bytes and operations have their thousands apart.
impl Literal for Cost {
    fn literal(&self, _: &[Vec<f32>]) -> String {
        let Cost { bytes, flops } = self;
        let list = |terms: &[u64; 5]| terms.map(grouped).join(", ");
        format!("Cost {{ bytes: [{}], flops: [{}] }}", list(bytes), list(flops))
    }
}
