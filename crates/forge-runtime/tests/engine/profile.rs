//! Recording dispatches, timing them by kernel, what they cost, and the trace, with two small kernels on the software
//! device.

use crate::common;
use forge_runtime::gpu::{Buffer, Dispatch, Gpu, KernelSpec, Source};
use forge_runtime::page::page;
use forge_runtime::profile::{Cost, Device, Pass, Role, Size, document, measure_bandwidth, profile, trace};
use forge_runtime::verify::*;

const TEXT: &str = "#include <metal_stdlib>
using namespace metal;
kernel void scale(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] *= 0.5f; }
kernel void shift(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] += 1.0f; }
";

static SOURCE: Source = Source::new(TEXT, &[]);
static SPECS: [KernelSpec; 2] = [
    KernelSpec { name: "scale", threads: 32, threadgroup_bytes: 0 },
    KernelSpec { name: "shift", threads: 32, threadgroup_bytes: 0 },
];

const fn check(kernel: usize) -> KernelCheck {
    KernelCheck {
        kernel,
        layer: None,
        rows: &[1],
        mixed: false,
        grid: [Dim::Const(1); 3],
        operation: Operation::RmsNorm { width: 32, eps: 0.0 },
        arguments: &[],
    }
}

// Not in the order of the kernels.
static KERNELS: [KernelCheck; 2] = [check(1), check(0)];
static COSTS: [Cost; 2] =
    [Cost { bytes: [1, 0, 0, 0, 0], flops: [0; 5] }, Cost { bytes: [100, 10, 0, 1, 0], flops: [0, 0, 0, 7, 0] }];
static CHECKS: Checks = Checks {
    forge_version: "0",
    source: &SOURCE,
    slots: 1,
    kernels: &KERNELS,
    costs: &COSTS,
    matrices: &[],
    tuning: &common::NO_TUNING,
};

fn device() -> (Gpu, Buffer) {
    let gpu = Gpu::open(&SOURCE, &SPECS).unwrap_or_else(|error| panic!("{error}"));
    let buffer = gpu.alloc("x", 128).expect("memory");
    buffer.write(0, &[8.0_f32; 32]);
    (gpu, buffer)
}

/// Two command buffers: scale, shift after a barrier; scale.
fn two_buffers(gpu: &Gpu, buffer: &Buffer) -> Vec<Vec<Dispatch>> {
    gpu.recorder().start();
    for kernels in [&[0, 1][..], &[0]] {
        let mut commands = gpu.commands("test");
        for (index, &kernel) in kernels.iter().enumerate() {
            if index > 0 {
                commands.barrier();
            }
            commands.dispatch(gpu.kernel(kernel), &[&buffer.whole()], [1, 1, 1]);
        }
        commands.commit().wait().expect("runs");
    }
    gpu.recorder().stop()
}

#[test]
fn a_recorder_keeps_what_is_committed_while_it_is_on() {
    let (gpu, buffer) = device();
    let buffers = two_buffers(&gpu, &buffer);
    let names = |buffer: &Vec<Dispatch>| buffer.iter().map(|d| (d.kernel.name(), d.barrier)).collect::<Vec<_>>();
    assert_eq!(
        buffers.iter().map(names).collect::<Vec<_>>(),
        [vec![("scale", false), ("shift", true)], vec![("scale", false)]]
    );
    assert_eq!(buffers[0][0].arguments[0].bytes(), 128);
    let mut commands = gpu.commands("off");
    commands.dispatch(gpu.kernel(0), &[&buffer.whole()], [1, 1, 1]);
    commands.commit().wait().expect("runs");
    assert!(gpu.recorder().stop().is_empty());
}

#[test]
fn roles_are_timed_and_counted() {
    let (gpu, buffer) = device();
    let buffers = two_buffers(&gpu, &buffer);
    let mut told = Vec::new();
    let size = Size { rows: 3, position: 4, sequences: 1 };
    let pass = profile(&gpu, &CHECKS, &buffers, size, &mut |name| told.push(name.to_owned())).expect("runs");
    assert_eq!(told, ["the whole step", "scale", "shift"]);
    assert_eq!(pass.order, [0, 1, 0]);
    let counted = |role: &Role| (role.kernel, role.dispatches, role.bytes, role.flops);
    // Rows at positions 4, 5 and 6 read 7 positions, in 5 + 6 + 7 pairs.
    assert_eq!(
        pass.roles.iter().map(counted).collect::<Vec<_>>(),
        [("scale", 2, 2 * (100 + 30 + 7), 2 * 7 * 18), ("shift", 1, 1, 0)]
    );
    assert!(pass.seconds > 0.0 && pass.roles.iter().all(|role| role.seconds > 0.0 && role.seconds < 1.0), "{pass:?}");
}

