//! Lists of steps, to be changed.
#![allow(dead_code, reason = "each test file uses its part")]

use forge_plan::plan::{Schedule, Stage, Step, Steps};

/// The steps of a stage that runs once.
pub fn once(schedule: &mut Schedule, stage: Stage) -> &mut Vec<Step> {
    match steps(schedule, stage) {
        Steps::Once(steps) => steps,
        Steps::Layers(_) => panic!("{stage:?} is of the layers"),
    }
}

/// The steps of a block.
pub fn block(schedule: &mut Schedule, block: usize) -> &mut Vec<Step> {
    match steps(schedule, Stage::Layers) {
        Steps::Layers(blocks) => &mut blocks[block],
        Steps::Once(_) => panic!("layers run more than once"),
    }
}

fn steps(schedule: &mut Schedule, stage: Stage) -> &mut Steps {
    let mut segments = schedule.segments.iter_mut();
    &mut segments.find(|segment| segment.stage == stage).expect("has the stage").steps
}
