//! `forge inspect --plan`: what each kernel reads, writes and computes, against what no program can avoid.

use std::fmt::Write as _;

use forge_plan::costs::{self, KernelTotal, PassCost};
use forge_plan::{Plan, memory};

use crate::chips::{self, CHIPS};
use crate::{table, units};

/// Chips of [`CHIPS`] that stand for the others in a short list.
const SOME_CHIPS: [&str; 5] = ["M1", "M2 Max", "M4", "M4 Pro", "M5 Max, 40 cores"];

/// The tables for a decode step at the end of `context` tokens and for a prompt of `prompt`.
pub(crate) fn report(plan: &Plan, context: usize, prompt: usize) -> String {
    let mut text = String::new();
    let token = costs::decode(plan, context - 1);
    pass(&mut text, plan, &format!("Decode, one token after {} others", context - 1), &token);
    let tiles = prompt.div_ceil(plan.prefill_tile);
    let tiles = format!("{tiles} tile{} of up to {}", if tiles == 1 { "" } else { "s" }, plan.prefill_tile);
    let title = format!("Prompt of {prompt} tokens in {tiles}, before its logits");
    pass(&mut text, plan, &title, &costs::prompt(plan, prompt, 0));
    text.push_str(
        "\nread: different bytes read, per dispatch. loaded: every load of every thread, for the inputs of projections; else as read.\n\
         Lower bound: the weights as stored, the cache read and appended to, and the logits, each once.\n",
    );
    text
}

fn pass(text: &mut String, plan: &Plan, title: &str, cost: &PassCost) {
    let bold = anstyle::Style::new().bold();
    let _ = writeln!(text, "\n{bold}{title}{bold:#}");
    let header =
        ["kernel", "dispatches", "barriers", "groups", "threads", "shared", "read", "loaded", "written", "FLOP"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(cost.kernels.iter().map(|total| row(plan, total)));
    let sum = |of: fn(&KernelTotal) -> u64| cost.kernels.iter().map(of).sum::<u64>();
    rows.push([
        "in all".to_owned(),
        cost.dispatches().to_string(),
        cost.barriers().to_string(),
        String::new(),
        String::new(),
        String::new(),
        units::bytes(sum(|k| k.read)),
        units::bytes(sum(|k| k.requested)),
        units::bytes(sum(|k| k.written)),
        units::count(cost.flops()),
    ]);
    for line in table::aligned(&rows, 1) {
        let _ = writeln!(text, "  {line}");
    }
    let of_bound = |bytes: u64| format!("{:.4} of the lower bound", bytes as f64 / cost.lower_bound as f64);
    let _ = writeln!(
        text,
        "  {} read and written, {}; loads and stores {}, {}; lower bound {}",
        units::bytes(cost.bytes()),
        of_bound(cost.bytes()),
        units::bytes(cost.requested_bytes()),
        of_bound(cost.requested_bytes()),
        units::bytes(cost.lower_bound),
    );
}

fn row(plan: &Plan, total: &KernelTotal) -> [String; 10] {
    let kernel = &plan.kernels[total.kernel];
    [
        kernel.name.clone(),
        total.dispatches.to_string(),
        total.barriers.to_string(),
        total.threadgroups.to_string(),
        kernel.launch.threads.to_string(),
        if kernel.launch.threadgroup_bytes == 0 {
            "-".to_owned()
        } else {
            units::bytes(kernel.launch.threadgroup_bytes.into())
        },
        units::bytes(total.read),
        units::bytes(total.requested),
        units::bytes(total.written),
        if total.flops == 0 { "-".to_owned() } else { units::count(total.flops) },
    ]
}

/// Tokens per second that memory allows: of one bandwidth in GB/s, of every chip, or of some.
pub(crate) fn roofline(token: &PassCost, bandwidth: Option<f64>, every: bool) -> Vec<(String, String)> {
    let mut lines = vec![("bytes a token".to_owned(), units::bytes(token.bytes()))];
    let rate = |gigabytes: f64| format!("{} tokens/s", chips::rate(gigabytes, token.bytes()));
    match bandwidth {
        Some(gigabytes) => lines.push((format!("{gigabytes} GB/s"), rate(gigabytes))),
        None => {
            let chips = CHIPS.iter().filter(|chip| every || SOME_CHIPS.contains(&chip.name));
            let line =
                |chip: &chips::Chip| (format!("{}, {} GB/s", chip.name, chip.bandwidth), rate(chip.bandwidth.into()));
            lines.extend(chips.map(line));
        }
    }
    lines
}

/// Lines of memory at a context.
pub(crate) fn memory(plan: &Plan, weights: u64, context: usize) -> Vec<(&'static str, String)> {
    let kv = memory::kv_bytes(plan, context);
    let activations = memory::activation_bytes(plan) + memory::activation_bytes_per_token(plan) * context as u64;
    let recurrent = memory::recurrent_bytes(plan);
    let per_token = units::bytes(memory::kv_bytes_per_token(plan));
    let windowed = match memory::windowed_bytes(plan) {
        0 => String::new(),
        bytes => format!(" and {} of windows", units::bytes(bytes)),
    };
    let element = plan.kv.element();
    let mut lines = vec![
        ("weights", units::bytes(weights)),
        ("KV cache", format!("{} ({element}, {per_token} a token{windowed})", units::bytes(kv))),
    ];
    if recurrent > 0 {
        lines.push(("recurrent state", format!("{} (float, whatever the context)", units::bytes(recurrent))));
    }
    lines.push(("activations", units::bytes(activations)));
    lines.push(("in all", units::bytes(weights + kv + recurrent + activations)));
    lines
}
