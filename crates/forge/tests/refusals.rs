//! Every error of planning, of the output folder and of the command itself: one line, which names the file, key or tensor.
//! Errors of a checkpoint's content have their tests where it is read.

#[path = "../../forge-frontend/tests/checkpoint/build.rs"]
#[expect(dead_code, reason = "shared with the tests of the containers")]
mod build;
mod common;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use build::{Gguf, string};
use common::{Scratch, assert_error, forge, generate, gguf, hf};
use forge::Error;
use forge::cli::{GenArgs, InspectArgs};
use forge::output::{OutputError, Target};
use forge_formats::Format;
use forge_frontend::graph::{FileRange, Graph, Node, Op, Source};
use forge_plan::quantize::Recipe;
use forge_plan::{CacheType, PlanError, PlanOptions, plan, quantize};
use serde_json::json;

fn graph(checkpoint: &Path) -> Graph {
    forge_frontend::load(checkpoint).unwrap().graph
}

/// The error of planning a changed graph.
fn unplanned(change: impl FnOnce(&mut Graph)) -> PlanError {
    let mut graph = graph(&hf());
    change(&mut graph);
    plan(&graph, &PlanOptions::default()).map(drop).unwrap_err()
}

#[test]
fn graphs_without_a_plan() {
    let error = unplanned(|graph| {
        let block = &mut graph.blocks[0];
        block.nodes.push(Node { op: Op::SoftCap { cap: 1.0 }, inputs: vec![0], output: None });
    });
    assert!(matches!(&error, PlanError::Unsupported { block, .. } if block == "layer"), "{error}");
    assert!(error.to_string().starts_with("block layer: no kernel for SoftCap"), "{error}");

    let error = unplanned(|graph| {
        let weight = graph.weights.iter_mut().find(|weight| weight.role == "attn_q").unwrap();
        weight.cols = 62;
    });
    assert!(matches!(&error, PlanError::Width { .. }), "{error}");
    assert_eq!(error.to_string(), "attn_q: width 62 is not a multiple of 4");

    let error = unplanned(|graph| {
        let weight = graph.weights.iter_mut().find(|weight| weight.role == "attn_q").unwrap();
        let range = || FileRange { file: 0, range: 0..0 };
        weight.format = Format::Affine { bits: 4, group: 64 };
        weight.source = Source::Affine { quants: range(), scales: range(), biases: range(), scale_format: Format::F32 };
    });
    assert!(matches!(&error, PlanError::AffineScales { .. }), "{error}");
    let line = "model.layers.0.self_attn.q_proj.weight: scales and biases are F32; F16 and BF16 are supported";
    assert_eq!(error.to_string(), line);

    let options = PlanOptions { context: Some(1_000_000), ..PlanOptions::default() };
    let error = plan(&graph(&hf()), &options).map(drop).unwrap_err();
    assert!(matches!(&error, PlanError::Context { asked: 1_000_000, .. }), "{error}");
    assert!(error.to_string().starts_with("--context 1000000 exceeds the trained context of "), "{error}");
    let options = PlanOptions { context: Some(0), ..PlanOptions::default() };
    let error = plan(&graph(&hf()), &options).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("--context 0 holds no token; the trained context is "), "{error}");

    let options = PlanOptions { kv: CacheType::Q8_0, ..PlanOptions::default() };
    let error = plan(&graph(&hf()), &options).map(drop).unwrap_err();
    assert!(matches!(&error, PlanError::CacheBlocks { cache: CacheType::Q8_0, head_dim: 16 }), "{error}");
    assert_eq!(error.to_string(), "--kv q8_0: heads of 16 elements are no whole number of its blocks of 32");

    let error = quantize(&mut graph(&gguf()), &Recipe::all(Format::Q8_0)).unwrap_err();
    assert!(matches!(&error, PlanError::NothingToQuantize { .. }), "{error}");
    assert!(error.to_string().starts_with("--quantize Q8_0: no F32, F16 or BF16 matrix"), "{error}");
    let recipe = Recipe { roles: vec![("ffn_dwn".to_owned(), Format::Q6K)], ..Recipe::all(Format::Q8_0) };
    let error = quantize(&mut graph(&hf()), &recipe).unwrap_err();
    assert!(matches!(&error, PlanError::NoSuchRole { role, .. } if role == "ffn_dwn"), "{error}");
}

