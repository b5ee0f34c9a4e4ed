//! Experts however a folder stores them: each by itself, stacked, gate and up in one, quantised by MLX.

use forge_formats::Format;
use forge_frontend::graph::{Op, Scores, Weight};
use forge_frontend::{Checkpoint, load};
use serde_json::{Value, json};

use crate::{Folder, Weights};

const EXPERTS: usize = 6;

fn loaded(folder: &Folder) -> Checkpoint {
    load(folder.root.path()).expect("a checkpoint")
}

fn bytes(checkpoint: &Checkpoint, weight: &Weight) -> Vec<u8> {
    weight.source.ranges().into_iter().flat_map(|range| checkpoint.bytes(range)).copied().collect()
}

/// Takes a tensor out of the header.
fn taken(weights: &mut Weights, name: &str) -> Vec<u8> {
    let entry = weights.header.remove(name).unwrap_or_else(|| panic!("no {name}"));
    let [start, end] = [0, 1].map(|at| entry["data_offsets"][at].as_u64().expect("an offset") as usize);
    weights.data[start..end].to_vec()
}

fn put(weights: &mut Weights, name: String, shape: &Value, data: &[u8]) {
    let start = weights.data.len();
    weights.data.extend_from_slice(data);
    let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, start + data.len()]});
    weights.header.insert(name, entry);
}

#[test]
fn experts_are_the_same_however_they_are_stored() {
    let plain = loaded(&Folder::of("qwen3-moe"));
    for fused in [true, false] {
        let folder = Folder::of("qwen3-moe");
        folder.edit_weights(|weights| {
            // The layer between them has none.
            for layer in [0, 2] {
                let part = |part: &str| {
                    let name = |expert| format!("model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight");
                    (0..EXPERTS).map(name).collect::<Vec<_>>()
                };
                let mut all =
                    |names: Vec<String>| -> Vec<Vec<u8>> { names.iter().map(|name| taken(weights, name)).collect() };
                let [gate, up, down] = [all(part("gate")), all(part("up")), all(part("down"))];
                let name = |rest: &str| format!("model.layers.{layer}.mlp.{rest}");
                if fused {
                    let both: Vec<u8> = gate.iter().zip(&up).flat_map(|(gate, up)| [&gate[..], up].concat()).collect();
                    put(weights, name("experts.gate_up_proj"), &json!([EXPERTS, 48, 32]), &both);
                    put(weights, name("experts.down_proj"), &json!([EXPERTS, 32, 24]), &down.concat());
                } else {
                    put(weights, name("switch_mlp.gate_proj.weight"), &json!([EXPERTS, 24, 32]), &gate.concat());
                    put(weights, name("switch_mlp.up_proj.weight"), &json!([EXPERTS, 24, 32]), &up.concat());
                    put(weights, name("switch_mlp.down_proj.weight"), &json!([EXPERTS, 32, 24]), &down.concat());
                }
            }
        });
        let found = loaded(&folder);
        assert_eq!(found.graph.blocks, plain.graph.blocks, "fused: {fused}");
        for (found_weight, expected) in found.graph.weights.iter().zip(&plain.graph.weights) {
            assert_eq!((&found_weight.role, found_weight.rows), (&expected.role, expected.rows), "fused: {fused}");
            assert!(bytes(&found, found_weight) == bytes(&plain, expected), "fused: {fused}: {}", expected.role);
        }
    }
}

/// Codes of a stack have a dimension more than those of a matrix, and so have their scales and biases.
#[test]
fn stacks_of_mlx() {
    let stacked = |scales: Value| {
        let folder = Folder::of("qwen3-moe");
        folder.edit_json("config.json", |config| {
            config.insert("quantization".to_owned(), json!({"bits": 4, "group_size": 32}));
            config.insert("moe_intermediate_size".to_owned(), json!(32));
        });
        folder.edit_weights(|weights| {
            weights.header.retain(|name, _| !name.contains(".experts."));
            for layer in [0, 2] {
                for part in ["gate", "up", "down"] {
                    let name = |suffix: &str| format!("model.layers.{layer}.mlp.switch_mlp.{part}_proj.{suffix}");
                    weights.add(&name("weight"), "U32", &json!([EXPERTS, 32, 4]));
                    weights.add(&name("scales"), "BF16", &scales);
                    weights.add(&name("biases"), "BF16", &scales);
                }
            }
        });
        folder
    };
    let found = loaded(&stacked(json!([EXPERTS, 32, 1]))).graph;
    let stacks: Vec<&Weight> = found.weights.iter().filter(|weight| weight.role.starts_with("expert_")).collect();
    assert_eq!(stacks.len(), 6);
    for stack in stacks {
        assert_eq!((stack.rows, stack.cols), (EXPERTS * 32, 32), "{}", stack.role);
        assert_eq!(stack.format, Format::Affine { bits: 4, group: 32 });
    }
    let line = stacked(json!([EXPERTS, 1, 32])).refusal();
    assert!(line.ends_with("expected shape [6, 32, 1], found [6, 1, 32]"), "{line}");
}

/// What a router's keys mean.
#[test]
fn rules_of_routers() {
    let routing = |case: &str, keys: &[(&str, Value)]| {
        let folder = Folder::of(case);
        folder.edit_json("config.json", |config| {
            config.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        });
        let graph = loaded(&folder).graph;
        let nodes = graph.blocks.iter().flat_map(|block| &block.nodes);
        nodes.filter_map(|node| if let Op::Route { routing, .. } = node.op { Some(routing) } else { None }).next()
    };
    let normalised = routing("qwen3-moe", &[]).expect("a router");
    assert_eq!((normalised.scores, normalised.normalised), (Scores::SoftmaxOfChosen, None));
    let plain = routing("qwen3-moe", &[("norm_topk_prob", json!(false))]).expect("a router");
    assert_eq!((plain.scores, plain.normalised, plain.scale), (Scores::Softmax, None, 1.0));
    let sigmoid = routing("glm4-moe", &[]).expect("a router");
    assert_eq!((sigmoid.scores, sigmoid.normalised, sigmoid.scale), (Scores::Sigmoid, Some(1e-20), 1.5));
    assert_eq!(sigmoid.groups.map(|groups| (groups.count, groups.chosen)), Some((4, 2)));
    let all_groups = routing("glm4-moe", &[("topk_group", json!(4))]).expect("a router");
    assert_eq!(all_groups.groups, None);
}

/// The parameters that a token is multiplied with are those of the experts that it takes.
#[test]
fn active_parameters() {
    let graph = loaded(&Folder::of("mixtral")).graph;
    let experts: u64 = (graph.weights.iter())
        .filter(|weight| weight.role.starts_with("expert_"))
        .map(|weight| (weight.rows * weight.cols) as u64)
        .sum();
    let table = (graph.config.vocab_size * graph.config.hidden_size) as u64;
    let expected = graph.parameters() - experts / 2 - table + graph.config.hidden_size as u64;
    assert_eq!(graph.active_parameters(), expected);
}
