//! Plans of mixtures of experts: dispatches and bytes of a token, what is stacked, what is refused.

mod common;

use common::{Mixture, Sizes};
use forge_formats::Format;
use forge_frontend::graph::{Activation, GroupScore, Groups, Op, Scores, SlotId};
use forge_plan::families::{ExpertsDownTile, ExpertsUpTile};
use forge_plan::plan::Dim;
use forge_plan::quantize::Recipe;
use forge_plan::{Family, Plan, PlanError, PlanOptions, costs, plan, quantize};

/// Those of Qwen3-30B-A3B, with fewer layers.
const SIZES: Sizes =
    Sizes { hidden: 2048, ffn: 768, heads: 32, kv_heads: 4, head_dim: 128, vocab: 151_936, layers: 4, context: 4096 };
const QWEN3: Mixture = Mixture { experts: 128, chosen: 8, width: 768, shared: 0 };
/// Those of Qwen1.5-MoE-A2.7B.
const QWEN2: Mixture = Mixture { experts: 60, chosen: 4, width: 1408, shared: 5632 };
const TINY: Sizes =
    Sizes { hidden: 64, ffn: 128, heads: 4, kv_heads: 2, head_dim: 16, vocab: 256, layers: 2, context: 512 };
const SMALL: Mixture = Mixture { experts: 8, chosen: 2, width: 32, shared: 0 };

fn planned(mixture: Mixture, format: Format) -> Plan {
    plan(&common::mixture(SIZES, mixture, format), &PlanOptions::default()).expect("a mixture has a plan")
}

#[test]
fn a_layer_is_seven_dispatches() {
    for mixture in [QWEN3, QWEN2] {
        let plan = planned(mixture, Format::Q4_0);
        let outside = plan.decode.embed().len() + plan.decode.head().len() + plan.decode.sample().len();
        let cost = costs::decode(&plan, 0);
        assert_eq!(cost.dispatches() as usize - outside, 7 * plan.layers.len(), "{mixture:?}");
    }
}

/// So that each expert has 64 of a tile's tokens, where what lies between the steps takes little beside the weights.
#[test]
fn tiles_are_as_long_as_experts_and_memory_ask_for() {
    let tile = |layers: usize, mixture: Mixture, options: &PlanOptions| {
        let graph = common::mixture(Sizes { layers, ..SIZES }, mixture, Format::Q4_0);
        let plan = plan(&graph, options).expect("a mixture has a plan");
        let tiles = plan.kernels.iter().filter_map(|kernel| match &kernel.family {
            Family::ExpertsUpTile(up) => Some(up.rows),
            Family::ExpertsDownTile(down) => Some(down.rows),
            _ => None,
        });
        assert!(tiles.clone().count() > 0 && tiles.into_iter().all(|rows| rows == plan.prefill_tile));
        plan.prefill_tile
    };
    let usual = PlanOptions::default();
    // 16 times as many experts as a token takes; 15 times.
    assert_eq!([tile(48, QWEN3, &usual), tile(24, QWEN2, &usual)], [1024, 1024]);
    // Half of the experts for each token, and a model that is no larger than what a tile takes.
    assert_eq!(tile(48, Mixture { experts: 8, chosen: 4, ..QWEN3 }, &usual), 256);
    assert_eq!(tile(4, QWEN3, &usual), 256);
    assert_eq!(tile(4, QWEN3, &PlanOptions { tile: Some(100), ..usual }), 100);
}

