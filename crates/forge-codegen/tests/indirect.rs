//! What a step whose grid is in a buffer looks like in an emitted project.

#[path = "../../forge-plan/tests/common/mod.rs"]
mod common;
#[path = "../../forge-plan/tests/common/indirect.rs"]
mod indirect;
#[path = "../../forge-plan/tests/common/lists.rs"]
mod lists;

use std::path::Path;

use common::Sizes;
use forge_codegen::{RenderOptions, render};
use forge_formats::Format;
use forge_frontend::{Assets, GenerationConfig};
use forge_plan::{PlanOptions, barriers, plan, valid};

#[test]
fn an_indirect_dispatch_names_its_counts_and_its_largest_grid() {
    let sizes =
        Sizes { hidden: 256, ffn: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 256, layers: 2, context: 512 };
    let graph = common::llama(sizes, Format::Q8_0);
    let mut plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
    let norm = plan.kernels.iter().position(|kernel| kernel.name == "rms_norm_tile").expect("a kernel");
    let counting = indirect::make_indirect(&mut plan, norm);
    lists::block(&mut plan.prefill, 0).insert(0, indirect::counting_step(counting));
    plan.prefill.steps_mut().for_each(|step| step.barrier = false);
    barriers::place(&mut plan.prefill, &[0, 0], &plan.kernels, &plan.tables);
    valid::check(&plan).expect("holds together");
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
    let file = |path: &str| String::from_utf8(project.files[Path::new(path)].clone()).expect("UTF-8");
    let model = file("src/model.rs");
    let at = model.find("k(kernel::COUNT_ROWS)").expect("the counting kernel is dispatched");
    let lines: Vec<&str> = model[at..].lines().take(9).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "k(kernel::COUNT_ROWS), &[params, &b.threadgroups], [1, 1, 1]);",
            "pass.barrier();",
            "pass.dispatch_indirect(",
            "k(kernel::RMS_NORM_TILE),",
            "&[&b.x, &layer.attn_norm, &b.normed],",
            "&b.threadgroups.slice(20, 12),",
            "[(rows * 3).min(100), 1, 1],",
            ");",
            "pass.barrier();",
        ]
    );
    assert!(model.contains(
        "/// [rows, 8] u32, threadgroups of indirect dispatches, three words each\n    threadgroups: Slice,"
    ));
    let checks = file("src/checks.rs");
    assert!(checks.contains("grid: [Dim::Indirect { per_row: 3, most: 100 }, Dim::Const(1), Dim::Const(1)],"));
}
