//! The references of `verify` against small kernels on the software device: right ones pass, and of every operation at least
//! two faults are found, each in its kernel and in no other.

mod caches;
#[path = "../common/mod.rs"]
mod common;
mod families;
mod latents;
mod mixtures;
mod recurrent;
mod sinks;
mod slots;

use families::*;
use forge_runtime::gpu::{Gpu, Source};
use forge_runtime::verify::*;
use forge_runtime::weights::Weights;
use latents::LATENT_ATTENTION;
use mixtures::MIXTURES;
use recurrent::{GATED_DELTA, RECURRENT, RECURRENT_SLOTS};
use slots::SLOTS;

/// Lists kinds of operations once, so that one without an arm here does not compile and one without faults fails.
macro_rules! kinds {
    ($($name:literal: $operation:pat,)*) => {
        const KINDS: &[&str] = &[$($name),*];

        fn kind(operation: &Operation<'_>) -> &'static str {
            match operation {
                $($operation => $name,)*
            }
        }
    };
}

kinds! {
    "embed": Operation::Embed { .. },
    "layer inputs": Operation::LayerInputs { .. },
    "projection, stored": Operation::Project(Projection { epilogue: Epilogue::Store { .. }, .. }),
    "projection, residual": Operation::Project(Projection { epilogue: Epilogue::Residual { .. }, .. }),
    "projection, silu": Operation::Project(Projection {
        epilogue:
            Epilogue::Activated(Activation::Silu) | Epilogue::Gated(Activation::Silu) | Epilogue::GatedBy(Activation::Silu),
        ..
    }),
    "projection, gelu": Operation::Project(Projection {
        epilogue:
            Epilogue::Activated(Activation::GeluTanh)
            | Epilogue::Gated(Activation::GeluTanh)
            | Epilogue::GatedBy(Activation::GeluTanh),
        ..
    }),
    "projection, relu squared": Operation::Project(Projection {
        epilogue:
            Epilogue::Activated(Activation::ReluSquared)
            | Epilogue::Gated(Activation::ReluSquared)
            | Epilogue::GatedBy(Activation::ReluSquared),
        ..
    }),
    "projection, xielu": Operation::Project(Projection {
        epilogue:
            Epilogue::Activated(Activation::Xielu) | Epilogue::Gated(Activation::Xielu) | Epilogue::GatedBy(Activation::Xielu),
        ..
    }),
    "projection, clamped swiglu": Operation::Project(Projection {
        epilogue:
            Epilogue::Activated(Activation::ClampedSwiglu { .. })
            | Epilogue::Gated(Activation::ClampedSwiglu { .. })
            | Epilogue::GatedBy(Activation::ClampedSwiglu { .. }),
        ..
    }),
    "rope and append": Operation::RopeAppend(RopeAppend { norms_last: false, .. }),
    "rope, norms and append": Operation::RopeAppend(RopeAppend { norms_last: true, .. }),
    "short convolution": Operation::ShortConv { .. },
    "gated delta rule": Operation::GatedDelta(_),
    "gates of heads": Operation::HeadGate { .. },
    "attention": Operation::Attention(Attention { split: None, .. }),
    "attention, in parts": Operation::Attention(Attention { split: Some(_), .. }),
    "attention, combined": Operation::AttentionCombine { .. },
    "append of latents": Operation::LatentAppend(_),
    "queries over latents": Operation::LatentQueries(_),
    "attention over latents": Operation::LatentAttention(LatentAttention { split: None, .. }),
    "attention over latents, in parts": Operation::LatentAttention(LatentAttention { split: Some(_), .. }),
    "values of latents": Operation::LatentValues(_),
    "keys and values of heads": Operation::LatentExpand(_),
    "queries over keys of heads": Operation::LatentRotate(_),
    "scales of rows": Operation::RowScale { .. },
    "rms norm": Operation::RmsNorm { .. },
    "layer norm": Operation::LayerNorm { .. },
    "post-norm": Operation::PostNorm { .. },
    "choice of experts": Operation::Route { .. },
    "order of experts": Operation::SortExperts(_),
    "gate and up of rows' experts": Operation::ExpertsUp(ExpertsUp { of: ExpertsOf::Rows(_), .. }),
    "gate and up of tiles": Operation::ExpertsUp(ExpertsUp { of: ExpertsOf::Tiles(_), .. }),
    "down of rows' experts": Operation::ExpertsDown(ExpertsDown { results: ExpertResults::Summed { .. }, .. }),
    "down of tiles": Operation::ExpertsDown(ExpertsDown { results: ExpertResults::Tiles(_), .. }),
    "sum of experts": Operation::ExpertsSum { .. },
    "best token": Operation::SampleBest(_),
    "candidates": Operation::SampleCollect(_),
    "draw": Operation::SampleDraw(_),
}

/// Names of the kernels that fail, with what is said of them.
fn failing(family: &Family, metal: &str, checks: &'static [KernelCheck]) -> Vec<(&'static str, String)> {
    let head = "#include <metal_stdlib>\nusing namespace metal;\n";
    let text: &'static str = format!("{head}{}{metal}", common::step_params()).leak();
    let folder = tempfile::tempdir().expect("a folder");
    let (path, info) = common::weights_file(folder.path(), family.specs);
    let weights = Weights::open(&path.into(), info).expect("the weights");
    let checks = Checks {
        forge_version: "0",
        source: Box::leak(Box::new(Source::new(text, &[]))),
        slots: family.slots,
        kernels: checks,
        costs: &[],
        matrices: &[],
        tuning: &common::NO_TUNING,
    };
    let gpu = Gpu::open(checks.source, info.kernels).unwrap_or_else(|error| panic!("{error}"));
    let verifier = Verifier::new(&gpu, &checks, info, &weights).expect("memory");
    let mut failing = Vec::new();
    for check in verifier.checks() {
        let faults = verifier.run(check).filter_map(|outcome| outcome.fault);
        failing.extend(faults.map(|fault| (verifier.name(check), fault)).take(1));
    }
    failing
}

fn each_fault_is_found(family: &Family) {
    assert_eq!(failing(family, family.metal, family.checks), []);
    for (right, wrong, kernel) in family.faults {
        assert_eq!(family.metal.matches(right).count(), 1, "{right} is in the kernels once");
        let found = failing(family, &family.metal.replace(right, wrong), family.checks);
        assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [*kernel], "{wrong}: {found:?}");
    }
}

