//! Each head's own matrix times its part of a row, around attention over latents: queries of the cache's width, values of latents.

use forge_frontend::graph::Rope;
use forge_spec::{Dim, LatentSizes, Matrix, Operation, Role};

use super::gemm::product_bytes;
use super::latent_append::interleaved;
use super::{Body, GEMM_ROWS, GEMM_TOKENS, KernelFamily, Launch, ONE, Rows};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Param, Position, Value};
use crate::linear::Linear;
use crate::packed::describe;

/// Rows of a head that a simdgroup computes at most.
const MOST_ROWS: usize = 4;
/// Simdgroups of a threadgroup.
const SIMDGROUPS: usize = 4;
/// The same where they share the rows of a head.
const SHARING_SIMDGROUPS: usize = 8;
/// Columns of a threadgroup then.
const SHARED_COLUMNS: usize = 128;

/// Constants of queries over the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentQueries {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Elements of a row of the input, whose first are the queries.
    pub width: usize,
    /// Keys of all heads.
    pub keys: [Matrix; 1],
    /// Whether a head's rows are elements of its key, else of the latent.
    pub by_key: bool,
    /// Rotation of a head's last elements.
    pub rotation: Rope,
    /// Index of its frequencies in [`Plan::rope_tables`](crate::Plan::rope_tables).
    pub table: usize,
    /// Whether its rows are a tile of one sequence; else they are of any, and few.
    pub tile: bool,
}

/// Constants of values of latents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentValues {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Values of all heads.
    pub values: [Matrix; 1],
    /// Whether its rows are a tile.
    pub tile: bool,
}

/// Rows of a head that a simdgroup computes, so that none has rows of two.
fn rows_each(rows: usize) -> usize {
    [MOST_ROWS, 2, 1].into_iter().find(|&each| rows.is_multiple_of(each)).unwrap_or(1)
}

/// Threadgroups of all heads' rows.
fn row_groups(heads: usize, rows: usize) -> usize {
    (heads * rows / rows_each(rows)).div_ceil(SIMDGROUPS)
}

/// Of a tile: the results of a head, so many threadgroups more, and the heads.
fn tile_launch(heads: usize, rows: usize, more: usize) -> Launch {
    let grid = [Dim::Const(rows.div_ceil(GEMM_ROWS) + more), Dim::RowTiles(GEMM_TOKENS), Dim::Const(heads)];
    Launch { threads: 128, threadgroup_bytes: product_bytes(GEMM_TOKENS), grid }
}

/// Multiplications and additions of a tile of 64 rows.
pub(super) fn tile_flops(heads: usize, rows: usize, cols: usize) -> Linear {
    let per_tile = 2 * heads * rows.next_multiple_of(GEMM_ROWS) * GEMM_TOKENS * cols;
    Linear { per_tile: per_tile as u64, ..Linear::default() }
}

/// Rows of `width` elements whose first are the queries.
pub(super) fn queries_input(sizes: &LatentSizes, width: usize) -> Binding {
    let input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![width]));
    if width > sizes.queries() { input.touching(Touch::Columns(sizes.queries())) } else { input }
}

/// Where a thread of a tile's kernel is.
const TILE_POSITIONS: [Value; 3] =
    [Value::At(Position::Group3), Value::At(Position::Simdgroup), Value::At(Position::Lane)];

impl LatentQueries {
    /// Simdgroups of a threadgroup of a step.
    fn simdgroups(&self) -> usize {
        if self.by_key { SHARING_SIMDGROUPS } else { SIMDGROUPS }
    }
}

impl KernelFamily for LatentQueries {
    fn bindings(&self) -> Vec<Binding> {
        let queries = vec![self.sizes.heads, self.sizes.position()];
        vec![
            Binding::matrix(Role::Weights, &self.keys[0]),
            queries_input(&self.sizes, self.width),
            Binding::write(Role::Q, Element::F32, Extent::Rows(queries)),
            Binding::params(),
        ]
    }

    fn launch(&self) -> Launch {
        let LatentSizes { heads, latent, .. } = self.sizes;
        if self.tile {
            return tile_launch(heads, latent, 1);
        }
        let simdgroups = self.simdgroups();
        let groups = if self.by_key { heads * latent.div_ceil(SHARED_COLUMNS) } else { row_groups(heads, latent) };
        let grid = [Dim::Const(groups + heads.div_ceil(simdgroups)), Dim::Rows, ONE];
        let shared = if self.by_key { 4 * SHARED_COLUMNS * simdgroups } else { 0 };
        Launch { threads: 32 * simdgroups as u32, threadgroup_bytes: shared as u32, grid }
    }

    fn title(&self) -> String {
        let LatentSizes { heads, latent, rope, .. } = self.sizes;
        format!("queries of {heads} heads over latents of {latent}, by {}; {rope} rotate", describe(&self.keys[0]))
    }

