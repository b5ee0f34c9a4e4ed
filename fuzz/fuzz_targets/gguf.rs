//! See [`forge_fuzz::frontend::gguf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forge_fuzz::frontend::gguf(data);
});
