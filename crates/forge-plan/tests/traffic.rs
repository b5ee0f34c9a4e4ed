//! Decode traffic of a Llama-3-8B-shaped plan against the lower bound, for the formats that the documentation quotes;
//! formulas of costs; what there is to tune.

mod common;
#[path = "common/indirect.rs"]
mod indirect;
#[path = "common/random.rs"]
mod random;

use common::{Mixture, Sizes};
use forge_formats::Format;
use forge_frontend::graph::{GatedDelta, Op, Slot};
use forge_plan::costs::StepSize;
use forge_plan::families::{AttentionCombine, AttentionDecode, AttentionPart, AttentionTile, Operands};
use forge_plan::geometry::Shape;
use forge_plan::plan::{Dim, End, Segment, Stage};
use forge_plan::tuning::tuning;
use forge_plan::{CacheType, Family, Kernel, Plan, PlanOptions, costs, plan};

const SIZES: Sizes = Sizes {
    hidden: 4096,
    ffn: 14_336,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    vocab: 128_256,
    layers: 32,
    context: 131_072,
};

fn llama(format: Format) -> Plan {
    plan(&common::llama(SIZES, format), &PlanOptions::default()).expect("a dense model has a plan")
}

#[test]
fn decode_traffic_stays_near_the_lower_bound() {
    for format in [Format::Q8_0, Format::Q4_0, Format::F16] {
        let plan = llama(format);
        for (position, bound) in [(0, 1.02), (8191, 1.05)] {
            let cost = costs::decode(&plan, position);
            let ratio = cost.bytes() as f64 / cost.lower_bound as f64;
            println!("{format} at context {}: {ratio:.4} of the lower bound", position + 1);
            assert!((1.0..=bound).contains(&ratio), "{format} at {position}: {ratio}");
        }
        let input = costs::decode(&plan, 0).input_per_weight_byte();
        println!("{format}: {input:.2} requested input bytes per weight byte");
        assert!(input <= 3.0, "{format}: {input}");
    }
}

