//! `Linear.. -> [RmsNorm -> Linear] -> LatentAttention`: the append takes the norms of the latents along, that of the queries' too where
//! they come from one.

use forge_frontend::graph::{LatentSizes, Node, Op, Rope, SlotId, StateSlotId, ValueId};

use super::Fuser;
use crate::PlanError;
use crate::attention::{LATENT_PAIRS, WIDEST_LATENT};
use crate::plan::Place;

/// Norms, rotation and append, from [`Place::Qkv`].
#[derive(Debug, Clone, PartialEq)]
pub struct LatentAppendStep {
    /// Elements of a row before the latent.
    pub before: usize,
    /// `[before]`: gamma of the norm of these, where they are a latent; into [`Place::QueryLatent`].
    pub query_gamma: Option<SlotId>,
    /// `[latent]`.
    pub gamma: SlotId,
    /// Added to the mean of squares.
    pub eps: f32,
    /// Elements of the latent, and of the shared key.
    pub sizes: LatentSizes,
    /// Rotation of that.
    pub rope: Rope,
    /// The cache.
    pub state: StateSlotId,
}

/// Attention of queries over latents, to [`Place::Attention`].
#[derive(Debug, Clone, PartialEq)]
pub struct LatentStep {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Where the queries are, and the width of a row there.
    pub queries: (Place, usize),
    /// Rotation of a part of them.
    pub rope: Rope,
    /// Factor on the scores.
    pub scale: f32,
    /// Keys of heads.
    pub keys: SlotId,
    /// Whether a head's rows are elements of its key.
    pub by_key: bool,
    /// Values of heads.
    pub values: SlotId,
    /// The cache.
    pub state: StateSlotId,
}

impl Fuser<'_> {
    /// The attention over latents whose queries are made of `value`, by node.
    fn attention_of(&self, value: ValueId) -> Option<usize> {
        let linear = self.only_user(value)?;
        let Op::Linear { .. } = self.block.nodes[linear].op else { return None };
        let user = self.only_user(self.block.nodes[linear].output?)?;
        matches!(self.block.nodes[user].op, Op::LatentAttention { .. }).then_some(user)
    }

    /// Whether a norm is that of the queries' latent.
    pub(super) fn norms_queries(&self, norm: &Node) -> bool {
        norm.output.is_some_and(|value| self.attention_of(value).is_some())
    }

    /// The append of the attention that node `index` is, or norms the queries of.
    pub(super) fn latent_append(
        &self,
        index: usize,
        norm: Option<(SlotId, f32)>,
    ) -> Result<LatentAppendStep, PlanError> {
        let block = self.block;
        let attention = match norm {
            Some(_) => block.nodes[index].output.and_then(|value| self.attention_of(value)),
            None => Some(index),
        };
        let Some(node) = attention.map(|index| &block.nodes[index]) else {
            return Err(self.unsupported("a norm of queries that no attention reads"));
        };
        let Op::LatentAttention { state, sizes, gamma, eps, ref rope, .. } = node.op else {
            return Err(self.unsupported("another operation as attention over latents"));
        };
        let Some(&(Place::Qkv, before)) = self.buffers.get(&node.inputs[1]) else {
            return Err(self.unsupported("latents that no projection makes"));
        };
        if let Some((_, of_queries)) = norm {
            let source = block.nodes[index].inputs[0];
            if self.buffers.get(&source) != Some(&(Place::Qkv, 0)) || block.values[source].width != before {
                return Err(self.unsupported("latents apart from those of queries"));
            }
            if of_queries != eps {
                return Err(self.unsupported("norms of latents with different epsilons"));
            }
        }
        let query_gamma = norm.map(|(gamma, _)| gamma);
        Ok(LatentAppendStep { before, query_gamma, gamma, eps, sizes, rope: rope.clone(), state })
    }

    /// The steps of the attention that node `index` is; its append, where none has gone before.
    pub(super) fn latent_attention(&self, index: usize) -> Result<(Option<LatentAppendStep>, LatentStep), PlanError> {
        let node = &self.block.nodes[index];
        let Op::LatentAttention { state, sizes, ref rope, scale, keys, by_key, values, .. } = node.op else {
            return Err(self.unsupported("another operation as attention over latents"));
        };
        self.check_latents(&sizes)?;
        let (append, queries) = match self.buffers.get(&node.inputs[0]) {
            Some((Place::Qkv, 0)) => {
                let append = self.latent_append(index, None)?;
                let width = append.before + sizes.position();
                (Some(append), (Place::Qkv, width))
            }
            Some((Place::HeadQueries, 0)) => (None, (Place::HeadQueries, sizes.queries())),
            _ => return Err(self.unsupported("queries that no projection makes")),
        };
        let rope = rope.clone();
        Ok((append, LatentStep { sizes, queries, rope, scale, keys, by_key, values, state }))
    }

    /// What the kernels have room for.
    fn check_latents(&self, sizes: &LatentSizes) -> Result<(), PlanError> {
        let &LatentSizes { heads, latent, rope, nope, value } = sizes;
        let in_eights = [(latent, "latents"), (rope, "shared keys")];
        if let Some((found, what)) = in_eights.into_iter().find(|(size, _)| !size.is_multiple_of(8)) {
            return Err(self.unsupported(&format!("{what} of {found} elements, no multiple of 8")));
        }
        if sizes.position() > WIDEST_LATENT {
            return Err(
                self.unsupported(&format!("latents of {latent} + {rope} elements; there may be {WIDEST_LATENT}"))
            );
        }
        if let Some(found) = [nope, value].into_iter().find(|size| !size.is_multiple_of(4)) {
            return Err(self.unsupported(&format!("heads of {found} elements, no multiple of 4")));
        }
        debug_assert!(heads.div_ceil((heads / 16).max(1)) <= LATENT_PAIRS);
        Ok(())
    }
}
