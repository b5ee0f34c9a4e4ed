//! A wrong plan of each kind: the validator names the kernel and what is wrong with it.

mod common;
#[path = "common/indirect.rs"]
mod indirect;
#[path = "common/lists.rs"]
mod lists;

use common::{Sizes, hybrid, llama};
use forge_formats::Format;
use forge_plan::binding::{Element, Extent};
use forge_plan::families::RmsNorm;
use forge_plan::plan::{Arg, Choice, Counts, Dim, Place, Segment, Stage, StatePlan, Step, Steps, When};
use forge_plan::{Kernel, Plan, PlanError, PlanOptions, plan, valid};
use forge_spec::Role;

const SIZES: Sizes =
    Sizes { hidden: 256, ffn: 512, heads: 4, kv_heads: 2, head_dim: 64, vocab: 512, layers: 2, context: 1024 };

fn sound() -> Plan {
    plan(&llama(SIZES, Format::Q8_0), &PlanOptions::default()).expect("a dense model has a plan")
}

/// What the validator says of a plan that `change` broke.
fn found(change: impl FnOnce(&mut Plan)) -> String {
    broken(sound(), change)
}

fn broken(mut plan: Plan, change: impl FnOnce(&mut Plan)) -> String {
    change(&mut plan);
    match valid::check(&plan) {
        Err(PlanError::Invalid { kernel, what }) => format!("{kernel}: {what}"),
        other => panic!("{other:?}"),
    }
}

fn step<'a>(plan: &'a mut Plan, name: &str) -> &'a mut Step {
    let id = plan.kernels.iter().position(|kernel| kernel.name == name).expect("a kernel");
    let tables = plan.tables.clone();
    plan.decode
        .steps_mut()
        .chain(plan.prefill.steps_mut())
        .find(|step| step.kernels(&tables).any(|kernel| kernel == id))
        .expect("a step")
}

fn kernel<'a>(plan: &'a mut Plan, name: &str) -> &'a mut Kernel {
    plan.kernels.iter_mut().find(|kernel| kernel.name == name).expect("a kernel")
}

#[test]
fn the_plan_itself_is_sound() {
    valid::check(&sound()).expect("nothing is wrong with it");
}

#[test]
fn arguments_that_are_not_the_bindings() {
    let missing = found(|plan| _ = step(plan, "o_proj").args.remove(&Role::Scaled));
    assert_eq!(
        missing,
        "o_proj: bound are weights, input, x, gamma, sums; its arguments are weights, input, x, gamma, scaled, sums"
    );
    // The kernel for several rows reads their records besides, after what both read.
    let unread = found(|plan| _ = kernel(plan, "o_proj_few").bindings.pop());
    assert!(unread.starts_with("o_proj_few: bound are ") && unread.ends_with("scaled, sums"), "{unread}");
    let elsewhere = found(|plan| kernel(plan, "o_proj_few").bindings.rotate_right(1));
    assert_eq!(elsewhere, "o_proj_few: step is not the last of its arguments");
    let surplus = found(|plan| _ = step(plan, "down_proj").args.insert(Role::Bias, Arg::Logits));
    assert!(surplus.starts_with("down_proj: bound are bias, "), "{surplus}");
    let twice = found(|plan| {
        let bindings = &mut kernel(plan, "attention").bindings;
        bindings[1] = bindings[0].clone();
    });
    assert_eq!(twice, "attention: two buffer arguments of one name");
}

