//! Attention over latents: the append, queries over the cache, attention in one dispatch or in parts and one that puts them
//! together, and values.

use forge_frontend::graph::{Attention, LatentSizes, SlotId};
use forge_spec::{Matrix as PackedMatrix, Role};

use super::weights::{Owners, Parts};
use super::{Lowering, Path};
use crate::families::{
    Attend, AttentionCombine, LatentAppend, LatentAttention, LatentQueries, LatentRows, LatentValues,
};
use crate::fuse::{FusedBlock, LatentAppendStep, LatentStep};
use crate::plan::{Arg, Choice, Place, Step, When};
use crate::{PlanError, attention, roles};

impl Lowering<'_> {
    pub(super) fn latent_append(&mut self, owner: &Owners<'_>, step: &LatentAppendStep, path: Path) -> Step {
        let LatentSizes { latent, rope, .. } = step.sizes;
        let family = LatentAppend {
            before: step.before,
            norms_queries: step.query_gamma.is_some(),
            latent,
            rope,
            eps: step.eps,
            rotation: step.rope.clone(),
            table: self.rope_table(&step.rope),
            kv: self.kv(),
            slots: self.slots(),
        };
        let width = family.width();
        let kernel = self.kernels.add("latent_append", family);
        let mut args = vec![(Role::Gamma, self.vector(owner, step.gamma))];
        if let Some(gamma) = step.query_gamma {
            args.push((Role::QGamma, self.vector(owner, gamma)));
            args.push((Role::Y, self.buffer(path, Place::QueryLatent, step.before)));
        }
        Step::new(Choice::Fixed(kernel))
            .bind(Role::Input, self.buffer(path, Place::Qkv, width))
            .bind_all(args)
            .bind(Role::Latents, Arg::Latents(step.state))
            .bind(Role::Step, Arg::Params)
    }

    pub(super) fn latent_attention(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        step: &LatentStep,
        path: Path,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let LatentSizes { heads, latent, value, .. } = step.sizes;
        let (sizes, tile) = (step.sizes, path == Path::Tile);
        let name = |name: &str| if tile { format!("{name}_tile") } else { name.to_owned() };
        let table = self.rope_table(&step.rope);
        let (place, width) = step.queries;
        let (keys, matrices) = self.of_heads(owner, step.keys)?;
        let mut choices = Vec::new();
        for keys in matrices {
            let (by_key, rotation) = (step.by_key, step.rope.clone());
            let family = LatentQueries { sizes, width, keys: [keys], by_key, rotation, table, tile };
            choices.push(self.kernels.add(&name("latent_queries"), family));
        }
        let q = self.buffer(path, Place::Queries, heads * sizes.position());
        let queries = Step::new(self.choose(block, owner, &name("latent_queries"), &choices))
            .bind(Role::Weights, keys)
            .bind(Role::Input, self.buffer(path, place, width))
            .bind(Role::Q, q)
            .bind(Role::Step, Arg::Params);
        steps.push(queries);
        let y = self.buffer(path, Place::AttentionLatents, heads * latent);
        self.attend_latents(step, path, (q, y), steps);
        let (values, matrices) = self.of_heads(owner, step.values)?;
        let mut choices = Vec::new();
        for values in matrices {
            choices.push(self.kernels.add(&name("latent_values"), LatentValues { sizes, values: [values], tile }));
        }
        let result = Step::new(self.choose(block, owner, &name("latent_values"), &choices))
            .bind(Role::Weights, values)
            .bind(Role::Input, y)
            .bind(Role::Y, self.buffer(path, Place::Attention, heads * value))
            .bind_all(tile.then_some((Role::Step, Arg::Params)));
        steps.push(result);
        Ok(())
    }

    /// From queries over the cache to a latent for each head.
    fn attend_latents(&mut self, step: &LatentStep, path: Path, (q, y): (Arg, Arg), steps: &mut Vec<Step>) {
        let (sizes, scale) = (step.sizes, step.scale);
        let LatentSizes { heads, latent, .. } = sizes;
        let most_parts = self.most_parts;
        let family =
            |this: &Self, rows| LatentAttention { sizes, scale, kv: this.kv(), slots: this.slots(), rows, most_parts };
        let mut add = |this: &mut Self, name: &str, rows: LatentRows, result: Arg, when: When| {
            let kernel = this.kernels.add(name, family(this, rows));
            let step = Step::new(Choice::Fixed(kernel))
                .bind(Role::Q, q)
                .bind(Role::Latents, Arg::Latents(step.state))
                .bind(Role::Y, result)
                .bind(Role::Step, Arg::Params);
            steps.push(Step { when, ..step });
        };
        if path == Path::Tile {
            add(self, "latent_attention_tile", LatentRows::Tile, y, When::Always);
            return;
        }
        if !attention::splits(self.context) {
            add(self, "latent_attention", LatentRows::Whole, y, When::Always);
            return;
        }
        add(self, "latent_attention", LatentRows::Whole, y, When::OnePart);
        // What parts leave is that of any attention with heads as wide as a latent.
        let combine = AttentionCombine(Attend {
            heads,
            kv_heads: 1,
            head_dim: latent,
            attention: Attention { scale, window: None, softcap: None },
            sinks: false,
            kv: self.kv(),
            slots: self.slots(),
            wrap: None,
            most_parts: self.most_parts,
        });
        let parts = self.buffer(path, Place::AttentionParts, self.most_parts * combine.part_floats());
        add(self, "latent_attention_part", LatentRows::Part, parts, When::Split);
        let kernel = self.kernels.add("attention_combine", combine);
        let step =
            Step::new(Choice::Fixed(kernel)).bind(Role::Parts, parts).bind(Role::Y, y).bind(Role::Step, Arg::Params);
        steps.push(Step { when: When::Split, ..step });
    }

    /// The field of heads' matrices, and what each layer has there.
    fn of_heads(&mut self, owner: &Owners<'_>, slot: SlotId) -> Result<(Arg, Vec<PackedMatrix>), PlanError> {
        let rows = self.graph.weights[owner.weight(0, slot)].rows;
        let field = roles::field(&[self.role(owner, slot)]);
        let parts = Parts { slots: &[Some(slot)], lengths: &[rows], vector: false };
        let arg = self.field(owner, &field, &parts);
        let matrices = (0..owner.count()).map(|layer| self.matrix(owner.weight(layer, slot), rows));
        Ok((arg, matrices.collect::<Result<_, _>>()?))
    }
}