    fn body(&self) -> Body<'_> {
        let LatentSizes { heads, nope, rope, latent, .. } = self.sizes;
        let format = self.keys[0].format;
        let sizes = [heads, nope, rope, latent].map(Constant::Size);
        let rest = [Constant::Flag(interleaved(&self.rotation)), Constant::Size(self.width)];
        let sizes = sizes.into_iter().chain(rest);
        let bound = [Role::Weights, Role::Input, Role::Q].map(Value::Bound);
        let (table, magnitude) = (Value::RopeTable(self.table), Value::Float(self.rotation.magnitude));
        if self.tile {
            let weights = match self.by_key {
                true => Constant::Turned { format, heads, rows: latent, cols: nope },
                false => Constant::Weights(format),
            };
            let params = [Value::Shared, table, Value::Param(Param::Position), Value::Param(Param::Rows), magnitude];
            return Body::Call(Call {
                function: "latent_queries_tile",
                constants: [weights].into_iter().chain(sizes).collect(),
                arguments: [&bound[..], &params, &TILE_POSITIONS].concat(),
            });
        }
        let params = [table, Value::OfRow(Param::Position, Position::GroupY), magnitude];
        let place = [Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At);
        let simdgroups = Constant::Size(self.simdgroups());
        Body::Call(match self.by_key {
            true => Call {
                function: "latent_queries_by_key",
                constants: [Constant::Weights(format)].into_iter().chain(sizes).chain([simdgroups]).collect(),
                arguments: [&bound[..], &[Value::Shared], &params, &place].concat(),
            },
            false => Call {
                function: "latent_queries",
                constants: [Constant::Gemv(format)]
                    .into_iter()
                    .chain(sizes)
                    .chain([Constant::Size(rows_each(latent)), simdgroups])
                    .collect(),
                arguments: [&bound[..], &params, &place].concat(),
            },
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        match self.tile {
            true => &["activation", "rope", "rows", "product", "gemm", "latent_heads", "latent_tiles"],
            false => &["activation", "rope", "rows", "latent_heads"],
        }
    }

    fn operation<'a>(&'a self, tables: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::LatentQueries(forge_spec::LatentQueries {
            sizes: self.sizes,
            width: self.width,
            keys: self.keys[0],
            by_key: self.by_key,
            inv_freq: &tables[self.table],
            interleaved: interleaved(&self.rotation),
            magnitude: self.rotation.magnitude,
        })
    }

    fn flops(&self) -> Linear {
        let LatentSizes { heads, latent, nope, .. } = self.sizes;
        match self.tile {
            true => tile_flops(heads, latent, nope),
            false => Linear::per_row(2 * (heads * latent * nope) as u64),
        }
    }

    fn matrices(&self) -> &[Matrix] {
        &self.keys
    }

    fn rows(&self) -> Rows {
        if self.tile { Rows::Any } else { Rows::Few }
    }
}

impl KernelFamily for LatentValues {
    fn bindings(&self) -> Vec<Binding> {
        let LatentSizes { heads, latent, value, .. } = self.sizes;
        let mut list = vec![
            Binding::matrix(Role::Weights, &self.values[0]),
            Binding::read(Role::Input, Element::F32, Extent::Rows(vec![heads, latent])),
            Binding::write(Role::Y, Element::F32, Extent::Rows(vec![heads, value])),
        ];
        list.extend(self.tile.then(Binding::params));
        list
    }

    fn launch(&self) -> Launch {
        let LatentSizes { heads, value, .. } = self.sizes;
        if self.tile {
            return tile_launch(heads, value, 0);
        }
        let grid = [Dim::Const(row_groups(heads, value)), Dim::Rows, ONE];
        Launch { threads: 32 * SIMDGROUPS as u32, threadgroup_bytes: 0, grid }
    }

    fn title(&self) -> String {
        let LatentSizes { heads, latent, value, .. } = self.sizes;
        format!("{heads} heads' values of {value} of latents of {latent}, by {}", describe(&self.values[0]))
    }

    fn body(&self) -> Body<'_> {
        let LatentSizes { heads, latent, value, .. } = self.sizes;
        let format = self.values[0].format;
        let sizes = [heads, latent, value].map(Constant::Size);
        let bound = [Role::Weights, Role::Input, Role::Y].map(Value::Bound);
        Body::Call(match self.tile {
            true => Call {
                function: "latent_values_tile",
                constants: [Constant::Weights(format)].into_iter().chain(sizes).collect(),
                arguments: [&bound[..], &[Value::Shared, Value::Param(Param::Rows)], &TILE_POSITIONS].concat(),
            },
            false => Call {
                function: "latent_values",
                constants: [Constant::Gemv(format)]
                    .into_iter()
                    .chain(sizes)
                    .chain([rows_each(value), SIMDGROUPS].map(Constant::Size))
                    .collect(),
                arguments: bound
                    .into_iter()
                    .chain([Position::Group2, Position::Simdgroup, Position::Lane].map(Value::At))
                    .collect(),
            },
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        match self.tile {
            true => &["activation", "rope", "rows", "product", "gemm", "latent_heads", "latent_tiles"],
            false => &["activation", "rope", "rows", "latent_heads"],
        }
    }

    fn operation<'a>(&'a self, _: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::LatentValues(forge_spec::LatentValues { sizes: self.sizes, values: self.values[0] })
    }

    fn flops(&self) -> Linear {
        let LatentSizes { heads, latent, value, .. } = self.sizes;
        match self.tile {
            true => tile_flops(heads, value, latent),
            false => Linear::per_row(2 * (heads * latent * value) as u64),
        }
    }

    fn matrices(&self) -> &[Matrix] {
        &self.values
    }

    fn rows(&self) -> Rows {
        if self.tile { Rows::Any } else { Rows::Few }
    }
}
