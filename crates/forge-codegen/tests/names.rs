//! Names of a graph that Rust, MSL or the emitted sources themselves have a meaning for.

#[path = "../../forge-plan/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::Command;

use common::Sizes;
use forge_codegen::{RenderOptions, render};
use forge_formats::Format;
use forge_frontend::{Assets, GenerationConfig, Graph};
use forge_plan::{PlanOptions, plan};
use metal_sim::{CompileOptions, Library};

/// Roles of the graph, and others in their place.
const ROLES: [(&str, &str); 6] = [
    ("attn_output", "half"),
    ("ffn_down", "loop"),
    ("ffn_norm", "float4"),
    ("attn_norm", "struct"),
    // A field of the model's struct, and no identifier at all.
    ("output_norm", "logits"),
    ("output", "2. head-\"matrix\""),
];

/// Two kinds of layers, both called by keywords, with the roles of [`ROLES`].
fn graph() -> Graph {
    let sizes =
        Sizes { hidden: 256, ffn: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 256, layers: 2, context: 512 };
    let mut graph = common::llama(sizes, Format::Q8_0);
    graph.blocks.push(graph.blocks[0].clone());
    graph.layers[1].block = 1;
    for (block, name) in graph.blocks.iter_mut().zip(["loop", "self"]) {
        block.name = name.into();
    }
    let blocks = graph.blocks.iter_mut().chain([&mut graph.embed.block, &mut graph.head.block]);
    let slots = blocks.flat_map(|block| &mut block.slots).map(|slot| &mut slot.role);
    for role in slots.chain(graph.weights.iter_mut().map(|weight| &mut weight.role)) {
        if let Some((_, other)) = ROLES.iter().find(|(own, _)| own == role) {
            *role = (*other).to_owned();
        }
    }
    graph
}

#[test]
fn keywords_become_identifiers() {
    let graph = graph();
    let plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
    let assets = Assets {
        tokenizer_json: b"{}".to_vec(),
        chat_template: None,
        other_templates: Vec::new(),
        generation: GenerationConfig::default(),
    };
    let options = RenderOptions {
        name: "model".into(),
        source: "model.gguf".into(),
        command: "forge gen".into(),
        ..Default::default()
    };
    let project = render(&plan, &graph, &assets, &options).expect("templates render");
    let text = |file: &str| String::from_utf8(project.files[Path::new(file)].clone()).expect("UTF-8");

    // MSL: both sources compile, with the kernels under the names that the program asks for.
    let (kernels, tuning) = (text("shaders/kernels.metal"), text("shaders/tuning.metal"));
    let library = Library::from_source(&(kernels + &tuning), "kernels.metal", &CompileOptions { checked: false });
    let library = library.unwrap_or_else(|error| panic!("{error}"));
    let model = text("src/model.rs");
    for table in [&model, &text("src/tuning.rs")] {
        let names =
            table.lines().filter_map(|line| line.trim().strip_prefix("KernelSpec { name: \"")?.split('"').next());
        let names: Vec<&str> = names.collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(library.kernel(name).is_some(), "no kernel {name}");
        }
    }
    for name in ["half_", "loop_", "half_tile", "n2_head_matrix"] {
        assert!(model.contains(&format!("KernelSpec {{ name: \"{name}\", ")), "{name}");
    }

    // Rust: each source parses; names are declared once.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names");
    std::fs::create_dir_all(&folder).expect("a folder");
    let sources = project.files.iter().filter(|(path, _)| path.starts_with("src"));
    let write = |(path, bytes): (&std::path::PathBuf, &Vec<u8>)| {
        let file = folder.join(path.file_name().expect("a name"));
        std::fs::write(&file, bytes).expect("writes");
        file
    };
    let files: Vec<_> = sources.map(write).collect();
    let mut command = Command::new("rustfmt");
    let output = command.args(["--edition", "2024", "--emit", "stdout", "--quiet"]).args(&files).output();
    let output = output.expect("rustfmt runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let declared = |line: &str| model.lines().filter(|other| other.trim() == line).count();
    assert_eq!(declared("logits: Buffer,"), 1);
    assert_eq!(declared("logits_: Slice,"), 1);
    assert_eq!(declared("loop_: Slice,"), 1);
    assert_eq!(declared("float4_: Slice,"), 1);
    assert_eq!([declared("Loop,"), declared("Self_,")], [1, 1]);
    // Tensors of the weights file keep their names.
    assert_eq!(declared("loop_: tensor(\"loop\")?,"), 1);
    assert_eq!(declared("logits_: tensor(\"logits\")?,"), 1);
}
