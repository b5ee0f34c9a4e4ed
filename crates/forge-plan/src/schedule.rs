//! Both paths' steps from the fused blocks: kernels with their constants, arguments, grids, and the packed
//! tensors they read. It is one file because every step is a method of the one `Scheduler`, which collects what
//! they share.

use std::collections::BTreeMap;

use forge_formats::Format;
use forge_frontend::Graph;
use forge_frontend::graph::{Block, Layer, SlotId, Source, Stage, WeightId};

use crate::error::PlanError;
use crate::families::{
    Attend, AttentionCombine, AttentionDecode, AttentionPart, AttentionTile, Embed, Epilogue, FEW_TOKENS, Family, Gemm,
    Gemv, LayerInputs, NextNorm, NormScale, PostNorm, ROW_ELEMENTS, RmsNorm, RopeAppend, Sample, SampleBest,
    SampleCollect, SampleDraw,
};
use crate::fuse::{
    AttentionStep, Fused, FusedBlock, Input, LAYER_INPUTS, LayerInputsStep, Matrix, Norm, Projection,
    Result as Outcome, RopeStep,
};
use crate::geometry::{Geometries, Geometry, Shape, gemv_geometry};
use crate::kernel::{KernelId, Kernels};
use crate::pack::{PackPart, PackPlan, PackedTensor};
use crate::packed::{format_name, packed};
use crate::plan::*;
use crate::{attention, barriers, roles};

/// Most tokens in one prefill tile.
const PREFILL_TILE: usize = 256;
/// Weight elements times tokens that one prefill command buffer may multiply: about a quarter of a second
/// on the slowest GPU, so that the system's watchdog never sees a long one.
const PREFILL_WORK: usize = 250_000_000_000;

/// Narrowest input of a prefill projection with half operands.
const HALF_TILE_WIDTH: usize = 256;
/// Inputs below this are safe in half, whose largest number is 65 504.
const HALF_TILE_RANGE: f32 = 60_000.0;
/// Tokens that one threadgroup of the sampler looks at, where the vocabulary is small.
const SAMPLE_SHARE: usize = 1024;
/// Most threadgroups that share the vocabulary.
const SAMPLE_GROUPS: usize = 64;

/// Where a block's weights come from: the layers that run it, or a stage.
enum Owners<'a> {
    Layers(Vec<(usize, &'a Layer)>),
    Stage(&'a Stage),
}

impl Owners<'_> {
    fn weight(&self, owner: usize, slot: SlotId) -> WeightId {
        match self {
            Owners::Layers(layers) => layers[owner].1.weights[slot],
            Owners::Stage(stage) => stage.weights[slot],
        }
    }
    fn count(&self) -> usize {
        match self {
            Owners::Layers(layers) => layers.len(),
            Owners::Stage(_) => 1,
        }
    }
}

pub(crate) struct Scheduler<'a> {
    graph: &'a Graph,
    context: usize,
    kv: CacheType,
    geometries: &'a Geometries,
    tile: usize,
    partials: usize,
    kernels: Kernels,
    rope_tables: Vec<Vec<f32>>,
    tables: Vec<KernelTable>,
    buffers: BTreeMap<&'static str, BTreeMap<String, usize>>,
    layer_fields: Vec<Field>,
    model_fields: Vec<Field>,
    packed: BTreeMap<(Option<usize>, String), PackedTensor>,
}

impl<'a> Scheduler<'a> {
    pub(crate) fn new(graph: &'a Graph, context: usize, options: &'a PlanOptions) -> Self {
        Scheduler {
            graph,
            context,
            kv: options.kv,
            geometries: &options.geometries,
            tile: PREFILL_TILE.min(context),
            partials: 0,
            kernels: Kernels::default(),
            rope_tables: Vec::new(),
            tables: Vec::new(),
            buffers: BTreeMap::new(),
            layer_fields: Vec::new(),
            model_fields: Vec::new(),
            packed: BTreeMap::new(),
        }
    }

