//! `forge gen --quantize`: the same project as from a checkpoint that was quantised before, and a report on what it cost.

#[path = "../../forge-frontend/tests/checkpoint/build.rs"]
#[expect(dead_code, reason = "shared with the tests of the containers")]
mod build;
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use build::{Gguf, string};
use common::{Scratch, assert_fails, forge, generate, gguf, hf, stderr, tree};
use forge::Error;
use forge_formats::{Format, decode_row, encode_row};
use forge_frontend::checkpoint::{GgufFile, GgufTensor};

/// The GGUF fixture with its matrices as F32, or quantised after that. With `narrow` its feed-forward has 128 units
/// instead of 160, so that every width is a multiple of 64.
fn rewritten(scratch: &Scratch, name: &str, matrices: Format, narrow: bool) -> PathBuf {
    let source = gguf();
    let file = GgufFile::open(&source).unwrap();
    let mut head = fs::read(&source).unwrap();
    let find = |head: &[u8], name: &str| {
        let wanted = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
        head.windows(wanted.len()).position(|window| window == wanted).unwrap()
    };
    // What precedes the tensor table is kept.
    head.truncate(file.tensors().iter().map(|tensor| find(&head, &tensor.name)).min().unwrap());
    if narrow {
        let key = "llama.feed_forward_length";
        let value = find(&head, key) + 8 + key.len() + 4;
        assert_eq!(head[value..value + 4], 160_u32.to_le_bytes());
        head[value..value + 4].copy_from_slice(&128_u32.to_le_bytes());
    }
    let mut data = Vec::new();
    for tensor in file.tensors() {
        let (dims, kind, bytes) = match tensor.dims[..] {
            [cols, rows] => {
                let keep = |size: u64| if narrow && size == 160 { 128 } else { size as usize };
                let (cols, rows) = (keep(cols), keep(rows));
                let id = match matrices {
                    Format::F32 => 0,
                    Format::Q4_0 => 2,
                    _ => 8,
                };
                (vec![cols as u64, rows as u64], id, converted(&file, tensor, matrices, rows, cols))
            }
            _ => (tensor.dims.clone(), tensor.ggml_type, file.data(tensor).to_vec()),
        };
        head.extend((tensor.name.len() as u64).to_le_bytes());
        head.extend(tensor.name.as_bytes());
        head.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|size| head.extend(size.to_le_bytes()));
        head.extend(kind.to_le_bytes());
        head.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    head.resize(head.len().next_multiple_of(32), 0);
    head.extend(data);
    fs::create_dir_all(scratch.join(name)).unwrap();
    scratch.file(&format!("{name}/model.gguf"), &head)
}

/// The first rows and columns of a matrix in another format.
fn converted(file: &GgufFile, tensor: &GgufTensor, to: Format, rows: usize, cols: usize) -> Vec<u8> {
    let format = tensor.format.clone().unwrap();
    let mut row = vec![0.0; tensor.dims[0] as usize];
    let mut out = vec![0; to.row_bytes(cols).unwrap()];
    let stored = file.data(tensor).chunks(format.row_bytes(row.len()).unwrap()).take(rows);
    stored
        .flat_map(|bytes| {
            decode_row(format, bytes, &mut row).unwrap();
            encode_row(to, &row[..cols], &mut out).unwrap();
            out.clone()
        })
        .collect()
}

#[track_caller]
fn must_generate(checkpoint: &Path, output: &Path, args: &[&str]) -> String {
    let output = generate(checkpoint, output, args);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The files of a project, without the command in their headers and what only a quantised one has.
fn comparable(project: &Path, option: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = tree(project);
    files.retain(|(name, _)| !name.starts_with(".forge") && name != Path::new("quantization.txt"));
    for (name, bytes) in &mut files {
        if name != Path::new("weights.safetensors")
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            *bytes = text.replace(option, "").into_bytes();
        }
    }
    files
}

#[test]
fn a_quantized_project_is_that_of_the_quantized_checkpoint() {
    let scratch = Scratch::new();
    let floats = rewritten(&scratch, "F32", Format::F32, false);
    for (format, option) in [(Format::Q8_0, " --quantize q8_0"), (Format::Q4_0, " --quantize q4_0")] {
        let (ours, theirs) = (scratch.join(&format!("ours-{format}")), scratch.join(&format!("theirs-{format}")));
        let args: Vec<&str> = ["--name", "same"].into_iter().chain(option.split_whitespace()).collect();
        must_generate(&floats, &ours, &args);
        must_generate(&rewritten(&scratch, &format.to_string(), format, false), &theirs, &["--name", "same"]);
        assert!(fs::read_to_string(ours.join("README.md")).unwrap().contains(option));
        let (ours, theirs) = (comparable(&ours, option), comparable(&theirs, option));
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(ours == theirs, "{format}: {} and {} differ", ours.0.display(), theirs.0.display());
        }
    }
}