#[test]
fn a_token_reads_the_experts_that_it_takes() {
    for (mixture, format) in [(QWEN3, Format::Q4_0), (QWEN3, Format::Q8_0), (QWEN2, Format::Q4_0), (QWEN3, Format::F16)]
    {
        let plan = planned(mixture, format);
        let cost = costs::decode(&plan, 0);
        let ratio = cost.bytes() as f64 / cost.lower_bound as f64;
        println!("{mixture:?} {format}: {ratio:.4} of the lower bound");
        assert!((1.0..=1.01).contains(&ratio), "{mixture:?} {format}: {ratio}");
        let stacks = plan.weights.tensors.iter().filter(|tensor| tensor.name.contains("expert_"));
        let stacked: u64 =
            stacks.map(|tensor| (tensor.format.row_bytes(tensor.cols).expect("blocks") * tensor.rows) as u64).sum();
        let read: u64 = cost
            .kernels
            .iter()
            .filter(|total| matches!(plan.kernels[total.kernel].family, Family::ExpertsUp(_) | Family::ExpertsDown(_)))
            .map(|total| total.weights)
            .sum();
        let shared = 3 * mixture.shared * SIZES.hidden * plan.layers.len();
        let shared = (format.row_bytes(SIZES.hidden).expect("blocks") * (shared / SIZES.hidden)) as u64;
        let expected = stacked / mixture.experts as u64 * mixture.chosen as u64 + shared;
        assert_eq!(read, expected, "{mixture:?} {format}");
    }
}

/// Gate and up rows of all experts are one stack, unless they are stored otherwise in some layer.
#[test]
fn gate_and_up_are_stacked_where_their_formats_agree() {
    let names = |graph: &forge_frontend::Graph| {
        let plan = plan(graph, &PlanOptions::default()).expect("a mixture has a plan");
        let fields: Vec<String> = plan.layer_fields.iter().map(|field| field.name.clone()).collect();
        fields.into_iter().filter(|name| name.starts_with("expert")).collect::<Vec<_>>()
    };
    let mut graph = common::mixture(TINY, SMALL, Format::F16);
    assert_eq!(names(&graph), ["expert_gate_up", "expert_down"]);
    let up = graph.weights.iter_mut().find(|w| w.layer == Some(1) && w.role == "expert_up").expect("a stack");
    up.format = Format::BF16;
    assert_eq!(names(&graph), ["expert_gate", "expert_up", "expert_down"]);
}

/// Tiles grow with the rows that an expert gets, and no grid is larger than those rows can make tiles.
#[test]
fn tiles_of_experts() {
    for (mixture, tile) in [
        (QWEN3, 16),
        (Mixture { experts: 32, chosen: 8, ..QWEN3 }, 32),
        (Mixture { experts: 8, chosen: 4, ..QWEN3 }, 64),
    ] {
        let plan = planned(mixture, Format::Q4_0);
        let mut found = 0;
        for kernel in &plan.kernels {
            let (Family::ExpertsUpTile(ExpertsUpTile { tile: height, .. })
            | Family::ExpertsDownTile(ExpertsDownTile { tile: height, .. })) = kernel.family
            else {
                continue;
            };
            assert_eq!(height, tile, "{mixture:?}");
            let most = 256 * mixture.chosen / tile + mixture.experts;
            assert_eq!(kernel.launch.grid[1], Dim::Indirect { per_row: mixture.chosen, most });
            found += 1;
        }
        assert_eq!(found, 2, "gate and up, down");
    }
}

#[test]
fn what_kernels_have_no_room_for() {
    let error = |mixture: Mixture, groups: Option<Groups>| {
        let mut graph = common::mixture(TINY, mixture, Format::F16);
        for node in &mut graph.blocks[0].nodes {
            if let Op::Route { routing, .. } = &mut node.op {
                routing.groups = groups;
            }
        }
        plan(&graph, &PlanOptions::default()).expect_err("too many").to_string()
    };
    let many = Mixture { experts: 64, chosen: 33, ..SMALL };
    assert_eq!(error(many, None), "block layer: no kernel for 33 experts of a token; there may be 32");
    let many = Mixture { experts: 1028, ..SMALL };
    assert_eq!(error(many, None), "block layer: no kernel for 1028 experts; there may be 1024");
    let groups = Groups { count: 32, chosen: 2, judged_by: GroupScore::Best };
    let many = Mixture { experts: 64, ..SMALL };
    assert_eq!(error(many, Some(groups)), "block layer: no kernel for 32 groups of experts; there may be 31");
}

