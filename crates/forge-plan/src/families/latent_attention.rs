//! Causal attention of all heads over one cache of latents: a tile of rows of one sequence, and rows of any sequences, each over its
//! whole context or over parts of it.

use forge_spec::{CacheType, Dim, LatentSizes, Operation, Role, Split};

use super::attention::context_split;
use super::{Body, KernelFamily, Launch, ONE, Rows};
use crate::attention::{LatentGeometry, PART_POSITIONS, UNSPLIT_POSITIONS, half_operands, latent_geometry};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Param, Position, Value};
use crate::linear::Linear;

/// Which rows, and what of their contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatentRows {
    /// A tile of one sequence.
    Tile,
    /// Rows of any sequences, each over all that it sees.
    Whole,
    /// The same over each part of what it sees.
    Part,
}

/// Constants of attention over latents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentAttention {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Factor on the scores.
    pub scale: f32,
    /// Storage of the cache.
    pub kv: CacheType,
    /// Sequences that the cache holds side by side.
    pub slots: usize,
    /// Its rows.
    pub rows: LatentRows,
    /// Most parts of a long context.
    pub most_parts: usize,
}

impl LatentAttention {
    /// Whether queries, positions and probabilities are held as half.
    pub fn half_operands(&self) -> bool {
        half_operands(self.sizes.latent, self.kv)
    }

    /// How it spreads over threadgroups.
    pub fn geometry(&self) -> LatentGeometry {
        latent_geometry(&self.sizes, self.half_operands(), self.rows == LatentRows::Tile)
    }

    /// Where the sequence of the rows begins in the cache.
    fn slot_start(&self) -> Value {
        match (self.slots, self.rows) {
            (1, _) => Value::Size(0),
            (_, LatentRows::Tile) => Value::TileStart(None),
            (_, LatentRows::Whole | LatentRows::Part) => Value::SlotStart(None, Position::GroupZ),
        }
    }
}

impl KernelFamily for LatentAttention {
    fn bindings(&self) -> Vec<Binding> {
        let LatentSizes { heads, latent, .. } = self.sizes;
        let position = self.sizes.position();
        let latents = Binding::read(Role::Latents, Element::Cache(self.kv), Extent::Positions(vec![position]));
        let result = match self.rows {
            LatentRows::Tile | LatentRows::Whole => {
                Binding::write(Role::Y, Element::F32, Extent::Rows(vec![heads, latent]))
            }
            LatentRows::Part => {
                Binding::write(Role::Y, Element::F32, Extent::Parts { most: self.most_parts, heads, head_dim: latent })
                    .touching(Touch::Seen)
            }
        };
        vec![
            Binding::read(Role::Q, Element::F32, Extent::Rows(vec![heads, position])),
            latents.touching(match self.rows {
                LatentRows::Tile => Touch::Seen,
                LatentRows::Whole | LatentRows::Part => Touch::SeenBy(self.geometry().groups),
            }),
            result,
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        let g = self.geometry();
        let groups = Dim::Const(g.groups);
        Launch {
            threads: 32 * g.simdgroups as u32,
            threadgroup_bytes: g.shared_bytes(&self.sizes, self.half_operands()) as u32,
            grid: match self.rows {
                LatentRows::Tile => [Dim::RowTiles(g.together), groups, ONE],
                LatentRows::Whole => [groups, ONE, Dim::Rows],
                LatentRows::Part => [groups, Dim::Parts, Dim::Rows],
            },
        }
    }

    fn title(&self) -> String {
        let LatentSizes { heads, latent, rope, .. } = self.sizes;
        let g = self.geometry();
        let rows = match self.rows {
            LatentRows::Tile => format!(", {} rows together", g.together),
            LatentRows::Whole => String::new(),
            LatentRows::Part => ", over one part of the context".to_owned(),
        };
        format!("attention of {heads} heads over latents of {latent} + {rope}, {} heads a read{rows}", g.heads_shared)
    }

    fn body(&self) -> Body<'_> {
        let LatentSizes { heads, latent, rope, .. } = self.sizes;
        let g = self.geometry();
        let sizes = [heads, latent, rope, g.heads_shared, g.together, g.simdgroups, g.keys].map(Constant::Size);
        let split = match self.rows {
            LatentRows::Part => Some([UNSPLIT_POSITIONS, PART_POSITIONS, self.most_parts]),
            LatentRows::Tile | LatentRows::Whole => None,
        };
        let constants = sizes.into_iter().chain(split.into_iter().flatten().map(Constant::Size));
        let bound = [Role::Q, Role::Latents, Role::Y].map(Value::Bound);
        let (start, scale) = (self.slot_start(), Value::Float(self.scale));
        let params = match self.rows {
            LatentRows::Tile => vec![start, Value::Param(Param::Position), Value::Param(Param::Rows), scale],
            LatentRows::Whole | LatentRows::Part => {
                vec![start, Value::OfRow(Param::Position, Position::GroupZ), scale]
            }
        };
        let axes = match self.rows {
            LatentRows::Tile => &[Position::GroupX, Position::GroupY][..],
            LatentRows::Whole | LatentRows::Part => &[Position::GroupX, Position::GroupY, Position::GroupZ],
        };
        let at = axes.iter().chain(&[Position::Simdgroup, Position::Lane]).copied().map(Value::At);
        Body::Call(Call {
            function: match self.rows {
                LatentRows::Tile => "latents_tile",
                LatentRows::Whole => "latents_whole",
                LatentRows::Part => "latents_part",
            },
            constants: constants.chain([Constant::Half(self.half_operands())]).collect(),
            arguments: bound.into_iter().chain([Value::Shared]).chain(params).chain(at).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["attention_decode", "latent_attention"]
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        let LatentSizes { heads, latent, rope, .. } = self.sizes;
        Operation::LatentAttention(forge_spec::LatentAttention {
            heads,
            latent,
            rope,
            scale: self.scale,
            cache: self.kv,
            half_operands: self.half_operands(),
            split: self.split(),
        })
    }

    fn split(&self) -> Option<Split> {
        (self.rows == LatentRows::Part).then(|| context_split(self.most_parts, None))
    }

    /// A multiplication and an addition for each element of a position, and of its latent once more.
    fn flops(&self) -> Linear {
        let LatentSizes { heads, latent, .. } = self.sizes;
        Linear { per_position: 2 * (heads * (self.sizes.position() + latent)) as u64, ..Linear::default() }
    }

    fn rows(&self) -> Rows {
        if self.rows == LatentRows::Tile { Rows::Any } else { Rows::Few }
    }
}
