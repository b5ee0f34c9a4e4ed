//! `forge gen`: checkpoint, plan, project, weights, and the folder in place.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use forge_codegen::{PackageName, Project, RenderOptions, package_name, render};
use forge_frontend::graph::{Source, WeightId};
use forge_frontend::{Checkpoint, Graph};
use forge_pack::{Header, Packed, Packing};
use forge_plan::quantize::Kept;
use forge_plan::{CacheType, Plan, PlanOptions, plan};
use forge_sources::Located;
use sha2::{Digest, Sha256};

use crate::cli::{GenArgs, warn};
use crate::measure::{self, Side, Text};
use crate::output::{PackedWeights, Report, Target, hex};
use crate::recipe::Quantize;
use crate::tuning::Tuning;
use crate::warnings::{edited, warnings};
use crate::{Error, interrupt, progress, quantize, sources, units};

/// Name of the packed weights in a project.
const WEIGHTS: &str = "weights.safetensors";
/// Name of the file with the digest of the whole of [`WEIGHTS`], as `b3sum` writes it.
const DIGEST: &str = "weights.safetensors.b3";
/// Name of the report on what quantising cost, where there was any.
const QUANTIZATION: &str = "quantization.txt";
/// Bytes of each sample that identifies a source tensor.
const SAMPLE: usize = 16 * 1024;

/// Generates the project that `args` ask for.
///
/// # Errors
/// Anything wrong with the checkpoint, the options or the target; then the target is as it was.
pub fn run(args: &GenArgs) -> Result<(), Error> {
    let target = Target::open(&args.output, args.force)?;
    let located = sources::locate(&args.checkpoint, args.offline, args.quiet)?;
    let mut checkpoint = sources::load(&located)?;
    warnings(&checkpoint.warnings).iter().for_each(|line| warn(line));
    interrupt::check()?;
    let unquantized = match &args.measure {
        Some(text) => {
            fs::read_to_string(text).map_err(Error::io(text))?;
            Some(checkpoint.graph.clone())
        }
        None => None,
    };
    let kept = match &args.quantize {
        Some(quantize) => {
            let recipe = quantize.recipe(&checkpoint, args.imatrix.as_deref(), args.quiet)?;
            forge_plan::quantize(&mut checkpoint.graph, &recipe)?
        }
        None => Vec::new(),
    };
    let tuning = args.tuning.as_deref().map(Tuning::read).transpose()?.unwrap_or_default();
    let (kv, slots) = (args.kv, args.slots);
    let plan_options =
        PlanOptions { context: args.context, kv, slots, tile: args.tile, geometries: tuning.geometries() };
    let result = plan(&checkpoint.graph, &plan_options)?;
    if let Some(path) = &args.tuning {
        tuning.check(path, &result)?;
    }
    interrupt::check()?;
    let header = Header::new(&result.weights);
    let name = package_name(&asked_name(args));
    let options = render_options(args, &located, &name.name);
    let project = render(&result, &checkpoint.graph, &checkpoint.assets, &options)?;
    let source = match unquantized {
        Some(graph) => {
            let plan = plan(&graph, &plan_options)?;
            let project = render(&plan, &graph, &checkpoint.assets, &options)?;
            Some(Unquantized { graph, plan, project })
        }
        None => None,
    };
    let quantized = Quantized { kept, source };
    let (report, quantization) = write(args, &target, &checkpoint, &result, &project, &header, &quantized)?;
    for (file, copy) in &report.edited {
        warn(&edited(&args.output, file, copy));
    }
    if !args.quiet {
        if let Some(table) = quantization {
            anstream::println!("{table}");
        }
        anstream::print!("{}", summary(args, &name, &checkpoint, &result, &header));
    }
    Ok(())
}

/// What quantising left as it was.
struct Quantized {
    /// Matrices, with the reason.
    kept: Vec<(WeightId, Kept)>,
    /// Everything, for what is to be measured.
    source: Option<Unquantized>,
}

/// The model as the checkpoint has it.
struct Unquantized {
    graph: Graph,
    plan: Plan,
    project: Project,
}

