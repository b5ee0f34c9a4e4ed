//! Norms of heads, rotary position embedding, and the append to the cache.

use forge_frontend::graph::{PositionScale, Rope, RopePairing};
use forge_spec::{CacheType, Dim, Gates, Operation, Role};

use super::{Body, GROUP_HEADS, KernelFamily, Launch, ONE};
use crate::binding::{Binding, Element, Extent, Touch};

/// A norm of heads, and whether it has weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNorm {
    /// Epsilon, and which elements it is over.
    pub norm: forge_spec::HeadNorm,
    /// Multiplied by `[head_dim]` weights.
    pub gamma: bool,
}

/// Constants of the norm + RoPE + append kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeAppend {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; 0 where the layer reads another layer's cache.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Values are the keys before their norm and rotation.
    pub keys_as_values: bool,
    /// Gates, which are passed over.
    pub gates: Gates,
    /// Norm of the queries.
    pub q_norm: Option<HeadNorm>,
    /// Norm of the keys.
    pub k_norm: Option<HeadNorm>,
    /// Norm of the values.
    pub v_norm: Option<HeadNorm>,
    /// Norms of queries and keys come after the rotation.
    pub norms_last: bool,
    /// Rotation; `None` for layers without positions.
    pub rope: Option<Rope>,
    /// Factor on the queries.
    pub query_scale: Option<PositionScale>,
    /// Index of the frequency table in [`Plan::rope_tables`](crate::Plan::rope_tables).
    pub table: Option<usize>,
    /// Storage of the cache.
    pub kv: CacheType,
    /// Sequences that the cache holds side by side.
    pub slots: usize,
    /// Positions that the cache wraps at; `None` for a cache of the whole context.
    pub wrap: Option<usize>,
}

impl RopeAppend {
    /// Elements of a row before rotation.
    pub fn width(&self) -> usize {
        self.gates.row(self.heads, if self.keys_as_values { 1 } else { 2 } * self.kv_heads) * self.head_dim
    }
}

impl KernelFamily for RopeAppend {
    fn bindings(&self) -> Vec<Binding> {
        let mut qkv = Binding::read(Role::Qkv, Element::F32, Extent::Rows(vec![self.width()]));
        if self.gates != Gates::None {
            qkv = qkv.touching(Touch::Columns(self.width() - self.heads * self.head_dim));
        }
        let mut list = vec![qkv, Binding::write(Role::Q, Element::F32, Extent::Rows(vec![self.heads * self.head_dim]))];
        if self.kv_heads > 0 {
            let positions = Extent::Positions(vec![self.kv_heads, self.head_dim]);
            list.extend(
                [Role::Keys, Role::Values].map(|role| {
                    Binding::write(role, Element::Cache(self.kv), positions.clone()).touching(Touch::PerRow)
                }),
            );
        }
        let norms = [
            (Role::QGamma, self.q_norm, self.heads),
            (Role::KGamma, self.k_norm, self.kv_heads),
            (Role::VGamma, self.v_norm, self.kv_heads),
        ];
        for (role, norm, heads) in norms {
            if let Some(HeadNorm { norm, gamma: true }) = norm {
                let width = if norm.across_heads { heads * self.head_dim } else { self.head_dim };
                list.push(Binding::read(role, Element::F32, Extent::Fixed(vec![width])));
            }
        }
        list.push(Binding::params());
        list
    }

    fn launch(&self) -> Launch {
        let groups = (self.heads + 2 * self.kv_heads).div_ceil(GROUP_HEADS);
        Launch { threads: 32 * GROUP_HEADS as u32, threadgroup_bytes: 0, grid: [Dim::Const(groups), Dim::Rows, ONE] }
    }

    fn title(&self) -> String {
        let Self { heads, kv_heads, head_dim, .. } = self;
        format!("{heads} query and {kv_heads} key/value heads of {head_dim}: rotate, append to the cache")
    }

    fn body(&self) -> Body<'_> {
        Body::RopeAppend(self)
    }

    fn sources(&self) -> &'static [&'static str] {
        &["rope"]
    }

    fn operation<'a>(&'a self, tables: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::RopeAppend(forge_spec::RopeAppend {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            keys_as_values: self.keys_as_values,
            gates: self.gates,
            norms: [self.q_norm, self.k_norm, self.v_norm].map(|norm| norm.map(|norm| norm.norm)),
            norms_last: self.norms_last,
            inv_freq: self.table.map_or(&[], |table| tables[table].as_slice()),
            interleaved: self.rope.as_ref().is_some_and(|rope| rope.pairing == RopePairing::Interleaved),
            magnitude: self.rope.as_ref().map_or(1.0, |rope| rope.magnitude),
            query_scale: self.query_scale,
            cache: self.kv,
            wrap: self.wrap,
        })
    }
}