/// What does not fit the pattern of a mixture is refused rather than computed wrongly.
#[test]
fn other_graphs_around_a_router() {
    let refused = |edit: &dyn Fn(&mut Vec<forge_frontend::graph::Node>)| {
        let mut graph = common::mixture(TINY, Mixture { shared: 32, ..SMALL }, Format::F16);
        edit(&mut graph.blocks[0].nodes);
        plan(&graph, &PlanOptions::default()).expect_err("no pattern").to_string()
    };
    // Experts that read the stream rather than its norm.
    let line = refused(&|nodes| {
        for node in nodes {
            if matches!(node.op, Op::Experts { .. }) {
                node.inputs[0] = 0;
            }
        }
    });
    assert_eq!(line, "block layer: no kernel for experts that read something else than their router");
    // A shared expert without its gate's sigmoid.
    let line = refused(&|nodes| {
        for node in nodes {
            if node.op == Op::SigmoidGate {
                node.op = Op::SoftCap { cap: 1.0 };
            }
        }
    });
    assert_eq!(line, "block layer: no kernel for what is added to experts");
    let line = refused(&|nodes| {
        for node in nodes {
            if let Op::Route { .. } = node.op {
                node.op = Op::SoftCap { cap: 1.0 };
            }
        }
    });
    assert!(line.starts_with("block layer: no kernel for "), "{line}");
}

/// Biases of experts and of their router are arguments of the kernels there are: a layer has as many dispatches as without.
#[test]
fn biases_are_within_the_kernels() {
    let plain = plan(&common::mixture(TINY, SMALL, Format::F16), &PlanOptions::default()).expect("a plan");
    let mut graph = common::mixture(TINY, SMALL, Format::F16);
    let block = &mut graph.blocks[0];
    let sizes =
        [("router_bias", 8), ("expert_gate_bias", 8 * 32), ("expert_up_bias", 8 * 32), ("expert_down_bias", 8 * 64)];
    let first = block.slots.len();
    let slot = |(role, cols): (&str, usize)| forge_frontend::graph::Slot { role: role.into(), rows: 1, cols };
    block.slots.extend(sizes.map(slot));
    let router = block.nodes.iter().find(|node| matches!(node.op, Op::Route { .. })).expect("a router").inputs[0];
    for node in &mut block.nodes {
        let output = node.output;
        match &mut node.op {
            Op::Experts { biases, .. } => *biases = Some([first + 1, first + 2, first + 3]),
            Op::Linear { bias, .. } if output == Some(router) => *bias = Some(first),
            _ => {}
        }
    }
    for layer in &mut graph.layers {
        for (role, cols) in sizes {
            let mut weight = graph.weights[layer.weights[0]].clone();
            (weight.role, weight.cols) = (role.into(), cols);
            layer.weights.push(graph.weights.len());
            graph.weights.push(weight);
        }
    }
    let plan = plan(&graph, &PlanOptions::default()).expect("a mixture has a plan");
    assert_eq!(costs::decode(&plan, 0).dispatches(), costs::decode(&plain, 0).dispatches());
    let biased = |kernel: &&forge_plan::Kernel| kernel.bindings.iter().any(|b| b.role == forge_spec::Role::Bias);
    let names: Vec<&str> = plan.kernels.iter().filter(biased).map(|kernel| kernel.name.as_str()).collect();
    let of_all = ["router", "expert_gate_up", "expert_down"];
    assert!(of_all.iter().all(|name| names.contains(name) && names.contains(&&*format!("{name}_tile"))), "{names:?}");
    // What a token reads of them: those of two experts of eight.
    let cost = costs::decode(&plan, 0);
    let more = cost.bytes() - costs::decode(&plain, 0).bytes();
    assert_eq!(more, 4 * 2 * (8 + 2 * (2 * 32 + 64)));
}