/// Stages everything and puts it in place. Returns also the report on quantisation, where there is one.
fn write(
    args: &GenArgs,
    target: &Target,
    checkpoint: &Checkpoint,
    plan: &Plan,
    project: &Project,
    header: &Header,
    quantized: &Quantized,
) -> Result<(Report, Option<String>), Error> {
    let mut staging = target.stage()?;
    for (path, bytes) in &project.files {
        staging.write(path, bytes)?;
    }
    let wanted = PackedWeights {
        file: WEIGHTS.to_owned(),
        bytes: header.file_bytes,
        header: header.digest(),
        source: fingerprint(checkpoint, plan),
    };
    let earlier = packed_earlier(target, checkpoint, &wanted, args.quantize.is_some());
    let reused = earlier.is_some();
    let (digest, mut report) = match earlier {
        Some((digest, report)) => (digest, report.as_deref().map(measure::without)),
        None => {
            let packed = pack(args, &staging.path().join(WEIGHTS), checkpoint, &checkpoint.graph, plan, header)?;
            let to = args.quantize.as_ref().map(Quantize::name);
            let report = to.map(|to| quantize::report(&checkpoint.graph, &to, &packed.deviations, &quantized.kept));
            (format!("{}  {WEIGHTS}\n", packed.blake3), report)
        }
    };
    if let (Some(path), Some(source), Some(report)) = (&args.measure, &quantized.source, &mut report) {
        let folder = tempfile::tempdir().map_err(Error::io(&std::env::temp_dir()))?;
        let floats = folder.path().join(WEIGHTS);
        let Unquantized { graph, plan, project: unquantized } = source;
        pack(args, &floats, checkpoint, graph, plan, &Header::new(&plan.weights))?;
        let packed = if reused { target.path() } else { staging.path() }.join(WEIGHTS);
        let text = Text { path, tokens: args.measure_tokens, quiet: args.quiet };
        let source = Side { project: unquantized, weights: &floats };
        report.push_str(&text.measure(&source, &Side { project, weights: &packed })?);
    }
    staging.write(Path::new(DIGEST), digest.as_bytes())?;
    if let Some(report) = &report {
        staging.write(Path::new(QUANTIZATION), report.as_bytes())?;
    }
    staging.weights(wanted, reused);
    interrupt::check()?;
    Ok((staging.commit()?, report))
}

/// Packs the weights of a graph into a file.
fn pack(
    args: &GenArgs,
    path: &Path,
    checkpoint: &Checkpoint,
    graph: &Graph,
    plan: &Plan,
    header: &Header,
) -> Result<Packed, Error> {
    let packing = Packing { plan: &plan.weights, graph, source: checkpoint, cancel: interrupt::flag() };
    let bar = progress::packing(header.file_bytes, args.quiet);
    let result = packing.pack(path, |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    match result {
        Ok(packed) => Ok(packed),
        Err(forge_pack::PackError::Cancelled) => Err(Error::Interrupted),
        // The message speaks of the place the user asked for.
        Err(error) => Err(Error::Pack(error.with_path(&args.output.join(WEIGHTS)))),
    }
}

/// What the target records of its weights file, when that file is what would be packed now: the same header, the same
/// source tensors as far as samples tell, and no file of the checkpoint changed since. The digest, and the report on
/// quantisation where the file is `quantized`.
fn packed_earlier(
    target: &Target,
    checkpoint: &Checkpoint,
    wanted: &PackedWeights,
    quantized: bool,
) -> Option<(String, Option<String>)> {
    if target.previous()?.weights.as_ref()? != wanted {
        return None;
    }
    let path = target.path().join(WEIGHTS);
    let packed = fs::metadata(&path).ok()?;
    let time = packed.modified().ok()?;
    let older = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).is_ok_and(|source| source < time);
    if packed.len() != wanted.bytes || !checkpoint.files.iter().all(|file| older(&file.path)) {
        return None;
    }
    let report = if quantized { Some(fs::read_to_string(target.path().join(QUANTIZATION)).ok()?) } else { None };
    Some((fs::read_to_string(target.path().join(DIGEST)).ok()?, report))
}

