//! The append to a cache of latents: norm of the latent, rotation of the key that all heads share.

use forge_frontend::graph::{Rope, RopePairing};
use forge_spec::{CacheType, Dim, Operation, Role};

use super::{Body, KernelFamily, Launch, ONE};
use crate::binding::{Binding, Element, Extent, Touch};
use crate::call::{Call, Constant, Param, Position, Value};

/// Constants of the append.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentAppend {
    /// Elements of a row before the latent: queries, or their latent.
    pub before: usize,
    /// Whether these are a latent, which is normed too.
    pub norms_queries: bool,
    /// Elements of the latent.
    pub latent: usize,
    /// Elements of the shared key.
    pub rope: usize,
    /// Added to the mean of squares.
    pub eps: f32,
    /// Rotation of the shared key.
    pub rotation: Rope,
    /// Index of its frequencies in [`Plan::rope_tables`](crate::Plan::rope_tables).
    pub table: usize,
    /// Storage of the cache.
    pub kv: CacheType,
    /// Sequences that the cache holds side by side.
    pub slots: usize,
}

impl LatentAppend {
    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.before + self.latent + self.rope
    }
}

/// Whether pairs are (2i, 2i + 1).
pub(super) fn interleaved(rotation: &Rope) -> bool {
    rotation.pairing == RopePairing::Interleaved
}

impl KernelFamily for LatentAppend {
    fn bindings(&self) -> Vec<Binding> {
        let vector = |role, length| Binding::read(role, Element::F32, Extent::Fixed(vec![length]));
        let mut input = Binding::read(Role::Input, Element::F32, Extent::Rows(vec![self.width()]));
        if !self.norms_queries {
            input = input.touching(Touch::Columns(self.latent + self.rope));
        }
        let positions = Extent::Positions(vec![self.latent + self.rope]);
        let mut list = vec![input, vector(Role::Gamma, self.latent)];
        list.extend(self.norms_queries.then(|| vector(Role::QGamma, self.before)));
        list.push(Binding::write(Role::Latents, Element::Cache(self.kv), positions).touching(Touch::PerRow));
        let y = || Binding::write(Role::Y, Element::F32, Extent::Rows(vec![self.before]));
        list.extend(self.norms_queries.then(y));
        list.push(Binding::params());
        list
    }

    fn launch(&self) -> Launch {
        let simdgroups = if self.norms_queries { 4 } else { 2 };
        Launch { threads: 32 * simdgroups, threadgroup_bytes: 0, grid: [Dim::Rows, ONE, ONE] }
    }

    fn title(&self) -> String {
        let Self { latent, rope, .. } = self;
        let queries = if self.norms_queries { ", and norms the queries'" } else { "" };
        format!("norms a latent of {latent}, rotates a key of {rope}: append to the cache{queries}")
    }

    fn body(&self) -> Body<'_> {
        let bound = self.bindings().into_iter().map(|binding| binding.role).filter(|&role| role != Role::Step);
        let start = if self.slots == 1 { Value::Size(0) } else { Value::SlotStart(None, Position::Group) };
        let rest = [
            Value::RopeTable(self.table),
            start,
            Value::OfRow(Param::Position, Position::Group),
            Value::Float(self.eps),
            Value::Float(self.rotation.magnitude),
        ];
        let at = [Position::Group, Position::Simdgroup, Position::Lane].map(Value::At);
        let sizes = [self.before, self.latent, self.rope].map(Constant::Size);
        Body::Call(Call {
            function: if self.norms_queries { "latent_append_normed" } else { "latent_append" },
            constants: sizes.into_iter().chain([Constant::Flag(interleaved(&self.rotation))]).collect(),
            arguments: bound.map(Value::Bound).chain(rest).chain(at).collect(),
        })
    }

    fn sources(&self) -> &'static [&'static str] {
        &["rope", "latent_append"]
    }

    fn operation<'a>(&'a self, tables: &'a [Vec<f32>]) -> Operation<'a> {
        Operation::LatentAppend(forge_spec::LatentAppend {
            before: self.before,
            norms_queries: self.norms_queries,
            latent: self.latent,
            rope: self.rope,
            eps: self.eps,
            inv_freq: &tables[self.table],
            interleaved: interleaved(&self.rotation),
            magnitude: self.rotation.magnitude,
            cache: self.kv,
        })
    }
}