#[test]
fn extents_that_do_not_fit() {
    let narrow = found(|plan| {
        let buffer = plan.decode_buffers.iter_mut().find(|buffer| buffer.place == Place::Qkv).expect("allocated");
        buffer.width -= 1;
    });
    assert_eq!(narrow, "qkv_proj: y: Qkv of 511 floats a row is bound to F32 Rows([512])");
    let nowhere = found(|plan| plan.prefill_buffers.retain(|buffer| buffer.place != Place::Gated));
    assert!(nowhere.contains("Gated, which is not allocated"), "{nowhere}");
    let tensor = found(|plan| {
        let tensor = plan.weights.tensors.iter_mut().find(|tensor| tensor.name == "layers.1.o_proj").expect("packed");
        tensor.rows += 1;
    });
    assert!(tensor.starts_with("o_proj: weights: layers.1.o_proj is not Packed(Q8_0) Fixed([256, 256])"), "{tensor}");
    let format = found(|plan| {
        let tensor = plan.weights.tensors.iter_mut().find(|tensor| tensor.name == "layers.0.o_proj").expect("packed");
        tensor.format = Format::Q4_0;
    });
    assert!(format.contains("layers.0.o_proj is not Packed(Q8_0)"), "{format}");
    let cache = found(|plan| {
        for state in &mut plan.states {
            let StatePlan::Kv(cache) = state else { panic!("a cache") };
            cache.head_dim = 32;
        }
    });
    assert!(cache.starts_with("rope_append: keys: the cache of slot 0"), "{cache}");
    let recurrent = broken(plan(&hybrid(SIZES, Format::Q8_0), &PlanOptions::default()).expect("a plan"), |plan| {
        for state in &mut plan.states {
            if let StatePlan::Recurrent { width } = state {
                *width += 1;
            }
        }
    });
    assert!(recurrent.starts_with("short_conv: state: the recurrent state of slot 0 is bound to"), "{recurrent}");
    let logits = found(|plan| {
        for binding in &mut kernel(plan, "lm_head").bindings {
            if binding.role == Role::Y {
                binding.extent = Extent::Rows(vec![511]);
            }
        }
    });
    assert!(logits.starts_with("lm_head: y: Logits"), "{logits}");
}

#[test]
fn what_is_read_before_it_was_written() {
    let order = found(|plan| lists::block(&mut plan.decode, 0).swap(0, 1));
    assert_eq!(order, "rope_append: qkv: Buffer(Qkv) is read before anything is written");
    // The step that writes keys and values comes after the one that reads them.
    let cache = found(|plan| {
        let blocks = lists::block(&mut plan.prefill, 0);
        let id = plan.kernels.iter().position(|kernel| kernel.name == "rope_append").expect("a kernel");
        let at = blocks.iter().position(|step| step.kernels(&plan.tables).any(|kernel| kernel == id));
        blocks[at.expect("a step")].when = When::Split;
        let mut copy = blocks[at.expect("a step")].clone();
        copy.when = When::OnePart;
        blocks.push(copy);
    });
    assert_eq!(cache, "attention_tile: q: Buffer(Queries) is read before anything is written");
}

#[test]
fn kernels_that_no_step_runs_and_limits() {
    let surplus = found(|plan| {
        plan.kernels.push(Kernel::new("spare".into(), RmsNorm { width: 256, eps: 1e-5 }.into()));
    });
    assert_eq!(surplus, "spare: no step runs it");
    let threads = found(|plan| kernel(plan, "qkv_proj").launch.threads = 2048);
    assert_eq!(threads, "qkv_proj: 2048 threads a threadgroup");
    let memory = found(|plan| kernel(plan, "attention_tile").launch.threadgroup_bytes = 40_000);
    assert_eq!(memory, "attention_tile: 40000 bytes of threadgroup memory");
    let rows = found(|plan| {
        let tile = plan.kernels.iter().position(|kernel| kernel.name == "attention").expect("a kernel");
        step(plan, "attention_tile").kernel = Choice::Fixed(tile);
    });
    assert_eq!(rows, "attention: it is for another number of rows than its step");
}

#[test]
fn layers_whose_kernels_have_different_grids() {
    let mut graph = llama(SIZES, Format::Q4K);
    for weight in graph.weights.iter_mut().filter(|w| w.role == "ffn_down" && w.layer == Some(1)) {
        weight.format = Format::Q6K;
    }
    let mut plan = plan(&graph, &PlanOptions::default()).expect("a dense model has a plan");
    let kernel = plan.kernels.iter_mut().find(|kernel| kernel.name == "down_proj_q6_k").expect("a kernel of its own");
    kernel.launch.grid[0] = Dim::Const(1);
    let error = valid::check(&plan).expect_err("another grid").to_string();
    assert!(error.contains("down_proj_q6_k: another grid than that of other layers' kernels"), "{error}");
}

/// Prefill's norms of rows, with as many threadgroups as a step before the first of them counts.
fn with_indirect_norms(plan: &mut Plan) {
    let norm = plan.kernels.iter().position(|kernel| kernel.name == "rms_norm_tile").expect("a kernel");
    let counting = indirect::make_indirect(plan, norm);
    lists::once(&mut plan.prefill, Stage::Embed).push(indirect::counting_step(counting));
}

