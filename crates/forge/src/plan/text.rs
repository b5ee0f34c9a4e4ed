//! `forge inspect --plan`: what each kernel reads, writes and computes, against what no program can avoid.

use std::fmt::Write as _;

use super::document::{Document, KernelTotal, Memory, Prompt, Totals};
use crate::{chips, table, units};

/// Chips that stand for the others in a short list.
const SOME_CHIPS: [&str; 5] = ["M1", "M2 Max", "M4", "M4 Pro", "M5 Max, 40 cores"];

/// The tables for a decode step at the end of the context and for the prompt.
pub(crate) fn report(plan: &Document) -> String {
    let mut text = String::new();
    let title = format!("Decode, one token after {} others", plan.decode.position);
    pass(&mut text, plan, &title, &plan.decode.totals, &plan.decode.kernels);
    let Prompt { tokens, tiles, totals, kernels } = &plan.prompt;
    let tiles = format!("{tiles} tile{} of up to {}", if *tiles == 1 { "" } else { "s" }, plan.options.tile);
    pass(&mut text, plan, &format!("Prompt of {tokens} tokens in {tiles}, before its logits"), totals, kernels);
    text.push_str(
        "\nread: different bytes read, per dispatch. loaded: every load of every thread, for the inputs of projections; else as read.\n\
         Lower bound: the weights as stored, the cache read and appended to, and the logits, each once.\n",
    );
    text
}

fn pass(text: &mut String, plan: &Document, title: &str, totals: &Totals, kernels: &[KernelTotal]) {
    let bold = anstyle::Style::new().bold();
    let _ = writeln!(text, "\n{bold}{title}{bold:#}");
    let header =
        ["kernel", "dispatches", "barriers", "groups", "threads", "shared", "read", "loaded", "written", "FLOP"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(kernels.iter().map(|total| row(plan, total)));
    rows.push([
        "in all".to_owned(),
        totals.dispatches.to_string(),
        totals.barriers.to_string(),
        String::new(),
        String::new(),
        String::new(),
        units::bytes(totals.read),
        units::bytes(totals.loaded),
        units::bytes(totals.written),
        units::count(totals.flops),
    ]);
    for line in table::aligned(&rows, 1) {
        let _ = writeln!(text, "  {line}");
    }
    let of_bound = |bytes: u64| format!("{:.4} of the lower bound", bytes as f64 / totals.lower_bound as f64);
    let loads = totals.loaded + totals.written;
    let _ = writeln!(
        text,
        "  {} read and written, {}; loads and stores {}, {}; lower bound {}",
        units::bytes(totals.bytes),
        of_bound(totals.bytes),
        units::bytes(loads),
        of_bound(loads),
        units::bytes(totals.lower_bound),
    );
}

fn row(plan: &Document, total: &KernelTotal) -> [String; 10] {
    let kernel = plan.kernels.iter().find(|kernel| kernel.name == total.kernel).expect("a kernel of the plan");
    [
        kernel.name.clone(),
        total.dispatches.to_string(),
        total.barriers.to_string(),
        total.threadgroups.to_string(),
        kernel.threads.to_string(),
        if kernel.threadgroup_bytes == 0 { "-".to_owned() } else { units::bytes(kernel.threadgroup_bytes.into()) },
        units::bytes(total.read),
        units::bytes(total.loaded),
        units::bytes(total.written),
        if total.flops == 0 { "-".to_owned() } else { units::count(total.flops) },
    ]
}

/// Tokens per second that memory allows: of the bandwidth that was asked for, of every chip, or of some.
pub(crate) fn roofline(plan: &Document, every: bool) -> Vec<(String, String)> {
    let bytes = plan.decode.totals.bytes;
    let mut lines = vec![("bytes a token".to_owned(), units::bytes(bytes))];
    let rate = |gigabytes: f64| format!("{} tokens/s", chips::rate(gigabytes, bytes));
    match plan.options.bandwidth {
        Some(gigabytes) => lines.push((format!("{gigabytes} GB/s"), rate(gigabytes))),
        None => {
            let chips = plan.chips.iter().filter(|chip| every || SOME_CHIPS.contains(&chip.name));
            lines.extend(
                chips.map(|chip| (format!("{}, {} GB/s", chip.name, chip.bandwidth), rate(chip.bandwidth.into()))),
            );
        }
    }
    lines
}

/// Lines of memory at the context.
pub(crate) fn memory(plan: &Document) -> Vec<(&'static str, String)> {
    let Memory { weights, recurrent, per_token, windowed, element, asked, .. } = &plan.memory;
    let windowed = match windowed {
        0 => String::new(),
        bytes => format!(" and {} of windows", units::bytes(*bytes)),
    };
    let per_token = units::bytes(*per_token);
    let mut lines = vec![
        ("weights", units::bytes(*weights)),
        ("KV cache", format!("{} ({element}, {per_token} a token{windowed})", units::bytes(asked.kv))),
    ];
    if *recurrent > 0 {
        lines.push(("recurrent state", format!("{} (float, whatever the context)", units::bytes(*recurrent))));
    }
    lines.push(("activations", units::bytes(asked.activations)));
    lines.push(("in all", units::bytes(asked.total)));
    lines
}