#[test]
fn folders_that_are_not_written() {
    let scratch = Scratch::new();
    let opened = |name: &str, force: bool| Target::open(&scratch.join(name), force).unwrap_err();
    let file = scratch.file("file", b"mine");
    fs::create_dir(scratch.join("folder")).unwrap();

    let error = opened("folder", false);
    assert!(matches!(&error, OutputError::Exists { path } if path.ends_with("folder")), "{error}");
    let error = opened("file", true);
    assert!(matches!(&error, OutputError::NotAFolder { path } if *path == file), "{error}");
    let error = opened("folder", true);
    assert!(matches!(&error, OutputError::NotOurs { path } if path.ends_with("folder")), "{error}");
    let error = opened("file/project", false);
    assert!(matches!(&error, OutputError::Io { action: "open", .. }), "{error}");

    let ours = scratch.join("ours");
    assert!(generate(&gguf(), &ours, &["--quiet"]).status.success());
    fs::write(ours.join(forge::output::MANIFEST), "{").unwrap();
    let error = opened("ours", true);
    let named = |error: &OutputError| matches!(error, OutputError::BadManifest { path, .. } if path.ends_with(forge::output::MANIFEST));
    assert!(named(&error), "{error}");

    let target = Target::open(&scratch.join("new"), false).unwrap();
    let mut staging = target.stage().unwrap();
    for path in ["../out", "/etc/passwd", "a/../b", "", "a\\b", "c:d"] {
        let error = staging.write(Path::new(path), b"").unwrap_err();
        assert!(matches!(&error, OutputError::BadPath { path: named } if named == Path::new(path)), "{error}");
    }
}

fn arguments(checkpoint: PathBuf, output: PathBuf) -> GenArgs {
    GenArgs {
        checkpoint,
        offline: false,
        output,
        name: None,
        context: None,
        kv: CacheType::F16,
        slots: 1,
        tile: None,
        quantize: None,
        imatrix: None,
        measure: None,
        measure_tokens: 0,
        tuning: None,
        embed: false,
        bindings: Vec::new(),
        force: false,
        quiet: true,
    }
}

#[test]
fn what_is_unsupported_says_so_first() {
    let scratch = Scratch::new();
    let folder = scratch.hf();
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    fs::write(folder.join("config.json"), config.replacen("\"llama\"", "\"mamba\"", 1)).unwrap();
    let error = forge::generate::run(&arguments(folder.clone(), scratch.join("project"))).unwrap_err();
    assert!(matches!(&error, Error::Unsupported(inner) if matches!(**inner, Error::Frontend(_))), "{error}");
    assert!(error.to_string().starts_with("unsupported: config.json: architecture \"mamba\""), "{error}");
    let inspected = forge::inspect::run(&InspectArgs {
        checkpoint: folder,
        offline: false,
        context: None,
        kv: CacheType::F16,
        slots: 1,
        plan: false,
        json: false,
        html: None,
        prompt: None,
        bandwidth: None,
    });
    assert_eq!(inspected.unwrap().problem.map(|problem| problem.to_string()), Some(error.to_string()));
}

#[test]
fn tuning_files_that_are_none() {
    let scratch = Scratch::new();
    let mut args = arguments(hf(), scratch.join("project"));
    args.tuning = Some(scratch.join("nothing.json"));
    let error = forge::generate::run(&args).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("nothing.json")), "{error}");
    args.tuning = Some(scratch.file("tuning.json", json!({ "forge_tuning": 2 }).to_string().as_bytes()));
    let error = forge::generate::run(&args).unwrap_err();
    assert!(matches!(&error, Error::Tuning { path, .. } if path.ends_with("tuning.json")), "{error}");
    assert!(error.to_string().ends_with("tuning.json: forge_tuning: 2 is not 1, the version that this forge reads"));
}

