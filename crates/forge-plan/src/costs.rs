//! Exact accounting: bytes that each dispatch reads and writes, floating-point operations, threadgroups.
//!
//! Unique bytes count a byte once per dispatch however many threads touch it; that is what has to come from memory at
//! least. Requested bytes count every load of every thread; for the input of a projection they say how often it is
//! read again. The software Metal device counts the same numbers while it runs the kernels, and a test holds the two
//! equal.

use forge_formats::Format;

use crate::attention;
use crate::kernel::{
    Access, Epilogue, FEW_TOKENS, Family, GEMM_ROWS, GEMM_TOKENS, Gemm, Gemv, Kernel, Matrix, NextNorm,
};
use crate::packed::stored_bytes;
use crate::plan::{Arg, Choice, Dim, Plan, Schedule, Step, When};

/// Size of a step: what the kernels learn at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Tokens in the step.
    pub rows: usize,
    /// Position of the first of them.
    pub position: usize,
}

/// Bytes of one binding in one dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes read, each once.
    pub read: u64,
    /// Bytes read, each time that a thread loads it; only for inputs of projections, else as `read`.
    pub requested: u64,
    /// Bytes written, each once.
    pub written: u64,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cost {
    /// In binding order.
    pub bindings: Vec<Traffic>,
    /// Multiplications and additions of matrix products and attention.
    pub flops: u64,
    /// Threadgroups.
    pub threadgroups: u64,
}

impl Cost {
    /// Bytes read, each once.
    pub fn read(&self) -> u64 {
        self.bindings.iter().map(|b| b.read).sum()
    }
    /// Bytes read, each time that a thread loads them; see [`Traffic::requested`].
    pub fn requested(&self) -> u64 {
        self.bindings.iter().map(|b| b.requested).sum()
    }
    /// Bytes written, each once.
    pub fn written(&self) -> u64 {
        self.bindings.iter().map(|b| b.written).sum()
    }
}

/// All dispatches of one kernel in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTotal {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Dispatches.
    pub dispatches: u64,
    /// Barriers before them.
    pub barriers: u64,
    /// Bytes read, each once per dispatch.
    pub read: u64,
    /// Bytes of weights among them.
    pub weights: u64,
    /// Input bytes of projections, each time they are loaded.
    pub requested_input: u64,
    /// Bytes read, each time that a thread loads them; see [`Traffic::requested`].
    pub requested: u64,
    /// Bytes written.
    pub written: u64,
    /// See [`Cost::flops`].
    pub flops: u64,
    /// Threadgroups of the first dispatch.
    pub threadgroups: u64,
}

/// One pass over the model: a decode step or one tile of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassCost {
    /// By kernel, in file order; kernels of the other path are left out.
    pub kernels: Vec<KernelTotal>,
    /// What no schedule can avoid: matrices and vectors as stored in the checkpoint, the cache read and appended to,
    /// the logits.
    pub lower_bound: u64,
}

impl PassCost {
    /// Bytes read and written.
    pub fn bytes(&self) -> u64 {
        self.kernels.iter().map(|k| k.read + k.written).sum()
    }
    /// Bytes read, each time that a thread loads them, and bytes written.
    pub fn requested_bytes(&self) -> u64 {
        self.kernels.iter().map(|k| k.requested + k.written).sum()
    }
    /// Dispatches.
    pub fn dispatches(&self) -> u64 {
        self.kernels.iter().map(|k| k.dispatches).sum()
    }
    /// Barriers.
    pub fn barriers(&self) -> u64 {
        self.kernels.iter().map(|k| k.barriers).sum()
    }
    /// See [`Cost::flops`].
    pub fn flops(&self) -> u64 {
        self.kernels.iter().map(|k| k.flops).sum()
    }
    /// Requested input bytes of matrix-vector products per byte of their weights.
    pub fn input_per_weight_byte(&self) -> f64 {
        let (input, weights) = self
            .kernels
            .iter()
            .filter(|k| k.requested_input > 0)
            .fold((0, 0), |(input, weights), k| (input + k.requested_input, weights + k.weights));
        input as f64 / (weights as f64).max(1.0)
    }
}

/// A decode step with `position` tokens before it.
pub fn decode(plan: &Plan, position: usize) -> PassCost {
    let size = StepSize { rows: 1, position };
    pass(plan, &dispatches(plan, &plan.decode, size), lower_bound(plan, &plan.decode, size))
}

