//! Causal attention over the cache: a tile of rows of one sequence, and rows of any sequences, each over its whole context or
//! over parts of it.

use forge_frontend::graph::Attention;
use forge_spec::{CacheType, Dim, Operation, Role, Split};

use super::{Body, KernelFamily, Launch, ONE, Rows};
use crate::attention::{self, DecodeGeometry, PART_POSITIONS, UNSPLIT_POSITIONS, decode_geometry, half_operands};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Param, Position, Value};
use crate::linear::Linear;

/// Rows of the four simdgroups of prefill attention that are a matrix's.
const TILE_ROWS: usize = 32;
/// Most heads of a threadgroup of prefill attention.
const TILE_HEADS: usize = 8;
/// Floats of a line of its scores.
const SCORES_LINE: usize = 40;
/// Simdgroups of the kernel that puts the parts of a split context together.
const COMBINE_SIMDGROUPS: usize = 8;

/// What all kernels that look at the cache are given first.
const OPERANDS: [Value; 5] =
    [Value::Bound(Role::Q), Value::Bound(Role::Keys), Value::Bound(Role::Values), Value::Bound(Role::Y), Value::Shared];

/// Constants of the attention kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct Attend {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head's queries and keys.
    pub head_dim: usize,
    /// Elements of a head's values: as many, but where attention of a tile is over keys and values made of latents.
    pub value_dim: usize,
    /// Scale, window, soft-cap.
    pub attention: Attention,
    /// Vectors with a number for each head, by argument.
    pub per_head: Vec<Role>,
    /// Storage of the cache.
    pub kv: CacheType,
    /// Sequences that the cache holds side by side.
    pub slots: usize,
    /// Positions that the cache wraps at.
    pub wrap: Option<usize>,
    /// Most parts of a long context.
    pub most_parts: usize,
}

/// How a long context is cut into parts.
pub(super) fn context_split(most: usize, window: Option<usize>) -> Split {
    Split { above: UNSPLIT_POSITIONS, positions: PART_POSITIONS, most, window }
}

macro_rules! variants {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name(pub Attend);

        impl std::ops::Deref for $name {
            type Target = Attend;

            fn deref(&self) -> &Attend {
                &self.0
            }
        }
    )*};
}
variants!(
    /// A tile of rows.
    AttentionTile,
    /// Rows of any sequences, each over all that it sees.
    AttentionDecode,
    /// The same over each part of what it sees.
    AttentionPart,
    /// The parts' results, put together.
    AttentionCombine
);

impl Attend {
    /// Elements of a row of the result.
    fn width(&self) -> usize {
        self.heads * self.value_dim
    }

    /// Floats that one part leaves for all heads: sums, highest score, weight.
    pub fn part_floats(&self) -> usize {
        self.heads * (self.head_dim + 2)
    }

    /// How the kernels for rows of any sequences spread over threadgroups.
    pub fn geometry(&self) -> DecodeGeometry {
        decode_geometry(self.heads, self.kv_heads, self.head_dim, self.kv)
    }

    /// Whether the contexts that it sees can be long enough to be split.
    pub fn splits(&self, context: usize) -> bool {
        attention::splits(context.min(self.attention.window.unwrap_or(usize::MAX)))
    }

    /// How a long context is cut into parts.
    fn split(&self) -> Split {
        context_split(self.most_parts, self.attention.window)
    }

    fn describe(&self) -> String {
        format!("attention of {} heads over {} key/value heads of {}", self.heads, self.kv_heads, self.head_dim)
    }

    /// Factor on the scores, and their bound; 0 without one.
    fn factors(&self) -> [Value; 2] {
        [self.attention.scale, self.attention.softcap.unwrap_or(0.0)].map(Value::Float)
    }

    /// Where the row's sequence begins in the cache.
    fn slot_start(&self, row: Position) -> Value {
        if self.slots == 1 { Value::Size(0) } else { Value::SlotStart(self.wrap, row) }
    }

    /// A function of the kernels for rows of any sequences, with those constants beside the sizes.
    fn part_call(&self, function: &'static str, constants: &[usize]) -> Call {
        let g = self.geometry();
        let sizes =
            [self.heads, self.kv_heads, self.head_dim, g.heads_shared, g.simdgroups, g.steps, g.elements, g.slices];
        let seen = [self.attention.window, self.wrap].map(|limit| limit.unwrap_or(0));
        let row = [self.slot_start(Position::GroupZ), Value::OfRow(Param::Position, Position::GroupZ)];
        let rest = [Position::GroupX, Position::GroupY, Position::GroupZ, Position::Simdgroup, Position::Lane];
        let rest: Vec<Value> = rest.map(Value::At).into_iter().chain(self.per_head()).collect();
        Call {
            function,
            constants: sizes.iter().chain(&seen).chain(constants).copied().map(Constant::Size).collect(),
            arguments: [&OPERANDS[..], &row, &self.factors(), &rest].concat(),
        }
    }

