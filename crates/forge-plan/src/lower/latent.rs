//! Attention over latents: the append, queries over the cache, attention in one dispatch or in parts and one that puts them
//! together, and values; for tiles of many rows, where that costs less, keys and values of all heads and attention over those.

use forge_frontend::graph::{Attention, LatentSizes, SlotId};
use forge_spec::{CacheType, HeadMatrix, Matrix as PackedMatrix, Role};

use super::weights::{Owners, Parts};
use super::{Lowering, Path};
use crate::costs::{Cost, StepSize, dispatch};
use crate::families::{
    Attend, AttentionCombine, AttentionTile, Family, LatentAppend, LatentAttention, LatentExpand, LatentQueries,
    LatentRotate, LatentRows, LatentValues,
};
use crate::fuse::{Fused, FusedBlock, LatentAppendStep, LatentStep};
use crate::kernel::Kernel;
use crate::plan::{Arg, Choice, Place, StatePlan, Step, When};
use crate::{PlanError, attention, roles};

/// Operations for which a GPU has time while it moves a byte: 13.6 TFLOP/s and 400 GB/s of an M2 Max, as Apple announced them.
const OPERATIONS_PER_BYTE: u64 = 34;
/// An operation of attention over latents, whose threadgroups have room for few positions at a time, takes as long as so many of attention
/// over keys and values: 2.3 to 3.6 were measured, and with 3 the rows are those from which on that was the faster (docs/kernels-measured.md).
const LATENT_OPERATION: u64 = 3;
/// What is made of latents, of one layer at a time, takes at most so many times the bytes of all caches.
const EXPANDED_PER_CACHE: u64 = 2;

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
        if path == Path::Step {
            return self.absorbed(block, owner, step, path, steps);
        }
        let first = steps.len();
        self.absorbed(block, owner, step, path, steps)?;
        if self.expands_from.is_some() {
            steps[first..].iter_mut().for_each(|step| step.when = When::FewRows);
            let second = steps.len();
            self.expanded(block, owner, step, steps)?;
            steps[second..].iter_mut().for_each(|step| step.when = When::ManyRows);
        }
        Ok(())
    }

    /// Queries over the cache, attention, values.
    fn absorbed(
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

    /// Keys and values of all heads, of all positions that the tile sees; attention over those.
    fn expanded(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        step: &LatentStep,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let (sizes, path) = (step.sizes, Path::Tile);
        let LatentSizes { heads, nope, rope, value, .. } = sizes;
        let keys = self.buffer(path, Place::HeadKeys, heads * (nope + rope));
        let values = self.buffer(path, Place::HeadValues, heads * value);
        let of_keys = |matrix| HeadMatrix::Keys { matrix, by_key: step.by_key };
        let made: [(_, &str, _, _, &dyn Fn(PackedMatrix) -> HeadMatrix); 2] = [
            (step.keys, "expand_keys", Role::Keys, keys, &of_keys),
            (step.values, "expand_values", Role::Values, values, &HeadMatrix::Values),
        ];
        for (slot, name, role, result, of) in made {
            let (weights, matrices) = self.of_heads(owner, slot)?;
            let mut choices = Vec::new();
            for matrix in matrices {
                let family = LatentExpand { sizes, heads: of(matrix), kv: self.kv(), slots: self.slots() };
                choices.push(self.kernels.add(name, family));
            }
            let expand = Step::new(self.choose(block, owner, name, &choices))
                .bind(Role::Weights, weights)
                .bind(Role::Latents, Arg::Latents(step.state))
                .bind(role, result)
                .bind(Role::Step, Arg::Params);
            steps.push(expand);
        }
        let (place, width) = step.queries;
        let rotation = step.rope.clone();
        let table = self.rope_table(&rotation);
        let q = self.buffer(path, Place::Queries, sizes.queries());
        let rotate = self.kernels.add("latent_rotate", LatentRotate { sizes, width, rotation, table });
        let rotate = Step::new(Choice::Fixed(rotate))
            .bind(Role::Input, self.buffer(path, place, width))
            .bind(Role::Q, q)
            .bind(Role::Step, Arg::Params);
        let attend = self.kernels.add("attention_tile", AttentionTile(self.attend_expanded(step)));
        let attend = Step::new(Choice::Fixed(attend))
            .bind(Role::Q, q)
            .bind(Role::Keys, keys)
            .bind(Role::Values, values)
            .bind(Role::Y, self.buffer(path, Place::Attention, heads * value))
            .bind(Role::Step, Arg::Params);
        steps.extend([rotate, attend]);
        Ok(())
    }

    /// Attention of a tile over keys and values of the one sequence that it is of.
    fn attend_expanded(&self, step: &LatentStep) -> Attend {
        let LatentSizes { heads, nope, rope, value, .. } = step.sizes;
        Attend {
            heads,
            kv_heads: heads,
            head_dim: nope + rope,
            value_dim: value,
            attention: Attention { scale: step.scale, window: None, softcap: None },
            per_head: Vec::new(),
            kv: self.kv(),
            slots: 1,
            wrap: None,
            most_parts: self.most_parts,
        }
    }

    /// Rows of a tile from which on keys and values of all heads are made rather than queries over the cache, in every layer: where that
    /// costs less, half way through the context, and what is made has room.
    pub(super) fn expands_from(
        &self,
        blocks: &[FusedBlock],
        owners: &[Owners<'_>],
    ) -> Result<Option<usize>, PlanError> {
        let mut most = None;
        for (block, owner) in blocks.iter().zip(owners) {
            for op in &block.ops {
                if let Fused::LatentAttention(step) = op {
                    let Some(from) = self.cheaper_from(owner, step)? else { return Ok(None) };
                    most = most.max(Some(from));
                }
            }
        }
        Ok(most)
    }

    fn cheaper_from(&self, owner: &Owners<'_>, step: &LatentStep) -> Result<Option<usize>, PlanError> {
        let LatentSizes { heads, nope, rope, value, .. } = step.sizes;
        // Attention of tiles takes elements in eights, and none that are in blocks of a scale each.
        let fits = (nope + rope).is_multiple_of(8) && value.is_multiple_of(8);
        let plain = matches!(self.kv(), CacheType::F16 | CacheType::F32);
        let states = self.graph.states.iter().map(|state| StatePlan::new(state.spec, self.tile, self.context));
        let cached: u64 = states.map(|state| state.bytes_per_token(self.kv())).sum();
        let made = self.kv().bytes(heads * (nope + rope + value)) as u64;
        if !fits || !plain || made > EXPANDED_PER_CACHE * cached {
            return Ok(None);
        }
        let (sizes, kv, slots) = (step.sizes, self.kv(), self.slots());
        let (width, by_key, tile) = (step.queries.1, step.by_key, true);
        let [keys, values] = [self.first_of_heads(owner, step.keys)?, self.first_of_heads(owner, step.values)?];
        let (scale, rows, most_parts, table) = (step.scale, LatentRows::Tile, self.most_parts, 0);
        let rotation = || step.rope.clone();
        let absorbed: [Family; 3] = [
            LatentQueries { sizes, width, keys: [keys], by_key, rotation: rotation(), table, tile }.into(),
            LatentAttention { sizes, scale, kv, slots, rows, most_parts }.into(),
            LatentValues { sizes, values: [values], tile }.into(),
        ];
        let expanded: [Family; 4] = [
            LatentExpand { sizes, heads: HeadMatrix::Keys { matrix: keys, by_key }, kv, slots }.into(),
            LatentExpand { sizes, heads: HeadMatrix::Values(values), kv, slots }.into(),
            LatentRotate { sizes, width, rotation: rotation(), table }.into(),
            AttentionTile(self.attend_expanded(step)).into(),
        ];
        let kernels = |families: &[Family]| -> Vec<Kernel> {
            families.iter().map(|family| Kernel::new(String::new(), family.clone())).collect()
        };
        let (absorbed, expanded) = (kernels(&absorbed), kernels(&expanded));
        let cost = |kernels: &[Kernel], rows: usize| -> u64 {
            let size = StepSize { rows, position: (self.context - rows) / 2, slots: 1 };
            let costs = kernels.iter().map(|kernel| dispatch(kernel, size));
            let weigh = |kernel: &Kernel| {
                if matches!(kernel.family, Family::LatentAttention(_)) { LATENT_OPERATION } else { 1 }
            };
            let one = |(cost, kernel): (Cost, &Kernel)| {
                weigh(kernel) * cost.flops + OPERATIONS_PER_BYTE * (cost.read() + cost.written())
            };
            costs.zip(kernels).map(one).sum()
        };
        Ok((8..=self.tile).step_by(8).find(|&rows| cost(&expanded, rows) < cost(&absorbed, rows)))
    }

    /// Heads' matrix of the first layer.
    fn first_of_heads(&self, owner: &Owners<'_>, slot: SlotId) -> Result<PackedMatrix, PlanError> {
        let weight = owner.weight(0, slot);
        self.matrix(weight, self.graph.weights[weight].rows)
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
            value_dim: latent,
            attention: Attention { scale, window: None, softcap: None },
            per_head: Vec::new(),
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