/// `tokens` tokens after `position` others, in tiles, without logits.
pub fn prompt(plan: &Plan, tokens: usize, position: usize) -> PassCost {
    let schedule = Schedule { head: Vec::new(), ..plan.prefill.clone() };
    let mut list = Vec::new();
    for first in (0..tokens).step_by(plan.prefill_tile) {
        let size = StepSize { rows: plan.prefill_tile.min(tokens - first), position: position + first };
        list.extend(dispatches(plan, &schedule, size));
    }
    pass(plan, &list, lower_bound(plan, &schedule, StepSize { rows: tokens, position }))
}

/// One dispatch of a pass, as it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Whether a barrier precedes it.
    pub barrier: bool,
    /// What it costs.
    pub cost: Cost,
}

/// All dispatches of a schedule for a step of this size, in order.
pub fn dispatches(plan: &Plan, schedule: &Schedule, size: StepSize) -> Vec<Encoded> {
    let mut list = Vec::new();
    let mut add = |step: &Step, layer: usize| {
        let few = step.few.filter(|_| size.rows <= FEW_TOKENS);
        let (choice, grid) = few.map_or((step.kernel, step.grid), |few| (few.kernel, few.grid));
        let kernel = match choice {
            Choice::Fixed(id) => id,
            Choice::PerLayer(table) => plan.tables[table].kernels[layer],
        };
        let split = attention::parts(seen_positions(&plan.kernels[kernel].family, size)) > 1;
        if step.when != if split { When::OnePart } else { When::Split } {
            let cost = dispatch(&plan.kernels[kernel], &grid, size);
            list.push(Encoded { kernel, barrier: step.barrier, cost });
        }
    };
    schedule.embed.iter().for_each(|step| add(step, 0));
    for (index, layer) in plan.layers.iter().enumerate() {
        schedule.blocks[layer.block].iter().for_each(|step| add(step, index));
    }
    schedule.head.iter().chain(&schedule.sample).for_each(|step| add(step, 0));
    list
}

fn pass(plan: &Plan, dispatches: &[Encoded], lower_bound: u64) -> PassCost {
    let mut kernels: Vec<KernelTotal> = Vec::new();
    for Encoded { kernel, barrier, cost } in dispatches {
        let (weights, input) = projection_traffic(&plan.kernels[*kernel].family, cost);
        let index = kernels.iter().position(|k| k.kernel == *kernel).unwrap_or_else(|| {
            kernels.push(KernelTotal {
                kernel: *kernel,
                dispatches: 0,
                barriers: 0,
                read: 0,
                weights: 0,
                requested_input: 0,
                requested: 0,
                written: 0,
                flops: 0,
                threadgroups: cost.threadgroups,
            });
            kernels.len() - 1
        });
        let total = &mut kernels[index];
        total.dispatches += 1;
        total.barriers += u64::from(*barrier);
        total.read += cost.read();
        total.weights += weights;
        total.requested_input += input;
        total.requested += cost.requested();
        total.written += cost.written();
        total.flops += cost.flops;
    }
    kernels.sort_by_key(|k| k.kernel);
    PassCost { kernels, lower_bound }
}

/// Weight bytes of a projection, and its input's requested bytes where it is a matrix-vector product.
fn projection_traffic(family: &Family, cost: &Cost) -> (u64, u64) {
    let read = |range: std::ops::Range<usize>| cost.bindings[range].iter().map(|b| b.read).sum();
    match family {
        Family::Gemv(gemv) => (read(0..gemv.matrices.len()), cost.bindings[gemv.matrices.len()].requested),
        Family::Gemm(gemm) => (read(0..gemm.matrices.len()), 0),
        _ => (0, 0),
    }
}

fn stored(format: Format, rows: usize, cols: usize) -> u64 {
    (format.row_bytes(cols).unwrap_or(0) * rows) as u64
}

