//! What the software device's operations cost: `cargo run --release --example speed`. Times are CPU time of all threads
//! where the system tells it, so that other work on the machine does not count.

use metal_sim::{Buffer, CompileOptions, Device, Error, Kernel, Library};

const SOURCE: &str = include_str!("speed.metal");

/// Nanoseconds that this process's threads ran (Linux: `/proc/PID/task/TID/schedstat`, first number).
fn cpu_nanoseconds() -> Option<u64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    threads
        .map(|thread| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

/// Seconds of the fastest of five runs of `repeats` dispatches.
fn fastest(
    device: &Device,
    kernel: &Kernel,
    buffers: &[&Buffer],
    groups: u32,
    threads: u32,
    repeats: u32,
) -> Result<f64, Error> {
    let bindings: Vec<_> = buffers.iter().map(|buffer| buffer.whole()).collect();
    let mut best = f64::MAX;
    for _ in 0..5 {
        let mut commands = device.command_buffer("speed");
        for _ in 0..repeats {
            commands.dispatch(kernel, &bindings, [groups, 1, 1], [threads, 1, 1]);
            commands.barrier();
        }
        let before = cpu_nanoseconds();
        let wall = commands.commit().wait()?.seconds;
        let cpu = before.zip(cpu_nanoseconds()).map(|(before, after)| (after - before) as f64 / 1e9);
        best = best.min(cpu.unwrap_or(wall));
    }
    Ok(best / f64::from(repeats))
}

fn main() -> Result<(), Error> {
    let device = Device::new(1);
    let library = Library::from_source(SOURCE, "speed.metal", &CompileOptions::default())?;
    let kernel = |name: &str| library.kernel(name).unwrap_or_else(|| panic!("{name} is not in speed.metal"));
    let x = device.buffer("x", 1 << 20);
    let number = |value: u32| {
        let buffer = device.buffer("n", 4);
        buffer.write(0, &value.to_le_bytes());
        buffer
    };
    const ROUNDS: u32 = 1000;
    let rounds = number(ROUNDS);

    for name in ["empty", "one_barrier"] {
        let seconds = fastest(&device, &kernel(name), &[&x, &rounds], 1000, 256, 1)?;
        println!("{name}: {:.2} us a threadgroup of 256 threads", seconds * 1e6 / 1000.0);
    }
    for name in ["simd_sums", "shuffles", "barriers"] {
        let seconds = fastest(&device, &kernel(name), &[&x, &rounds], 1, 256, 1)?;
        println!("{name}: {:.1} ns a thread and operation", seconds * 1e9 / f64::from(256 * ROUNDS));
    }
    let seconds = fastest(&device, &kernel("products"), &[&x, &rounds], 1, 128, 1)?;
    let products = f64::from(4 * 16 * ROUNDS);
    println!(
        "products: {:.0} ns a matrix product, {:.2} G multiply-accumulates/s on one thread",
        seconds * 1e9 / products,
        products * 512.0 / seconds / 1e9
    );

    let weights = device.buffer("weights", 4096 * 4096 + 4096 * 128 * 2);
    let (input, output) = (device.buffer("input", 4096 * 4), device.buffer("output", 4096 * 4));
    let gemv = kernel("gemv");
    let seconds = fastest(&device, &gemv, &[&weights, &input, &output], 512, 64, 3)?;
    println!("gemv q8_0 4096x4096: {:.2} G multiply-accumulates/s on one thread", 4096.0 * 4096.0 / seconds / 1e9);
    let seconds = fastest(&device, &kernel("empty"), &[&x, &rounds], 1, 32, 200)?;
    println!("a dispatch of 32 threads: {:.2} us", seconds * 1e6);
    Ok(())
}