#[test]
fn indirect_grids() {
    let mut plan = sound();
    with_indirect_norms(&mut plan);
    valid::check(&plan).expect("the counts are written before they are read");
    let wrong = |change: fn(&mut Plan)| {
        found(|plan| {
            with_indirect_norms(plan);
            change(plan);
        })
    };
    let name = "rms_norm_tile";
    // No step writes them, or one that comes too late.
    let unwritten = wrong(|plan| {
        let step = lists::once(&mut plan.prefill, Stage::Embed).pop().expect("the step that counts");
        lists::once(&mut plan.prefill, Stage::Head).push(step);
    });
    assert_eq!(unwritten, format!("{name}: its grid: Threadgroups is read before anything is written"));
    let unnamed = wrong(|plan| plan.prefill.steps_mut().for_each(|step| step.counts = None));
    assert_eq!(unnamed, format!("{name}: its grid is indirect, and its step names no threadgroup counts"));
    let needless = wrong(|plan| {
        lists::once(&mut plan.prefill, Stage::Embed).iter_mut().for_each(|step| step.counts = Some(indirect::COUNTS));
    });
    assert!(
        needless.ends_with(": its step has threadgroup counts in Threadgroups, but its grid is not indirect"),
        "{needless}"
    );
    let few = wrong(|plan| {
        for step in plan.prefill.steps_mut().filter(|step| step.counts.is_some()) {
            step.few = Some([step.kernel; 2]);
        }
    });
    assert_eq!(few, format!("{name}: its grid is indirect, and its step has another kernel for few tokens"));
    let own = wrong(|plan| {
        for step in plan.prefill.steps_mut().filter(|step| step.counts.is_some()) {
            step.args.insert(Role::Y, Arg::Buffer(Place::Threadgroups));
        }
        // A binding of words, so that nothing else is wrong with it.
        let kernel = plan.kernels.iter_mut().find(|kernel| kernel.launch.is_indirect()).expect("a kernel");
        let y = kernel.bindings.iter_mut().find(|binding| binding.role == Role::Y).expect("a binding");
        (y.element, y.extent) = (Element::U32, Extent::Fixed(vec![1]));
    });
    assert_eq!(own, format!("{name}: y: it writes its own threadgroup counts"));
}

#[test]
fn counts_that_are_no_words_of_a_buffer() {
    let of = |counts: Counts| {
        found(|plan| {
            with_indirect_norms(plan);
            plan.prefill.steps_mut().filter(|step| step.counts.is_some()).for_each(|step| step.counts = Some(counts));
        })
    };
    for (place, word, name) in
        [(Place::Threadgroups, indirect::WORDS - 2, "word 6 of Threadgroups"), (Place::Stream, 0, "word 0 of Stream")]
    {
        assert_eq!(
            of(Counts { place, word }),
            format!("rms_norm_tile: its threadgroup counts are no three words from {name} on")
        );
    }
    // Numbers are no counts, nor counts numbers.
    let floats = found(|plan| {
        with_indirect_norms(plan);
        kernel(plan, "count_rows").bindings[1].element = Element::F32;
    });
    assert_eq!(floats, "count_rows: count: Threadgroups of 8 words is bound to F32 Fixed([8])");
}

#[test]
fn segments_that_a_project_has_no_place_for() {
    let late = found(|plan| plan.decode.segments.swap(1, 2));
    assert_eq!(late, "qkv_proj: its segment is Layers: it comes twice or too late");
    let twice = found(|plan| {
        let head = plan.prefill.segments.last().expect("the head").clone();
        plan.prefill.segments.push(head);
    });
    assert_eq!(twice, "rms_norm_tile: its segment is Head: it comes twice or too late");
    let once = found(|plan| {
        let steps = plan.prefill.blocks()[0].clone();
        plan.prefill.segments[1] = Segment { stage: Stage::Layers, steps: Steps::Once(steps) };
    });
    assert_eq!(once, "rms_norm_tile: its segment is Layers: it is not what its stage is made of");
    let blocks = found(|plan| plan.prefill.segments[1] = Segment::layers(Vec::new()));
    assert!(blocks.contains("a segment is Layers: it is not what its stage is made of"), "{blocks}");
}