/// Activations that gates do not have, or that have gates alone.
#[test]
fn activations_out_of_place() {
    let clamped = Activation::ClampedSwiglu { alpha: 1702, limit: 7000 };
    let refused = |activation: Activation| {
        let mut graph = common::mixture(TINY, SMALL, Format::F16);
        for node in &mut graph.blocks[0].nodes {
            if let Op::Experts { activation: own, .. } = &mut node.op {
                *own = activation;
            }
        }
        plan(&graph, &PlanOptions::default()).map_err(|error| error.to_string())
    };
    assert!(refused(clamped).is_ok());
    let line = refused(Activation::Xielu).expect_err("no kernel");
    assert_eq!(line, "block layer: no kernel for Xielu, which takes numbers of the layer, as a gate");
    let mut graph = common::llama(TINY, Format::F16);
    for node in &mut graph.blocks[0].nodes {
        if let Op::GatedActivation { .. } = node.op {
            node.op = Op::Activation { activation: clamped, parameters: None };
            node.inputs.pop();
        }
    }
    let line = plan_error(&graph).to_string();
    assert!(line.starts_with("block layer: no kernel for "), "{line}");
}

/// Experts are quantised, routers are not: an error there takes other experts.
#[test]
fn routers_keep_their_format() {
    let mut graph = common::mixture(TINY, SMALL, Format::F16);
    let kept = quantize(&mut graph, &Recipe::all(Format::Q8_0)).expect("matrices to convert");
    let roles: Vec<(String, String)> =
        kept.iter().map(|(id, reason)| (graph.weights[*id].role.clone(), reason.to_string())).collect();
    assert_eq!(roles, [("router", "chooses experts"); 2].map(|(role, reason)| (role.to_owned(), reason.to_owned())));
    let format = |role: &str| graph.weights.iter().find(|weight| weight.role == role).expect("it").format;
    assert_eq!([format("expert_gate"), format("router")], [Format::Q8_0, Format::F32]);
}

/// A selection bias and scores of another kind are arguments of the kernels that choose.
#[test]
fn a_selection_bias_is_bound() {
    let mut graph = common::mixture(TINY, SMALL, Format::F16);
    let block = &mut graph.blocks[0];
    block.slots.push(forge_frontend::graph::Slot { role: "selection_bias".into(), rows: 1, cols: 8 });
    let slot: SlotId = block.slots.len() - 1;
    for node in &mut block.nodes {
        if let Op::Route { routing, bias } = &mut node.op {
            *bias = Some(slot);
            routing.scores = Scores::Sigmoid;
        }
    }
    for layer in &mut graph.layers {
        let mut weight = graph.weights[layer.weights[0]].clone();
        (weight.role, weight.cols) = ("selection_bias".into(), 8);
        layer.weights.push(graph.weights.len());
        graph.weights.push(weight);
    }
    let plan = plan(&graph, &PlanOptions::default()).expect("a mixture has a plan");
    let bound = plan.kernels.iter().filter(|k| k.bindings.iter().any(|b| b.role == forge_spec::Role::SelectionBias));
    assert_eq!(bound.map(|kernel| kernel.name.as_str()).collect::<Vec<_>>(), ["expert_gate_up", "route"]);
    let error = {
        let mut graph = graph.clone();
        graph.blocks[0].nodes.iter_mut().for_each(|node| {
            if let Op::Route { routing, .. } = &mut node.op {
                routing.chosen = 40;
            }
        });
        plan_error(&graph)
    };
    assert!(matches!(error, PlanError::Unsupported { .. }), "{error}");
}

fn plan_error(graph: &forge_frontend::Graph) -> PlanError {
    plan(graph, &PlanOptions::default()).expect_err("no plan")
}
