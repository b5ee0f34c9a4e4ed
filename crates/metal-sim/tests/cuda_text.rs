//! The CUDA text of kernel files, compiled by clang's CUDA front end: no GPU and no CUDA toolkit is needed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use metal_sim::compiler;
use metal_sim::msl::{CUDA_HEADERS, rewrite};

fn cuda(source: &str, name: &str) -> String {
    rewrite(source, name).and_then(|rewritten| rewritten.cuda(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// What clang says of a CUDA text: warnings are none of the reader's business, errors are whole.
fn errors(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("is writable");
    for (name, header) in CUDA_HEADERS {
        write(name, header);
    }
    write("prelude.h", include_str!("cuda/prelude.h"));
    write("kernels.cuh", text);
    write("kernels.cu", "#include \"prelude.h\"\n#include \"kernels.cuh\"\n#pragma clang attribute pop\n");
    let output = Command::new(compiler().expect("clang++ is installed"))
        .current_dir(folder.path())
        .args(["-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=sm_90", "-nocudainc", "-nocudalib", "-nostdinc"])
        .args(["-std=c++17", "-w", "-O0", "-S", "-emit-llvm", "-o", "kernels.ll", "kernels.cu"])
        .output()
        .expect("clang++ runs");
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), messages.is_empty(), "{messages}");
    messages
}

/// The kernel files of the emitted projects in `tests/snapshots`.
fn emitted() -> Vec<PathBuf> {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/snapshots");
    let mut paths: Vec<_> = fs::read_dir(&snapshots)
        .expect("the snapshots are there")
        .map(|entry| entry.expect("is readable").path().join("shaders/kernels.metal"))
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    assert!(paths.len() >= 2, "{paths:?}");
    paths
}

#[test]
fn emitted_kernels_compile_and_are_the_same_each_time() {
    for path in emitted() {
        let source = fs::read_to_string(&path).expect("a project has its kernels");
        let text = cuda(&source, "kernels.metal");
        assert_eq!(text, cuda(&source, "kernels.metal"));
        let kernels = rewrite(&source, "kernels.metal").expect("is MSL").kernels;
        assert!(!kernels.is_empty());
        for kernel in kernels {
            assert_eq!(text.matches(&format!(" msl_kernel_{}(", kernel.name)).count(), 1, "{}", kernel.name);
        }
        assert_eq!(errors(&text), "", "{}", path.display());
    }
}

#[test]
fn the_language_compiles() {
    let files = [
        ("language.metal", include_str!("kernels/language.metal")),
        ("sw.metal", include_str!("kernels/sw.metal")),
        ("cuda.metal", include_str!("cuda/cuda.metal")),
        ("indirect.metal", include_str!("kernels/indirect.metal")),
    ];
    for (name, source) in files {
        assert_eq!(errors(&cuda(source, name)), "", "{name}");
    }
}

#[test]
fn messages_name_the_lines_of_the_kernel_file() {
    let source = "#include <metal_stdlib>\nusing namespace metal;\nkernel void k(device float* o [[buffer(0)]]) {\n  o[0] = \
                  no_such_function(1.0);\n}\n";
    let messages = errors(&cuda(source, "wrong.metal"));
    assert!(messages.contains("wrong.metal:4:"), "{messages}");
    assert!(messages.contains("no_such_function"), "{messages}");
}

/// Every type, function and attribute that a kernel may use has the same name on both devices.
#[test]
fn attributes_are_those_of_the_software_device() {
    let attributes = [
        ("uint3", "thread_position_in_grid"),
        ("uint2", "thread_position_in_threadgroup"),
        ("uint", "threadgroup_position_in_grid"),
        ("ushort3", "threads_per_threadgroup"),
        ("uint3", "dispatch_threads_per_threadgroup"),
        ("uint2", "threads_per_grid"),
        ("uint3", "threadgroups_per_grid"),
        ("uint", "thread_index_in_threadgroup"),
        ("ushort", "thread_index_in_simdgroup"),
        ("uint", "simdgroup_index_in_threadgroup"),
        ("uint", "simdgroups_per_threadgroup"),
        ("uint", "dispatch_simdgroups_per_threadgroup"),
        ("uint", "threads_per_simdgroup"),
        ("uint", "thread_execution_width"),
    ];
    let parameters: Vec<_> =
        attributes.iter().enumerate().map(|(at, (kind, name))| format!("{kind} p{at} [[{name}]]")).collect();
    let source = format!(
        "#include <metal_stdlib>\nusing namespace metal;\nkernel void k(device uint* o [[buffer(0)]], {}) {{ o[0] = p0.x; }}\n",
        parameters.join(", ")
    );
    assert_eq!(errors(&cuda(&source, "attributes.metal")), "");
}