#[test]
fn sizes_and_importance_matrices_that_are_of_no_use() {
    let scratch = Scratch::new();
    let mut args = arguments(hf(), scratch.join("project"));
    args.quantize = Some("auto:2.5".parse().unwrap());
    let error = forge::generate::run(&args).unwrap_err();
    assert!(matches!(&error, Error::TooSmall { bits: 2.5, .. }), "{error}");
    assert!(
        error.to_string().starts_with("--quantize auto:2.5: the smallest that this model can be quantised to is 3.")
    );
    args.quantize = Some("auto:6".parse().unwrap());
    let kind = |kind: &[u8]| Gguf::new().entry(b"general.type", 8, &string(kind));
    let sums = |count: f32| {
        let sums: Vec<u8> = [1.0_f32, 4.0].iter().flat_map(|sum| sum.to_le_bytes()).collect();
        kind(b"imatrix").tensor("w.in_sum2", &[2, 1], 0, &sums).tensor("w.counts", &[1, 1], 0, &count.to_le_bytes())
    };
    let without = kind(b"imatrix").tensor("w.in_sum2", &[1, 1], 0, &1.0_f32.to_le_bytes());
    let halves = kind(b"imatrix").tensor("w.in_sum2", &[2, 1], 1, &[0; 4]);
    let uneven = kind(b"imatrix").tensor("w.in_sum2", &[2, 1], 0, &[0; 8]).tensor("w.counts", &[3], 0, &[0; 12]);
    for (gguf, expected) in [
        (kind(b"model"), "imatrix.gguf: general.type: expected \"imatrix\""),
        (kind(b"imatrix"), "imatrix.gguf: no tensor NAME.in_sum2"),
        (without, "imatrix.gguf: tensor w.counts is missing"),
        (halves, "imatrix.gguf: tensor w.in_sum2: expected F32"),
        (uneven, "imatrix.gguf: tensor w.counts: 3 numbers for 2 sums"),
        (sums(f32::NAN), "imatrix.gguf: tensor w.counts: expected numbers from 0 up, found NaN"),
        (sums(-1.0), "imatrix.gguf: tensor w.counts: expected numbers from 0 up, found -1"),
    ] {
        args.imatrix = Some(scratch.file("imatrix.gguf", &gguf.bytes()));
        let error = forge::generate::run(&args).unwrap_err();
        assert!(matches!(&error, Error::Imatrix { .. }), "{error}");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
    args.imatrix = Some(scratch.file("imatrix.gguf", &sums(2.0).bytes()));
    forge::generate::run(&args).expect("a project");
}

/// An executable script.
fn script(scratch: &Scratch, name: &str, lines: &str) -> PathBuf {
    let path = scratch.file(name, format!("#!/bin/sh\n{lines}\n").as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `forge check PROJECT` with this program as cargo fails with this error.
#[track_caller]
fn assert_unchecked(project: &Path, cargo: &OsStr, error: &Error) {
    let output = forge().arg("check").arg(project).env("CARGO", cargo).output().unwrap();
    let text = common::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().last(), Some(&*format!("error: {error}")), "{text}");
}

#[test]
fn projects_that_cannot_be_checked() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    assert!(generate(&gguf(), &project, &["--quiet"]).status.success());
    let nowhere = "/nowhere/cargo".to_owned();
    let source = io::Error::from_raw_os_error(2);
    assert_unchecked(&project, OsStr::new(&nowhere), &Error::Cargo { cargo: nowhere.clone(), source });

    let failing =
        script(&scratch, "failing-cargo", "echo 'error: kernels cannot be compiled: no compiler' >&2; exit 101");
    let reason = "error: kernels cannot be compiled: no compiler".to_owned();
    assert_unchecked(&project, failing.as_os_str(), &Error::Build { project: project.clone(), reason });

    // A program whose runs pass, and whose verify ends without a table, or with one of failures.
    for (verify, error) in [
        ("echo 'no device' >&2; exit 1", Error::Verify { project: project.clone(), reason: "no device".to_owned() }),
        ("echo 'kernel  result'; echo 'gemv    FAILED'; exit 1", Error::Checks { failed: 1 }),
    ] {
        let program = script(&scratch, "program", &format!("case \"$*\" in *verify*) {verify};; esac"));
        let message = json!({ "executable": program });
        let cargo = script(&scratch, "cargo", &format!("echo '{message}'"));
        assert_unchecked(&project, cargo.as_os_str(), &error);
    }
}

#[test]
fn refusals_are_one_line() {
    // The name of a file may hold anything.
    let scratch = Scratch::new();
    let path = scratch.file("a\nb\u{1b}[31m.gguf", b"GGUX");
    assert_error(&forge().arg("inspect").arg(&path).output().unwrap(), &["not a GGUF file", "\"GGUX\""]);
}