#[test]
fn the_report_names_every_matrix_and_its_error() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    let printed = must_generate(&hf(), &project, &["--quantize", "mlx4"]);
    let report = fs::read_to_string(project.join("quantization.txt")).unwrap();
    assert!(printed.starts_with(&report), "{printed}\n{report}");
    assert_eq!(report.lines().filter(|line| line.contains(".mlp.gate_proj.weight")).count(), 3);
    let down: Vec<&str> = report.lines().filter(|line| line.contains(".mlp.down_proj.weight")).collect();
    assert_eq!(down.len(), 3);
    let reason = "stays: rows of 160 weights are no whole number of blocks of 64";
    assert!(down.iter().all(|line| line.contains("BF16  BF16") && line.ends_with(reason)), "{down:?}");
    assert!(report.contains("\n20 matrices quantised to affine4_g64, 3 stay as they are: relative RMS error "));
    assert!(!report.contains("norm"), "vectors are not quantised");
    assert!(must_generate(&hf(), &project, &["--quantize", "q8_0", "--quiet", "--force"]).is_empty());
    let report = fs::read_to_string(project.join("quantization.txt")).unwrap();
    let error =
        |line: &str| -> f64 { line.split_whitespace().rev().nth(1).unwrap().trim_end_matches('%').parse().unwrap() };
    let errors: Vec<f64> = report.lines().filter(|line| line.contains(" Q8_0 ")).map(error).collect();
    assert_eq!(errors.len(), 23);
    assert!(errors.iter().all(|error| (0.1..1.0).contains(error)), "{errors:?}");
    // Without quantising there is no report, and an old one does not stay.
    must_generate(&hf(), &project, &["--force"]);
    assert!(!project.join("quantization.txt").exists());
}

#[test]
fn four_bit_floats_are_written_with_their_scales() {
    let scratch = Scratch::new();
    let floats = rewritten(&scratch, "F32", Format::F32, true);
    let project = scratch.join("project");
    let errors = |report: &str, name: &str| -> Vec<f64> {
        let rows = report.lines().filter(|line| line.contains(&format!("  {name} ")));
        rows.map(|line| line.split_whitespace().rev().nth(1).unwrap().trim_end_matches('%').parse().unwrap()).collect()
    };
    // Uniform errors of E2M1 codes; rows of NVFP4 have 32 bits beside their blocks.
    for (option, name, bits, range) in [("mxfp4", "MXFP4", 4.25, 9.0..13.0), ("nvfp4", "NVFP4", 4.5, 7.0..10.0)] {
        let report = must_generate(&floats, &project, &["--quantize", option, "--force"]);
        let errors = errors(&report, name);
        assert_eq!(errors.len(), 23, "{report}");
        assert!(errors.iter().all(|error| range.contains(error)), "{name}: {errors:?}");
        let line = report.lines().find(|line| line.starts_with("all matrices: ")).unwrap();
        let found: f64 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
        assert!(if name == "NVFP4" { (4.8..5.0).contains(&found) } else { found == bits }, "{name}: {found}");
    }
}

#[test]
fn a_text_to_measure_has_to_be_there() {
    assert_fails(&hf(), &["--measure", "/nowhere/text.txt", "--quantize", "q8_0"], &["/nowhere/text.txt: "]);
}

/// A file that can be run.
fn script(scratch: &Scratch, name: &str, lines: &str) -> PathBuf {
    let path = scratch.file(name, format!("#!/bin/sh\n{lines}\n").as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `forge gen --measure` with what stands for cargo and the program that it builds.
fn measured(scratch: &Scratch, program: &str, args: &[&str]) -> Output {
    let text = scratch.file("text.txt", b"Once upon a time there was a fox.");
    let program = script(scratch, "program", program);
    let cargo = script(scratch, "cargo", &format!("echo '{{\"executable\": \"{}\"}}'", program.display()));
    let mut command = forge();
    command.args(["gen", "--quantize", "q8_0"]).args(args).arg(hf()).arg("-o").arg(scratch.join("project"));
    command.arg("--measure").arg(text).env("CARGO", cargo).output().unwrap()
}

#[test]
fn what_programs_measure_is_in_the_report() {
    let scratch = Scratch::new();
    // The one that saves is the source's; each has weights of its own and the same text.
    let program = r#"
test "$1" = perplexity && grep -q fox "$2" || exit 3
for word; do last=$word; done
case "$*" in
*--save*)
    cp "$last" "$(dirname "$2")/weights"
    echo '{"tokens": 9, "window": 8, "perplexity": 2.5, "perplexity_error": 0.5, "against": null}' ;;
*--against*)
    cmp -s "$last" "$(dirname "$2")/weights" && exit 4
    echo '{"tokens": 9, "window": 8, "perplexity": 3.5, "perplexity_error": 0.25, "against": {"perplexity": 2.5,
        "kl_mean": 0.125, "kl_mean_error": 0.01, "kl_99": 0.5, "kl_max": 0.75, "same_top": 0.5}}' ;;
