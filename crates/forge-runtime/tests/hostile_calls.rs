//! Hostile answers with tool calls: a bounded, deterministic run of the fuzz targets.

#[path = "../../../fuzz/src/bounded.rs"]
mod bounded;
#[path = "../../../fuzz/src/calls.rs"]
mod calls;

#[global_allocator]
static ALLOCATOR: bounded::Counting = bounded::Counting;

#[test]
fn mutated_answers() {
    for form in &calls::FORMS {
        let (seeds, mutations) = bounded::run(form.name, 2000, |data| calls::read(calls::named(form.name), data));
        assert!(seeds >= 2 && mutations >= 100, "{}: {seeds} seeds and {mutations} mutations had calls", form.name);
    }
}