    /// The last arguments of a function.
    fn per_head(&self) -> impl Iterator<Item = Value> {
        self.per_head.iter().copied().map(Value::Bound)
    }

    fn cache(&self, role: Role, dim: usize) -> Binding {
        let positions = Extent::Positions(vec![self.kv_heads, dim]);
        Binding::read(role, Element::Cache(self.kv), positions).touching(Touch::Seen)
    }

    fn parts(&self) -> Extent {
        Extent::Parts { most: self.most_parts, heads: self.heads, head_dim: self.head_dim }
    }

    /// Queries and the cache to a result.
    fn bindings(&self, result: Binding) -> Vec<Binding> {
        let per_head =
            self.per_head.iter().map(|role| Binding::read(*role, Element::F32, Extent::Fixed(vec![self.heads])));
        let queries = Binding::read(Role::Q, Element::F32, Extent::Rows(vec![self.heads * self.head_dim]));
        let (keys, values) = (self.cache(Role::Keys, self.head_dim), self.cache(Role::Values, self.value_dim));
        let operands = [queries, keys, values, result];
        operands.into_iter().chain(per_head).chain([Binding::params()]).collect()
    }

    fn whole_bindings(&self) -> Vec<Binding> {
        self.bindings(Binding::write(Role::Y, Element::F32, Extent::Rows(vec![self.width()])))
    }

    fn decode_launch(&self, parts: Dim) -> Launch {
        let g = self.geometry();
        Launch {
            threads: 32 * g.simdgroups as u32,
            threadgroup_bytes: 4 * g.shared_floats(self.head_dim) as u32,
            grid: [Dim::Const(self.heads / g.heads_shared), parts, Dim::Rows],
        }
    }

    fn operation(&self, half_operands: bool, split: Option<Split>) -> Operation<'static> {
        Operation::Attention(forge_spec::Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            scale: self.attention.scale,
            softcap: self.attention.softcap,
            window: self.attention.window,
            cache: self.kv,
            wrap: self.wrap,
            half_operands,
            split,
        })
    }

    /// A multiplication and an addition for each element of a key, and of a value.
    fn flops(&self) -> Linear {
        let each = 2 * self.heads * (self.head_dim + self.value_dim);
        Linear { per_position: each as u64, ..Linear::default() }
    }
}

impl AttentionTile {
    /// Whether queries, keys and probabilities are held as half.
    pub fn half_operands(&self) -> bool {
        half_operands(self.head_dim, self.kv)
    }

    /// Keys in one tile.
    pub fn keys(&self) -> usize {
        attention::tile_keys(self.head_dim.max(self.value_dim), self.half_operands())
    }

    /// Heads of a threadgroup: those of the same keys, as far as rows go round.
    fn group(&self) -> usize {
        let shared = self.heads / self.kv_heads;
        [TILE_HEADS, 4, 2].into_iter().find(|&heads| shared.is_multiple_of(heads)).unwrap_or(1)
    }

    /// Matrices of eight rows that a simdgroup has: short heads leave registers for two.
    fn strips(&self) -> usize {
        if self.head_dim <= 64 { 2 } else { 1 }
    }

    /// Tokens of a threadgroup.
    fn tokens(&self) -> usize {
        TILE_ROWS * self.strips() / self.group()
    }

    /// Floats of threadgroup memory: the tile of keys or values, scores and a diagonal matrix per simdgroup.
    fn shared_floats(&self) -> usize {
        let (keys, bytes) = (self.keys(), if self.half_operands() { 2 } else { 4 });
        keys * self.head_dim.max(self.value_dim) * bytes / 4 + 4 * (8 * self.strips() * SCORES_LINE + 64)
    }
}

impl KernelFamily for AttentionTile {
    fn bindings(&self) -> Vec<Binding> {
        self.whole_bindings()
    }

    fn launch(&self) -> Launch {
        Launch {
            threads: 128,
            threadgroup_bytes: 4 * self.shared_floats() as u32,
            grid: [Dim::RowTiles(self.tokens()), Dim::Const(self.heads / self.group()), ONE],
        }
    }

    fn title(&self) -> String {
        let heads = if self.group() == 1 { "a head".to_owned() } else { format!("{} heads", self.group()) };
        format!("{}: {} tokens of {heads} per threadgroup", self.describe(), self.tokens())
    }

