//! Decode traffic of a Llama-3-8B-shaped plan against the lower bound, for the formats that the documentation quotes;
//! formulas of costs; what there is to tune.

mod common;

use common::Sizes;
use forge_formats::Format;
use forge_plan::costs::StepSize;
use forge_plan::formula::{Formula, Linear};
use forge_plan::geometry::Shape;
use forge_plan::plan::{Choice, Dim};
use forge_plan::tuning::tuning;
use forge_plan::{Plan, PlanOptions, attention, costs, plan};

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

/// Programs evaluate formulas; they give what the plan counts, at sizes that the coefficients were not taken from.
#[test]
fn formulas_are_exact() {
    let plan = llama(Format::Q4_0);
    let (mut prefill, mut decode) = (0, 0);
    for (schedule, rows) in [(&plan.decode, &[1][..]), (&plan.prefill, &[1, 3, 64, 200][..])] {
        let stages = [&schedule.embed, &schedule.head, &schedule.sample];
        for step in stages.into_iter().chain(&schedule.blocks).flatten() {
            let Choice::Fixed(id) = step.kernel else { panic!("one format has no tables") };
            let windows: &[Option<usize>] = match plan.kernels[id].family {
                forge_plan::Family::Embed(_) | forge_plan::Family::Gemv(_) | forge_plan::Family::Gemm(_) => &[None],
                _ => &[None, Some(1), Some(100), Some(1024)],
            };
            for &window in windows {
                let mut kernel = plan.kernels[id].clone();
                set_window(&mut kernel.family, window);
                let formula = Formula::of(&kernel, &step.grid);
                for &rows in rows {
                    for position in [0, 1, 7, 99, 100, 255, 256, 1023, 1024, 5000] {
                        let size = StepSize { rows, position };
                        let cost = costs::dispatch(&kernel, &step.grid, size);
                        let seen = |position: usize| (position + 1).min(window.unwrap_or(usize::MAX));
                        let parts = attention::parts(seen(position));
                        let tiles = step.grid.iter().find_map(|dim| match dim {
                            Dim::RowTiles(tile) => Some(rows.div_ceil(*tile)),
                            _ => None,
                        });
                        let pairs = (position..position + rows).map(seen).sum();
                        let value = |l: Linear, positions: usize| {
                            let rows = [(l.per_row, rows), (l.per_tile, tiles.unwrap_or(0))];
                            let variable = rows.into_iter().chain([(l.per_position, positions), (l.per_part, parts)]);
                            l.fixed + variable.map(|(factor, count)| factor * count as u64).sum::<u64>()
                        };
                        let bytes = value(formula.bytes, rows - 1 + seen(position));
                        let name = &kernel.name;
                        assert_eq!(bytes, cost.read() + cost.written(), "{name}, window {window:?}: {size:?}");
                        assert_eq!(value(formula.flops, pairs), cost.flops, "{name}, window {window:?}: {size:?}");
                        if rows > 1 { prefill += 1 } else { decode += 1 }
                    }
                }
            }
        }
    }
    assert!(prefill > 300 && decode > 300, "{prefill} and {decode} comparisons");
}

fn set_window(family: &mut forge_plan::Family, window: Option<usize>) {
    use forge_plan::Family as F;
    if let F::AttentionTile(a) | F::AttentionDecode(a) | F::AttentionPart(a) | F::AttentionCombine(a) = family {
        a.attention.window = window;
    }
}

#[test]
fn a_dense_layer_is_six_dispatches_and_seven_where_the_context_splits() {
    let plan = llama(Format::Q4_0);
    let outside = plan.decode.embed.len() + plan.decode.head.len() + plan.decode.sample.len();
    for (position, each) in [(0, 6), (8191, 7)] {
        let cost = costs::decode(&plan, position);
        let layers = cost.dispatches() as usize - outside;
        println!("context {}: {} dispatches, {} barriers a token", position + 1, cost.dispatches(), cost.barriers());
        assert_eq!(layers, each * plan.layers.len(), "dispatches of all layers at {position}");
    }
}

/// Weights that a norm may blow up beyond the half range keep float tiles.
#[test]
fn large_activations_keep_float_tiles() {
    let half_tiles = |gamma: f32| {
        let mut graph = common::llama(Sizes { layers: 1, ..SIZES }, Format::Q8_0);
        graph.weights.iter_mut().filter(|w| w.rows == 1).for_each(|w| w.max_abs = Some(gamma));
        let plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
        let tiles = |kernel: &forge_plan::Kernel| match &kernel.family {
            forge_plan::Family::Gemm(gemm) => Some((kernel.name.clone(), gemm.half_tiles)),
            _ => None,
        };
        plan.kernels.iter().filter_map(tiles).filter(|(_, half)| *half).map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(half_tiles(1.0), ["qkv_proj_tile", "gate_up_proj_tile", "lm_head_tile"]);
    assert!(half_tiles(1000.0).is_empty(), "64 times 1000 is the end of the half range");
    assert!(half_tiles(f32::INFINITY).is_empty(), "what is not a number has this bound");
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
            forge_plan::Family::Gemv(gemv) => gemv.threadgroups(),
            forge_plan::Family::Gemm(gemm) => gemm.row_tiles(),
            other => panic!("{}: {other:?} is no projection", table.name),
        };
        let mut counts: Vec<usize> = table.kernels.iter().map(groups).collect();
        counts.dedup();
        assert_eq!(counts.len(), 1, "{}: {counts:?} threadgroups", table.name);
        tables += 1;
    }
    assert_eq!(tables, 3, "decode, tiles, few tokens");
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
        let forge_plan::Family::Gemv(gemv) = &planned.kernels[id].family else { panic!("a matrix-vector product") };
        assert_eq!(gemv.geometry, geometry, "{}", planned.kernels[id].name);
    }
}
