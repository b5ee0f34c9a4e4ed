//! The choice of experts by the functions that projects have: exact, of equal scores that of the lower index, in every kind of
//! router; and the order in which chosen experts run.

use forge_runtime::gpu::{Gpu, KernelSpec, Source, pool};

/// `route.metal` with a router of each kind: softmax of the chosen of 128, of all of 60 with a gate beside them, sigmoid with
/// a selection bias from 3 of 8 groups of 40; and the order of 8 experts in tiles of 16.
const KERNELS: &str = "
kernel void chosen(device const float* logits [[buffer(0)]], device const float* bias [[buffer(1)]],
                   device uint* experts [[buffer(2)]], device float* weights [[buffer(3)]],
                   uint row [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    route_row<Routing<128, 8, 1, 0, 1, 1, 1>, 128, 8, 0>(logits, bias, experts, weights, -1.0f, 1.0f, row, lane);
}
kernel void all(device const float* logits [[buffer(0)]], device const float* bias [[buffer(1)]],
                device uint* experts [[buffer(2)]], device float* weights [[buffer(3)]],
                uint row [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    route_row<Routing<60, 4, 0, 0, 1, 1, 1>, 61, 4, 2>(logits, bias, experts, weights, -1.0f, 1.0f, row, lane);
}
kernel void groups(device const float* logits [[buffer(0)]], device const float* bias [[buffer(1)]],
                   device uint* experts [[buffer(2)]], device float* weights [[buffer(3)]],
                   uint row [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    route_row<Routing<40, 6, 2, 1, 8, 3, 2>, 40, 6, 0>(logits, bias, experts, weights, 0.0f, 1.0f, row, lane);
}
kernel void order(device const uint* experts [[buffer(0)]], device uint* pairs [[buffer(1)]],
                  device uint* tiles [[buffer(2)]], device uint* threadgroups [[buffer(3)]],
                  device const uint* rows [[buffer(4)]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                  uint lane [[thread_index_in_simdgroup]]) {
    threadgroup uint shared[8 * 8];
    sort_pairs<8, 2, 16, 5, 7, 8>(experts, pairs, tiles, threadgroups, shared, rows[0], simdgroup, lane);
}
";

static SPECS: [KernelSpec; 4] = [
    KernelSpec { name: "chosen", threads: 32, threadgroup_bytes: 0 },
    KernelSpec { name: "all", threads: 32, threadgroup_bytes: 0 },
    KernelSpec { name: "groups", threads: 32, threadgroup_bytes: 0 },
    KernelSpec { name: "order", threads: 256, threadgroup_bytes: 256 },
];

const ROWS: usize = 24;

fn open() -> Gpu {
    let head = "#include <metal_stdlib>\nusing namespace metal;\n";
    let text: &'static str = format!("{head}{}{KERNELS}", include_str!("../../../../templates/msl/route.metal")).leak();
    Gpu::open(&Source::new(text, &[]), &SPECS).unwrap_or_else(|error| panic!("{error}"))
}

/// Experts and weights that a kernel of [`ROWS`] rows leaves.
fn routed(kernel: usize, logits: &[f32], bias: &[f32], chosen: usize, weights: usize) -> (Vec<u32>, Vec<f32>) {
    let gpu = open();
    let words = |label: &str, count: usize| gpu.alloc(label, (4 * count) as u64).expect("memory");
    let (given, biases) = (words("logits", logits.len()), words("bias", bias.len()));
    let (experts, shares) = (words("experts", ROWS * chosen), words("weights", ROWS * weights));
    given.write(0, logits);
    biases.write(0, bias);
    let pending = pool(|| {
        let mut commands = gpu.commands("route");
        let slices = [given.whole(), biases.whole(), experts.whole(), shares.whole()];
        commands.dispatch(gpu.kernel(kernel), &slices.each_ref(), [ROWS as u32, 1, 1]);
        commands.commit()
    });
    pending.wait().expect("runs");
    let (mut ids, mut found) = (vec![0_u32; ROWS * chosen], vec![0_f32; ROWS * weights]);
    experts.read(0, &mut ids);
    shares.read(0, &mut found);
    (ids, found)
}

/// The best of some keys, of equal ones the first.
fn best(keys: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|&a, &b| keys[b].partial_cmp(&keys[a]).expect("numbers").then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// Numbers without an order; in every second row many of them equal, and zeros of both signs.
fn logits(width: usize) -> Vec<f32> {
    let number = |at: usize| {
        let hash = (at as u32).wrapping_mul(2_654_435_761) >> 8;
        let value = hash as f32 / (1 << 23) as f32 - 1.0;
        match (at / width % 2, at % 3) {
            (0, _) => 4.0 * value,
            (_, 0) => (2.0 * value).round() / 2.0,
            (_, 1) => 0.0,
            (_, _) => -0.0,
        }
    };
    (0..ROWS * width).map(number).collect()
}

#[test]
fn the_best_logits_are_chosen_and_of_equal_ones_the_first() {
    for (kernel, experts, width, chosen, weights) in [(0, 128, 128, 8, 8), (1, 60, 61, 4, 5)] {
        let logits = logits(width);
        let (ids, found) = routed(kernel, &logits, &[0.0], chosen, weights);
        for (row, logits) in logits.chunks(width).enumerate() {
            let keys: Vec<f64> = logits[..experts].iter().map(|&logit| logit.into()).collect();
            let own = best(&keys, chosen);
            assert!(own.iter().map(|&expert| expert as u32).eq(ids[row * chosen..][..chosen].iter().copied()), "{row}");
            let exps: Vec<f64> = keys.iter().map(|key| key.exp()).collect();
            let of: Vec<usize> = if kernel == 0 { own.clone() } else { (0..experts).collect() };
            let sum: f64 = of.iter().map(|&expert| exps[expert]).sum();
            for (place, &expert) in own.iter().enumerate() {
                let (found, expected) = (f64::from(found[row * weights + place]), exps[expert] / sum);
                assert!((found - expected).abs() <= 1e-6 * expected, "row {row}: {found}, expected {expected}");
            }
            if weights > chosen {
                // The weight of an expert that every row takes.
                let expected = 1.0 / (1.0 + (-f64::from(logits[experts])).exp());
                assert!((f64::from(found[row * weights + chosen]) - expected).abs() <= 1e-6, "row {row}");
            }
        }
    }
}

/// Logits of 0 have scores of a half, so that the sums with these biases are exact.
#[test]
fn groups_are_judged_by_their_two_best_and_biases_only_choose() {
    let bias: Vec<f32> = (0..40_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 29) as f32 / 8.0).collect();
    let (ids, weights) = routed(2, &[0.0; 40 * ROWS], &bias, 6, 6);
    let mut keys: Vec<f64> = bias.iter().map(|&bias| 0.5 + f64::from(bias)).collect();
    let judge = |group: &[f64]| {
        let best = best(group, 2);
        group[best[0]] + group[best[1]]
    };
    let judged: Vec<f64> = keys.chunks(5).map(judge).collect();
    let kept = best(&judged, 3);
    for (expert, key) in keys.iter_mut().enumerate() {
        *key = if kept.contains(&(expert / 5)) { *key } else { -1.0 };
    }
    let expected: Vec<u32> = best(&keys, 6).into_iter().map(|expert| expert as u32).collect();
    for row in 0..ROWS {
        assert_eq!(ids[row * 6..][..6], expected[..], "row {row}");
    }
    assert!(weights.iter().all(|weight| (weight - 1.0 / 6.0).abs() < 1e-6), "{weights:?}");
}

#[test]
fn pairs_are_in_order_of_their_experts_in_tiles_of_one_each() {
    let gpu = open();
    // The last of them has each simdgroup come round to its counts again.
    for rows in [1_usize, 7, 40, 300] {
        let ids: Vec<u32> = (0..rows as u32).flat_map(|row| [row * row % 8, (row * row + 3) % 8]).collect();
        let words = |label: &str, count: usize| gpu.alloc(label, (4 * count) as u64).expect("memory");
        let (experts, pairs, tiles) = (words("experts", 2 * rows), words("pairs", 2 * rows), words("tiles", 6 * rows));
        let (threadgroups, count) = (words("threadgroups", 6), words("rows", 1));
        experts.write(0, &ids);
        count.write(0, &[rows as u32]);
        let pending = pool(|| {
            let mut commands = gpu.commands("order");
            let slices = [experts.whole(), pairs.whole(), tiles.whole(), threadgroups.whole(), count.whole()];
            commands.dispatch(gpu.kernel(3), &slices.each_ref(), [1, 1, 1]);
            commands.commit()
        });
        pending.wait().expect("runs");
        let mut order: Vec<u32> = (0..2 * rows as u32).collect();
        order.sort_by_key(|&pair| (ids[pair as usize], pair));
        let mut expected = Vec::new();
        let mut first = 0;
        for run in order.chunk_by(|a, b| ids[*a as usize] == ids[*b as usize]) {
            for tile in run.chunks(16) {
                expected.extend([ids[tile[0] as usize], first, tile.len() as u32]);
                first += tile.len() as u32;
            }
        }
        let (mut found, mut listed, mut grids) = (vec![0; 2 * rows], vec![0; expected.len()], [0; 6]);
        pairs.read(0, &mut found);
        tiles.read(0, &mut listed);
        threadgroups.read(0, &mut grids);
        assert_eq!((&found, &listed), (&order, &expected), "{rows} rows");
        let count = expected.len() as u32 / 3;
        assert_eq!(grids, [5, count, 1, 7, count, 1], "{rows} rows");
    }
}
