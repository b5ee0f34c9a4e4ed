//! Hostile answers with tool calls: a bounded, deterministic run of the fuzz targets. `FORGE_ROUNDS=N` makes N mutations for each instead of a few.

#[path = "../../../fuzz/src/bounded.rs"]
mod bounded;
#[path = "../../../fuzz/src/calls.rs"]
mod calls;

#[global_allocator]
static ALLOCATOR: bounded::Counting = bounded::Counting;

#[test]
fn mutated_answers() {
    let rounds = std::env::var("FORGE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2000);
    for form in &calls::FORMS {
        let (seeds, mutations) = bounded::run(form.name, rounds, |data| calls::read(calls::named(form.name), data));
        println!("{}: {rounds} mutations, {mutations} had calls", form.name);
        assert!(seeds >= 2 && mutations >= 100, "{}: {seeds} seeds and {mutations} mutations had calls", form.name);
    }
}
