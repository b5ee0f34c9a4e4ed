//! Checked mode and device memory: uninitialised bytes, neighbours, hazards between dispatches, counters.

mod common;

use std::sync::{Arc, LazyLock};

use common::{floats, library, read_floats, reports, run};
use metal_sim::{Binding, BindingCounters, Buffer, Device, DispatchCounters, Error, Library};

static CHECKED: LazyLock<Library> =
    LazyLock::new(|| library(include_str!("kernels/memory.metal"), "memory.metal", true));

fn part(buffer: &Buffer, offset: usize, len: usize) -> Binding<'_> {
    Binding { buffer, offset, len }
}

#[test]
fn a_read_of_bytes_nobody_wrote_is_reported_until_they_are_written() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let (from, to) = (device.buffer("from", 64), device.buffer("to", 64));
    let copy = || run(library, &device, "copy", &[&from, &to], [1, 1, 1], [16, 1, 1]);
    assert_eq!(
        reports(copy()),
        [
            "copy: read of memory nobody wrote at memory.metal:5 by thread 0 of threadgroup 0: buffer(0) from (from) byte 0 of 64"
        ]
    );
    from.write(0, &[0; 32]);
    assert_eq!(
        reports(copy()),
        [
            "copy: read of memory nobody wrote at memory.metal:5 by thread 8 of threadgroup 0: buffer(0) from (from) byte 32 of 64"
        ]
    );
    from.mark_written(32, 32);
    assert_eq!(reports(copy()), [""; 0]);
    // what a kernel wrote may be read
    assert_eq!(reports(run(library, &device, "copy", &[&to, &from], [1, 1, 1], [16, 1, 1])), [""; 0]);
}

#[test]
fn a_neighbour_in_an_arena_hides_nothing() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let arena = floats(&device, "arena", &[1.0; 32]);
    let kernel = library.kernel("copy_from_next").expect("is in the file");
    let mut commands = device.command_buffer("test");
    commands.dispatch(&kernel, &[part(&arena, 0, 64), part(&arena, 64, 64)], [1, 1, 1], [16, 1, 1]);
    assert_eq!(
        reports(commands.commit().wait()),
        [
            "copy_from_next: out-of-bounds read of 4 bytes at memory.metal:8 by thread 15 of threadgroup 0: buffer(0) from (arena) byte 64 of 64"
        ]
    );
}

#[test]
fn a_neighbour_in_a_weights_file_hides_nothing() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let weights: Arc<Vec<f32>> = Arc::new(vec![1.0; 64]);
    // SAFETY: the vector lives as long as the buffer and is never changed
    let file = unsafe { device.buffer_no_copy("weights", weights.as_ptr().cast(), 256, weights.clone()) };
    let sum = device.buffer("sum", 64);
    let kernel = library.kernel("add").expect("is in the file");
    let mut commands = device.command_buffer("test");
    commands.dispatch(&kernel, &[part(&file, 0, 64), part(&file, 64, 60), part(&sum, 0, 64)], [1, 1, 1], [16, 1, 1]);
    assert_eq!(
        reports(commands.commit().wait()),
        [
            "add: out-of-bounds read of 4 bytes at memory.metal:14 by thread 15 of threadgroup 0: buffer(1) b (weights) byte 60 of 60"
        ]
    );
}

#[test]
fn one_buffer_bound_twice_is_one_memory() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let x = floats(&device, "x", &[1.5; 16]);
    run(library, &device, "add", &[&x, &x, &x], [1, 1, 1], [16, 1, 1]).expect("each thread has its own element");
    assert_eq!(read_floats(&x), [3.0; 16]);
    let kernel = library.kernel("copy_from_next").expect("is in the file");
    let mut commands = device.command_buffer("test");
    commands.dispatch(&kernel, &[x.whole(), part(&x, 0, 60)], [1, 1, 1], [15, 1, 1]);
    assert_eq!(
        reports(commands.commit().wait()),
        [
            "copy_from_next: race on buffer(1) to (x) byte 4 of 60: write at memory.metal:8 by thread 1, read at memory.metal:8 by thread 0, no barrier between"
        ]
    );
}

#[test]
fn a_write_through_a_cast_of_const_is_reported() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let a = floats(&device, "a", &[0.5; 16]);
    assert_eq!(
        reports(run(library, &device, "write_through_const", &[&a], [1, 1, 1], [16, 1, 1])),
        [
            "write_through_const: write to read-only buffer(0) a (a) byte 0 of 64 at memory.metal:17 by thread 0 of threadgroup 0"
        ]
    );
    assert_eq!(read_floats(&a), [0.5; 16]);
}

#[test]
fn writes_of_two_bytes_do_not_race_with_their_neighbours() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let from = common::filled(&device, "from", &[0; 64]);
    let to = device.buffer("to", 128);
    run(library, &device, "halves", &[&from, &to], [2, 1, 1], [16, 1, 1]).expect("runs clean");
}