/// SHA-256, in hex, of the size, the beginning, the middle and the end of every source tensor that is packed, and of
/// what it is converted to: several formats have the same size.
fn fingerprint(checkpoint: &Checkpoint, plan: &Plan) -> String {
    use forge_plan::pack::PackPart;
    let mut hasher = Sha256::new();
    for part in plan.weights.tensors.iter().flat_map(|tensor| &tensor.parts) {
        let PackPart::Weight(id) = part else { continue };
        let weight = &checkpoint.graph.weights[*id];
        if let Source::Values(values) = &weight.source {
            values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
        }
        if let Source::Quantize { from, .. } = &weight.source.pieces()[0] {
            // Another version may quantise otherwise.
            hasher.update(format!("{from} {} {}", weight.format, env!("CARGO_PKG_VERSION")));
        }
        hasher.update(weight.offset.to_le_bytes());
        for bytes in weight.source.ranges().into_iter().map(|range| checkpoint.bytes(range)) {
            hasher.update(bytes.len().to_le_bytes());
            let sample = SAMPLE.min(bytes.len());
            for start in [0, (bytes.len() - sample) / 2, bytes.len() - sample] {
                hasher.update(&bytes[start..start + sample]);
            }
        }
    }
    hex(&hasher.finalize())
}

/// What was generated and how to run it.
fn summary(args: &GenArgs, name: &PackageName, checkpoint: &Checkpoint, plan: &Plan, header: &Header) -> String {
    let config = &plan.config;
    let bold = anstyle::Style::new().bold();
    let folder = args.output.display();
    let mut text = String::new();
    let _ = writeln!(text, "{bold}{folder}{bold:#}: {} ({}, {})", config.name, config.architecture, checkpoint.kind);
    let _ = writeln!(
        text,
        "  {} parameters in {}, context {} tokens, {} kernels",
        units::parameters(checkpoint.graph.parameters()),
        units::bytes(header.file_bytes),
        plan.context,
        plan.kernels.len()
    );
    for ((from, to), count) in repacked(checkpoint) {
        let are = if count == 1 { "matrix of {from} is" } else { "matrices of {from} are" }.replace("{from}", &from);
        let _ = writeln!(text, "  {count} {are} stored as {to}, every weight exactly as it was");
    }
    if !name.changes.is_empty() {
        let _ = writeln!(text, "  package and program are called {}: {}", name.name, name.changes.join("; "));
    }
    let _ = writeln!(text, "\n  cd {folder}\n  cargo run --release -- generate \"Once upon a time\"");
    text
}

/// How many matrices of another toolchain's format became one of another name.
fn repacked(checkpoint: &Checkpoint) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for weight in &checkpoint.graph.weights {
        if let Source::Repack { repack, .. } = &weight.source.pieces()[0] {
            *counts.entry((repack.to_string(), weight.format.to_string())).or_default() += weight.source.pieces().len();
        }
    }
    counts
}

/// The name that the user gave, or the folder's. `.` and `..` have one only once they are resolved.
fn asked_name(args: &GenArgs) -> String {
    match (&args.name, args.output.file_name()) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => file_name(&args.output),
        (None, None) => file_name(&args.output.canonicalize().unwrap_or_default()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the emitted files say of where they come from: names, no paths, so that they do not depend on the machine.
fn render_options(args: &GenArgs, located: &Located, name: &str) -> RenderOptions {
    let source = match &located.source {
        Some(source) => source.clone(),
        // `.` and `..` have a name only once they are resolved.
        None => file_name(&located.path.canonicalize().unwrap_or_else(|_| located.path.clone())),
    };
    let mut command = format!("forge gen {source} -o {name}");
    if let Some(context) = args.context {
        let _ = write!(command, " --context {context}");
    }
    if args.kv != CacheType::default() {
        let _ = write!(command, " --kv {}", args.kv.name());
    }
    if args.slots != 1 {
        let _ = write!(command, " --slots {}", args.slots);
    }
    if let Some(tile) = args.tile {
        let _ = write!(command, " --tile {tile}");
    }
    if args.embed {
        command.push_str(" --embed");
    }
    if !args.bindings.is_empty() {
        let names: Vec<&str> = args.bindings.iter().map(|language| language.name()).collect();
        let _ = write!(command, " --bindings {}", names.join(","));
    }
    if let Some(quantize) = &args.quantize {
        let _ = write!(command, " --quantize {}", quantize.text());
    }
    if let Some(imatrix) = &args.imatrix {
        let _ = write!(command, " --imatrix {}", file_name(imatrix));
    }
    if let Some(tuning) = &args.tuning {
        let _ = write!(command, " --tuning {}", file_name(tuning));
    }
    let languages = args.bindings.iter().copied().collect();
    RenderOptions { name: name.to_owned(), source, command, embed: args.embed, languages }
}
