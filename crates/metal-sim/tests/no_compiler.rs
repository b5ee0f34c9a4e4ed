//! Without a compiler there is one clear error. Alone in its process, for it changes the environment.

use metal_sim::{CompileOptions, Library};

#[test]
fn a_missing_compiler_is_one_clear_error() {
    // SAFETY: this process has no other thread that reads the environment
    unsafe { std::env::set_var("METAL_SIM_CXX", "/nowhere/clang++") };
    let error = Library::from_source("", "kernels.metal", &CompileOptions::default()).err().expect("cannot compile");
    assert_eq!(
        error.to_string(),
        "kernels cannot be compiled: no clang++ of version 16 or newer found (tried /nowhere/clang++); install one (apt-get install clang-19) or name it in METAL_SIM_CXX"
    );
}
