//! What the kernels of a model use of MSL, against arithmetic done here.

mod common;

use std::sync::LazyLock;

use common::{filled, floats, libraries, read_floats, run};
use metal_sim::{Device, Library};

fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let difference = (f64::from(*got) - want).abs();
        assert!(difference <= tolerance, "element {index}: {got} instead of {want}");
    }
}

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

static LIBRARIES: LazyLock<Vec<Library>> =
    LazyLock::new(|| libraries(include_str!("kernels/features.metal"), "features.metal"));

#[test]
fn simdgroup_functions() {
    let device = Device::new(2);
    for library in &*LIBRARIES {
        let input = noise(64, 1);
        let a = floats(&device, "a", &input);
        let o = device.buffer("o", 64 * 16 * 4);
        run(library, &device, "shuffles", &[&a, &o], [1, 1, 1], [64, 1, 1]).expect("runs clean");
        let mut want = Vec::new();
        for thread in 0..64 {
            let (base, lane) = (thread / 32 * 32, thread % 32);
            let v = |lane: usize| f64::from(input[base + lane]);
            let all = || (0..32).map(v);
            let sum: f64 = all().sum();
            want.extend([
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
            ]);
        }
        assert_close(&read_floats(&o), &want, 1e-5);

        let p = device.buffer("p", 64 * 4);
        run(library, &device, "partial", &[&a, &p], [1, 1, 1], [64, 1, 1]).expect("runs clean");
        let want: Vec<f64> = (0..64)
            .map(|thread| {
                let first = (thread / 32) * 32;
                if thread % 32 < 10 { (first..first + 10).map(|at| f64::from(input[at])).sum() } else { 0.0 }
            })
            .collect();
        assert_close(&read_floats(&p), &want, 1e-5);
    }
}

#[test]
fn simdgroup_matrix() {
    let device = Device::new(2);
    for library in &*LIBRARIES {
        let (a, b) = (noise(256, 2), noise(64, 3));
        let (buffer_a, buffer_b) = (floats(&device, "a", &a), floats(&device, "b", &b));
        let o = device.buffer("o", 64 * 4);
        run(library, &device, "mma_t", &[&buffer_a, &buffer_b, &o], [1, 1, 1], [32, 1, 1]).expect("runs clean");
        let mut want = vec![0.0; 64];
        for row in 0..8 {
            for column in 0..8 {
                let sum: f64 =
                    (0..8).map(|k| f64::from(a[(row + 8) * 16 + k + 8]) * f64::from(b[column * 8 + k])).sum();
                want[column * 8 + row] = 2.0 * (sum + 1.0);
            }
        }
        assert_close(&read_floats(&o), &want, 1e-4);
    }
}

#[test]
fn threadgroup_memory_and_a_grid_of_two_dimensions() {
    let device = Device::new(2);
    for library in &*LIBRARIES {
        let input = noise(16 * 12, 4);
        let a = floats(&device, "a", &input);
        let o = device.buffer("o", input.len() * 4);
        run(library, &device, "tgdims", &[&a, &o], [2, 3, 1], [8, 4, 1]).expect("runs clean");
        let mut want = vec![0.0; input.len()];
        for (at, want) in want.iter_mut().enumerate() {
            let (row, column) = (at / 16 / 4 * 4, at % 16 / 8 * 8);
            let sum: f64 = (0..32).map(|i| f64::from(input[(row + i / 8) * 16 + column + i % 8])).sum();
            *want = sum + 31.0 + 32.0;
        }
        assert_close(&read_floats(&o), &want, 1e-4);
    }
}

