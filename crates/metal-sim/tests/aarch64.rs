//! The fibre switch and the headers on aarch64, cross-compiled and emulated; skipped where the tools are absent
//! (apt-get install clang-19 libc6-dev-arm64-cross libstdc++-12-dev-arm64-cross binutils-aarch64-linux-gnu qemu-user-static).

use std::path::Path;
use std::process::Command;

fn works(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

#[test]
fn kernels_run_on_aarch64() {
    let compiler = std::env::var("METAL_SIM_CXX").unwrap_or_else(|_| "clang++-19".to_owned());
    let sysroot = Path::new("/usr/aarch64-linux-gnu/include").is_dir();
    if !sysroot || !works(&compiler, &["--version"]) || !works("qemu-aarch64-static", &["--version"]) {
        eprintln!("skipped: no clang++, cross libraries or emulator for aarch64");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rewritten = metal_sim::msl::rewrite(include_str!("kernels/features.metal"), "features.metal").expect("is MSL");
    std::fs::write(folder.path().join("kernels.cpp"), rewritten.cpp("features.metal")).expect("writes");
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(&compiler)
        .current_dir(folder.path())
        .args(["--target=aarch64-linux-gnu", "-std=c++17", "-O2", "-fsigned-char", "-static", "-w"])
        .args(["-Xclang", "-cl-single-precision-constant"])
        .args([format!("-I{root}/cpp/include"), format!("-I{root}/cpp/rt")])
        .arg("kernels.cpp")
        .args([format!("{root}/cpp/rt/msl_rt.cpp"), format!("{root}/tests/aarch64/driver.cpp")])
        .args(["-o", "driver"])
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new("qemu-aarch64-static").arg(folder.path().join("driver")).output().expect("runs");
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stdout));
}