/// Weights in their stored size, the cache, the logits.
fn lower_bound(plan: &Plan, schedule: &Schedule, size: StepSize) -> u64 {
    let has_head = !schedule.head.is_empty();
    let mut bytes = 0;
    let tables = schedule.embed.iter().filter_map(|step| match (step.args.first(), step.kernel) {
        (Some(Arg::Model(name)), Choice::Fixed(id)) => Some((name.as_str(), &plan.kernels[id].family)),
        _ => None,
    });
    let looked_up: Vec<&str> =
        tables.filter(|(_, family)| matches!(family, Family::LayerInputs(_))).map(|(name, _)| name).collect();
    for tensor in &plan.weights.tensors {
        let in_layer = tensor.name.starts_with("layers.");
        bytes += match tensor.name.as_str() {
            "token_embd" => {
                let row = stored(tensor.format, 1, tensor.cols);
                let tied = !plan.model_fields.iter().any(|field| field.name == "lm_head");
                if tied && has_head { stored(tensor.format, tensor.rows, tensor.cols) } else { row * size.rows as u64 }
            }
            // Read by rows, as the embedding is.
            name if looked_up.contains(&name) => stored(tensor.format, 1, tensor.cols) * size.rows as u64,
            _ if in_layer || has_head => stored(tensor.format, tensor.rows, tensor.cols),
            _ => 0,
        };
    }
    for layer in &plan.layers {
        for &state in &layer.states {
            let state = &plan.states[state];
            let row = 2 * state.width() * plan.kv.bytes();
            let window = state.window.unwrap_or(usize::MAX);
            let read = (size.position + size.rows).min(window.saturating_add(size.rows - 1));
            bytes += ((read + size.rows) * row) as u64;
        }
    }
    if has_head {
        bytes += (plan.config.vocab_size * 4 * size.rows) as u64;
    }
    bytes
}

/// One dispatch of a kernel over a grid.
pub fn dispatch(kernel: &Kernel, grid: &[Dim; 3], size: StepSize) -> Cost {
    let groups = grid.iter().map(|dim| match dim {
        Dim::Const(n) => *n as u64,
        Dim::Rows => size.rows as u64,
        Dim::RowTiles(n) => size.rows.div_ceil(*n) as u64,
        Dim::Parts => attention::parts(seen_positions(&kernel.family, size)) as u64,
    });
    let threadgroups = groups.product();
    let mut list = Traffics { access: kernel.bindings.iter().map(|b| b.access).collect(), bindings: Vec::new() };
    let flops = family_traffic(&kernel.family, size, &mut list);
    while list.bindings.len() < kernel.bindings.len() {
        // What is left is the step's parameters.
        list.bindings.push(Traffic::default());
    }
    Cost { bindings: list.bindings, flops, threadgroups }
}

/// Positions that decode attention looks at.
fn seen_positions(family: &Family, size: StepSize) -> usize {
    match family {
        Family::AttentionDecode(a) | Family::AttentionPart(a) | Family::AttentionCombine(a) => {
            (size.position + 1).min(a.attention.window.unwrap_or(usize::MAX))
        }
        _ => size.position + 1,
    }
}

/// Traffic of bindings in order, read or written as the kernel declares.
struct Traffics {
    access: Vec<Access>,
    bindings: Vec<Traffic>,
}

impl Traffics {
    fn push(&mut self, bytes: usize) {
        self.requested(bytes, bytes);
    }

    fn requested(&mut self, bytes: usize, requested: usize) {
        let access = self.access[self.bindings.len()];
        self.bindings.push(Traffic {
            read: if access.reads() { bytes as u64 } else { 0 },
            requested: if access.reads() { requested as u64 } else { 0 },
            written: if access.writes() { bytes as u64 } else { 0 },
        });
    }

    fn weights(&mut self, matrices: &[Matrix]) {
        for matrix in matrices {
            self.push(stored_bytes(matrix, matrix.rows) as usize);
        }
    }

    fn next(&mut self, next: Option<NextNorm>, hidden: usize) {
        if let Some(next) = next {
            self.push(hidden * 4);
            self.push(hidden * 4);
            self.push(next.partials * 4);
        }
    }

    fn result(&mut self, epilogue: &Epilogue, rows: usize, tokens: usize) {
        match epilogue {
            Epilogue::Store { partials, .. } => {
                self.push(tokens * rows * 4);
                if let Some(partials) = partials {
                    self.push(partials * 4);
                }
            }
            Epilogue::Residual { next, .. } => {
                self.push(tokens * rows * 4);
                self.next(*next, rows);
            }
            Epilogue::Gated(_) => self.push(tokens * rows / 2 * 4),
            Epilogue::GatedBy(_) => {
                self.push(tokens * rows * 4);
                self.push(tokens * rows * 4);
            }
        }
    }
}

