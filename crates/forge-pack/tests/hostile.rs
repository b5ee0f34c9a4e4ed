//! Hostile checkpoints that are read: a bounded, deterministic run of the fuzz target that plans and packs them, and companions of matrices
//! that are mixed up.

#[path = "../../../fuzz/src/bounded.rs"]
mod bounded;
#[path = "../../../fuzz/src/frontend.rs"]
#[expect(dead_code, reason = "shared with the tests of the readers")]
mod frontend;
#[path = "../../../fuzz/src/plan.rs"]
mod plan;

#[global_allocator]
static ALLOCATOR: bounded::Counting = bounded::Counting;

#[test]
fn mutated_gguf_files_are_planned_and_packed() {
    let (seeds, mutations) = bounded::run("gguf", 400, plan::gguf);
    assert!(seeds >= 9 && mutations >= 40, "{seeds} seeds and {mutations} mutations were packed");
}

#[test]
fn mutated_safetensors_files_are_planned_and_packed() {
    let (seeds, mutations) = bounded::run("safetensors", 200, plan::safetensors);
    assert!(seeds >= 1 && mutations >= 10, "{seeds} seeds and {mutations} mutations were packed");
}
