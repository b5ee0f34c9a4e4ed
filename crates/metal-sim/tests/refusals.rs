//! What the rewriting does not handle is an error with file and line; what clang rejects comes whole, in the file's lines.

use metal_sim::msl::rewrite;
use metal_sim::{CompileOptions, Error, Library};

const CASES: &[(&str, &str)] = &[
    (
        "template <typename T>\nkernel void k(device T* o [[buffer(0)]]) {}\n",
        "2: template kernels and [[host_name]] instantiations are not supported; write a plain kernel that calls the template",
    ),
    (
        "namespace n {\nkernel void k(device float* o [[buffer(0)]]) {}\n}\n",
        "2: a kernel inside a namespace or block is not supported",
    ),
    ("kernel void k;\n", "1: cannot read this kernel declaration"),
    ("void f() {\n", "1: unmatched {"),
    (
        "kernel void k(device float* o [[buffer(0)]]) {}\nkernel void k(device float* p [[buffer(0)]]) {}\n",
        "2: two kernels are named k",
    ),
    ("kernel void k(device float* o [[buffer(N)]]) {}\n", "1: kernel k: [[buffer(N)]] is not a number of at most 30"),
    (
        "kernel void k(device float* o [[buffer(0)]],\n  device float* p [[buffer(0)]]) {}\n",
        "2: kernel k: two parameters have [[buffer(0)]]",
    ),
    (
        "kernel void k(texture2d<float> t [[texture(0)]]) {}\n",
        "1: kernel k: parameter t has attribute texture, which is not supported",
    ),
    ("kernel void k(uint i) {}\n", "1: kernel k: parameter i has no attribute that says what it is"),
    ("constant bool X [[function_constant(0)]];\n", "1: attribute [[function_constant]] is not supported"),
    (
        "kernel void k(threadgroup float* s [[threadgroup(0)]]) {}\n",
        "1: kernel k: parameter s is threadgroup memory sized by the host, which is not supported; declare the array in the kernel",
    ),
    (
        "#define SHARED(n) threadgroup float n[32]\nkernel void k() { SHARED(s); }\n",
        "1: threadgroup declaration in a macro is not supported",
    ),
    (
        "kernel void k() {\n  threadgroup float s[2] = {1, 2};\n}\n",
        "2: threadgroup variable s must not have an initialiser",
    ),
    (
        "kernel void k() {\n  threadgroup float (s)[2];\n}\n",
        "2: cannot rewrite this threadgroup declaration: ( s ) [ 2 ]",
    ),
    (
        "kernel void k() {\n  if (1) threadgroup float s[2];\n}\n",
        "2: threadgroup variable in a place this rewriting does not handle",
    ),
    (
        "kernel void k(device ulong4* o [[buffer(0)]]) {}\n",
        "1: ulong4 in device or threadgroup memory: accesses of 32 bytes cannot be checked; use two of half the size",
    ),
];

#[test]
fn refusals_name_file_and_line() {
    for (source, want) in CASES {
        let error = rewrite(source, "kernels.metal").err().unwrap_or_else(|| panic!("accepted: {source}"));
        assert_eq!(error.to_string(), format!("kernels.metal:{want}"));
    }
}

#[test]
fn consecutive_threadgroup_declarations_are_all_rewritten() {
    let source = "kernel void k() {\n  threadgroup float a[4], b;\n  threadgroup half c[2][3];\n  threadgroup float* p = a;\n}\n";
    let rewritten = rewrite(source, "kernels.metal").expect("is MSL");
    assert_eq!(rewritten.threadgroup_variables, 3);
    assert_eq!(rewritten.body.lines().count(), source.lines().count());
}

#[test]
fn clang_errors_come_whole_and_in_the_lines_of_the_file() {
    let source = "#include <metal_stdlib>\nusing namespace metal;\nkernel void k(device float* o [[buffer(0)]]) {\n  o[0] = nothing;\n  o[1] = 1.0f\n}\n";
    match Library::from_source(source, "kernels.metal", &CompileOptions::default()) {
        Err(Error::Compile { messages, file, .. }) => {
            assert_eq!(file, "kernels.metal");
            assert!(
                messages.contains("kernels.metal:4:10: error: use of undeclared identifier 'nothing'"),
                "{messages}"
            );
            assert!(messages.contains("kernels.metal:5:14: error: expected ';' after expression"), "{messages}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("compiled"),
    }
}
