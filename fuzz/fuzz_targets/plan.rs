//! See [`forge_fuzz::plan::gguf`] and [`forge_fuzz::plan::safetensors`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if data.starts_with(b"GGUF") {
        forge_fuzz::plan::gguf(data);
    } else {
        forge_fuzz::plan::safetensors(data);
    }
});
