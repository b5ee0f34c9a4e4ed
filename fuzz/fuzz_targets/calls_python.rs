//! See [`forge_fuzz::calls::read`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    forge_fuzz::calls::read(forge_fuzz::calls::named("calls_python"), data);
});
