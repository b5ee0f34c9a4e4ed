//! Progress bars: on a terminal only, on stderr.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `bytes` of packed weights; hidden when `quiet` or when stderr is no terminal.
pub fn packing(bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "packing {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    )
    .expect("the template is well formed");
    ProgressBar::new(bytes).with_style(style)
}

/// A bar over matrices whose errors are measured; hidden like [`packing`]'s.
pub fn measuring(matrices: usize, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("measuring errors {wide_bar} {pos}/{len} matrices {eta}")
        .expect("the template is well formed");
    ProgressBar::new(matrices as u64).with_style(style)
}

/// A bar over `bytes` of a file that is fetched; hidden like [`packing`]'s.
pub fn transfer(file: &str, bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    )
    .expect("the template is well formed");
    ProgressBar::new(bytes).with_style(style).with_message(file.replace(|c: char| c.is_control(), "\u{fffd}"))
}