#[test]
fn costs_stop_at_the_window_and_count_parts() {
    let cost = Cost { bytes: [5, 0, 1000, 2, 3], flops: [0, 1, 0, 1, 0] };
    let attention = |window, split, tile| {
        let operation = Operation::Attention(Attention {
            heads: 1,
            kv_heads: 1,
            head_dim: 8,
            value_dim: 8,
            scale: 1.0,
            softcap: None,
            window,
            cache: CacheType::F16,
            wrap: None,
            half_operands: false,
            split,
        });
        KernelCheck { operation, grid: [tile, Dim::Const(1), Dim::Const(1)], ..check(0) }
    };
    let split = Some(Split { above: 256, positions: 64, most: 4, window: None });
    let decode =
        |window, position| cost.at(Size { rows: 1, position, sequences: 1 }, &attention(window, split, Dim::Const(7)));
    // What is not above the bound is one part.
    assert_eq!(decode(None, 99), (5 + 200 + 3, 1 + 100));
    assert_eq!(decode(Some(10), 9999), (5 + 20 + 12, 1 + 10));
    // Rows of sequences of their own see positions and have parts of their own.
    let size = Size { rows: 3, position: 299, sequences: 3 };
    assert_eq!(cost.at(size, &attention(None, split, Dim::Const(7))), (5 + 3 * (600 + 12), 3 + 3 * 300));
    // A tile of rows reads the window of its first row and the rows after it.
    let tile = attention(Some(10), None, Dim::RowTiles(3));
    assert_eq!(cost.at(Size { rows: 4, position: 9999, sequences: 1 }, &tile), (5 + 2000 + 2 * 13 + 4 * 3, 4 + 40));
}

#[test]
fn a_trace_is_made_of_events_that_follow_one_another() {
    let role = |kernel, dispatches, seconds| Role { kernel, kind: "norm", dispatches, seconds, bytes: 30, flops: 60 };
    let pass = Pass {
        size: Size { rows: 1, position: 7, sequences: 1 },
        seconds: 1.0,
        roles: vec![role("a", 2, 4e-6), role("b", 1, 3e-6)],
        order: vec![0, 1, 0],
    };
    let text = trace("a \"device\"", &[("decode", &[pass.clone(), pass]), ("prompt", &[])]).to_string();
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["otherData"]["device"], "a \"device\"");
    let events = value["traceEvents"].as_array().expect("events");
    let of = |phase: &'static str| events.iter().filter(move |event| event["ph"] == phase);
    assert_eq!(of("M").count(), 4, "two names for each timeline");
    let mut end = 0.0;
    for event in of("X") {
        let (start, duration) = (event["ts"].as_f64().expect("ts"), event["dur"].as_f64().expect("dur"));
        assert!((start - end).abs() < 1e-9, "{event} starts at {end}");
        assert_eq!(event["args"]["position"], 7);
        assert_eq!(event["args"]["bytes"], if event["name"] == "a" { 15 } else { 30 });
        end = start + duration;
    }
    assert_eq!(of("X").count(), 6);
    assert!((end - 14.0).abs() < 1e-9, "{end}");
}

#[test]
fn a_page_holds_the_profile_and_ends_where_it_should() {
    let role = |kernel, kind, dispatches, seconds| Role { kernel, kind, dispatches, seconds, bytes: 30, flops: 60 };
    let pass = Pass {
        size: Size { rows: 1, position: 7, sequences: 1 },
        seconds: 1.0,
        roles: vec![role("a", "norm", 2, 4e-6), role("b", "projection", 1, 3e-6)],
        order: vec![0, 1, 0],
    };
    let device = Device { name: "a </script><b>", bandwidth: 1e9, source: "as given", software: true };
    let document = document(&common::INFO, &device, &[("a token".to_owned(), &pass)]);
    let dispatches = document["passes"][0]["dispatches"].as_array().expect("dispatches");
    let each: Vec<_> = dispatches.iter().map(|one| (one["kernel"].as_str(), one["bytes"].as_u64())).collect();
    assert_eq!(each, [(Some("a"), Some(15)), (Some("b"), Some(30)), (Some("a"), Some(15))]);
    assert_eq!(dispatches[0]["seconds"], 2e-6);
    let page = page(&document.to_string());
    let (_, data) = page.split_once(r#"id="data">"#).expect("data");
    let (data, _) = data.split_once("</script>").expect("an end");
    assert_eq!(serde_json::from_str::<serde_json::Value>(data).expect("JSON"), document);
    // The policy is there, of this script and this style, and lets nothing else in.
    let (_, policy) = page.split_once(r#"Content-Security-Policy" content=""#).expect("a policy");
    let (policy, _) = policy.split_once('"').expect("its end");
    assert_eq!(policy.matches("'sha256-").count(), 2);
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert_eq!((page.matches("<script>").count(), page.matches("<style>").count()), (1, 1));
    assert!(!page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org/").count());
    assert!(!page.contains("https://"));
}

#[test]
fn bandwidth_is_a_number() {
    let bandwidth = measure_bandwidth(&device().0).expect("copies");
    // Any machine that runs this copies between 10 MB and 100 TB a second.
    assert!(bandwidth > 1e7 && bandwidth < 1e14, "{bandwidth}");
}