#[test]
fn dispatches_that_need_a_barrier_between_them() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let kernel = |name| library.kernel(name).expect("is in the file");
    let (copy, twice) = (kernel("copy"), kernel("twice"));
    let grid = ([1, 1, 1], [8, 1, 1]);
    let a = floats(&device, "a", &[1.0; 32]);
    let b = floats(&device, "b", &[0.0; 32]);

    let mut commands = device.command_buffer("test");
    commands.dispatch(&copy, &[part(&a, 0, 32), part(&b, 32, 32)], grid.0, grid.1);
    commands.dispatch(&copy, &[part(&b, 32, 32), part(&a, 64, 32)], grid.0, grid.1);
    commands.dispatch(&twice, &[part(&a, 16, 32)], grid.0, grid.1);
    commands.dispatch(&copy, &[part(&a, 96, 32), part(&b, 32, 32)], grid.0, grid.1);
    assert_eq!(
        reports(commands.commit().wait()),
        [
            "copy: no barrier between dispatch 0 (copy) and dispatch 1 (copy): byte 32 of buffer b is written by the first and read by the second",
            "twice: no barrier between dispatch 0 (copy) and dispatch 2 (twice): byte 16 of buffer a is read by the first and written by the second",
            "copy: no barrier between dispatch 0 (copy) and dispatch 3 (copy): byte 32 of buffer b is written by both",
            "copy: no barrier between dispatch 1 (copy) and dispatch 3 (copy): byte 32 of buffer b is read by the first and written by the second",
        ]
    );

    let mut commands = device.command_buffer("test");
    commands.dispatch(&copy, &[part(&a, 0, 32), part(&b, 32, 32)], grid.0, grid.1);
    commands.dispatch(&copy, &[part(&a, 0, 32), part(&b, 64, 32)], grid.0, grid.1);
    commands.barrier();
    commands.dispatch(&copy, &[part(&b, 32, 32), part(&a, 64, 32)], grid.0, grid.1);
    commands.dispatch(&twice, &[part(&a, 0, 32)], grid.0, grid.1);
    commands.commit().wait().expect("reads of the same bytes and different bytes of one buffer need no barrier");
}

#[test]
fn counters_of_a_dispatch() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let a = floats(&device, "a", &[1.0; 16]);
    let sum = device.buffer("sum", 64);
    let kernel = library.kernel("add").expect("is in the file");
    let mut commands = device.command_buffer("test");
    commands.dispatch(&kernel, &[part(&a, 0, 32), part(&a, 0, 32), sum.whole()], [1, 1, 1], [8, 1, 1]);
    let timing = commands.commit().wait().expect("runs clean");
    let counters = |index, name: &str, label: &str, read, unique_read, written| BindingCounters {
        index,
        name: name.to_owned(),
        label: label.to_owned(),
        bytes_read: read,
        bytes_written: written,
        unique_bytes_read: unique_read,
        unique_bytes_written: written,
    };
    // two parameters over the same bytes cannot be told apart: the first has all loads
    let want = [counters(0, "a", "a", 64, 32, 0), counters(1, "b", "a", 0, 32, 0), counters(2, "sum", "sum", 0, 0, 32)];
    assert_eq!(timing.counters[0].bindings, want);

    let x = device.buffer("x", 256);
    let timing = run(library, &device, "barriers", &[&x], [1, 1, 1], [64, 1, 1]).expect("runs clean");
    assert_eq!((timing.counters[0].barriers, timing.counters[0].matrix_operations), (3, 6));
    assert_eq!(read_floats(&x), [25.0; 64]);

    let timing = run(library, &device, "shares", &[&x], [1, 1, 1], [64, 1, 1]).expect("runs clean");
    let shared = |c: &DispatchCounters| (c.threadgroup_bytes_read, c.threadgroup_bytes_written);
    assert_eq!(shared(&timing.counters[0]), (512, 256));
    assert_eq!(read_floats(&x), [50.0; 64]);
}

#[test]
fn dispatches_that_cannot_run_say_why() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let copy = library.kernel("copy").expect("is in the file");
    let a = floats(&device, "a", &[1.0; 16]);
    let constant: Arc<Vec<f32>> = Arc::new(vec![1.0; 16]);
    // SAFETY: the vector lives as long as the buffer and is never changed
    let file = unsafe { device.buffer_no_copy("weights", constant.as_ptr().cast(), 64, constant.clone()) };
    let fails = |bindings: &[Binding<'_>], groups, threads| -> Error {
        let mut commands = device.command_buffer("test");
        commands.dispatch(&copy, bindings, groups, threads);
        commands.commit().wait().expect_err("must not run")
    };
    let (grid, threads) = ([1, 1, 1], [16, 1, 1]);
    for (error, want) in [
        (fails(&[a.whole()], grid, threads), "kernel copy: buffer(1) to is not bound"),
        (
            fails(&[a.whole(), part(&a, 32, 64)], grid, threads),
            "kernel copy: buffer(1): bytes 32..96 are outside of buffer a of 64 bytes",
        ),
        (
            fails(&[a.whole(), file.whole()], grid, threads),
            "kernel copy: buffer(1) to is written, but buffer weights is read-only memory",
        ),
        (
            fails(&[a.whole(), a.whole()], grid, [1024, 2, 1]),
            "kernel copy: 2048 threads per threadgroup are outside of 1..=1024",
        ),
        (fails(&[a.whole(), a.whole()], [1, 0, 1], threads), "kernel copy: a grid of [1, 0, 1] threadgroups is empty"),
    ] {
        assert_eq!(error.to_string(), want);
    }
}
