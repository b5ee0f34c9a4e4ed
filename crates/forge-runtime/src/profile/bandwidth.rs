//! What the memory can do, by copying: the roof that kernels are measured against.

use super::super::Result;
use super::super::gpu::{Gpu, KernelSpec, Source, pool};

static COPY: Source = Source::text("copy.metal", include_str!("copy.metal"));
static SPECS: [KernelSpec; 1] = [KernelSpec { name: "copy", threads: THREADS as u32, threadgroup_bytes: 0 }];

/// Threads of a threadgroup.
const THREADS: u64 = 256;
/// Bytes that one threadgroup copies.
const GROUP_BYTES: u64 = THREADS * 16;
/// Bytes of the smallest and of the largest buffer: beyond the caches of every GPU that is fast enough to get there.
const SIZES: (u64, u64) = (1 << 20, 1 << 28);
/// A copy that takes so many seconds is long enough to be timed.
const LONG_ENOUGH: f64 = 0.002;
/// Copies that are timed.
const RUNS: usize = 5;

/// Bytes read and written per second by the fastest of some copies.
///
/// # Errors
/// No memory, or what the device reports.
pub fn measure_bandwidth(gpu: &Gpu) -> Result<f64> {
    let kernel = &gpu.compile(&COPY, &SPECS)?[0];
    let mut bytes = SIZES.0;
    loop {
        let (from, to) = (gpu.alloc("copied", bytes)?, gpu.alloc("copy", bytes)?);
        // Pages that were never written may all be the same one.
        let ones = vec![1.0_f32; (SIZES.0 / 4) as usize];
        for offset in (0..bytes).step_by(SIZES.0 as usize) {
            from.write(offset, &ones);
        }
        let mut fastest = f64::INFINITY;
        for _ in 0..RUNS {
            let pending = pool(|| {
                let mut commands = gpu.commands("copy");
                commands.dispatch(kernel, &[&from.whole(), &to.whole()], [(bytes / GROUP_BYTES) as u32, 1, 1]);
                commands.commit()
            });
            fastest = fastest.min(pending.wait()?.seconds);
        }
        if bytes == SIZES.1 || fastest >= LONG_ENOUGH {
            return Ok(2.0 * bytes as f64 / fastest.max(1e-9));
        }
        bytes *= 4;
    }
}
