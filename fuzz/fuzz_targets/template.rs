//! See [`forge_fuzz::template::render`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Widths and repetitions of any length end in the template engine's own panics, which the fuzzer takes for ours; the
    // bounded run of the tests has them.
    if data.split(|byte| !byte.is_ascii_digit()).all(|digits| digits.len() <= 8) {
        forge_fuzz::template::render(data);
    }
});
