//! What is run of each mutant, and what checked mode says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::sites::SWITCH;
use crate::shell;

/// One run of a generated program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Logits of this many tokens, in tiles.
    Prefill(usize),
    /// The last logits of this many tokens: a tile as long as tiles are, and a step.
    Prompt(usize),
    /// Logits of this many tokens, one at a time.
    Decode(usize),
    /// Logits of as many sequences as the program holds, a row of each in every step.
    SideBySide(usize),
    /// A few sampled tokens, every filter on.
    Sample,
    /// A prompt whose last token, which is a decode step, looks at a context that attention splits into parts.
    Split,
}

/// Tokens of [`Workload::Split`]: attention splits a context beyond 256 positions.
const SPLIT_TOKENS: usize = 258;

/// The runs of a mutant.
pub const ALL: [Workload; 11] = [
    Workload::Sample,
    Workload::Prefill(65),
    Workload::SideBySide(7),
    Workload::Decode(65),
    Workload::Prefill(7),
    Workload::Decode(7),
    // Long enough for sorting to take several rounds, and for keys and values to be made of latents.
    Workload::Prompt(120),
    Workload::Prompt(300),
    Workload::Prefill(1),
    Workload::Decode(1),
    Workload::Split,
];

/// A label of command buffers, and the runs that submit some.
pub const LABELS: [(&str, &[Workload]); 2] = [
    ("tile", &[Workload::Prefill(1), Workload::Prefill(7), Workload::Prefill(65), Workload::Prompt(120)]),
    ("step", &[Workload::Decode(1), Workload::Sample, Workload::SideBySide(7), Workload::Decode(65), Workload::Split]),
];

/// A generated program that runs its kernels in checked mode.
#[derive(Debug)]
pub struct Program {
    /// Its executable.
    pub path: PathBuf,
    /// Kernels compiled with checks and with every mutant ([`super::sites::switched`]).
    pub kernels: PathBuf,
    /// Where runs leave their files.
    pub scratch: PathBuf,
    /// Size of its vocabulary.
    pub vocab: usize,
    /// Longest context.
    pub context: usize,
    /// Sequences that it holds.
    pub slots: usize,
}

/// What is wrong in a run.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Nothing.
    None,
    /// A barrier of the kernels, by the value of [`SWITCH`].
    Kernel(usize),
    /// The encoder barrier with this index is left out of command buffers with this label.
    Schedule(&'static str, usize),
}

/// What a run had to say.
#[derive(Debug, Default, Clone)]
pub struct Reports {
    /// `LABEL: KERNEL: FAULT`, in order.
    pub lines: Vec<String>,
    /// Most barriers of a command buffer, by its label.
    pub barriers: BTreeMap<String, usize>,
    /// Kernels that never come to the barrier that was changed.
    pub unreached: BTreeSet<String>,
}

impl Reports {
    /// The kernels with a report.
    pub fn kernels(&self) -> BTreeSet<String> {
        self.lines.iter().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned).collect()
    }
}

impl Program {
    /// Runs `workload` with this fault. `run` keeps runs at one time apart.
    ///
    /// # Errors
    /// A run that fails for another reason than a fault in a kernel.
    pub fn run(&self, workload: Workload, fault: Fault, run: &str) -> Result<Reports> {
        let file = self.scratch.join(format!("{run}.reports"));
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", file.display()));
            }
            _ => {}
        }
        let mut command = Command::new(&self.path);
        command.env("METAL_SIM_CHECKED", "1").env("METAL_SIM_KERNELS", &self.kernels).env("METAL_SIM_REPORTS", &file);
        match fault {
            Fault::None => &mut command,
            Fault::Kernel(code) => command.env(SWITCH, code.to_string()),
            Fault::Schedule(label, index) => command.env("METAL_SIM_SKIP_BARRIER", format!("{label}:{index}")),
        };
        let logits = |tokens: usize| {
            let ids: Vec<String> = (0..tokens).map(|at| ((at * 37 + 11) % self.vocab).to_string()).collect();
            ["logits".to_owned(), "--ids".to_owned(), ids.join(",")]
        };
        match workload {
            Workload::Prefill(tokens) => command.args(logits(tokens)),
            Workload::Prompt(tokens) => command.args(logits(tokens)).arg("--last"),
            Workload::Decode(tokens) => command.args(logits(tokens)).arg("--decode"),
            Workload::SideBySide(tokens) => {
                command.args(logits(tokens)).args(["--side-by-side", &self.slots.to_string()])
            }
            Workload::Sample => command.args(["generate", "--raw", "--temperature", "0.8", "--top-k", "20"]).args([
                "--top-p",
                "0.9",
                "--min-p",
                "0.05",
                "--repeat-penalty",
                "1.1",
                "--seed",
                "1",
                "--max-tokens",
                "4",
                "a b",
            ]),
            Workload::Split => {
                command.args(["bench", "--gen", "0", "--repeat", "1", "--prompt"]).arg(SPLIT_TOKENS.to_string())
            }
        };
        if !matches!(workload, Workload::Sample | Workload::Split) {
            command.arg("-o").arg(self.scratch.join(format!("{run}.safetensors")));
        }
        let output = shell::output(&mut command)?;
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut reports = Reports::default();
        for line in text.lines() {
            let count = line.strip_suffix(" barriers").and_then(|line| line.split_once(": "));
            match count.and_then(|(label, count)| Some((label, count.parse::<usize>().ok()?))) {
                Some((label, count)) => {
                    let most = reports.barriers.entry(label.to_owned()).or_default();
                    *most = count.max(*most);
                }
                None => reports.lines.push(line.to_owned()),
            }
        }
        // A mutant's numbers may be no numbers, which sampling refuses; without a report that is news.
        if !output.status.success() && reports.lines.is_empty() {
            bail!("{}: {}", shell::display(&command), String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(reports)
    }

    /// Whether the context has room for it.
    pub fn fits(&self, workload: Workload) -> bool {
        match workload {
            Workload::Prefill(tokens) | Workload::Prompt(tokens) | Workload::Decode(tokens) => tokens <= self.context,
            Workload::SideBySide(tokens) => self.slots > 1 && tokens <= self.context,
            Workload::Sample => true,
            Workload::Split => SPLIT_TOKENS <= self.context,
        }
    }
}
