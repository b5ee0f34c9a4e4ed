//! Grids that an earlier dispatch of the command buffer decides.

mod common;
#[path = "common/tiles.rs"]
mod tiles;

use std::sync::LazyLock;

use common::{libraries, library, read_floats, reports};
use metal_sim::{Binding, CommandBuffer, Device, Error, Library, Timing};
use tiles::{MOST, Tiles};

static CHECKED: LazyLock<Library> =
    LazyLock::new(|| library(include_str!("kernels/indirect.metal"), "indirect.metal", true));

fn submit(device: &Device, fill: impl FnOnce(&mut CommandBuffer)) -> Result<Timing, Error> {
    let mut commands = device.command_buffer("tiles");
    fill(&mut commands);
    commands.commit().wait()
}

#[test]
fn the_grid_is_what_the_dispatch_before_the_barrier_counted() {
    for library in libraries(include_str!("kernels/indirect.metal"), "indirect.metal") {
        for threads in [1, 3] {
            let device = Device::new(threads);
            // up to the whole of the largest grid
            for lengths in [&[1][..], &[3, 0, 9, 4], &[0, 0, 5], &[4; 12]] {
                let tiles = Tiles::new(&device, lengths);
                let timing = submit(&device, |commands| {
                    tiles.count(&library, commands);
                    commands.barrier();
                    tiles.scale(&library, commands, MOST);
                });
                let counters = timing.expect("runs clean").counters;
                tiles.assert_scaled();
                if library.is_checked() {
                    let ran: Vec<_> = counters.iter().map(|c| (c.threadgroups, c.counts_bytes_read)).collect();
                    assert_eq!(ran, [([1, 1, 1], 0), ([tiles.tile_count(), 2, 1], 12)]);
                }
            }
        }
    }
}

#[test]
fn the_counts_may_come_from_an_earlier_command_buffer_or_the_host() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let tiles = Tiles::new(&device, &[6, 3]);
    submit(&device, |commands| tiles.count(library, commands)).expect("runs clean");
    submit(&device, |commands| tiles.scale(library, commands, MOST)).expect("runs clean");
    tiles.assert_scaled();
    // the host asks for the first tile alone
    let other = Tiles::new(&device, &[6, 3]);
    submit(&device, |commands| other.count(library, commands)).expect("runs clean");
    other.grid.write(tiles::COUNTS, &1u32.to_le_bytes());
    submit(&device, |commands| other.scale(library, commands, MOST)).expect("runs clean");
    let (all, first) = (read_floats(&tiles.y), read_floats(&other.y));
    assert_eq!(first[..32], all[..32]);
    assert!(first[32..].iter().all(|value| *value == 0.0));
}

#[test]
fn a_grid_of_no_threadgroups_runs_nothing() {
    for library in libraries(include_str!("kernels/indirect.metal"), "indirect.metal") {
        let device = Device::new(2);
        let tiles = Tiles::new(&device, &[0, 0]);
        let timing = submit(&device, |commands| {
            tiles.count(&library, commands);
            commands.barrier();
            tiles.scale(&library, commands, MOST);
        });
        let counters = timing.expect("an empty grid is none of the device's business").counters;
        assert_eq!(read_floats(&tiles.y), [0.0; 8]);
        if library.is_checked() {
            assert_eq!(counters[1].threadgroups, [0, 2, 1]);
            assert!(counters[1].bindings.iter().all(|binding| binding.bytes_read + binding.bytes_written == 0));
        }
    }
}

/// A dispatch that adds one to the first of the counts.
fn grow(tiles: &Tiles, commands: &mut CommandBuffer) {
    let kernel = CHECKED.kernel("grows").expect("is in the file");
    commands.dispatch(&kernel, &[tiles.counts()], [1, 1, 1], [32, 1, 1]);
}

#[test]
fn a_missing_barrier_before_or_after_the_grid_is_reported() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let tiles = Tiles::new(&device, &[3, 9]);
    submit(&device, |commands| tiles.count(library, commands)).expect("runs clean");
    tiles.grid.write(tiles::COUNTS, &3u32.to_le_bytes());
    let before = submit(&device, |commands| {
        grow(&tiles, commands);
        tiles.scale(library, commands, MOST);
    });
    assert_eq!(
        reports(before),
        [
            "scale_tiles: no barrier between dispatch 0 (grows) and dispatch 1 (scale_tiles): byte 20 of buffer grid is written by the first and read by the second"
        ]
    );
    let after = submit(&device, |commands| {
        tiles.scale(library, commands, MOST);
        grow(&tiles, commands);
    });
    assert_eq!(
        reports(after),
        [
            "grows: no barrier between dispatch 0 (scale_tiles) and dispatch 1 (grows): byte 20 of buffer grid is read by the first and written by the second"
        ]
    );
    // other words of the same buffer are other memory
    tiles.grid.write(tiles::COUNTS, &[3u32.to_le_bytes(), 2u32.to_le_bytes(), 1u32.to_le_bytes(), [0; 4]].concat());
    submit(&device, |commands| {
        tiles.scale(library, commands, MOST);
        let kernel = library.kernel("grows").expect("is in the file");
        let beside = Binding { buffer: &tiles.grid, offset: 32, len: 4 };
        commands.dispatch(&kernel, &[beside], [1, 1, 1], [32, 1, 1]);
    })
    .expect("needs no barrier");
}

