//! What the tests share.
#![allow(dead_code, reason = "each test file uses its part")]

use metal_sim::{Binding, Buffer, CompileOptions, Device, Error, Library, Timing};

pub fn libraries(source: &str, name: &str) -> Vec<Library> {
    [false, true].map(|checked| library(source, name, checked)).into()
}

pub fn library(source: &str, name: &str, checked: bool) -> Library {
    match Library::from_source(source, name, &CompileOptions { checked }) {
        Ok(library) => library,
        Err(error) => panic!("{error}"),
    }
}

pub fn filled(device: &Device, label: &str, bytes: &[u8]) -> Buffer {
    let buffer = device.buffer(label, bytes.len());
    buffer.write(0, bytes);
    buffer
}

pub fn floats(device: &Device, label: &str, values: &[f32]) -> Buffer {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    filled(device, label, &bytes)
}

pub fn read_floats(buffer: &Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read(0, &mut bytes);
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect()
}

/// Runs one dispatch over whole buffers.
pub fn run(
    library: &Library,
    device: &Device,
    kernel: &str,
    buffers: &[&Buffer],
    groups: [u32; 3],
    threads: [u32; 3],
) -> Result<Timing, Error> {
    let kernel = library.kernel(kernel).expect("is in the file");
    let bindings: Vec<Binding<'_>> = buffers.iter().map(|buffer| buffer.whole()).collect();
    let mut commands = device.command_buffer("test");
    commands.dispatch(&kernel, &bindings, groups, threads);
    commands.commit().wait()
}

/// The texts of the reports of a run that must fail.
pub fn reports(result: Result<Timing, Error>) -> Vec<String> {
    match result {
        Err(Error::Checked { reports }) => reports.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
        Ok(_) => Vec::new(),
    }
}

pub fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let difference = (f64::from(*got) - want).abs();
        assert!(difference <= tolerance, "element {index}: {got} instead of {want}");
    }
}

pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// What kernel `shuffles` of `features.metal`, and `simdgroups` of `cuda.metal` first, write for a thread.
pub fn simdgroup_results(input: &[f32], thread: usize) -> [f64; 16] {
    let (base, lane) = (thread / 32 * 32, thread % 32);
    let v = |lane: usize| f64::from(input[base + lane]);
    let all = || (0..32).map(v);
    let sum: f64 = all().sum();
    [
        sum,
        all().fold(f64::MIN, f64::max),
        all().fold(f64::MAX, f64::min),
        (0..=lane).map(v).sum(),
        (0..lane).map(v).sum(),
        v(lane ^ 5),
        if lane + 3 < 32 { v(lane + 3) } else { v(lane) },
        if lane >= 3 { v(lane - 3) } else { v(lane) },
        v(7),
        v(31 - lane),
        f64::from(u8::from(all().any(|v| v > 0.99))),
        1.0,
        f64::from(u8::from(lane == 0)),
        (lane / 4 * 4..lane / 4 * 4 + 4).map(v).sum(),
        sum,
        v((lane + 1) % 32),
    ]
}

/// The buffers of `language.metal`; the results are the fourth.
pub fn language_buffers(device: &Device) -> [Buffer; 5] {
    let mut params = 7u32.to_le_bytes().to_vec();
    for value in [0.5f32, 1.0, 2.0, 3.0] {
        params.extend(value.to_le_bytes());
    }
    params.extend([5, 0, 0, 0]);
    let mut blocks = vec![0u8; 68];
    blocks[34..36].copy_from_slice(&[0x00, 0xC0]); // -2.0
    blocks[40..44].copy_from_slice(&[1, 0xFE, 3, 4]);
    [
        filled(device, "h", &[0x00, 0x3E]), // 1.5
        filled(device, "params", &params),
        filled(device, "blocks", &blocks),
        floats(device, "o", &[0.0; 31]),
        filled(device, "counter", &[0; 4]),
    ]
}

/// What `language.metal` writes.
pub fn language_results() -> [f64; 31] {
    let tanh = 0.5f64.tanh();
    [
        2.75,
        7.0,
        213.0,
        3.0,
        1.0 - 20.0 + 300.0 + 4000.0,
        -2.0,
        31.0 + 15.0 + 7.0,
        5.0,
        3.5,
        2.5,
        2.0,
        6.0 + 8.0,
        10.0 + 4.0,
        1.0 + 10.0 + 2.0,
        1.0f64.exp(),
        0.5 + 3.0,
        3.0 + 31.0 + 3.0,
        2.0 + 2.0,
        3.0 + 5.0,
        5.25,
        32.0,
        200.0 + 4.0 + 10.0,
        1.0,
        2.0,
        3.0 + 0.5 + 2.0 + 3.0,
        tanh * 2.0 + 16.0,
        -1.0 + 1.0 + 3.0 + 2.0 - 1.0 - 1.0,
        1.0,
        65504.0 + 1.0,
        7.0,
        -3.0 + 15.0 + 48.0,
    ]
}
