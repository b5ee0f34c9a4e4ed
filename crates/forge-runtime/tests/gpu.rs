//! The GPU layer on whatever device there is: Metal on a Mac, the software device elsewhere.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use forge_runtime::gpu::{
    Buffer, Commands, Gpu, GpuError, Kernel, KernelSpec, Mapped, Pages, Pending, Slice, Source, pool,
};
use memmap2::Mmap;

const TEXT: &str = r"
#include <metal_stdlib>
using namespace metal;

kernel void scale(device const float* in [[buffer(0)]], device float* out [[buffer(1)]], constant uint& count [[buffer(2)]],
                  uint i [[thread_position_in_grid]]) {
    if (i < count) {
        out[i] = in[i] * 2.0f;
    }
}

kernel void sum(device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
                uint group [[threadgroup_position_in_grid]], uint i [[thread_position_in_threadgroup]]) {
    float total = simd_sum(in[group * 32 + i]);
    if (i == 0) {
        out[group] = total;
    }
}

kernel void seven(device float* out [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    out[i] = 7.0f;
}
";

static SPECS: [KernelSpec; 3] = [
    KernelSpec { name: "scale", threads: 64, threadgroup_bytes: 0 },
    KernelSpec { name: "sum", threads: 32, threadgroup_bytes: 0 },
    KernelSpec { name: "seven", threads: 64, threadgroup_bytes: 0 },
];

/// A model holds all of these, and models move to the server's model thread.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<(Gpu, Kernel, Buffer, Slice, Mapped, Commands, Pending)>();
};