#[test]
fn counts_that_nobody_wrote_are_reported() {
    for library in libraries(include_str!("kernels/indirect.metal"), "indirect.metal") {
        let device = Device::new(1);
        let tiles = Tiles::new(&device, &[3]);
        let scale = || submit(&device, |commands| tiles.scale(&library, commands, MOST));
        let missing = |byte: usize| {
            [format!("scale_tiles: its threadgroup counts are memory nobody wrote: buffer grid byte {byte} of 40")]
        };
        assert_eq!(reports(scale()), missing(20));
        tiles.grid.write(20, &[0; 8]);
        assert_eq!(reports(scale()), missing(28));
        tiles.grid.write(28, &[0; 4]);
        scale().expect("an empty grid");
        assert_eq!(read_floats(&tiles.y), [0.0; 24], "nothing ran");
    }
}

#[test]
fn a_grid_above_the_largest_is_refused() {
    for library in libraries(include_str!("kernels/indirect.metal"), "indirect.metal") {
        let device = Device::new(1);
        let tiles = Tiles::new(&device, &[9, 1]);
        let with = |most: [u32; 3]| {
            submit(&device, |commands| {
                tiles.count(&library, commands);
                commands.barrier();
                tiles.scale(&library, commands, most);
            })
        };
        for most in [[3, 2, 1], [12, 1, 1]] {
            assert_eq!(
                reports(with(most)),
                [format!(
                    "scale_tiles: buffer grid byte 20 asks for [4, 2, 1] threadgroups, declared are at most {most:?}"
                )]
            );
            assert_eq!(read_floats(&tiles.y), [0.0; 80], "nothing ran");
        }
        with([4, 2, 1]).expect("the largest itself");
        tiles.assert_scaled();
    }
}

#[test]
fn a_dispatch_that_writes_its_own_grid_is_reported() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let tiles = Tiles::new(&device, &[5]);
    submit(&device, |commands| tiles.count(library, commands)).expect("runs clean");
    let kernel = library.kernel("grows").expect("is in the file");
    let result = submit(&device, |commands| {
        commands.dispatch_indirect(&kernel, &[tiles.counts()], tiles.counts(), MOST, [32, 1, 1]);
    });
    assert_eq!(reports(result), ["grows: it writes its own threadgroup counts, buffer grid byte 20"]);
}

#[test]
fn indirect_dispatches_that_cannot_be_encoded_say_why() {
    let (device, library) = (Device::new(1), &*CHECKED);
    let grid = device.buffer("grid", 40);
    grid.write(0, &[0; 40]);
    let kernel = library.kernel("grows").expect("is in the file");
    let at = |offset: usize, len: usize| Binding { buffer: &grid, offset, len };
    let fails = |counts: Binding<'_>, most: [u32; 3]| {
        let bindings = [at(36, 4)];
        let result =
            submit(&device, |commands| commands.dispatch_indirect(&kernel, &bindings, counts, most, [32, 1, 1]));
        result.expect_err("must not run").to_string()
    };
    for (error, want) in [
        (
            fails(at(8, 8), MOST),
            "kernel grows: its threadgroup counts are 12 bytes; bound are 8 at 8 in buffer grid of 40 bytes",
        ),
        (
            fails(at(32, 12), MOST),
            "kernel grows: its threadgroup counts are 12 bytes; bound are 12 at 32 in buffer grid of 40 bytes",
        ),
        (
            fails(at(6, 12), MOST),
            "kernel grows: its threadgroup counts are at byte 6 of buffer grid, which is not a multiple of 4",
        ),
        (fails(at(0, 12), [12, 0, 1]), "kernel grows: a grid of [12, 0, 1] threadgroups is empty"),
        (
            fails(at(0, 12), [1 << 27, 1, 1]),
            "kernel grows: [134217728, 1, 1] threadgroups of [32, 1, 1] threads have positions of more than 32 bits",
        ),
    ] {
        assert_eq!(error, want);
    }
}
