//! Attention over latents as over any cache, for tiles long enough to pay for it: keys and values of every head, made of all positions
//! that the tile sees, and queries over those.

use forge_frontend::graph::Rope;
use forge_spec::{CacheType, Dim, HeadMatrix, LatentSizes, Matrix, Operation, Role};

use super::gemm::{Operands, product_bytes};
use super::latent_append::interleaved;
use super::latent_heads::{queries_input, tile_flops};
use super::{Body, GEMM_ROWS, GEMM_TOKENS, GROUP_HEADS, KernelFamily, Launch, ONE};
use crate::attention::half_operands;
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Param, Position, Value};
use crate::linear::Linear;
use crate::packed::describe;

/// The Metal sources of both kernels, which are in one file.
const SOURCES: &[&str] =
    &["activation", "rope", "rows", "product", "gemm", "latent_heads", "latent_tiles", "latent_expand"];

/// Constants of keys or values of all heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentExpand {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Which of the two, by which matrix.
    pub heads: HeadMatrix,
    /// Storage of the cache, and of the result.
    pub kv: CacheType,
    /// Sequences that the cache holds side by side.
    pub slots: usize,
}

/// Constants of queries over such keys.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentRotate {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Elements of a row of the input, whose first are the queries.
    pub width: usize,
    /// Rotation of a head's last elements.
    pub rotation: Rope,
    /// Index of its frequencies in [`Plan::rope_tables`](crate::Plan::rope_tables).
    pub table: usize,
}

impl LatentExpand {
    /// Elements of a head that are products, and of the shared key behind them.
    fn made(&self) -> [usize; 2] {
        match self.heads {
            HeadMatrix::Keys { .. } => [self.sizes.nope, self.sizes.rope],
            HeadMatrix::Values(_) => [self.sizes.value, 0],
        }
    }

    /// What it results in.
    fn role(&self) -> Role {
        match self.heads {
            HeadMatrix::Keys { .. } => Role::Keys,
            HeadMatrix::Values(_) => Role::Values,
        }
    }

    /// Whether latents and weights are multiplied as halves.
    fn half_operands(&self) -> bool {
        half_operands(self.sizes.latent, self.kv)
    }
}

impl KernelFamily for LatentExpand {
    fn bindings(&self) -> Vec<Binding> {
        let (element, heads) = (Element::Cache(self.kv), self.sizes.heads);
        let latents = Extent::Positions(vec![self.sizes.position()]);
        // Values leave the shared keys alone.
        let touch = match self.heads {
            HeadMatrix::Keys { .. } => Touch::Seen,
            HeadMatrix::Values(_) => Touch::SeenColumns(self.sizes.latent),
        };
        let result = Extent::Positions(vec![heads, self.made().iter().sum()]);
        vec![
            Binding::matrix(Role::Weights, self.heads.matrix()),
            Binding::read(Role::Latents, element, latents).touching(touch),
            Binding::write(self.role(), element, result).touching(Touch::Seen),
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        let [made, shared] = self.made();
        let groups = made.div_ceil(GEMM_ROWS) + usize::from(shared > 0);
        let grid = [Dim::Const(groups), Dim::PositionTiles(GEMM_TOKENS), Dim::Const(self.sizes.heads)];
        Launch { threads: 128, threadgroup_bytes: product_bytes(GEMM_TOKENS), grid }
    }

    fn title(&self) -> String {
        let LatentSizes { heads, latent, rope, .. } = self.sizes;
        let [made, shared] = self.made();
        let (what, behind) = match shared {
            0 => ("values", String::new()),
            _ => ("keys", format!(" and the shared {rope}")),
        };
        format!("{heads} heads' {what} of {made} of latents of {latent}, by {}{behind}", describe(self.heads.matrix()))
    }

    fn body(&self) -> Body<'_> {
        let LatentSizes { heads, latent, rope, .. } = self.sizes;
        let ([made, shared], matrix) = (self.made(), self.heads.matrix());
        let weights = match self.heads {
            HeadMatrix::Keys { by_key: false, .. } => {
                Constant::Turned { format: matrix.format, heads, rows: made, cols: latent }
            }
            HeadMatrix::Keys { by_key: true, .. } | HeadMatrix::Values(_) => Constant::Weights(matrix.format),
        };
        let operands = Constant::Operands(Operands::unscaled(self.half_operands()));
        let sizes = [heads, made, shared, latent, rope].map(Constant::Size);
        let start = if self.slots == 1 { Value::Size(0) } else { Value::TileStart(None) };
        let bound = [Role::Weights, Role::Latents, self.role()].map(Value::Bound);
        let params = [Value::Shared, start, Value::Param(Param::Position), Value::Param(Param::Rows)];
        let at = [Position::Group3, Position::Simdgroup, Position::Lane].map(Value::At);
        Body::Call(Call {
            function: "latent_expand",
            constants: [weights, operands].into_iter().chain(sizes).collect(),
            arguments: [&bound[..], &params, &at].concat(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        SOURCES
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::LatentExpand(forge_spec::LatentExpand {
            sizes: self.sizes,
            heads: self.heads,
            cache: self.kv,
            half_operands: self.half_operands(),
        })
    }

    fn flops(&self) -> Linear {
        tile_flops(self.sizes.heads, self.made()[0], self.sizes.latent)
    }

    fn matrices(&self) -> &[Matrix] {
        std::slice::from_ref(self.heads.matrix())
    }
}

impl KernelFamily for LatentRotate {
    fn bindings(&self) -> Vec<Binding> {
        let queries = Extent::Rows(vec![self.sizes.heads, self.sizes.nope + self.sizes.rope]);
        vec![queries_input(&self.sizes, self.width), Binding::write(Role::Q, Element::F32, queries), Binding::params()]
    }

    fn launch(&self) -> Launch {
        let grid = [Dim::Const(self.sizes.heads.div_ceil(GROUP_HEADS)), Dim::Rows, ONE];
        Launch { threads: 32 * GROUP_HEADS as u32, threadgroup_bytes: 0, grid }
    }

    fn title(&self) -> String {
        let LatentSizes { heads, nope, rope, .. } = self.sizes;
        format!("queries of {heads} heads of {nope} + {rope}, of which {rope} rotate")
    }

    fn body(&self) -> Body<'_> {
        let LatentSizes { heads, nope, rope, .. } = self.sizes;
        let sizes = [heads, nope, rope].map(Constant::Size);
        let rest = [interleaved(&self.rotation)].map(Constant::Flag);
        let simdgroups = [self.width, GROUP_HEADS].map(Constant::Size);
        let bound = [Role::Input, Role::Q].map(Value::Bound);
        let params = [
            Value::RopeTable(self.table),
            Value::OfRow(Param::Position, Position::GroupY),
            Value::Float(self.rotation.magnitude),
        ];
        let at = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        Body::Call(Call {
            function: "latent_rotate",
            constants: sizes.into_iter().chain(rest).chain(simdgroups).collect(),
            arguments: [&bound[..], &params, &at].concat(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        SOURCES
    }

    fn operation<'a>(&'a self, tables: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::LatentRotate(forge_spec::LatentRotate {
            sizes: self.sizes,
            width: self.width,
            inv_freq: &tables[self.table],
            interleaved: interleaved(&self.rotation),
            magnitude: self.rotation.magnitude,
        })
    }
}
