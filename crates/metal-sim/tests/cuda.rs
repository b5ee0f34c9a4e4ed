//! An NVIDIA GPU as the device, against arithmetic done here. Ignored where there is none.

mod common;
#[path = "common/tiles.rs"]
mod tiles;

use std::sync::Arc;

use common::{assert_close, filled, floats, language_buffers, language_results, noise, read_floats, simdgroup_results};
use metal_sim::{Binding, Buffer, CompileOptions, Device, Error, Library, Timing};
use tiles::{MOST, Tiles};

const SOURCE: &str = include_str!("cuda/cuda.metal");

fn gpu() -> Device {
    Device::cuda().unwrap_or_else(|error| panic!("{error}"))
}

fn compiled(device: &Device, source: &str, name: &str) -> Library {
    device.compile(source, name, &CompileOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn run(
    library: &Library,
    device: &Device,
    kernel: &str,
    buffers: &[&Buffer],
    groups: u32,
    threads: u32,
) -> Result<Timing, Error> {
    common::run(library, device, kernel, buffers, [groups, 1, 1], [threads, 1, 1])
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn simdgroup_functions() {
    let device = gpu();
    let library = compiled(&device, SOURCE, "cuda.metal");
    let input = noise(64, 1);
    let (a, o) = (floats(&device, "a", &input), device.buffer("o", 64 * 20 * 4));
    run(&library, &device, "simdgroups", &[&a, &o], 2, 32).expect("runs");
    let want: Vec<f64> = (0..64)
        .flat_map(|thread| {
            let (base, lane) = (thread / 32 * 32, thread % 32);
            let neighbour = f64::from(input[base + (lane ^ 1)]);
            let mut all = simdgroup_results(&input, thread).to_vec();
            // the fifteenth is the sum of ones here
            all[14] = 32.0;
            all.extend([neighbour, 496.0, if lane < 30 { f64::from(input[base + lane + 2]) } else { 7.0 }, 11.0]);
            all
        })
        .collect();
    // one of them went through half
    assert_close(&read_floats(&o), &want, 5e-4);
    let exact = |values: Vec<f64>| -> Vec<f64> {
        values.into_iter().enumerate().filter(|(at, _)| at % 20 != 16).map(|(_, value)| value).collect()
    };
    let got: Vec<f32> = exact(read_floats(&o).iter().map(|value| f64::from(*value)).collect())
        .iter()
        .map(|value| *value as f32)
        .collect();
    assert_close(&got, &exact(want), 4e-6);
}

type Matrix = [[f64; 8]; 8];

/// a b + 1, a b^T and its transpose, one after another.
fn products(a: &[f32], b: &[f32]) -> Vec<f64> {
    let at = |m: &[f32], row: usize, column: usize| f64::from(m[row * 8 + column]);
    let product = |right: &dyn Fn(usize, usize) -> f64, plus: f64| -> Matrix {
        std::array::from_fn(|row| {
            std::array::from_fn(|column| plus + (0..8).map(|k| at(a, row, k) * right(k, column)).sum::<f64>())
        })
    };
    let plain = product(&|k, column| at(b, k, column), 1.0);
    let turned = product(&|k, column| at(b, column, k), 0.0);
    let transposed: Matrix = std::array::from_fn(|row| std::array::from_fn(|column| turned[column][row]));
    [plain, turned, transposed].concat().concat()
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn products_of_matrices() {
    let device = gpu();
    let library = compiled(&device, SOURCE, "cuda.metal");
    let numbers = noise(128, 2);
    // multiples of 1/64 below 1 are exact in half, of 1/8 in bfloat, and so are the sums of their products in float
    let rounded = |unit: f32| -> Vec<f32> { numbers.iter().map(|value| (value * unit).round() / unit).collect() };
    let (fine, coarse) = (rounded(64.0), rounded(8.0));
    let float_bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let half = |value: &f32| {
        let bits = value.to_bits();
        let exponent = (bits >> 23 & 0xff).saturating_sub(112);
        let magnitude = if exponent > 0 { exponent << 10 | bits >> 13 & 0x3ff } else { 0 };
        ((bits >> 16 & 0x8000 | magnitude) as u16).to_le_bytes()
    };
    let halves: Vec<u8> = fine.iter().flat_map(half).collect();
    let bfloats: Vec<u8> = coarse.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect();
    for (kernel, values, bytes, tolerance) in [
        ("products_f32", &numbers, float_bytes(&numbers), 8e-6),
        ("products_f32", &fine, float_bytes(&fine), 0.0),
        ("products_f16", &fine, halves, 0.0),
        ("products_bf16", &coarse, bfloats, 0.0),
    ] {
        let (a, b) = bytes.split_at(bytes.len() / 2);
        let (a, b, o) = (filled(&device, "a", a), filled(&device, "b", b), device.buffer("o", 192 * 4));
        run(&library, &device, kernel, &[&a, &b, &o], 1, 32).expect("runs");
        assert_close(&read_floats(&o), &products(&values[..64], &values[64..]), tolerance);
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn atomics_count_every_thread() {
    let device = gpu();
    let library = compiled(&device, SOURCE, "cuda.metal");
    let (sums, highest) = (device.buffer("sums", 16), device.buffer("highest", 4));
    run(&library, &device, "atomics", &[&sums, &highest], 16, 256).expect("runs");
    let mut words = [0; 16];
    sums.read(0, &mut words);
    let words: Vec<u32> =
        words.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four"))).collect();
    assert_eq!(words, [4096 * 4095 / 2, 4095, u32::MAX, 4096]);
    assert_eq!(read_floats(&highest), [2047.5]);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn the_language() {
    let device = gpu();
    let library = compiled(&device, include_str!("kernels/language.metal"), "language.metal");
    assert_eq!(library.kernel("language").map(|kernel| kernel.thread_limit()), Some(32));
    let buffers = language_buffers(&device);
    run(&library, &device, "language", &buffers.each_ref(), 1, 32).expect("runs");
    assert_close(&read_floats(&buffers[3]), &language_results(), 1e-5);
}

/// Two dispatches of `slow_add`, the first of which takes long: `barrier` between them or not.
fn two_adds(device: &Device, library: &Library, barrier: bool) -> (Vec<f32>, Timing) {
    let kernel = library.kernel("slow_add").expect("is in the file");
    let x = floats(device, "x", &[1.0; 256]);
    let (y, z) = (device.buffer("y", 1024), device.buffer("z", 1024));
    let spins = filled(device, "spins", &[1_000_000u32.to_le_bytes(), 0u32.to_le_bytes()].concat());
    let spins = |at: usize| Binding { buffer: &spins, offset: 4 * at, len: 4 };
    let mut commands = device.command_buffer("adds");
    commands.dispatch(&kernel, &[x.whole(), y.whole(), spins(0)], [1, 1, 1], [256, 1, 1]);
    if barrier {
        commands.barrier();
    }
    commands.dispatch(&kernel, &[y.whole(), z.whole(), spins(1)], [1, 1, 1], [256, 1, 1]);
    let timing = commands.commit().wait().expect("runs");
    (read_floats(&z), timing)
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_barrier_orders_and_without_it_dispatches_race() {
    let device = gpu();
    let library = compiled(&device, SOURCE, "cuda.metal");
    let (ordered, timing) = two_adds(&device, &library, true);
    assert_eq!(ordered, [3.0; 256]);
    assert!(timing.seconds > 1e-3, "{}", timing.seconds);
    // the second reads what the first has not written yet
    assert_eq!(two_adds(&device, &library, false).0, [1.0; 256]);
    // the same graph again, with other buffers
    assert_eq!(two_adds(&device, &library, true).0, [3.0; 256]);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn command_buffers_run_in_order_and_the_host_sees_what_they_wrote() {
    let device = gpu();
    let library = compiled(&device, SOURCE, "cuda.metal");
    let kernel = library.kernel("slow_add").expect("is in the file");
    let x = floats(&device, "x", &[0.0; 256]);
    let spins = filled(&device, "spins", &1000u32.to_le_bytes());
    let mut submissions = Vec::new();
    for _ in 0..100 {
        let mut commands = device.command_buffer("add");
        commands.dispatch(&kernel, &[x.whole(), x.whole(), spins.whole()], [1, 1, 1], [256, 1, 1]);
        submissions.push(commands.commit());
    }
    for submission in submissions {
        submission.wait().expect("runs");
    }
    assert_eq!(read_floats(&x), [100.0; 256]);
    // one element by the host, the others as they were
    x.write(4, &5.0f32.to_le_bytes());
    run(&library, &device, "slow_add", &[&x, &x, &spins], 1, 256).expect("runs");
    let got = read_floats(&x);
    assert_eq!((got[0], got[1], got[2], got[255]), (101.0, 6.0, 101.0, 101.0));
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn the_callers_memory_is_read() {
    let device = gpu();
    let library = compiled(&device, SOURCE, "cuda.metal");
    let memory = Arc::new(vec![2.0f32; 1000]);
    // SAFETY: the vector is not changed while the buffer keeps it
    let x = unsafe { device.buffer_no_copy("x", memory.as_ptr().cast(), 4000, memory.clone()) };
    let (y, spins) = (device.buffer("y", 1024), device.buffer("spins", 4));
    let kernel = library.kernel("slow_add").expect("is in the file");
    let mut commands = device.command_buffer("read");
    let part = Binding { buffer: &x, offset: 1600, len: 1024 };
    commands.dispatch(&kernel, &[part, y.whole(), spins.whole()], [1, 1, 1], [256, 1, 1]);
    commands.commit().wait().expect("runs");
    assert_eq!(read_floats(&y), [3.0; 256]);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn what_cannot_run_is_an_error() {
    let device = gpu();
    let (x, y, spins) = (device.buffer("x", 1024), device.buffer("y", 1024), device.buffer("spins", 4));
    let on_gpu = compiled(&device, SOURCE, "cuda.metal");
    let software = Device::new(1);
    let error = run(&on_gpu, &software, "slow_add", &[&x, &y, &spins], 1, 256).expect_err("is of the GPU");
    assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
    let error =
        device.compile("kernel void k(device float* o [[buffer(0)]]) { no }", "k.metal", &CompileOptions::default());
    assert!(matches!(error, Err(Error::Compile { .. })));
    assert!(device.compile(SOURCE, "cuda.metal", &CompileOptions { checked: true }).is_err());
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_grid_in_a_buffer() {
    let device = gpu();
    let library = compiled(&device, include_str!("kernels/indirect.metal"), "indirect.metal");
    // the same graph with other buffers; tiles beyond the counts were written to by nobody, and none at all run of the last
    for lengths in [&[3, 0, 9, 4][..], &[1], &[4; 12], &[0, 0, 5], &[0]] {
        let tiles = Tiles::new(&device, lengths);
        let mut commands = device.command_buffer("tiles");
        tiles.count(&library, &mut commands);
        commands.barrier();
        tiles.scale(&library, &mut commands, MOST);
        commands.commit().wait().expect("runs");
        if tiles.tile_count() > 0 {
            tiles.assert_scaled();
        } else {
            assert_eq!(read_floats(&tiles.y), [0.0; 8]);
        }
    }
}

/// It ends the GPU's context, so this device alone.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn more_threadgroups_than_the_largest_grid_has_are_an_error() {
    let device = gpu();
    let library = compiled(&device, include_str!("kernels/indirect.metal"), "indirect.metal");
    let tiles = Tiles::new(&device, &[9, 1]);
    let mut commands = device.command_buffer("tiles");
    tiles.count(&library, &mut commands);
    commands.barrier();
    tiles.scale(&library, &mut commands, [3, 2, 1]);
    let error = commands.commit().wait().expect_err("has four tiles");
    assert!(matches!(error, Error::Cuda { .. }), "{error}");
}