#[test]
fn the_language() {
    let device = Device::new(2);
    for library in libraries(include_str!("kernels/language.metal"), "language.metal") {
        let h = filled(&device, "h", &[0x00, 0x3E]); // 1.5
        let mut params = Vec::new();
        params.extend(7u32.to_le_bytes());
        for value in [0.5f32, 1.0, 2.0, 3.0] {
            params.extend(value.to_le_bytes());
        }
        params.extend([5, 0, 0, 0]);
        let params = filled(&device, "params", &params);
        let mut blocks = vec![0u8; 68];
        blocks[34..36].copy_from_slice(&[0x00, 0xC0]); // -2.0
        blocks[40..44].copy_from_slice(&[1, 0xFE, 3, 4]);
        let blocks = filled(&device, "blocks", &blocks);
        let o = floats(&device, "o", &[0.0; 31]);
        let counter = filled(&device, "counter", &[0; 4]);
        let buffers = [&h, &params, &blocks, &o, &counter];
        let kernel = library.kernel("language").expect("is in the file");
        assert_eq!(kernel.max_total_threads_per_threadgroup(), Some(32));
        run(&library, &device, "language", &buffers, [1, 1, 1], [32, 1, 1]).expect("runs clean");
        let tanh = 0.5f64.tanh();
        let want = [
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
        ];
        assert_close(&read_floats(&o), &want, 1e-5);
    }
}

type Matrix = [[f64; 8]; 8];

fn product(a: &Matrix, b: &Matrix, c: &Matrix) -> Matrix {
    let mut sum = *c;
    for row in 0..8 {
        for column in 0..8 {
            sum[row][column] += (0..8).map(|k| a[row][k] * b[k][column]).sum::<f64>();
        }
    }
    sum
}

fn transposed(m: &Matrix) -> Matrix {
    std::array::from_fn(|row| std::array::from_fn(|column| m[column][row]))
}

#[test]
fn products_of_matrices_in_every_order() {
    let device = Device::new(1);
    // small whole numbers: every sum is exact in float, and those of x and y in half
    let numbers: Vec<f32> = (0..192).map(|at| (at * 7 % 5) as f32 - 2.0).collect();
    let matrix = |at: usize| -> Matrix {
        std::array::from_fn(|row| std::array::from_fn(|column| f64::from(numbers[at + row * 8 + column])))
    };
    let (a, b, c) = (matrix(0), matrix(64), matrix(128));
    let halves: Vec<u8> = (0..128u32).flat_map(|at| if at % 3 == 0 { [0x00, 0x3C] } else { [0x00, 0xC0] }).collect();
    let half = |at: usize| -> Matrix {
        std::array::from_fn(|row| {
            std::array::from_fn(|column| if (at + row * 8 + column).is_multiple_of(3) { 1.0 } else { -2.0 })
        })
    };
    let (x, y) = (half(0), transposed(&half(64)));
    let zero = [[0.0; 8]; 8];
    let mut sums = vec![c];
    for _ in 0..40 {
        sums.push(product(&a, &b, &sums[sums.len() - 1]));
    }
    let d = product(&a, &b, &zero);
    let z = product(&x, &y, &[[1.0; 8]; 8]);
    let elements = (0..32).flat_map(|lane| {
        let (row, column) = (((lane / 4) & 4) + lane / 2 % 4, ((lane / 4) & 2) * 2 + lane % 2 * 2);
        [z[row][column], z[row][column + 1]]
    });
    let mut want: Vec<f64> = Vec::new();
    for matrix in [product(&a, &b, &c), product(&a, &b, &c), product(&d, &b, &d), sums[21], sums[40]] {
        want.extend(matrix.as_flattened());
    }
    want.extend(elements);
    want.extend(transposed(&product(&a, &product(&x, &y, &c), &c)).as_flattened());
    want.extend(d.as_flattened());
    for library in libraries(include_str!("kernels/matrix.metal"), "matrix.metal") {
        let o = device.buffer("o", want.len() * 4);
        let buffers = [&floats(&device, "abc", &numbers), &o, &filled(&device, "h", &halves)];
        run(&library, &device, "matrices", &buffers, [1, 1, 1], [32, 1, 1]).expect("runs clean");
        assert_close(&read_floats(&o), &want, 0.0);
    }
}
