//! Lowering: fused operations become steps, each with a kernel and what it is bound to, for a few rows of any sequences and for
//! a tile of rows of one.

mod attention;
mod embed;
mod latent;
mod mixture;
mod norm;
mod projection;
mod recurrent;
mod sample;
mod weights;

use std::collections::BTreeMap;

use forge_frontend::Graph;
use forge_frontend::graph::{KvSpec, Layer, Op, Weight};

use crate::families::{NextNorm, ROW_ELEMENTS};
use crate::fuse::{Fused, FusedBlock, Norm, NormKind, Outcome};
use crate::kernel::Kernels;
use crate::pack::PackPlan;
use crate::plan::{
    Arg, BufferPlan, CacheType, KernelTable, LayerPlan, Place, Plan, PlanOptions, Schedule, Segment, Stage, StatePlan,
    Step,
};
use crate::state::capacity;
use crate::{PlanError, barriers};
use weights::{Owners, WeightFields};

/// Most tokens of a tile, where a model asks for no more.
const USUAL_TILE: usize = 256;
/// Most tokens of a tile, whatever the model.
const MOST_TILE: usize = 2048;
/// Tokens that an expert should have on average: those of a whole tile of products.
const EXPERT_TOKENS: usize = 64;
/// What lies between the steps of a tile takes at most one part in so many of the weights' bytes, where tiles are longer than usual.
const WEIGHTS_PER_TILE: usize = 32;
/// Weight elements times tokens that one prefill command buffer may multiply: about a quarter of a second
/// on the slowest GPU, so that the system's watchdog never sees a long one.
const PREFILL_WORK: usize = 250_000_000_000;

/// A graph's blocks, fused.
pub(crate) struct FusedGraph {
    pub embed: FusedBlock,
    pub blocks: Vec<FusedBlock>,
    pub head: FusedBlock,
}

impl FusedGraph {
    fn norms(&self) -> impl Iterator<Item = Norm> {
        [&self.embed, &self.head].into_iter().chain(&self.blocks).flat_map(FusedBlock::norms)
    }
}

/// Which of a program's two ways through the layers a step is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// One row, or a few, each of a sequence and at a position of its own. Every kernel gives a row the same bits whatever rows
    /// stand beside it.
    Step,
    /// Many rows that follow one another in one sequence.
    Tile,
}

/// What lowering collects.
pub(crate) struct Lowering<'a> {
    graph: &'a Graph,
    options: &'a PlanOptions,
    context: usize,
    tile: usize,
    /// Slots of the residual stream's partial sums.
    partials: usize,
    /// Most parts of a long context; the same for all attention of a step, of which the kernel with the fewest threadgroups decides.
    most_parts: usize,
    /// Rows of a tile from which on keys and values are made of latents.
    expands_from: Option<usize>,
    /// Whether steps of a few rows leave the next norm's input. An RMS norm is one factor on the projection that reads it; one
    /// that subtracts a mean is not, and then every norm is a dispatch of its own.
    fused_norms: bool,
    kernels: Kernels,
    rope_tables: Vec<Vec<f32>>,
    tables: Vec<KernelTable>,
    /// Widths of the buffers for steps, and for tiles.
    buffers: [BTreeMap<Place, usize>; 2],
    fields: WeightFields,
}

/// Lowers a graph for contexts of up to `context` tokens.
pub(crate) fn lower(
    graph: &Graph,
    fused: &FusedGraph,
    context: usize,
    options: &PlanOptions,
) -> Result<Plan, PlanError> {
    let lowering = Lowering {
        graph,
        options,
        context,
        tile: options.tile.unwrap_or_else(|| tile(graph)).min(context),
        partials: 0,
        most_parts: 0,
        expands_from: None,
        fused_norms: fused.norms().all(|norm| norm.kind == NormKind::Rms),
        kernels: Kernels::default(),
        rope_tables: Vec::new(),
        tables: Vec::new(),
        buffers: Default::default(),
        fields: WeightFields::default(),
    };
    lowering.run(fused)
}

