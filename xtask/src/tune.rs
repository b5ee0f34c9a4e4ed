//! `cargo xtask test --only tune`: `profile` and `tune` of the demo project on the software device, and a project with
//! the geometries of a tuning file.
//!
//! Times mean nothing there, so the file that is baked in asks for other geometries than those in use, whichever was fastest.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::forge::Forge;
use crate::{cases, demo, shell};

/// Profiles and tunes the demo project, bakes other geometries in, and compares that project with the demo's reference.
///
/// # Errors
/// Any step that fails, a file without what it should hold, or kernels that are not as asked for.
pub fn main() -> Result<()> {
    let (project, program) = demo::project()?;
    let folder = shell::scratch("tune")?;
    let kernels = fs::read_to_string(project.join("shaders/kernels.metal"))?;
    profile(&program, &folder.join("trace.json"), &kernels)?;
    let file = folder.join("tuning.json");
    let mut command = Command::new(&program);
    command.arg("tune").arg("--weights").arg(&project).arg("--output").arg(&file);
    print!("{}", shell::capture(&mut command)?);
    let mut tuning = read(&file)?;
    let headings = other_geometries(&mut tuning)?;
    let baked = folder.join("baked.json");
    fs::write(&baked, tuning.to_string())?;
    let forge = Forge::build()?;
    let baked = baked.to_str().context("a path in UTF-8")?;
    let args = ["--name", "demo", "--force", "--tuning", baked];
    let checkpoint = shell::root().join(demo::CHECKPOINT);
    let emitted = |name: &str| -> Result<String> {
        let tuned = folder.join(name);
        forge.must_generate(&checkpoint, &tuned, &args)?;
        let read = |file: &str| fs::read_to_string(tuned.join(file)).with_context(|| format!("{name}/{file}"));
        Ok(read("shaders/kernels.metal")? + &read("src/model.rs")? + &read("src/tuning.rs")?)
    };
    let text = emitted("once")?;
    ensure!(text == emitted("again")?, "the same tuning file gives two different projects");
    for heading in &headings {
        ensure!(text.contains(heading), "no kernel has the geometry that was asked for: {heading}");
        ensure!(!kernels.contains(heading), "a kernel has that geometry without being asked: {heading}");
    }
    println!("{} geometries are baked in", headings.len());
    let options = cases::Options {
        dir: shell::root().join("assets"),
        only: vec!["demo".to_owned()],
        tuning: Some(baked.to_owned()),
        ..Default::default()
    };
    let totals = cases::run(&options)?;
    if totals.passed == 0 || totals.failed + totals.unsupported > 0 {
        bail!("with other geometries the demo project is not what it was");
    }
    Ok(())
}

/// A short profile: every kernel in its table, and a trace of events that follow one another.
fn profile(program: &Path, trace: &Path, kernels: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["profile", "--context", "300", "--prompt", "40", "--bandwidth", "100", "--trace"]).arg(trace);
    let table = shell::capture(&mut command)?;
    print!("{table}");
    let trace = read(trace)?;
    let events = trace["traceEvents"].as_array().context("a list of trace events")?;
    let mut names = BTreeSet::new();
    let mut ends = [0.0_f64; 2];
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let number = |key: &str| event[key].as_f64().with_context(|| format!("{key} of {event}"));
        let end = &mut ends[number("pid")? as usize];
        let (start, duration) = (number("ts")?, number("dur")?);
        ensure!(duration > 0.0 && (start - *end).abs() < 1e-3, "{event} starts at {end}");
        *end = start + duration;
        names.insert(event["name"].as_str().context("a name")?);
    }
    ensure!(ends.iter().all(|&end| end > 0.0), "the trace has a token and a prompt");
    for name in &names {
        ensure!(kernels.contains(&format!("kernel void {name}(")), "{name} is in the trace and no kernel");
        ensure!(table.contains(&format!("\n{name} ")), "{name} is in the trace and not in the table");
    }
    // A token with a split context, and one tile of many tokens without logits, leave out what is for other cases.
    let all = kernels.split("kernel void ").skip(1).filter_map(|text| text.split('(').next());
    let missing: Vec<&str> =
        all.filter(|name| !names.contains(name) && !name.ends_with("_two") && !name.ends_with("_few")).collect();
    ensure!(missing == ["attention", "lm_head_tile"], "{missing:?} are not in the trace");
    Ok(())
}

/// Asks for another geometry in each entry, the last that was tried; gives the headings that kernels then have.
fn other_geometries(tuning: &mut Value) -> Result<Vec<String>> {
    let entries = tuning["geometries"].as_array_mut().context("a list of geometries")?;
    let mut headings = Vec::new();
    for entry in entries {
        let tried = entry["tried"].as_array().context("what was tried")?.clone();
        ensure!((3..=4).contains(&tried.len()), "{} geometries were tried: {entry}", tried.len());
        for geometry in &tried {
            ensure!(geometry["microseconds"].as_f64().is_some_and(|time| time > 0.0), "not timed: {geometry}");
        }
        let best = entry["geometry"].as_object().context("the best geometry")?;
        let is_best = |geometry: &Value| best.iter().all(|(key, value)| geometry[key] == *value);
        ensure!(tried.iter().any(is_best), "the best geometry was not tried: {entry}");
        let other = tried.last().context("another geometry")?;
        let number = |key: &str| other[key].as_u64().with_context(|| format!("{key} of {other}"));
        let (rows, simdgroups, split) = (number("rows_per_simdgroup")?, number("simdgroups")?, number("split")?);
        let split = if split > 1 { format!(", {split} simdgroups share a row") } else { String::new() };
        headings.push(format!(
            "// [{}, {}] {}: {rows} rows per simdgroup, {simdgroups} simdgroups per threadgroup{split}\n",
            entry["rows"],
            entry["cols"],
            entry["format"].as_str().context("a format")?.to_lowercase()
        ));
        entry["geometry"] = other.clone();
    }
    ensure!(!headings.is_empty(), "nothing was tuned");
    Ok(headings)
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
}