/// Programs evaluate formulas of rows, tiles, positions, pairs and parts; with these counted one by one they give what the
/// plan counts, at random sizes.
#[test]
fn formulas_are_exact() {
    let plan = llama(Format::Q4_0);
    let mut random = random::Random::new(17);
    let mut compared = 0;
    for kernel in &plan.kernels {
        let windows: &[Option<usize>] = match &kernel.family {
            Family::AttentionTile(_)
            | Family::AttentionDecode(_)
            | Family::AttentionPart(_)
            | Family::AttentionCombine(_) => &[None, Some(1), Some(100), Some(1024)],
            _ => &[None],
        };
        for (&window, _) in windows.iter().flat_map(|window| std::iter::repeat_n(window, 40).zip(0..)) {
            let kernel = Kernel::new(kernel.name.clone(), with_window(&kernel.family, window));
            let rows = if kernel.is_for_one_row() { 1 } else { 1 + random.below(200) };
            let size = StepSize { rows, position: random.below(5000), slots: 1 };
            // What the rows see, position by position.
            let seen = |row: usize| {
                let position = size.position + row;
                (position + 1).saturating_sub(window.unwrap_or(usize::MAX))..position + 1
            };
            let mut positions = vec![false; size.position + rows];
            (0..rows).for_each(|row| positions[seen(row)].fill(true));
            let positions = positions.into_iter().filter(|seen| *seen).count();
            let pairs: usize = (0..rows).map(|row| seen(row).len()).sum();
            let tiles = kernel.launch.grid.iter().find_map(|dim| match dim {
                Dim::RowTiles(tile) => Some((0..rows).step_by(*tile).count()),
                Dim::PositionTiles(tile) => Some((0..size.position + rows).step_by(*tile).count()),
                _ => None,
            });
            let counts = |positions: usize| {
                let split = kernel.family.split();
                let parts = (0..rows).map(|row| split.map_or(1, |split| split.parts(size.position + row))).sum();
                [1, rows, tiles.unwrap_or(0), positions, parts].map(|count| count as u64)
            };
            let value = |terms: [u64; 5], positions| -> u64 {
                terms.iter().zip(counts(positions)).map(|(factor, count)| factor * count).sum()
            };
            let (formula, cost) = (costs::formula(&kernel), costs::dispatch(&kernel, size));
            let name = format!("{}, window {window:?}: {size:?}", kernel.name);
            assert_eq!(value(formula.bytes, positions), cost.read() + cost.written(), "{name}");
            assert_eq!(value(formula.flops, pairs), cost.flops, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 1000, "{compared} comparisons");
}

/// An indirect dispatch costs what the largest grid may, and the twelve bytes that say how large it is.
#[test]
fn an_indirect_dispatch_costs_its_largest_grid_and_its_counts() {
    let plan = llama(Format::Q4_0);
    let direct = plan.kernels.iter().find(|kernel| kernel.name == "rms_norm_tile").expect("a kernel");
    let mut kernel = direct.clone();
    kernel.launch.grid = [indirect::INDIRECT, Dim::Const(2), Dim::Const(1)];
    for (rows, threadgroups) in [(1, 6), (33, 198), (34, 200), (256, 200)] {
        let size = StepSize { rows, position: 0, slots: 1 };
        let (cost, before) = (costs::dispatch(&kernel, size), costs::dispatch(direct, size));
        assert_eq!((cost.threadgroups, cost.counts, before.counts), (threadgroups, 12, 0), "{rows} rows");
        assert_eq!((cost.read(), cost.written()), (before.read() + 12, before.written()));
    }
    let mut terms = costs::formula(direct).bytes;
    terms[0] += 12;
    assert_eq!(costs::formula(&kernel).bytes, terms);
}

fn with_window(family: &Family, window: Option<usize>) -> Family {
    let mut family = family.clone();
    match &mut family {
        Family::AttentionTile(AttentionTile(a))
        | Family::AttentionDecode(AttentionDecode(a))
        | Family::AttentionPart(AttentionPart(a))
        | Family::AttentionCombine(AttentionCombine(a)) => a.attention.window = window,
        _ => {}
    }
    family
}

#[test]
fn a_dense_layer_is_six_dispatches_and_seven_where_the_context_splits() {
    let plan = llama(Format::Q4_0);
    let outside = plan.decode.embed().len() + plan.decode.head().len() + plan.decode.sample().len();
    for (position, each) in [(0, 6), (8191, 7)] {
        let cost = costs::decode(&plan, position);
        let layers = cost.dispatches() as usize - outside;
        println!("context {}: {} dispatches, {} barriers a token", position + 1, cost.dispatches(), cost.barriers());
        assert_eq!(layers, each * plan.layers.len(), "dispatches of all layers at {position}");
    }
}

/// What a tile's tokens come to behind the last cache nobody reads: of the last layer its norm, projection and append are left.
#[test]
fn a_tile_without_logits_ends_with_the_last_state() {
    let plan = llama(Format::Q4_0);
    let layers = plan.layers.len();
    let (whole, states) = (plan.prefill.without(Stage::Head), plan.prefill_of_states());
    assert_eq!(states.end, Some(End { layer: layers - 1, steps: 3 }));
    let size = StepSize { rows: 256, position: 256, slots: 1 };
    let (all, kept) = (costs::dispatches(&plan, &whole, size), costs::dispatches(&plan, &states, size));
    assert_eq!((all.len() - kept.len(), all[..kept.len()] == kept[..]), (6, true));
    // A prompt costs no more than that, and not less than it has to.
    let prompt = costs::prompt(&plan, 256, 256);
    assert_eq!(prompt.dispatches() as usize, kept.len());
    let ratio = prompt.bytes() as f64 / prompt.lower_bound as f64;
    println!("{ratio:.4} of the lower bound");
    assert!(ratio >= 1.0, "{ratio}");
    // Layers behind it that look at its cache do not run at all.
    let mut shared = plan.clone();
    for layer in &mut shared.layers[2..] {
        layer.block = 1;
    }
    let (append, rest) = shared.prefill.blocks()[0].split_at(3);
    let reading = [&append[..2], rest].concat();
    shared.prefill.segments[1] = Segment::layers(vec![shared.prefill.blocks()[0].clone(), reading]);
    assert_eq!(shared.prefill_of_states().end, Some(End { layer: 1, steps: 3 }));
}

/// Layers of Qwen3.8-27B and Qwen3.6-35B-A3B: the convolution, the recurrence, its norms and gates are one dispatch between two
/// projections, also where the four matrices of the first are of three formats.
#[test]
fn a_delta_layer_is_five_dispatches_and_six_with_experts() {
    let delta = |value_heads| GatedDelta {
        key_heads: 16,
        value_heads,
        key_dim: 128,
        value_dim: 128,
        taps: 4,
        tiled_heads: true,
        eps: 1e-6,
    };
    let sizes = |hidden, ffn| Sizes { hidden, ffn, layers: 4, ..SIZES };
    let mixture = Mixture { experts: 256, chosen: 8, width: 512, shared: 512 };
    let models = [
        (common::delta(sizes(5120, 17_408), delta(48), None, Format::Q8_0), 5),
        (common::delta(sizes(2048, 512), delta(32), Some(mixture), Format::Q8_0), 6),
    ];
    for (mut graph, each) in models {
        for mixed in [false, true] {
            for weight in graph.weights.iter_mut().filter(|_| mixed) {
                match weight.role.as_str() {
                    "delta_qkv" => weight.format = Format::Q5K,
                    "delta_b" | "delta_a" => weight.format = Format::F32,
                    _ => {}
                }
            }
            let plan = plan(&graph, &PlanOptions::default()).expect("a hybrid has a plan");
            let outside = plan.decode.embed().len() + plan.decode.head().len() + plan.decode.sample().len();
            let cost = costs::decode(&plan, 0);
            assert_eq!(cost.dispatches() as usize - outside, each * plan.layers.len(), "mixed: {mixed}");
            let ratio = cost.bytes() as f64 / cost.lower_bound as f64;
            println!("{each} dispatches a layer, mixed: {mixed}: {ratio:.4} of the lower bound");
            assert!((1.0..=1.02).contains(&ratio), "{ratio}");
        }
    }
}

/// What a norm may blow up beyond the half range, or no norm bounds, is scaled; weights beyond that range keep float tiles.
#[test]
fn large_activations_are_scaled() {
    let tiles_of = |format: Format, gamma: f32, kv: CacheType| {
        let mut graph = common::llama(Sizes { layers: 1, ..SIZES }, format);
        graph.weights.iter_mut().filter(|w| w.rows == 1).for_each(|w| w.max_abs = Some(gamma));
        let plan = plan(&graph, &PlanOptions { kv, ..PlanOptions::default() }).expect("a dense model has a plan");
        let tiles = |kernel: &Kernel| match &kernel.family {
            Family::Gemm(gemm) => Some((kernel.name.clone(), gemm.operands)),
            _ => None,
        };
        let tiles: Vec<_> = plan.kernels.iter().filter_map(tiles).collect();
        let scaled: Vec<_> =
            plan.kernels.iter().filter(|kernel| matches!(kernel.family, Family::RowScale(_))).collect();
        assert_eq!(scaled.len(), tiles.iter().filter(|(_, operands)| *operands == Operands::ScaledHalves).count());
        let of = |wanted: Operands| {
            let names = tiles.iter().filter(|(_, operands)| *operands == wanted).map(|(name, _)| name.clone());
            names.collect::<Vec<_>>()
        };
        [of(Operands::Halves), of(Operands::ScaledHalves), of(Operands::Floats)]
    };
    let [qkv, o, gate_up, down, head] =
        ["qkv_proj_tile", "o_proj_tile", "gate_up_proj_tile", "down_proj_tile", "lm_head_tile"].map(String::from);
    let normed = vec![qkv.clone(), gate_up.clone(), head.clone()];
    let made = vec![o.clone(), down.clone()];
    for kv in [CacheType::F32, CacheType::Q8_0] {
        assert_eq!(tiles_of(Format::Q8_0, 1.0, kv), [normed.clone(), made.clone(), vec![]]);
    }
    // Means of values that the cache holds as halves are within their range.
    let of_halves = vec![qkv.clone(), o.clone(), gate_up.clone(), head.clone()];
    assert_eq!(tiles_of(Format::Q8_0, 1.0, CacheType::F16), [of_halves, vec![down.clone()], vec![]]);
    let large = vec![qkv.clone(), gate_up.clone(), down.clone(), head.clone()];
    for (gamma, why) in
        [(1000.0, "64 times 1000 is the end of the half range"), (f32::INFINITY, "as what is no number")]
    {
        let expected = [vec![o.clone()], large.clone(), vec![]];
        assert_eq!(tiles_of(Format::Q8_0, gamma, CacheType::F16), expected, "{why}");
    }
    assert_eq!(tiles_of(Format::BF16, 1.0, CacheType::F16), [vec![], vec![], vec![qkv, o, gate_up, down, head]]);
}

/// The same of what a LayerNorm adds.
#[test]
fn large_betas_are_scaled() {
    let operands = |largest: f32| {
        let mut graph = common::llama(Sizes { layers: 1, ..SIZES }, Format::Q8_0);
        let head = &mut graph.head;
        head.block.slots.push(Slot { role: "output_norm_bias".into(), ..head.block.slots[0].clone() });
        let beta = Some(head.block.slots.len() - 1);
        let Op::RmsNorm { gamma, eps } = head.block.nodes[0].op else { panic!("a norm comes first") };
        head.block.nodes[0].op = Op::LayerNorm { gamma, beta, eps };
        let mut weight = graph.weights[head.weights[gamma]].clone();
        weight.max_abs = Some(largest);
        head.weights.push(graph.weights.len());
        graph.weights.push(weight);
        let plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
        let head = |kernel: &Kernel| match &kernel.family {
            Family::Gemm(gemm) if kernel.name == "lm_head_tile" => Some(gemm.operands),
            _ => None,
        };
        plan.kernels.iter().find_map(head).expect("a head for tiles")
    };
    assert_eq!(operands(1.0), Operands::Halves);
    assert_eq!(operands(60_000.0), Operands::ScaledHalves);
}

/// Layers share a grid, so the kernels of layers with different formats have to cover their rows with the same one.
#[test]
fn layers_of_different_formats_share_a_grid() {
    let mut graph = common::llama(Sizes { layers: 4, ..SIZES }, Format::Q4K);
    for weight in graph.weights.iter_mut().filter(|w| w.role == "ffn_down" && w.layer.is_some_and(|i| i % 2 == 0)) {
        weight.format = Format::Q6K;
    }
    let plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
    let mut tables = 0;
    for table in &plan.tables {
        let groups = |&id: &usize| match &plan.kernels[id].family {
            Family::Gemv(gemv) => gemv.threadgroups(),
            Family::Gemm(gemm) => gemm.row_tiles(),
            other => panic!("{}: {other:?} is no projection", table.name),
        };
        let mut counts: Vec<usize> = table.kernels.iter().map(groups).collect();
        counts.dedup();
        assert_eq!(counts.len(), 1, "{}: {counts:?} threadgroups", table.name);
        tables += 1;
    }
    assert_eq!(tables, 4, "one row, two, more, tiles");
}

/// Layers of two formats share a grid, hence a geometry: they are tuned together, and one entry is for both.
#[test]
fn layers_of_two_formats_are_tuned_together() {
    let mut graph = common::llama(Sizes { layers: 3, ..SIZES }, Format::Q4_0);
    let down = graph.weights.iter_mut().find(|w| w.layer == Some(1) && w.role == "ffn_down").expect("a weight");
    down.format = Format::Q8_0;
    let planned = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
    let shapes = tuning(&planned);
    let both = shapes.iter().find(|tuning| tuning.kernels.len() == 2).expect("a shape with two kernels");
    assert_eq!(both.shape, Shape { format: Format::Q4_0, rows: SIZES.hidden, cols: SIZES.ffn });
    assert!((2..=3).contains(&both.variants.len()));
    assert!(both.variants.iter().all(|variant| variant.kernels.len() == 2));
    let geometry = both.variants[0].geometry;
    let options = PlanOptions { geometries: [(both.shape, geometry)].into(), ..PlanOptions::default() };
    let planned = plan(&graph, &options).expect("a dense model has a plan");
    let after = tuning(&planned);
    let after = after.iter().find(|tuning| tuning.shape == both.shape).expect("the same shape");
    assert_eq!((after.chosen, after.kernels.len()), (geometry, 2));
    for &id in &after.kernels {
        let Family::Gemv(gemv) = &planned.kernels[id].family else { panic!("a matrix-vector product") };
        assert_eq!(gemv.geometry, geometry, "{}", planned.kernels[id].name);
    }
}