/// Most tokens of a prompt that run at once. A tile reads the weights of all experts that one of its tokens takes, nearly all that there are: it is so long
/// that each has enough of them for whole products, while that does not take much memory.
fn tile(graph: &Graph) -> usize {
    let stored = |weight: &Weight| weight.format.row_bytes(weight.cols).unwrap_or(0) * weight.rows;
    let room = graph.weights.iter().map(stored).sum::<usize>() / WEIGHTS_PER_TILE;
    let mut tile = USUAL_TILE;
    for node in graph.blocks.iter().flat_map(|block| &block.nodes) {
        if let Op::Route { routing, .. } = &node.op {
            let wanted = EXPERT_TOKENS * routing.experts / routing.chosen.max(1);
            // Each expert's gated activation and result, and about as much as eight residual streams.
            let bytes = 4 * graph.config.hidden_size * (2 * routing.chosen + 8);
            while tile < MOST_TILE.min(wanted) && 2 * tile * bytes <= room {
                tile *= 2;
            }
        }
    }
    tile
}

impl<'a> Lowering<'a> {
    fn run(mut self, fused: &FusedGraph) -> Result<Plan, PlanError> {
        let graph = self.graph;
        let FusedGraph { embed, blocks, head } = fused;
        let owners: Vec<Owners<'_>> = (0..blocks.len())
            .map(|block| {
                let layers = graph.layers.iter().enumerate();
                Owners::Layers(layers.filter(|(_, layer)| layer.block == block).collect())
            })
            .collect();
        self.partials = self.max_partials(blocks, &owners);
        self.most_parts = self.most_parts(blocks, &owners);
        self.expands_from = self.expands_from(blocks, &owners)?;
        let (embed_owner, head_owner) = (Owners::Stage(&graph.embed), Owners::Stage(&graph.head));
        let (mut decode, mut prefill) = (Schedule::default(), Schedule::default());
        decode.segments.push(Segment::once(Stage::Embed, self.steps(embed, &embed_owner, Path::Step)?));
        prefill.segments.push(Segment::once(Stage::Embed, self.steps(embed, &embed_owner, Path::Tile)?));
        decode.segments.push(self.layers(blocks, &owners, Path::Step)?);
        decode.segments.push(Segment::once(Stage::Head, self.steps(head, &head_owner, Path::Step)?));
        decode.segments.push(Segment::once(Stage::Sample, self.sample()));
        prefill.segments.push(self.layers(blocks, &owners, Path::Tile)?);
        prefill.segments.push(Segment::once(Stage::Head, self.steps(head, &head_owner, Path::Tile)?));
        let order: Vec<usize> = graph.layers.iter().map(|layer| layer.block).collect();
        barriers::place(&mut decode, &order, &self.kernels.list, &self.tables);
        barriers::place(&mut prefill, &order, &self.kernels.list, &self.tables);
        let first_norm = self.first_norm(blocks, &owners)?;
        let final_norm = self.final_norm(head)?;
        let layers: &[Layer] = &graph.layers;
        let layer_work = self.tile * graph.active_layer_parameters() as usize / layers.len().max(1);
        let [decode_buffers, prefill_buffers] =
            self.buffers.map(|widths| widths.into_iter().map(|(place, width)| BufferPlan { place, width }).collect());
        let (layer_fields, model_fields, tensors) = self.fields.finish(layers.len());
        Ok(Plan {
            config: graph.config.clone(),
            kv: self.options.kv,
            slots: self.options.slots,
            context: self.context,
            prefill_tile: self.tile,
            expands_from: self.expands_from,
            prefill_layers: (PREFILL_WORK / layer_work.max(1)).clamp(1, layers.len().max(1)),
            decode_buffers,
            prefill_buffers,
            kernels: self.kernels.list,
            rope_tables: self.rope_tables,
            layer_fields,
            model_fields,
            tables: self.tables,
            decode,
            prefill,
            states: graph.states.iter().map(|s| StatePlan::new(s.spec, self.tile, self.context)).collect(),
            layers: layers.iter().map(|l| LayerPlan { block: l.block, states: l.states.clone() }).collect(),
            blocks: blocks.iter().map(|block| block.name.clone()).collect(),
            first_norm,
            final_norm,
            weights: PackPlan { tensors },
        })
    }