esac"#;
    let output = measured(&scratch, program, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = fs::read_to_string(scratch.join("project/quantization.txt")).unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with(&report), "{report}");
    let lines: Vec<&str> = report.lines().rev().take(3).collect();
    assert!(lines[2].starts_with("measured on 9 tokens of text.txt, in windows of 8, on "), "{report}");
    assert_eq!(lines[1], "perplexity: 2.5000 ± 0.5000 of the source, 3.5000 ± 0.2500 of the result");
    assert!(lines[0].starts_with(
        "KL divergence from the source: mean 0.12500 ± 0.01000 nats a token, 99% 0.50000, largest 0.75000;"
    ));
    // Measured again with weights that are kept, there is one measurement; without measuring there is none.
    let output = measured(&scratch, program, &["--force"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(scratch.join("project/quantization.txt")).unwrap(), report);
    must_generate(&hf(), &scratch.join("project"), &["--quantize", "q8_0", "--force"]);
    let plain = fs::read_to_string(scratch.join("project/quantization.txt")).unwrap();
    assert!(report.starts_with(&plain) && !plain.contains("measured"), "{plain}");
}

#[test]
fn a_program_that_fails_to_measure_is_said_and_nothing_is_left() {
    let fails = |program: &str, expected: &str| {
        let scratch = Scratch::new();
        let output = measured(&scratch, program, &["--quiet"]);
        assert_eq!(output.status.code(), Some(1));
        let message = Error::Measure { reason: expected.to_owned() };
        assert!(stderr(&output).starts_with(&format!("error: {message}")), "{}", stderr(&output));
        assert!(!scratch.join("project").exists());
    };
    fails("echo 'a note' >&2; echo 'error: the text is too short' >&2; exit 1", "error: the text is too short");
    fails("echo nothing", "expected ident");
    let scratch = Scratch::new();
    let mut command = forge();
    command
        .args(["gen", "--quiet", "--quantize", "q8_0", "--measure"])
        .arg(scratch.file("text.txt", b"A fox."))
        .arg(hf());
    let output = command.arg("-o").arg(scratch.join("project")).env("CARGO", "/nowhere/cargo").output().unwrap();
    assert!(stderr(&output).contains("/nowhere/cargo cannot be run"), "{}", stderr(&output));
}

#[test]
fn force_tells_formats_of_equal_size_apart() {
    let scratch = Scratch::new();
    let floats = rewritten(&scratch, "F32", Format::F32, true);
    let project = scratch.join("project");
    let read = |name: &str| fs::read_to_string(project.join(name)).unwrap();
    let header = || -> String {
        let manifest: serde_json::Value = serde_json::from_str(&read(".forge/manifest.json")).unwrap();
        manifest["weights"]["header"].to_string()
    };
    let weights = || fs::read(project.join("weights.safetensors")).unwrap();
    must_generate(&floats, &project, &["--quantize", "q4_0"]);
    let (first, first_header, report) = (weights(), header(), read("quantization.txt"));
    must_generate(&floats, &project, &["--quantize", "mlx4", "--force"]);
    assert_eq!(header(), first_header, "the formats are not of the same size");
    assert!(weights() != first, "weights of another format were kept");
    assert!(read("quantization.txt") != report);

    // The same again: weights and report are kept.
    must_generate(&floats, &project, &["--quantize", "q4_0", "--force"]);
    assert!(weights() == first && read("quantization.txt") == report);
    let modified = || fs::metadata(project.join("weights.safetensors")).unwrap().modified().unwrap();
    let before = modified();
    let printed = must_generate(&floats, &project, &["--quantize", "q4_0", "--force"]);
    assert_eq!(modified(), before);
    assert!(printed.starts_with(&report) && read("quantization.txt") == report);
}

/// Bits a weight of all matrices, as a report has it, and the formats that it names for matrices of a role.
fn sizes(report: &str, role: &str) -> (f64, Vec<String>) {
    let line = report.lines().find(|line| line.starts_with("all matrices: ")).unwrap();
    let bits = line.split_whitespace().nth(2).unwrap().parse().unwrap();
    let rows = report.lines().filter(|line| line.contains(role) && line.contains("BF16"));
    // tensor, shape of two words, from, to
    (bits, rows.map(|line| line.split_whitespace().nth(4).unwrap().to_owned()).collect())
}

