//! Wrong kernels: each file of `corpus/` is rejected with the one fault that its first line names,
//! `// expect: LINE: PART OF THE MESSAGE`. A second line `// threads: KERNEL COUNT` is what the host dispatches.

use std::fs;
use std::path::PathBuf;

use msl_gate::{GateOptions, check};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = fs::read_dir(&folder).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("can be read").path()).collect();
    files.sort();
    files
}

/// What the host dispatches, from the file's `// threads:` lines.
fn threads(text: &str) -> Vec<(&str, u32)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("// threads: ")?.split_once(' '))
        .map(|(kernel, count)| (kernel, count.parse().expect("a number")))
        .collect()
}

fn fails(path: &PathBuf) -> Option<String> {
    let text = fs::read_to_string(path).expect("can be read");
    let name = path.file_name().expect("has a name").to_string_lossy();
    let first = text.lines().next().and_then(|line| line.strip_prefix("// expect: ")).expect("says what to expect");
    let (line, message) = first.split_once(": ").expect("has a line and a message");
    let threads = threads(&text);
    let options = GateOptions { threads: &threads, ..GateOptions::default() };
    let found = check(&text, &name, &options).expect("can be checked");
    let [fault] = found.as_slice() else {
        return Some(format!("{name}: {} faults instead of one, {first}: {found:#?}", found.len()));
    };
    let right = fault.line.to_string() == line && fault.message.contains(message);
    (!right).then(|| format!("{name}: expected {first}, found {fault}"))
}

#[test]
fn each_wrong_kernel_has_exactly_its_fault() {
    let files = files("corpus");
    assert!(files.len() >= 60, "the corpus has {} files", files.len());
    let failures: Vec<_> = files.iter().filter_map(fails).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), files.len(), failures.join("\n"));
}

#[test]
fn right_kernels_pass() {
    let kernels = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../metal-sim/tests/kernels");
    let device_tests = ["features", "language", "matrix", "memory"].map(|name| kernels.join(format!("{name}.metal")));
    let mut failures = Vec::new();
    for path in files("good").into_iter().chain(device_tests) {
        let text = fs::read_to_string(&path).expect("can be read");
        let language_version = if text.contains("bfloat") { (3, 1) } else { (3, 0) };
        let name = path.file_name().expect("has a name").to_string_lossy();
        let found = check(&text, &name, &GateOptions { language_version, threads: &[] }).expect("can be checked");
        failures.extend(found.iter().map(ToString::to_string));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_threads_that_the_host_dispatches_are_compared() {
    let text =
        "[[max_total_threads_per_threadgroup(64)]]\nkernel void k(device float* o [[buffer(0)]]) { o[0] = 0; }\n";
    let found = |threads: &[(&str, u32)]| {
        let options = GateOptions { threads, ..GateOptions::default() };
        check(text, "k.metal", &options).expect("can be checked").iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(found(&[("k", 64)]), [""; 0]);
    assert_eq!(
        found(&[("k", 32)]),
        [
            "k.metal:2: error: kernel k: declares max_total_threads_per_threadgroup(64), but the host dispatches 32 threads"
        ]
    );
    assert_eq!(found(&[("l", 64)]), ["k.metal:0: error: the host dispatches kernel l, which the file does not have"]);
}