    pub(crate) fn run(
        mut self,
        embed: &FusedBlock,
        blocks: &[FusedBlock],
        head: &FusedBlock,
    ) -> Result<Plan, PlanError> {
        let graph = self.graph;
        let owners: Vec<Owners<'_>> = (0..blocks.len())
            .map(|block| {
                let layers = graph.layers.iter().enumerate();
                Owners::Layers(layers.filter(|(_, layer)| layer.block == block).collect())
            })
            .collect();
        self.partials = self.max_partials(blocks, &owners);
        let (embed_owner, head_owner) = (Owners::Stage(&graph.embed), Owners::Stage(&graph.head));
        let mut decode = Schedule::default();
        let mut prefill = Schedule::default();
        decode.embed = self.steps(embed, &embed_owner, true)?;
        prefill.embed = self.steps(embed, &embed_owner, false)?;
        for (block, owner) in blocks.iter().zip(&owners) {
            decode.blocks.push(self.steps(block, owner, true)?);
        }
        decode.head = self.steps(head, &head_owner, true)?;
        decode.sample = self.sample();
        for (block, owner) in blocks.iter().zip(&owners) {
            prefill.blocks.push(self.steps(block, owner, false)?);
        }
        prefill.head = self.steps(head, &head_owner, false)?;
        for step in [&decode, &prefill].into_iter().flat_map(Schedule::steps) {
            for id in step.kernels(&self.tables) {
                let kernel = &self.kernels.list[id];
                assert_eq!(step.args.len(), kernel.bindings.len(), "arguments of {}: {:?}", kernel.name, step.args);
            }
        }
        let order: Vec<usize> = graph.layers.iter().map(|layer| layer.block).collect();
        barriers::place(&mut decode, &order, &self.kernels.list, &self.tables);
        barriers::place(&mut prefill, &order, &self.kernels.list, &self.tables);
        let layer_work = self.tile
            * graph.weights.iter().filter(|w| w.layer.is_some()).map(|w| w.rows * w.cols).sum::<usize>()
            / graph.layers.len().max(1);
        self.layer_fields.sort_by_key(|field| field.order);
        for field in &mut self.layer_fields {
            let has = |layer| self.packed.contains_key(&(Some(layer), field.name.clone()));
            field.optional = !(0..graph.layers.len()).all(has);
        }
        let buffers = |path| {
            self.buffers
                .get(path)
                .into_iter()
                .flatten()
                .map(|(name, &width)| BufferPlan {
                    name: name.clone(),
                    width,
                    comment: buffer_comment(name).to_owned(),
                })
                .collect()
        };
        Ok(Plan {
            config: graph.config.clone(),
            kv: self.kv,
            context: self.context,
            prefill_tile: self.tile,
            prefill_layers: (PREFILL_WORK / layer_work.max(1)).clamp(1, graph.layers.len().max(1)),
            decode_buffers: buffers("decode"),
            prefill_buffers: buffers("prefill"),
            kernels: self.kernels.list,
            rope_tables: self.rope_tables,
            layer_fields: self.layer_fields,
            model_fields: self.model_fields,
            tables: self.tables,
            decode,
            prefill,
            states: graph
                .states
                .iter()
                .map(|state| StatePlan {
                    kv_heads: state.spec.kv_heads,
                    head_dim: state.spec.head_dim,
                    window: state.spec.window,
                    capacity: capacity(state.spec.window, self.tile, self.context),
                })
                .collect(),
            layers: graph
                .layers
                .iter()
                .map(|layer| LayerPlan { block: layer.block, states: layer.states.clone() })
                .collect(),
            blocks: blocks.iter().map(|block| block.name.clone()).collect(),
            first_norm: first_norm(graph, blocks)?,
            final_norm: stage_norm(graph, head)?,
            weights: PackPlan { tensors: self.packed.into_values().collect() },
        })
    }