    /// The steps of all layers, by block.
    fn layers(&mut self, blocks: &[FusedBlock], owners: &[Owners<'_>], path: Path) -> Result<Segment, PlanError> {
        let steps = blocks.iter().zip(owners).map(|(block, owner)| self.steps(block, owner, path));
        Ok(Segment::layers(steps.collect::<Result<_, _>>()?))
    }

    /// The steps of one block on one path.
    fn steps(&mut self, block: &FusedBlock, owner: &Owners<'_>, path: Path) -> Result<Vec<Step>, PlanError> {
        let mut steps = Vec::new();
        for op in &block.ops {
            match op {
                Fused::Embed { table, scale, norm_eps } => {
                    steps.push(self.embed(owner, *table, (*scale, *norm_eps), path)?)
                }
                Fused::Projection(projection) => self.projection(block, owner, projection, path, &mut steps)?,
                Fused::RopeAppend(rope) => steps.push(self.rope(owner, rope, path)),
                Fused::Attention(attention) => self.attention(owner, attention, path, &mut steps),
                Fused::Mixture(mixture) => self.mixture(block, owner, mixture, path, &mut steps)?,
                Fused::ShortConv(conv) => steps.push(self.short_conv(owner, conv, path)),
                Fused::GatedDelta(delta) => steps.push(self.gated_delta(owner, delta, path)),
                Fused::HeadGate(gate) => steps.push(self.head_gate(gate, path)),
                Fused::LatentAppend(append) => steps.push(self.latent_append(owner, append, path)),
                Fused::LatentAttention(attention) => {
                    self.latent_attention(block, owner, attention, path, &mut steps)?;
                }
                Fused::LayerInputs(inputs) => steps.push(self.layer_inputs(owner, inputs, path)?),
            }
        }
        Ok(steps)
    }

    /// Slots that the largest producer of the residual stream's partial sums fills.
    fn max_partials(&self, blocks: &[FusedBlock], owners: &[Owners<'_>]) -> usize {
        let mut most = self.graph.config.hidden_size.div_ceil(ROW_ELEMENTS);
        for (block, owner) in blocks.iter().zip(owners) {
            for op in &block.ops {
                match op {
                    Fused::Projection(p) if matches!(p.outcome, Outcome::Residual { post_norm: None, .. }) => {
                        most = most.max(self.projection_partials(owner, p));
                    }
                    // Beside a dense feed-forward a norm writes the stream.
                    Fused::Mixture(mixture) if mixture.beside.is_some() => {}
                    Fused::Mixture(mixture) => most = most.max(self.mixture_partials(owner, mixture)),
                    Fused::Projection(_)
                    | Fused::Embed { .. }
                    | Fused::RopeAppend(_)
                    | Fused::Attention(_)
                    | Fused::ShortConv(_)
                    | Fused::GatedDelta(_)
                    | Fused::HeadGate(_)
                    | Fused::LatentAppend(_)
                    | Fused::LatentAttention(_)
                    | Fused::LayerInputs(_) => {}
                }
            }
        }
        most
    }

    /// Declares an activation buffer at least `width` wide.
    fn buffer(&mut self, path: Path, place: Place, width: usize) -> Arg {
        let entry = self.buffers[usize::from(path == Path::Tile)].entry(place).or_insert(width);
        *entry = width.max(*entry);
        Arg::Buffer(place)
    }

    /// Whether steps leave the next norm's input; where not, norms are dispatches of their own.
    fn fuses_norms(&self, path: Path) -> bool {
        path == Path::Step && self.fused_norms
    }

    /// What they leave.
    fn next(&self, path: Path) -> Option<NextNorm> {
        self.fuses_norms(path).then_some(NextNorm { partials: self.partials })
    }

    /// The KV cache in a state slot; fusion has seen that it is one.
    fn cache(&self, owner: &Owners<'_>, slot: usize) -> KvSpec {
        let spec = match owner {
            Owners::Layers(layers) => self.graph.states[layers[0].1.states[slot]].spec,
            Owners::Stage(stage) => stage.block.state_slots[slot],
        };
        spec.kv().expect("attention over a cache")
    }

    fn wrap(&self, owner: &Owners<'_>, slot: usize) -> Option<usize> {
        capacity(self.cache(owner, slot).window, self.tile, self.context)
    }

    fn kv(&self) -> CacheType {
        self.options.kv
    }

    fn slots(&self) -> usize {
        self.options.slots
    }
}