    fn body(&self) -> Body<'_> {
        let Attend { heads, kv_heads, head_dim, value_dim, .. } = self.0;
        let sizes = [heads, kv_heads, head_dim, value_dim, self.group(), self.strips(), self.keys()];
        let seen = [self.attention.window, self.wrap].map(|limit| limit.unwrap_or(0));
        let constants = sizes.into_iter().chain(seen).map(Constant::Size);
        let rest = [Position::GroupX, Position::GroupY, Position::Simdgroup, Position::Lane].map(Value::At);
        let start = if self.slots == 1 { Value::Size(0) } else { Value::TileStart(self.wrap) };
        let params = [start, Value::Param(Param::Position), Value::Param(Param::Rows)];
        Body::Call(Call {
            function: "attention_tile",
            constants: constants.chain([Constant::Weighing(self.half_operands())]).collect(),
            arguments: [&OPERANDS[..], &params, &self.factors(), &rest]
                .concat()
                .into_iter()
                .chain(self.per_head())
                .collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["product", "attention_tile"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        self.0.operation(self.half_operands(), None)
    }

    fn flops(&self) -> Linear {
        self.0.flops()
    }

    fn window(&self) -> Option<usize> {
        self.attention.window
    }
}

impl KernelFamily for AttentionDecode {
    fn bindings(&self) -> Vec<Binding> {
        self.whole_bindings()
    }

    fn launch(&self) -> Launch {
        self.decode_launch(ONE)
    }

    fn title(&self) -> String {
        self.describe()
    }

    fn body(&self) -> Body<'_> {
        Body::Call(self.part_call("attention_whole", &[]))
    }

    fn sources(&self) -> &'static [&'static str] {
        &["attention_decode"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        self.0.operation(false, None)
    }

    fn flops(&self) -> Linear {
        self.0.flops()
    }

    fn rows(&self) -> Rows {
        Rows::Few
    }

    fn window(&self) -> Option<usize> {
        self.attention.window
    }
}

impl KernelFamily for AttentionPart {
    fn bindings(&self) -> Vec<Binding> {
        self.0.bindings(Binding::write(Role::Y, Element::F32, self.parts()).touching(Touch::Seen))
    }

    fn launch(&self) -> Launch {
        self.decode_launch(Dim::Parts)
    }

    fn title(&self) -> String {
        format!("attention of {} heads over one part of the context", self.heads)
    }

    fn body(&self) -> Body<'_> {
        Body::Call(self.part_call("attention_part", &[UNSPLIT_POSITIONS, PART_POSITIONS, self.most_parts]))
    }

    fn split(&self) -> Option<Split> {
        Some(self.0.split())
    }

    fn sources(&self) -> &'static [&'static str] {
        &["attention_decode"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        self.0.operation(false, self.split())
    }

    fn flops(&self) -> Linear {
        self.0.flops()
    }

    fn rows(&self) -> Rows {
        Rows::Few
    }

    fn window(&self) -> Option<usize> {
        self.attention.window
    }
}

impl AttentionCombine {
    /// Simdgroups, which share the parts.
    pub fn simdgroups(&self) -> usize {
        COMBINE_SIMDGROUPS
    }
}

impl KernelFamily for AttentionCombine {
    fn bindings(&self) -> Vec<Binding> {
        vec![
            Binding::read(Role::Parts, Element::F32, self.parts()).touching(Touch::Seen),
            Binding::write(Role::Y, Element::F32, Extent::Rows(vec![self.width()])),
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        Launch {
            threads: 32 * COMBINE_SIMDGROUPS as u32,
            threadgroup_bytes: (COMBINE_SIMDGROUPS * self.head_dim * 4) as u32,
            grid: [Dim::Const(self.heads), Dim::Rows, ONE],
        }
    }

    fn title(&self) -> String {
        "puts the parts of the context together".to_owned()
    }

    fn body(&self) -> Body<'_> {
        let window = self.attention.window.unwrap_or(0);
        let split = [UNSPLIT_POSITIONS, PART_POSITIONS, self.most_parts];
        let sizes = [self.heads, self.head_dim, self.simdgroups(), window].into_iter().chain(split);
        Body::Call(Call {
            function: "attention_combine",
            constants: sizes.map(Constant::Size).collect(),
            arguments: vec![
                Value::Bound(Role::Parts),
                Value::Bound(Role::Y),
                Value::Shared,
                Value::OfRow(Param::Position, Position::GroupY),
                Value::At(Position::GroupX),
                Value::At(Position::GroupY),
                Value::At(Position::Simdgroup),
                Value::At(Position::Lane),
            ],
        })
    }

    fn split(&self) -> Option<Split> {
        Some(self.0.split())
    }

    fn sources(&self) -> &'static [&'static str] {
        &["attention_decode"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::AttentionCombine { heads: self.heads, head_dim: self.head_dim, split: self.0.split() }
    }

    fn flops(&self) -> Linear {
        Linear { per_part: 2 * self.width() as u64, ..Linear::default() }
    }

    fn rows(&self) -> Rows {
        Rows::Few
    }

    fn window(&self) -> Option<usize> {
        self.attention.window
    }
}
