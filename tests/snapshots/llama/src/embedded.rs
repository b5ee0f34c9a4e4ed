//! The weights as part of the program: the linker puts the file on pages of its own, as `build.rs` tells it to.

use llama::runtime::weights::Embedded;

unsafe extern "C" {
    #[cfg_attr(target_os = "macos", link_name = "\u{1}section$start$__WEIGHTS$__weights")]
    static forge_weights: u8;
}

/// The weights, where the system has mapped them.
pub fn weights() -> Embedded {
    let length = env!("FORGE_WEIGHTS_BYTES").parse().expect("build.rs writes a number");
    // SAFETY: the symbol is the first byte of a file of this length, which `build.rs` measured and the linker took in; its pages are
    // mapped as long as the program runs, and nothing writes to them.
    let bytes = unsafe { std::slice::from_raw_parts(&raw const forge_weights, length) };
    Embedded { bytes, record: include_str!("../weights.safetensors.sha256") }
}
