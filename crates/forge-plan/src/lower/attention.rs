//! Rotation and append, and attention: one dispatch, or parts and one that puts them together.

use forge_frontend::graph::Rope;
use forge_spec::Role;

use super::weights::Owners;
use super::{Lowering, Path};
use crate::attention;
use crate::families::{
    Attend, AttentionCombine, AttentionDecode, AttentionPart, AttentionTile, Family, HeadGate, RopeAppend,
};
use crate::fuse::{AttentionStep, Fused, FusedBlock, RopeStep};
use crate::plan::{Arg, Choice, Place, Step, When};

impl Lowering<'_> {
    /// The table of a rotation's frequencies.
    pub(super) fn rope_table(&mut self, rope: &Rope) -> usize {
        let inv_freq = rope.frequencies(self.context);
        self.rope_tables.iter().position(|t| t == inv_freq).unwrap_or_else(|| {
            self.rope_tables.push(inv_freq.to_vec());
            self.rope_tables.len() - 1
        })
    }

    pub(super) fn rope(&mut self, owner: &Owners<'_>, step: &RopeStep, path: Path) -> Step {
        let table = step.rope.as_ref().map(|rope| self.rope_table(rope));
        let [q_norm, k_norm, v_norm] = step.norms.map(|norm| norm.map(|(kind, _)| kind));
        let family = RopeAppend {
            heads: step.heads,
            kv_heads: step.kv_heads,
            head_dim: step.head_dim,
            keys_as_values: step.keys_as_values,
            gates: step.gates,
            q_norm,
            k_norm,
            v_norm,
            norms_last: step.norms_last,
            rope: step.rope.clone(),
            query_scale: step.query_scale,
            table,
            kv: self.kv(),
            slots: self.slots(),
            wrap: self.wrap(owner, step.state),
        };
        let width = family.width();
        let kernel = self.kernels.add("rope_append", family);
        let cache = [(Role::Keys, Arg::Keys(step.state)), (Role::Values, Arg::Values(step.state))];
        let gammas = [Role::QGamma, Role::KGamma, Role::VGamma].into_iter().zip(step.norms);
        let gammas: Vec<(Role, Arg)> = gammas
            .filter_map(|(role, norm)| Some((role, norm?.1?)))
            .map(|(role, gamma)| (role, self.vector(owner, gamma)))
            .collect();
        Step::new(Choice::Fixed(kernel))
            .bind(Role::Qkv, self.buffer(path, Place::Qkv, width))
            .bind(Role::Q, self.buffer(path, Place::Queries, step.heads * step.head_dim))
            .bind_all(cache.into_iter().filter(|_| step.kv_heads > 0))
            .bind_all(gammas)
            .bind(Role::Step, Arg::Params)
    }

    /// Most parts of a long context: enough threadgroups for that attention which has the fewest of a part.
    pub(super) fn most_parts(&self, blocks: &[FusedBlock], owners: &[Owners<'_>]) -> usize {
        let ops = blocks.iter().zip(owners).flat_map(|(block, owner)| block.ops.iter().map(move |op| (owner, op)));
        let groups = ops.filter_map(|(owner, op)| match op {
            Fused::Attention(step) => {
                let kv_heads = self.cache(owner, step.state).kv_heads;
                let g = attention::decode_geometry(step.heads, kv_heads, step.head_dim, self.kv());
                Some(step.heads / g.heads_shared)
            }
            Fused::LatentAttention(step) => Some(attention::latent_groups(step.sizes.heads)),
            Fused::Embed { .. }
            | Fused::Projection(_)
            | Fused::Mixture(_)
            | Fused::RopeAppend(_)
            | Fused::ShortConv(_)
            | Fused::GatedDelta(_)
            | Fused::HeadGate(_)
            | Fused::LatentAppend(_)
            | Fused::LayerInputs(_) => None,
        });
        attention::most_parts(groups.min().unwrap_or(1))
    }

    /// The gates of attention's result, in place.
    pub(super) fn head_gate(&mut self, gate: &HeadGate, path: Path) -> Step {
        let kernel = self.kernels.add("attention_gate", *gate);
        Step::new(Choice::Fixed(kernel))
            .bind(Role::Qkv, self.buffer(path, Place::Qkv, gate.width))
            .bind(Role::Y, self.buffer(path, Place::Attention, gate.heads * gate.head_dim))
    }

    pub(super) fn attention(&mut self, owner: &Owners<'_>, step: &AttentionStep, path: Path, steps: &mut Vec<Step>) {
        let spec = self.cache(owner, step.state);
        let width = step.heads * step.head_dim;
        let attend = Attend {
            heads: step.heads,
            kv_heads: spec.kv_heads,
            head_dim: step.head_dim,
            value_dim: step.head_dim,
            attention: step.attention,
            per_head: step.per_head.iter().map(|vector| vector.role).collect(),
            kv: self.kv(),
            slots: self.slots(),
            wrap: self.wrap(owner, step.state),
            most_parts: self.most_parts,
        };
        let per_head: Vec<_> = step.per_head.iter().map(|v| (v.role, self.vector(owner, v.slot))).collect();
        let mut add = |name: &str, family: Family, result: Arg, when: When, this: &mut Self| {
            let kernel = this.kernels.add(name, family);
            let step = Step::new(Choice::Fixed(kernel))
                .bind(Role::Q, this.buffer(path, Place::Queries, width))
                .bind(Role::Keys, Arg::Keys(step.state))
                .bind(Role::Values, Arg::Values(step.state))
                .bind(Role::Y, result)
                .bind_all(per_head.iter().copied())
                .bind(Role::Step, Arg::Params);
            steps.push(Step { when, ..step });
        };
        let y = self.buffer(path, Place::Attention, width);
        if path == Path::Tile {
            add("attention_tile", AttentionTile(attend).into(), y, When::Always, self);
            return;
        }
        let splits = attend.splits(self.context);
        let when = if splits { When::OnePart } else { When::Always };
        add("attention", AttentionDecode(attend.clone()).into(), y, when, self);
        if splits {
            let parts = self.buffer(path, Place::AttentionParts, self.most_parts * attend.part_floats());
            add("attention_part", AttentionPart(attend.clone()).into(), parts, When::Split, self);
            let kernel = self.kernels.add("attention_combine", AttentionCombine(attend));
            let step = Step::new(Choice::Fixed(kernel))
                .bind(Role::Parts, parts)
                .bind(Role::Y, y)
                .bind(Role::Step, Arg::Params);
            steps.push(Step { when: When::Split, ..step });
        }
    }
}
