//! Damaged GGUF files: every one is an error or a file whose tensors can be read, and none costs memory.

use std::path::Path;

use forge_frontend::checkpoint::{CheckpointError, GgufFile};

use crate::build::{Folder, Gguf, Victim, array, fixture, sample_gguf, string};

/// Opens a file, and reads every tensor's bytes if that succeeds.
fn read_all(path: &Path) -> bool {
    let Ok(file) = GgufFile::open(path) else { return false };
    file.tensors().iter().map(|tensor| file.data(tensor)).for_each(|data| {
        std::hint::black_box(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    });
    true
}

#[test]
fn every_truncation_is_an_error() {
    let whole = sample_gguf().bytes();
    // The last tensor's type is unknown, and with it its size: its end cannot be missed.
    let seen = whole.len() - 10;
    Victim::new(whole).each_truncation(1, |path, length| assert!(!read_all(path) || length >= seen, "{length} bytes"));
}

#[test]
fn truncations_of_a_model_are_errors() {
    let whole = std::fs::read(fixture("llama.Q4_0.gguf")).expect("the fixture can be read");
    Victim::new(whole).each_truncation(97, |path, length| assert!(!read_all(path), "{length} bytes"));
}

#[test]
fn no_flipped_byte_panics() {
    Victim::new(sample_gguf().bytes()).each_flip(|path| {
        read_all(path);
    });
}

#[test]
fn claims_larger_than_the_file_are_errors() {
    const MANY: u64 = 1 << 60;
    let refusal = |gguf: &Gguf| {
        let folder = Folder::new();
        GgufFile::open(&folder.write("model.gguf", &gguf.bytes())).expect_err("the claim is false")
    };
    for value_type in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12] {
        let error = refusal(&Gguf::new().entry(b"list", 9, &array(value_type, MANY)));
        assert!(matches!(error, CheckpointError::Truncated { .. }), "{error}");
        assert!(error.to_string().contains("metadata list"), "{error}");
    }
    let mut long = string(b"");
    long[..8].copy_from_slice(&MANY.to_le_bytes());
    assert!(matches!(refusal(&Gguf::new().entry(b"k", 8, &long)), CheckpointError::Truncated { needed: MANY, .. }));
    let arrays: Vec<u8> = array(9, MANY).into_iter().chain(array(0, MANY)).collect();
    assert!(matches!(refusal(&Gguf::new().entry(b"k", 9, &arrays)), CheckpointError::Truncated { .. }));
    let entries = Gguf { entry_count: MANY, ..Gguf::new() };
    assert!(matches!(refusal(&entries), CheckpointError::Truncated { .. }));
    let tensors = Gguf { tensor_count: MANY, ..Gguf::new() };
    assert!(matches!(refusal(&tensors), CheckpointError::Truncated { .. }));
}