#[test]
fn recipes_give_roles_their_formats() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    let recipe = "q8_0,ffn_down=q4_0,attn_q=mlx8";
    let report = must_generate(&hf(), &project, &["--quantize", recipe]);
    assert_eq!(sizes(&report, "mlp.down_proj").1, ["Q4_0"; 3]);
    assert_eq!(sizes(&report, "mlp.up_proj").1, ["Q8_0"; 3]);
    assert_eq!(sizes(&report, "self_attn.q_proj").1, ["affine8_g64"; 3]);
    assert!(report.contains(&format!("\n23 matrices quantised to {recipe}: relative RMS error ")), "{report}");
    assert!(fs::read_to_string(project.join("README.md")).unwrap().contains(&format!("--quantize {recipe}")));
    let expected = &["--quantize ffn_dwn=...: no matrix has this role; the roles are attn_k, ", "ffn_down"];
    assert_fails(&hf(), &["--quantize", "q8_0,ffn_dwn=q4_0"], expected);
}

#[test]
fn sizes_are_met_by_measured_error() {
    let scratch = Scratch::new();
    let mut last = (0.0, f64::INFINITY);
    for asked in [4.6, 5.5, 6.5, 9.0] {
        let option = format!("auto:{asked}");
        let report = must_generate(&hf(), &scratch.join(&option), &["--quantize", &option]);
        let (bits, _) = sizes(&report, "proj");
        assert!(bits <= asked && bits > last.0, "auto:{asked}: {bits} bits");
        let total = report.lines().find(|line| line.contains("matrices quantised to")).unwrap();
        let error: f64 = total.split("relative RMS error ").nth(1).unwrap().split('%').next().unwrap().parse().unwrap();
        assert!(error < last.1, "auto:{asked}: {error}%");
        last = (bits, error);
    }
    // As much as there is: nothing is lost.
    let report = must_generate(&hf(), &scratch.join("all"), &["--quantize", "auto:16"]);
    assert!(report.contains(": relative RMS error 0.000% over all weights"), "{report}");
}

#[test]
fn errors_are_weighted_by_importance() {
    let scratch = Scratch::new();
    let mut imatrix = Gguf::new().entry(b"general.type", 8, &string(b"imatrix"));
    // The first column of each row is all that counts; in a block of 32 the others decide what it becomes.
    for layer in 0..3 {
        let sums: Vec<u8> = (0..64).flat_map(|col| f32::from(u8::from(col == 0)).to_le_bytes()).collect();
        let name = format!("blk.{layer}.attn_q.weight");
        imatrix = imatrix.tensor(&format!("{name}.in_sum2"), &[64, 1], 0, &sums);
        imatrix = imatrix.tensor(&format!("{name}.counts"), &[1, 1], 0, &1.0_f32.to_le_bytes());
    }
    let file = scratch.file("imatrix.gguf", &imatrix.bytes());
    let plain = must_generate(&hf(), &scratch.join("plain"), &["--quantize", "auto:5.5"]);
    let imatrix = file.to_str().unwrap();
    let weighted = must_generate(&hf(), &scratch.join("weighted"), &["--quantize", "auto:5.5", "--imatrix", imatrix]);
    let table =
        |report: &str| report.lines().filter(|line| line.contains("BF16")).map(str::to_owned).collect::<Vec<_>>();
    assert_ne!(table(&plain), table(&weighted), "the importance of columns changes no choice");
    assert!(sizes(&weighted, "proj").0 <= 5.5);
    let readme = fs::read_to_string(scratch.join("weighted/README.md")).unwrap();
    assert!(readme.contains("--quantize auto:5.5 --imatrix imatrix.gguf"));
}

#[test]
fn other_toolchains_matrices_are_said_to_be_exact() {
    let scratch = Scratch::new();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../forge-frontend/tests/fixtures/tiny");
    for (case, expected) in [
        ("toolchain-gptq", "7 matrices of GPTQ int4 g32 are stored as affine4_g32, every weight exactly as it was"),
        ("toolchain-awq", "7 matrices of AWQ int4 g32 are stored as affine4_g32, every weight exactly as it was"),
        ("toolchain-fp8", "5 matrices of FP8 E4M3 24x64 are stored as E4M3_G32, every weight exactly as it was"),
        ("toolchain-compressed", "1 matrix of compressed-tensors int8 per channel is stored as affine8_g64"),
    ] {
        let printed = must_generate(&tiny.join(case).join("hf"), &scratch.join(case), &[]);
        assert!(printed.contains(expected), "{case}: {printed}");
    }
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    assert_fails(&gguf(), &["--quantize", "q8_0"], &["--quantize Q8_0: no F32, F16 or BF16 matrix", "Q4_0, Q8_0"]);
    assert_fails(&hf(), &["--quantize", "q4_k"], &["--quantize Q4_K", "blocks of 256", "BF16"]);
}
