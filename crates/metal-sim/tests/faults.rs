//! Each kernel of `bad.metal` has one fault, which checked mode must name; the good ones run clean.

mod common;

use common::{filled, floats, library, reports, run};
use metal_sim::Device;

/// Kernel, and the exact reports.
const CASES: &[(&str, &[&str])] = &[
    ("good_reduce", &[]),
    (
        "oob_read",
        &[
            "out-of-bounds read of 4 bytes at bad.metal:10 by thread 127 of threadgroup 0: buffer(0) a (input) byte 512 of 512",
        ],
    ),
    (
        "oob_write",
        &[
            "out-of-bounds write of 4 bytes at bad.metal:11 by thread 64 of threadgroup 0: buffer(1) o (output) byte 512 of 512",
        ],
    ),
    (
        "oob_negative",
        &["out-of-bounds read of 4 bytes at bad.metal:12 by thread 0 of threadgroup 0: far from everything bound"],
    ),
    (
        "oob_threadgroup",
        &["index outside of a thread or threadgroup array at bad.metal:14 by thread 100 of threadgroup 0"],
    ),
    ("oob_local", &["index outside of a thread or threadgroup array at bad.metal:16 by thread 0 of threadgroup 0"]),
    (
        "race_missing_barrier",
        &[
            "read of memory nobody wrote at bad.metal:18 by thread 0 of threadgroup 0: threadgroup s (line 18) byte 508",
            "race on threadgroup s (line 18) byte 256: write at bad.metal:18 by thread 64, read at bad.metal:18 by thread 63, no barrier between",
            "race on threadgroup s (line 18) byte 252: read at bad.metal:18 by thread 64, write at bad.metal:18 by thread 63, no barrier between",
        ],
    ),
    (
        "race_write_after_read",
        &[
            "race on threadgroup s (line 20) byte 4: write at bad.metal:21 by thread 1, read at bad.metal:21 by thread 0, no barrier between",
            "race on threadgroup s (line 20) byte 0: read at bad.metal:21 by thread 127, write at bad.metal:21 by thread 0, no barrier between",
        ],
    ),
    (
        "race_wrong_scope",
        &[
            "read of memory nobody wrote at bad.metal:24 by thread 0 of threadgroup 0: threadgroup s (line 24) byte 508",
            "race on threadgroup s (line 24) byte 256: write at bad.metal:24 by thread 64, read at bad.metal:24 by thread 63, no barrier between",
            "race on threadgroup s (line 24) byte 252: read at bad.metal:24 by thread 64, write at bad.metal:24 by thread 63, no barrier between",
        ],
    ),
    (
        "race_wrong_flags",
        &[
            "race on threadgroup s (line 26) byte 508: read at bad.metal:26 by thread 0, write at bad.metal:26 by thread 127, no barrier between",
        ],
    ),
    (
        "race_device",
        &[
            "race on buffer(1) o (output) byte 0 of 512: write at bad.metal:27 by thread 1, write at bad.metal:27 by thread 0, no barrier between",
        ],
    ),
    (
        "race_groups",
        &[
            "race on buffer(1) o (output) byte 0 of 512: write at bad.metal:28 by thread 0 of threadgroup 1, write at bad.metal:28 by thread 0 of threadgroup 0",
        ],
    ),
    (
        "divergent_barrier",
        &[
            "threads of one threadgroup wait at different threadgroup_barriers, at line 31 and elsewhere: divergent barrier",
        ],
    ),
    ("early_return", &["threadgroup_barrier at line 35 reached by 96 of 128 threads; the others have returned"]),
    ("divergent_simd", &["lanes of one simdgroup wait at different simd operations, at lines 37 and 38: divergent"]),
    (
        "uninit_threadgroup",
        &["read of memory nobody wrote at bad.metal:41 by thread 0 of threadgroup 0: threadgroup s (line 41) byte 508"],
    ),
    ("over_32k", &["threadgroup memory is over 32768 bytes: 32784 with r, line 43"]),
    (
        "misaligned",
        &["misaligned 16-byte read at bad.metal:45: buffer(0) a (input) byte 4 of 512, 4 past a multiple of 16"],
    ),
    ("nan_poison_ok", &[]),
    ("atomic_ok", &[]),
    (
        "race_no_flags",
        &[
            "race on threadgroup s (line 50) byte 508: read at bad.metal:50 by thread 0, write at bad.metal:50 by thread 127, no barrier between",
        ],
    ),
    (
        "race_device_flags",
        &[
            "race on buffer(1) o (output) byte 508 of 512: read at bad.metal:52 by thread 0, write at bad.metal:52 by thread 127, no barrier between",
        ],
    ),
    (
        "race_read_by_two_simdgroups",
        &[
            "race on threadgroup s (line 54) byte 0: write at bad.metal:55 by thread 127, read at bad.metal:54 by thread 30, no barrier between",
        ],
    ),
    (
        "race_read_by_two_groups",
        &[
            "race on buffer(1) o (output) byte 0 of 512: write at bad.metal:58 by thread 127 of threadgroup 1, read at bad.metal:57 by thread 30 of threadgroup 0",
        ],
    ),
    (
        "race_atomic_with_plain",
        &[
            "race on buffer(1) o (output) byte 0 of 512: read at bad.metal:61 by thread 1, write at bad.metal:60 by thread 0, no barrier between",
            "race on buffer(1) o (output) byte 0 of 512: write at bad.metal:61 by thread 1, write at bad.metal:60 by thread 0, no barrier between",
        ],
    ),
    (
        "race_plain_with_atomic",
        &[
            "race on buffer(1) o (output) byte 0 of 512: read at bad.metal:64 by thread 127, write at bad.metal:63 by thread 30, no barrier between",
        ],
    ),
];

#[test]
fn every_fault_is_reported() {
    let device = Device::new(2);
    let library = library(include_str!("kernels/bad.metal"), "bad.metal", true);
    assert_eq!(library.kernels(), CASES.iter().map(|(kernel, _)| *kernel).collect::<Vec<_>>());
    let input: Vec<f32> = (0..128).map(|at| at as f32).collect();
    for (kernel, want) in CASES {
        let groups = if matches!(*kernel, "race_groups" | "race_read_by_two_groups" | "atomic_ok") { 2 } else { 1 };
        let n: u32 = if *kernel == "early_return" { 96 } else { 128 };
        let a = floats(&device, "input", &input);
        let o = floats(&device, "output", &[0.0; 128]);
        let n = filled(&device, "params", &n.to_le_bytes());
        let got = reports(run(&library, &device, kernel, &[&a, &o, &n], [groups, 1, 1], [128, 1, 1]));
        let want: Vec<_> = want.iter().map(|message| format!("{kernel}: {message}")).collect();
        assert_eq!(got, want);
    }
}

#[test]
fn without_checks_a_barrier_that_not_all_reach_is_reported_still() {
    let device = Device::new(2);
    let library = library(include_str!("kernels/bad.metal"), "bad.metal", false);
    let a = floats(&device, "input", &[1.0; 128]);
    let o = floats(&device, "output", &[0.0; 128]);
    let n = filled(&device, "params", &96u32.to_le_bytes());
    let got = reports(run(&library, &device, "early_return", &[&a, &o, &n], [1, 1, 1], [128, 1, 1]));
    assert_eq!(
        got,
        ["early_return: threadgroup_barrier at line 35 reached by 96 of 128 threads; the others have returned"]
    );
}