#[test]
fn wrong_embeddings_are_found() {
    each_fault_is_found(&EMBED);
}

#[test]
fn wrong_layer_inputs_are_found() {
    each_fault_is_found(&LAYER_INPUTS);
}

#[test]
fn wrong_projections_are_found() {
    each_fault_is_found(&PROJECT);
}

#[test]
fn wrong_attention_over_latents_is_found() {
    each_fault_is_found(&LATENT_ATTENTION);
}

#[test]
fn wrong_rotations_and_appends_are_found() {
    each_fault_is_found(&ROPE_APPEND);
}

#[test]
fn wrong_recurrent_steps_are_found() {
    each_fault_is_found(&RECURRENT);
}

#[test]
fn wrong_delta_rules_and_gates_are_found() {
    each_fault_is_found(&GATED_DELTA);
}

#[test]
fn states_of_other_sequences_are_found() {
    each_fault_is_found(&RECURRENT_SLOTS);
}

#[test]
fn wrong_attention_is_found() {
    each_fault_is_found(&ATTENTION);
}

#[test]
fn wrong_sinks_are_found() {
    each_fault_is_found(&SINKS);
}

#[test]
fn wrong_q8_0_caches_are_found() {
    each_fault_is_found(&CACHE_Q8_0);
}

#[test]
fn wrong_q4_0_caches_are_found() {
    each_fault_is_found(&CACHE_Q4_0);
}

#[test]
fn wrong_norms_are_found() {
    each_fault_is_found(&NORMS);
}

#[test]
fn wrong_mixtures_are_found() {
    each_fault_is_found(&MIXTURES);
}

#[test]
fn wrong_choices_are_found() {
    each_fault_is_found(&SAMPLE);
}

#[test]
fn rows_of_wrong_sequences_are_found() {
    each_fault_is_found(&SLOTS);
}

#[test]
fn every_operation_has_a_kernel_and_each_kernel_two_faults() {
    let checks = || {
        FAMILIES.into_iter().chain([&SLOTS]).flat_map(|family| family.checks.iter().map(move |check| (family, check)))
    };
    for kind_of_operation in KINDS {
        let found = checks().any(|(_, check)| kind(&check.operation) == *kind_of_operation);
        assert!(found, "no kernel for {kind_of_operation}");
    }
    for (family, check) in checks() {
        let name = family.specs[check.kernel].name;
        let faults = family.faults.iter().filter(|(_, _, kernel)| *kernel == name).count();
        println!("{name}: {faults} faults");
        assert!(faults >= 2, "{name}: {faults} faults");
    }
    // Each kernel has one check, and each fault's kernel is one of them.
    for family in FAMILIES.into_iter().chain([&SLOTS]) {
        assert!(family.checks.iter().map(|check| check.kernel).eq(0..family.specs.len()));
        assert!(family.faults.iter().all(|(_, _, kernel)| family.specs.iter().any(|spec| spec.name == *kernel)));
    }
}

#[test]
fn an_argument_that_the_operation_does_not_take_is_a_fault() {
    static CHECKS: [KernelCheck; 1] = [check(
        0,
        ONE_ROW,
        BY_ROW,
        EMBED_TABLE,
        &[TABLE, Argument::read(Role::Multiplier, Data::Words(1)), Argument::write(Role::X, Data::Words(32))],
    )];
    let said = "embed reads multiplier, which is no input of its operation".to_owned();
    assert_eq!(failing(&EMBED, EMBED.metal, &CHECKS), [("embed", said)]);
}