    /// Slots that the largest producer of partial sums fills.
    fn max_partials(&self, blocks: &[FusedBlock], owners: &[Owners<'_>]) -> usize {
        let hidden = self.graph.config.hidden_size;
        let mut most = hidden.div_ceil(ROW_ELEMENTS);
        for (block, owner) in blocks.iter().zip(owners) {
            for op in &block.ops {
                if let Fused::Projection(p) = op
                    && let Outcome::Residual { post_norm: None, .. } = p.result
                {
                    most = most.max(self.partials(owner, p));
                }
            }
        }
        most
    }

    fn steps(&mut self, block: &FusedBlock, owner: &Owners<'_>, decode: bool) -> Result<Vec<Step>, PlanError> {
        let mut steps = Vec::new();
        for (index, op) in block.ops.iter().enumerate() {
            match op {
                Fused::Embed { table, scale } => steps.push(self.embed(owner, *table, *scale, decode)?),
                Fused::Projection(projection) => {
                    let next_gamma = self.next_gamma(block, owner, index);
                    self.projection(block, owner, projection, next_gamma, decode, &mut steps)?;
                }
                Fused::RopeAppend(rope) => steps.push(self.rope(owner, rope, decode)),
                Fused::Attention(attention) => self.attention(owner, attention, decode, &mut steps),
                Fused::LayerInputs(inputs) => steps.push(self.layer_inputs(owner, inputs, decode)?),
            }
        }
        Ok(steps)
    }

    /// Declares an activation buffer at least `width` wide.
    fn buffer(&mut self, decode: bool, name: &str, width: usize) -> Arg {
        let path = if decode { "decode" } else { "prefill" };
        let entry = self.buffers.entry(path).or_default().entry(name.to_owned()).or_insert(width);
        *entry = width.max(*entry);
        Arg::Buffer(name.to_owned())
    }

    /// Packs `slots` of every owner under `field` and returns the argument that names it.
    fn field(
        &mut self,
        owner: &Owners<'_>,
        field: &str,
        parts: &[Option<SlotId>],
        lengths: &[usize],
        vector: bool,
    ) -> Arg {
        let mut comments: Vec<String> = Vec::new();
        for index in 0..owner.count() {
            let ids: Vec<PackPart> = parts
                .iter()
                .zip(lengths)
                .map(|(slot, &length)| match slot {
                    Some(slot) => PackPart::Weight(owner.weight(index, *slot)),
                    None => PackPart::Zeros(length),
                })
                .collect();
            let weight = ids.iter().find_map(|part| match part {
                PackPart::Weight(id) => Some(&self.graph.weights[*id]),
                PackPart::Zeros(_) => None,
            });
            let Some(weight) = weight else { continue };
            let (format, rows, cols) = if vector {
                (Format::F32, 1, lengths.iter().sum())
            } else {
                (weight.format, lengths.iter().sum(), weight.cols)
            };
            let shape = if vector { format!("[{cols}]") } else { format!("[{rows}, {cols}]") };
            let comment = format!("{shape} {}", format_name(format));
            if !comments.contains(&comment) {
                comments.push(comment);
            }
            let (layer, name) = match owner {
                Owners::Layers(layers) => (Some(layers[index].0), format!("layers.{}.{field}", layers[index].0)),
                Owners::Stage(_) => (None, field.to_owned()),
            };
            self.packed.entry((layer, field.to_owned())).or_insert(PackedTensor {
                name,
                format,
                rows,
                cols,
                parts: ids,
            });
        }
        let fields = match owner {
            Owners::Layers(_) => &mut self.layer_fields,
            Owners::Stage(_) => &mut self.model_fields,
        };
        if !fields.iter().any(|known| known.name == field) {
            let order = parts.iter().flatten().copied().min().unwrap_or(usize::MAX);
            fields.push(Field { name: field.to_owned(), comment: comments.join(" or "), order, optional: false });
        }
        match owner {
            Owners::Layers(_) => Arg::Layer(field.to_owned()),
            Owners::Stage(_) => Arg::Model(field.to_owned()),
        }
    }

    fn vector(&mut self, owner: &Owners<'_>, slot: SlotId) -> Arg {
        let weight = &self.graph.weights[owner.weight(0, slot)];
        let (role, length) = (weight.role.clone(), weight.cols);
        self.field(owner, &role, &[Some(slot)], &[length], true)
    }

    /// `rows` rows of matrix `id`, packed.
    fn matrix(&self, id: WeightId, rows: usize) -> Result<forge_spec::Matrix, PlanError> {
        let weight = &self.graph.weights[id];
        if !weight.cols.is_multiple_of(4) {
            return Err(PlanError::Width { role: weight.role.clone(), cols: weight.cols, multiple: 4 });
        }
        let bf16_scales = match weight.source {
            Source::Affine { scale_format: Format::BF16, .. } => true,
            Source::Affine { scale_format, .. } if scale_format != Format::F16 => {
                return Err(PlanError::AffineScales { tensor: weight.tensor.clone(), format: scale_format });
            }
            _ => false,
        };
        Ok(forge_spec::Matrix { format: packed(weight.format, bf16_scales), rows, cols: weight.cols })
    }

    /// The gamma of the norm that reads the residual stream after operation `index`.
    fn next_gamma(&mut self, block: &FusedBlock, owner: &Owners<'_>, index: usize) -> Arg {
        for op in &block.ops[index + 1..] {
            if let Fused::Projection(Projection { input: Input::Stream(norm), .. }) = op {
                // A projection of the stream as it is needs no gamma; then only the head reads what is prepared.
                return norm.map_or(Arg::NextGamma, |norm| self.vector(owner, norm.gamma));
            }
        }
        Arg::NextGamma
    }

    fn next(&self, decode: bool) -> Option<NextNorm> {
        decode.then_some(NextNorm { partials: self.partials })
    }

    fn next_args(&mut self, decode: bool, next_gamma: Arg, args: &mut Vec<Arg>) {
        if decode {
            args.push(next_gamma);
            args.push(self.buffer(true, "scaled", self.graph.config.hidden_size));
            args.push(self.buffer(true, "sums", self.partials));
        }
    }

    fn embed(&mut self, owner: &Owners<'_>, table: SlotId, scale: f32, decode: bool) -> Result<Step, PlanError> {
        let id = owner.weight(0, table);
        let table_matrix = self.matrix(id, self.graph.weights[id].rows)?;
        let (vocab, hidden) = (table_matrix.rows, table_matrix.cols);
        let weights = self.field(owner, "token_embd", &[Some(table)], &[vocab], false);
        let role = if decode { "embed" } else { "embed_tile" };
        let next = self.next(decode);
        let kernel = self.kernels.add(role, Embed { table: table_matrix, scale, next });
        let mut args = vec![weights, Arg::Tokens, self.buffer(decode, "x", hidden)];
        self.next_args(decode, Arg::NextGamma, &mut args);
        Ok(Step::new(Choice::Fixed(kernel), args))
    }

    fn layer_inputs(&mut self, owner: &Owners<'_>, step: &LayerInputsStep, decode: bool) -> Result<Step, PlanError> {
        let id = owner.weight(0, step.table);
        let table = self.matrix(id, self.graph.weights[id].rows)?;
        let (vocab, all) = (table.rows, step.layers * step.width);
        if !step.width.is_multiple_of(4) {
            let role = self.graph.weights[id].role.clone();
            return Err(PlanError::Width { role, cols: step.width, multiple: 4 });
        }
        let family = LayerInputs {
            table,
            layers: step.layers,
            width: step.width,
            eps: step.norm.eps,
            scale: step.scale,
            factor: step.factor,
        };
        let kernel = self.kernels.add(LAYER_INPUTS, family);
        let role = self.role(owner, step.table);
        let args = vec![
            self.field(owner, role, &[Some(step.table)], &[vocab], false),
            Arg::Tokens,
            self.buffer(decode, &step.projected, all),
            self.vector(owner, step.norm.gamma),
            self.buffer(decode, LAYER_INPUTS, all),
            Arg::Params,
        ];
        Ok(Step::new(Choice::Fixed(kernel), args))
    }

    /// Runs of matrices that have one format in every layer, so that they can be stacked.
    fn stack<'m>(&self, owner: &Owners<'_>, matrices: &'m [Matrix]) -> Vec<&'m [Matrix]> {
        let formats = |m: &Matrix| -> Vec<Format> {
            (0..owner.count()).map(|i| self.graph.weights[owner.weight(i, m.weight)].format).collect()
        };
        matrices.chunk_by(|a, b| formats(a) == formats(b)).collect()
    }

    fn projection(
        &mut self,
        block: &FusedBlock,
        owner: &Owners<'_>,
        p: &Projection,
        next_gamma: Arg,
        decode: bool,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        let hidden = self.graph.config.hidden_size;
        let rows: usize = p.matrices.iter().map(|m| m.rows).sum();
        // Weights, stacked where formats allow.
        let groups: Vec<Vec<Matrix>> = self.stack(owner, &p.matrices).into_iter().map(<[_]>::to_vec).collect();
        let mut args = Vec::new();
        for group in &groups {
            let roles: Vec<&str> = group.iter().map(|m| self.role(owner, m.weight)).collect();
            let field = if roles == ["token_embd"] { "token_embd".into() } else { roles::projection(&roles) };
            let slots: Vec<_> = group.iter().map(|m| Some(m.weight)).collect();
            let lengths: Vec<_> = group.iter().map(|m| m.rows).collect();
            args.push(self.field(owner, &field, &slots, &lengths, false));
        }
        // The input, through its norm.
        let mut norm = None;
        match &p.input {
            Input::Stream(Some(n)) if decode => {
                args.push(self.buffer(true, "scaled", hidden));
                args.push(self.buffer(true, "sums", self.partials));
                self.vector(owner, n.gamma);
                norm = Some(NormScale { partials: self.partials, eps: n.eps });
            }
            Input::Stream(Some(n)) => {
                steps.push(self.row_norm(owner, *n));
                args.push(self.buffer(false, "normed", hidden));
            }
            Input::Stream(None) => args.push(self.buffer(decode, "x", hidden)),
            Input::Buffer(name) => args.push(self.buffer(decode, name, p.cols)),
        }
        let bias = p.matrices.iter().any(|m| m.bias.is_some());
        if bias {
            let slots: Vec<_> = p.matrices.iter().map(|m| m.bias).collect();
            let lengths: Vec<_> = p.matrices.iter().map(|m| m.rows).collect();
            args.push(self.field(owner, &format!("{}_bias", p.name), &slots, &lengths, true));
        }
        // The result.
        let mut post = None;
        let mut partials = None;
        let epilogue = match &p.result {
            Outcome::Store { softcap } => {
                let logits = p.name == "lm_head";
                args.push(if logits { Arg::Logits } else { self.buffer(decode, &p.buffer, rows) });
                Epilogue::Store { softcap: *softcap, partials: None }
            }
            Outcome::Gated(activation) => {
                args.push(self.buffer(decode, &p.buffer, rows / 2));
                Epilogue::Gated(*activation)
            }
            Outcome::GatedByInput(activation) => {
                args.push(Arg::LayerPart { buffer: LAYER_INPUTS.into(), width: rows });
                args.push(self.buffer(decode, &p.buffer, rows));
                Epilogue::GatedBy(*activation)
            }
            Outcome::Residual { factor, post_norm: None, .. } => {
                args.push(self.buffer(decode, "x", hidden));
                self.next_args(decode, next_gamma.clone(), &mut args);
                Epilogue::Residual { factor: *factor, next: self.next(decode) }
            }
            Outcome::Residual { factor, post_norm: Some(n), scale } => {
                args.push(self.buffer(decode, "projected", rows));
                if decode {
                    partials = Some(self.partials(owner, p));
                    args.push(self.buffer(true, "projected_sums", partials.unwrap_or(0)));
                }
                post = Some((*n, *factor, *scale));
                Epilogue::Store { softcap: None, partials }
            }
        };
        if !decode {
            args.push(Arg::Params);
        }
        let (shape, mut geometry) = self.geometry(owner, p);
        if matches!(epilogue, Epilogue::Gated(_)) {
            // A simdgroup holds gate rows and their up rows.
            geometry.rows_per_simdgroup = geometry.rows_per_simdgroup.next_multiple_of(2);
        }
        let (mut choices, mut few) = (Vec::new(), Vec::new());
        for layer in 0..owner.count() {
            let mut matrices = Vec::new();
            for group in &groups {
                let rows = group.iter().map(|m| m.rows).sum();
                matrices.push(self.matrix(owner.weight(layer, group[0].weight), rows)?);
            }
            let gemv = |matrices: Vec<forge_spec::Matrix>, geometry, tokens| {
                Family::Gemv(Gemv { matrices, rows, cols: p.cols, shape, geometry, norm, bias, epilogue, tokens })
            };
            if decode {
                choices.push(self.kernels.add(&p.name, gemv(matrices, geometry, 1)));
                continue;
            }
            let half_tiles = self.half_tiles(owner, p, layer, &matrices);
            let gemm = Gemm { matrices: matrices.clone(), rows, cols: p.cols, half_tiles, bias, epilogue };
            choices.push(self.kernels.add(&format!("{}_tile", p.name), gemm));
            let family = gemv(matrices, geometry.for_few_tokens(), FEW_TOKENS);
            few.push(self.kernels.add(&format!("{}_few", p.name), family));
        }
        let path = if decode { "" } else { "_tile" };
        let kernel = self.choose(block, owner, &format!("{}{path}", p.name), &choices);
        let few = (!decode).then(|| self.choose(block, owner, &format!("{}_few", p.name), &few));
        steps.push(Step { few, ..Step::new(kernel, args) });
        if let Some((norm, factor, scale)) = post {
            steps.push(self.post_norm(owner, (norm, factor, scale), partials, next_gamma));
        }
        Ok(())
    }

    /// The geometry of a projection's matrix-vector kernels, and what it is chosen by. Layers share a grid, so they share it also where their
    /// formats differ: it is that of the format that most of them have, and every kernel works with every geometry.
    fn geometry(&self, owner: &Owners<'_>, p: &Projection) -> (Shape, Geometry) {
        let format = |layer: usize| {
            let widest = p.matrices.iter().max_by_key(|m| m.rows);
            widest.map_or(Format::F32, |m| self.graph.weights[owner.weight(layer, m.weight)].format)
        };
        let formats: Vec<Format> = (0..owner.count()).map(format).collect();
        let count = |format: &Format| formats.iter().filter(|other| *other == format).count();
        let most = formats.iter().rev().max_by_key(|format| count(format)).copied().unwrap_or(Format::F32);
        let shape = Shape { format: most, rows: p.matrices.iter().map(|m| m.rows).sum(), cols: p.cols };
        let asked = self.geometries.get(&shape).copied();
        (shape, asked.unwrap_or_else(|| gemv_geometry(shape.format, shape.rows, shape.cols)))
    }

    /// Whether the tiles of a projection may hold half operands: its weights have no more range than that, its input
    /// cannot leave the half range (a norm bounds it by sqrt(width) times the largest gamma), and it is wide enough for
    /// the tiles to matter.
    fn half_tiles(&self, owner: &Owners<'_>, p: &Projection, layer: usize, matrices: &[forge_spec::Matrix]) -> bool {
        let wide_range =
            |m: &forge_spec::Matrix| matches!(m.format, forge_spec::Format::F32 | forge_spec::Format::BF16);
        let Input::Stream(Some(norm)) = &p.input else { return false };
        let gamma = self.graph.weights[owner.weight(layer, norm.gamma)].max_abs;
        let bound = gamma.map_or(f32::INFINITY, |gamma| gamma * (p.cols as f32).sqrt());
        p.cols >= HALF_TILE_WIDTH && bound < HALF_TILE_RANGE && !matrices.iter().any(wide_range)
    }

    fn role(&self, owner: &Owners<'_>, slot: SlotId) -> &'a str {
        &self.graph.weights[owner.weight(0, slot)].role
    }

    /// Partial sums that a projection of one matrix writes: one a threadgroup.
    fn partials(&self, owner: &Owners<'_>, p: &Projection) -> usize {
        p.matrices[0].rows.div_ceil(self.geometry(owner, p).1.rows_per_threadgroup())
    }

    /// One kernel for all layers, or a table.
    fn choose(&mut self, block: &FusedBlock, owner: &Owners<'_>, name: &str, choices: &[KernelId]) -> Choice {
        if choices.iter().all(|&id| id == choices[0]) {
            return Choice::Fixed(choices[0]);
        }
        let mut kernels = vec![choices[0]; self.graph.layers.len()];
        if let Owners::Layers(layers) = owner {
            for ((layer, _), &id) in layers.iter().zip(choices) {
                kernels[*layer] = id;
            }
        }
        let block = if self.graph.blocks.len() > 1 { format!("{}_", block.name) } else { String::new() };
        let name = format!("{block}{name}").to_uppercase();
        self.tables.push(KernelTable { name, kernels });
        Choice::PerLayer(self.tables.len() - 1)
    }

    fn row_norm(&mut self, owner: &Owners<'_>, norm: Norm) -> Step {
        let width = self.graph.config.hidden_size;
        let gamma = self.vector(owner, norm.gamma);
        let kernel = self.kernels.add("rms_norm_tile", RmsNorm { width, eps: norm.eps });
        let args = vec![self.buffer(false, "x", width), gamma, self.buffer(false, "normed", width)];
        Step::new(Choice::Fixed(kernel), args)
    }

    fn post_norm(
        &mut self,
        owner: &Owners<'_>,
        (norm, factor, scale): (Norm, f32, Option<SlotId>),
        partials: Option<usize>,
        next_gamma: Arg,
    ) -> Step {
        let decode = partials.is_some();
        let width = self.graph.config.hidden_size;
        let scaled = scale.is_some();
        let family = PostNorm { width, eps: norm.eps, factor, scaled, partials, next: self.next(decode) };
        let role = if decode { "post_norm" } else { "post_norm_tile" };
        let kernel = self.kernels.add(role, family);
        let mut args = vec![self.buffer(decode, "projected", width)];
        if let Some(partials) = partials {
            args.push(self.buffer(true, "projected_sums", partials));
        }
        args.push(self.vector(owner, norm.gamma));
        args.extend(scale.map(|scale| self.vector(owner, scale)));
        args.push(self.buffer(decode, "x", width));
        self.next_args(decode, next_gamma, &mut args);
        Step::new(Choice::Fixed(kernel), args)
    }

    fn rope(&mut self, owner: &Owners<'_>, step: &RopeStep, decode: bool) -> Step {
        let table = step.rope.as_ref().map(|rope| {
            let inv_freq = rope.frequencies(self.context);
            self.rope_tables.iter().position(|t| t == inv_freq).unwrap_or_else(|| {
                self.rope_tables.push(inv_freq.to_vec());
                self.rope_tables.len() - 1
            })
        });
        let [q_norm, k_norm, v_norm] = step.norms.map(|norm| norm.map(|(kind, _)| kind));
        let wrap = self.wrap(owner, step.state);
        let family = RopeAppend {
            heads: step.heads,
            kv_heads: step.kv_heads,
            head_dim: step.head_dim,
            keys_as_values: step.keys_as_values,
            q_norm,
            k_norm,
            v_norm,
            rope: step.rope.clone(),
            table,
            kv: self.kv,
            wrap,
        };
        let width = family.width();
        let kernel = self.kernels.add("rope_append", family);
        let mut args =
            vec![self.buffer(decode, &step.buffer, width), self.buffer(decode, "q", step.heads * step.head_dim)];
        if step.kv_heads > 0 {
            args.push(Arg::Keys(step.state));
            args.push(Arg::Values(step.state));
        }
        for (_, gamma) in step.norms.into_iter().flatten() {
            if let Some(gamma) = gamma {
                args.push(self.vector(owner, gamma));
            }
        }
        args.push(Arg::Params);
        Step::new(Choice::Fixed(kernel), args)
    }

    fn attention(&mut self, owner: &Owners<'_>, step: &AttentionStep, decode: bool, steps: &mut Vec<Step>) {
        let spec = self.spec(owner, step.state);
        let width = step.heads * step.head_dim;
        let kernel = Attend {
            heads: step.heads,
            kv_heads: spec.kv_heads,
            head_dim: step.head_dim,
            attention: step.attention,
            kv: self.kv,
            wrap: self.wrap(owner, step.state),
        };
        let mut add = |role: &str, family: Family, result: Arg, when: When, this: &mut Self| {
            let id = this.kernels.add(role, family);
            let cache = [Arg::Keys(step.state), Arg::Values(step.state)];
            let q = this.buffer(decode, "q", width);
            let args = [q].into_iter().chain(cache).chain([result, Arg::Params]).collect();
            steps.push(Step { when, ..Step::new(Choice::Fixed(id), args) });
        };
        if !decode {
            let y = self.buffer(false, "attn", width);
            add("attention_tile", AttentionTile(kernel).into(), y, When::Always, self);
            return;
        }
        let y = self.buffer(true, "attn", width);
        let splits = kernel.splits(self.context);
        let when = if splits { When::OnePart } else { When::Always };
        add("attention", AttentionDecode(kernel.clone()).into(), y.clone(), when, self);
        if splits {
            let parts = self.buffer(true, "attn_parts", attention::MAX_PARTS * kernel.part_floats());
            add("attention_part", AttentionPart(kernel.clone()).into(), parts.clone(), When::Split, self);
            let id = self.kernels.add("attention_combine", AttentionCombine(kernel));
            steps.push(Step { when: When::Split, ..Step::new(Choice::Fixed(id), vec![parts, y, Arg::Params]) });
        }
    }

    /// The three steps that choose the next token from the logits.
    fn sample(&mut self) -> Vec<Step> {
        let vocab = self.graph.config.vocab_size;
        let sample = Sample { vocab, groups: vocab.div_ceil(SAMPLE_SHARE).min(SAMPLE_GROUPS) };
        let (seen, best, count, candidates) =
            (Arg::Sampler("seen"), Arg::Sampler("best"), Arg::Sampler("count"), Arg::Sampler("candidates"));
        let steps = [
            (
                "sample_best",
                Family::from(SampleBest(sample)),
                vec![Arg::Logits, seen.clone(), best.clone(), count.clone(), Arg::Params],
            ),
            (
                "sample_collect",
                SampleCollect(sample).into(),
                vec![Arg::Logits, seen.clone(), best.clone(), count.clone(), candidates.clone(), Arg::Params],
            ),
            (
                "sample_draw",
                SampleDraw(sample).into(),
                vec![best, count, candidates, seen, Arg::Sampler("next_token"), Arg::Chosen, Arg::Params],
            ),
        ];
        let step = |(name, family, args)| Step::new(Choice::Fixed(self.kernels.add(name, family)), args);
        steps.map(step).into()
    }

    fn spec(&self, owner: &Owners<'_>, slot: usize) -> forge_frontend::graph::StateSpec {
        match owner {
            Owners::Layers(layers) => self.graph.states[layers[0].1.states[slot]].spec,
            Owners::Stage(stage) => stage.block.state_slots[slot],
        }
    }

    fn wrap(&self, owner: &Owners<'_>, slot: usize) -> Option<usize> {
        capacity(self.spec(owner, slot).window, self.tile, self.context)
    }
}

/// Positions that a windowed cache keeps: the window, and what a tile appends before its first row reads.
fn capacity(window: Option<usize>, tile: usize, context: usize) -> Option<usize> {
    window.map(|window| window + tile - 1).filter(|&capacity| capacity < context)
}

fn buffer_comment(name: &str) -> &'static str {
    match name {
        "x" => "the residual stream",
        "scaled" => "x times the next norm's gamma",
        "sums" => "partial sums of x^2",
        "normed" => "the normed residual stream",
        "qkv" => "queries, keys and values, before RoPE",
        "q" => "queries after RoPE",
        "attn" => "attention's result",
        "attn_parts" => "attention's results by part of the context",
        "act" => "the gated activation",
        "layer_inputs" => "every layer's own input",
        "per_layer_model" => "the embedding projected to the layers' own inputs",
        "per_layer_gate" => "a layer's own input, gated",
        "projected" => "a projection before its norm",
        "projected_sums" => "partial sums of its squares",
        _ => "a projection's result",
    }
}

/// Role of the norm that a block starts with; the same for all blocks, or none in any.
fn first_norm(graph: &Graph, blocks: &[FusedBlock]) -> Result<Option<String>, PlanError> {
    let role = |(fused, block): (&FusedBlock, &Block)| leading_norm(fused).map(|slot| block.slots[slot].role.clone());
    let mut roles: Vec<_> = blocks.iter().zip(&graph.blocks).map(role).collect();
    roles.dedup();
    match <[_; 1]>::try_from(roles) {
        Ok([role]) => Ok(role),
        Err(_) => Err(PlanError::Unsupported {
            block: "layers".into(),
            what: "blocks that start with different norms".into(),
        }),
    }
}

fn stage_norm(graph: &Graph, head: &FusedBlock) -> Result<String, PlanError> {
    let slot = leading_norm(head)
        .ok_or_else(|| PlanError::Unsupported { block: head.name.clone(), what: "a head without a norm".into() })?;
    Ok(graph.head.block.slots[slot].role.clone())
}

fn leading_norm(fused: &FusedBlock) -> Option<SlotId> {
    match fused.ops.first() {
        Some(Fused::Projection(Projection { input: Input::Stream(Some(norm)), .. })) => Some(norm.gamma),
        _ => None,
    }
}