/// Pushes the traffic of a family's bindings; gives its operations.
fn family_traffic(family: &Family, size: StepSize, list: &mut Traffics) -> u64 {
    let rows = size.rows;
    match family {
        Family::Embed(e) => {
            list.push(stored_bytes(&e.table, rows) as usize);
            list.push(rows * 4);
            list.push(rows * e.table.cols * 4);
            list.next(e.next, e.table.cols);
            0
        }
        Family::LayerInputs(inputs) => {
            let all = inputs.layers * inputs.width;
            list.push(stored_bytes(&inputs.table, rows) as usize);
            list.push(rows * 4);
            list.push(rows * all * 4);
            list.push(inputs.width * 4);
            list.push(rows * all * 4);
            0
        }
        Family::Gemv(gemv) => gemv_traffic(gemv, rows, list),
        Family::Gemm(gemm) => gemm_traffic(gemm, rows, list),
        Family::RopeAppend(r) => {
            let (q, kv) = (r.heads * r.head_dim, r.kv_heads * r.head_dim);
            list.push(rows * r.width() * 4);
            list.push(rows * q * 4);
            if r.kv_heads > 0 {
                list.push(rows * kv * r.kv.bytes());
                list.push(rows * kv * r.kv.bytes());
            }
            for (norm, width) in [(r.q_norm, q), (r.k_norm, kv), (r.v_norm, kv)] {
                if let Some(norm) = norm
                    && norm.gamma
                {
                    list.push(if norm.norm.across_heads { width } else { r.head_dim } * 4);
                }
            }
            0
        }
        Family::AttentionTile(a) | Family::AttentionDecode(a) | Family::AttentionPart(a) => {
            let width = a.heads * a.head_dim;
            let window = a.attention.window.unwrap_or(usize::MAX);
            let seen = |position: usize| (position + 1).min(window);
            let first = size.position + 1 - seen(size.position);
            let cached = (size.position + rows - first) * a.kv_heads * a.head_dim * a.kv.bytes();
            list.push(rows * width * 4);
            list.push(cached);
            list.push(cached);
            if matches!(family, Family::AttentionPart(_)) {
                list.push(attention::parts(seen(size.position)) * a.part_floats() * 4);
            } else {
                list.push(rows * width * 4);
            }
            let pairs: usize = (size.position..size.position + rows).map(seen).sum();
            (4 * pairs * width) as u64
        }
        Family::AttentionCombine(a) => {
            let parts = attention::parts((size.position + 1).min(a.attention.window.unwrap_or(usize::MAX)));
            list.push(parts * a.part_floats() * 4);
            list.push(a.heads * a.head_dim * 4);
            (2 * parts * a.heads * a.head_dim) as u64
        }
        Family::RmsNorm(n) => {
            list.push(rows * n.width * 4);
            list.push(n.width * 4);
            list.push(rows * n.width * 4);
            0
        }
        Family::PostNorm(n) => {
            list.push(rows * n.width * 4);
            if let Some(partials) = n.partials {
                list.push(partials * 4);
            }
            list.push(n.width * 4);
            if n.scaled {
                list.push(4);
            }
            list.push(rows * n.width * 4);
            list.next(n.next, n.width);
            0
        }
        Family::SampleBest(s) => {
            list.push(s.vocab * 4);
            list.push(0);
            list.push(s.groups * 8);
            list.push(4);
            0
        }
        // Greedy: nothing is collected.
        Family::SampleCollect(_) => 0,
        Family::SampleDraw(s) => {
            list.push(s.groups * 8);
            list.push(0);
            list.push(0);
            for _ in 0..3 {
                list.push(4);
            }
            0
        }
    }
}

fn gemv_traffic(gemv: &Gemv, tokens: usize, list: &mut Traffics) -> u64 {
    list.weights(&gemv.matrices);
    let g = gemv.geometry;
    // Simdgroups that share rows read the input once together; where its sums are kept, so does a threadgroup.
    let teams = if gemv.signed_sums() { 1 } else { g.simdgroups / g.split_k };
    let input = tokens * gemv.cols * 4;
    list.requested(input, gemv.threadgroups() * teams * input);
    if let Some(norm) = gemv.norm {
        list.push(norm.partials * 4);
    }
    if gemv.bias {
        list.push(gemv.rows * 4);
    }
    list.result(&gemv.epilogue, gemv.rows, tokens);
    2 * (gemv.rows * gemv.cols * tokens) as u64
}

fn gemm_traffic(gemm: &Gemm, rows: usize, list: &mut Traffics) -> u64 {
    list.weights(&gemm.matrices);
    list.requested(rows * gemm.cols * 4, gemm.row_tiles() * rows * gemm.cols * 4);
    if gemm.bias {
        list.push(gemm.rows * 4);
    }
    list.result(&gemm.epilogue, gemm.rows, rows);
    let tiles = gemm.row_tiles() * GEMM_ROWS * rows.div_ceil(GEMM_TOKENS) * GEMM_TOKENS;
    2 * (tiles * gemm.cols) as u64
}
