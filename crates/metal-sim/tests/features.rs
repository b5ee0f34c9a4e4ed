//! What the kernels of a model use of MSL, against arithmetic done here.

mod common;

use std::sync::LazyLock;

use common::{
    assert_close, filled, floats, language_buffers, language_results, libraries, noise, read_floats, run,
    simdgroup_results,
};
use metal_sim::{Device, Library};

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
        let want: Vec<f64> = (0..64).flat_map(|thread| simdgroup_results(&input, thread)).collect();
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

        // The only simdgroup function is in a member of a struct.
        run(library, &device, "member", &[&a, &p], [1, 1, 1], [64, 1, 1]).expect("runs clean");
        let sum = |simdgroup: usize| input[32 * simdgroup..][..32].iter().map(|x| f64::from(*x)).sum::<f64>();
        let want: Vec<f64> = (0..64).map(|thread| 2.0 * sum(thread / 32)).collect();
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
        let buffers = language_buffers(&device);
        let kernel = library.kernel("language").expect("is in the file");
        assert_eq!(kernel.max_total_threads_per_threadgroup(), Some(32));
        run(&library, &device, "language", &buffers.each_ref(), [1, 1, 1], [32, 1, 1]).expect("runs clean");
        assert_close(&read_floats(&buffers[3]), &language_results(), 1e-5);
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