fn open() -> Gpu {
    Gpu::open(&Source::new(TEXT, &[]), &SPECS).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn dispatches_run_in_the_order_that_barriers_say() {
    let gpu = open();
    let input = gpu.alloc("input", 1024 * 4).expect("memory");
    let doubled = gpu.alloc("doubled", 1024 * 4).expect("memory");
    let sums = gpu.alloc("sums", 32 * 4).expect("memory");
    let count = gpu.alloc("count", 256).expect("memory");
    let values: Vec<f32> = (0..1024u16).map(f32::from).collect();
    input.write(0, &values);
    count.write(0, &[1024u32]);
    let pending = pool(|| {
        let mut commands = gpu.commands("test");
        commands.dispatch(gpu.kernel(0), &[&input.whole(), &doubled.whole(), &count.slice(0, 4)], [16, 1, 1]);
        commands.barrier();
        commands.dispatch(gpu.kernel(1), &[&doubled.whole(), &sums.whole()], [32, 1, 1]);
        commands.commit()
    });
    let time = pending.wait().expect("runs");
    assert!(time.seconds >= 0.0);
    let mut found = [0f32; 32];
    sums.read(0, &mut found);
    let expected: Vec<f32> = values.chunks(32).map(|chunk| chunk.iter().sum::<f32>() * 2.0).collect();
    assert_eq!(found.as_slice(), expected);
}

/// A model that returns early with an error drops what it had submitted; its buffers must be the host's again.
#[test]
fn a_dropped_command_buffer_has_run() {
    let gpu = open();
    let [a, b, count] = ["a", "b", "count"].map(|name| gpu.alloc(name, 256).expect("memory"));
    count.write(0, &[64u32]);
    a.write(0, &[1f32; 64]);
    let mut commands = gpu.commands("a long one");
    for (from, to) in [(&a, &b), (&b, &a)].into_iter().cycle().take(2000) {
        commands.dispatch(gpu.kernel(0), &[&from.whole(), &to.whole(), &count.slice(0, 4)], [1, 1, 1]);
        commands.barrier();
    }
    commands.dispatch(gpu.kernel(2), &[&a.whole()], [1, 1, 1]);
    drop(commands.commit());
    let mut found = [0f32; 64];
    a.read(0, &mut found);
    assert_eq!(found, [7f32; 64]);
}

#[test]
fn command_buffers_run_in_the_order_of_their_commits() {
    let gpu = open();
    let [a, b, count] = ["a", "b", "count"].map(|name| gpu.alloc(name, 256).expect("memory"));
    count.write(0, &[64u32]);
    a.write(0, &[1f32; 64]);
    let mut pending = Vec::new();
    for step in 0..10 {
        let (from, to) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let mut commands = gpu.commands("step");
        commands.dispatch(gpu.kernel(0), &[&from.whole(), &to.whole(), &count.slice(0, 4)], [1, 1, 1]);
        pending.push(commands.commit());
    }
    for pending in pending {
        pending.wait().expect("runs");
    }
    let mut found = [0f32; 64];
    a.read(0, &mut found);
    assert_eq!(found, [1024f32; 64]);
}

#[test]
fn buffers_check_their_bounds() {
    let gpu = open();
    let buffer = gpu.alloc("buffer", 16).expect("memory");
    let mut bytes = [9u8; 16];
    buffer.read(0, &mut bytes);
    assert_eq!(bytes, [0; 16], "new buffers are zero");
    for bad in [
        catch_unwind(AssertUnwindSafe(|| buffer.write(13, &[1f32]))),
        catch_unwind(AssertUnwindSafe(|| buffer.read(16, &mut [0u8]))),
        catch_unwind(AssertUnwindSafe(|| drop(buffer.slice(8, 9)))),
        catch_unwind(AssertUnwindSafe(|| drop(buffer.slice(u64::MAX, 2)))),
        catch_unwind(AssertUnwindSafe(|| drop(buffer.slice(4, 8).slice(4, 5)))),
    ] {
        assert!(bad.is_err());
    }
    let part = buffer.slice(4, 8).slice(4, 4);
    assert_eq!((part.offset(), part.bytes()), (8, 4));
}

#[test]
fn mapped_files_are_read_without_a_copy() {
    let gpu = open();
    let mut file = tempfile::tempfile().expect("a file");
    let values: Vec<u8> = (0..20_000u16).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    file.write_all(&values).expect("writes");
    // SAFETY: nobody else knows of the file.
    let map = Arc::new(Pages::File(unsafe { Mmap::map(&file) }.expect("maps")));
    let mapped = gpu.import("weights", &map, 4096).expect("imports");
    drop(map);
    let sums = gpu.alloc("sums", 4).expect("memory");
    let mut commands = gpu.commands("test");
    commands.dispatch(gpu.kernel(1), &[&mapped.slice(4 * 1000, 128), &sums.whole()], [1, 1, 1]);
    commands.commit().wait().expect("runs");
    let mut found = [0f32];
    sums.read(0, &mut found);
    assert_eq!(found[0], (1000..1032u16).map(f32::from).sum::<f32>());
}

#[test]
fn broken_kernels_are_errors() {
    static MISSING: [KernelSpec; 1] = [KernelSpec { name: "missing", threads: 32, threadgroup_bytes: 0 }];
    assert!(matches!(Gpu::open(&Source::new(TEXT, &[]), &MISSING), Err(GpuError::NoKernel { name: "missing" })));
    let broken =
        Source::new("#include <metal_stdlib>\nkernel void scale(device float* x [[buffer(0)]]) { x[0] = y; }", &[]);
    match Gpu::open(&broken, &SPECS) {
        Err(GpuError::Compile { log, .. }) => assert!(log.contains('y') && log.contains('2'), "{log}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it compiles"),
    }
}

#[test]
fn commands_may_be_given_up() {
    let gpu = open();
    let buffer = gpu.alloc("buffer", 256).expect("memory");
    let mut commands = gpu.commands("given up");
    commands.dispatch(gpu.kernel(1), &[&buffer.whole(), &buffer.whole()], [1, 1, 1]);
    drop(commands);
    assert!(gpu.commands("empty").commit().wait().is_ok());
    assert!(!gpu.limits().name.is_empty());
}

/// What only the software device has.
#[cfg(not(target_os = "macos"))]
mod software {
    use std::process::Command;

    use super::*;

    #[test]
    fn compiled_kernels_need_no_compiler() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kernels");
        metal_sim::compile(TEXT, "kernels.metal", &metal_sim::CompileOptions::default(), &path).expect("compiles");
        let compiled = std::fs::read(&path).expect("was written").leak();
        let gpu = Gpu::open(&Source::new("not looked at", compiled), &SPECS).unwrap_or_else(|error| panic!("{error}"));
        assert!(gpu.commands("empty").commit().wait().is_ok());
        assert!(matches!(Gpu::open(&Source::new("", b"nonsense"), &SPECS), Err(GpuError::Library { .. })));
    }

    /// Two dispatches of which the second needs the first, and no barrier between them: checked mode alone says so.
    #[test]
    #[ignore = "run by checked_mode_is_asked_for_by_the_environment"]
    fn a_missing_barrier() {
        let gpu = open();
        let [input, doubled, sums] = ["input", "doubled", "sums"].map(|name| gpu.alloc(name, 256).expect("memory"));
        input.write(0, &[1f32; 64]);
        doubled.write(0, &[1f32; 64]);
        let count = gpu.alloc("count", 4).expect("memory");
        count.write(0, &[64u32]);
        let mut commands = gpu.commands("hazard");
        commands.dispatch(gpu.kernel(0), &[&input.whole(), &doubled.whole(), &count.whole()], [1, 1, 1]);
        commands.dispatch(gpu.kernel(1), &[&doubled.whole(), &sums.whole()], [2, 1, 1]);
        match commands.commit().wait() {
            Ok(_) => println!("outcome: fine"),
            Err(error) => println!("outcome: {error}"),
        }
    }

    #[test]
    fn checked_mode_is_asked_for_by_the_environment() {
        let outcome = |checked: &str| {
            let args = ["--exact", "software::a_missing_barrier", "--ignored", "--nocapture"];
            let program = std::env::current_exe().expect("this program");
            let output = Command::new(program).args(args).env("METAL_SIM_CHECKED", checked).output().expect("runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let plain = outcome("0");
        assert!(plain.contains("outcome: fine"), "{plain}");
        let checked = outcome("1");
        assert!(checked.contains("GPU work \"hazard\" failed") && checked.contains("doubled"), "{checked}");
    }

    #[test]
    fn another_device_is_asked_for_by_the_environment() {
        let outcome = |device: &str| {
            let args = ["--exact", "software::a_missing_barrier", "--ignored", "--nocapture"];
            let program = std::env::current_exe().expect("this program");
            let output = Command::new(program).args(args).env("METAL_SIM_DEVICE", device).output().expect("runs");
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
        };
        let cpu = outcome("cpu");
        assert!(cpu.contains("outcome: fine"), "{cpu}");
        let unknown = outcome("abacus");
        assert!(unknown.contains("METAL_SIM_DEVICE is \"abacus\", which is neither cpu nor cuda"), "{unknown}");
        if !cfg!(feature = "cuda") {
            let cuda = outcome("cuda");
            assert!(cuda.contains("metal-sim was built without its feature cuda"), "{cuda}");
        }
    }
}
