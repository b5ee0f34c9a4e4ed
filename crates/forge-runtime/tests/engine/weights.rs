//! The weights file: accepted, refused by name, verified.

use std::path::PathBuf;

use crate::common;
use common::INFO;
use forge_runtime::gpu::{GpuError, Limits, explain_fault, format_bytes, plan_views};
use forge_runtime::weights::{Embedded, Place, Weights, verify};
use forge_runtime::{Error, LoadOptions, ModelInfo};
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend((0..data).map(|i| i as u8));
    file
}

fn info(bytes: &[u8]) -> ModelInfo {
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let digest = hex(&Sha256::digest(&bytes[..header.min(bytes.len())]));
    ModelInfo { weights_bytes: bytes.len() as u64, weights_header_sha256: digest.leak(), ..INFO }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("writes");
        path
    }
}

const HEADER: &str = r#"{"__metadata__":{"a":"b"},"x":{"dtype":"U8","shape":[10],"data_offsets":[0,10]},"y":{"dtype":"F32","shape":[2,3],"data_offsets":[10,34]}}"#;

#[test]
fn the_right_file_opens() {
    let folder = Folder::new();
    let bytes = file(HEADER, 34);
    let path = folder.write("w", &bytes);
    let weights = Weights::open(&path.clone().into(), &info(&bytes)).expect("opens");
    let y = weights.tensor("y").expect("is there");
    assert_eq!((y.offset, y.bytes, y.shape.as_slice()), (8 + HEADER.len() as u64 + 10, 24, [2, 3].as_slice()));
    assert_eq!(weights.largest(), 24);
    assert_eq!(weights.map()[y.offset as usize], 10);
    assert!(matches!(weights.tensor("z"), Err(Error::NoTensor { .. })));
}

#[test]
fn other_files_are_refused() {
    let folder = Folder::new();
    let bytes = file(HEADER, 34);
    let mut other = bytes.clone();
    other[30] ^= 1;
    let path = folder.write("w", &other);
    let error = Weights::open(&path.clone().into(), &info(&bytes)).expect_err("another header").to_string();
    assert!(error.contains("is not the file this program was generated for: its header digest is"), "{error}");
    let path = folder.write("w", &bytes[..40]);
    let error = Weights::open(&path.clone().into(), &info(&bytes)).expect_err("shorter").to_string();
    assert!(error.contains("its length is 40 bytes, expected"), "{error}");
    assert!(matches!(Weights::open(&folder.0.path().join("none").into(), &info(&bytes)), Err(Error::Io { .. })));
}

#[test]
fn malformed_files_are_refused() {
    let folder = Folder::new();
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    for bytes in [
        vec![1, 2, 3],
        huge,
        file("{", 0),
        file(r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,99]}}"#, 10),
        file(r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[9,2]}}"#, 10),
        file(r#"{"x":{"dtype":"U8"}}"#, 10),
    ] {
        let path = folder.write("w", &bytes);
        let info =
            ModelInfo { weights_bytes: bytes.len() as u64, ..if bytes.len() < 8 { INFO } else { long_info(&bytes) } };
        assert!(matches!(Weights::open(&path.clone().into(), &info), Err(Error::MalformedWeights { .. })), "{bytes:?}");
    }
}

fn long_info(bytes: &[u8]) -> ModelInfo {
    let len = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    if len < bytes.len() as u64 { info(bytes) } else { INFO }
}

#[test]
fn verify_reads_all_of_it() {
    let folder = Folder::new();
    let bytes = file(HEADER, 3_000_000);
    let path = folder.write("w", &bytes);
    let digest = blake3::hash(&bytes).to_hex().to_string();
    assert_eq!(verify(&path.clone().into(), |_| {}).expect("reads"), (digest.clone(), false));
    folder.write("w.b3", format!("{digest}  w\n").as_bytes());
    let mut seen = 0;
    assert_eq!(verify(&path.clone().into(), |bytes| seen = bytes).expect("matches"), (digest.clone(), true));
    assert_eq!(seen, bytes.len() as u64);
    let mut other = bytes;
    *other.last_mut().expect("not empty") ^= 1;
    folder.write("w", &other);
    assert!(verify(&path.clone().into(), |_| {}).expect_err("differs").to_string().contains("its content digest is"));
}

#[test]
fn weights_in_the_program_are_read_where_they_are() {
    let bytes: &'static [u8] = file(HEADER, 34).leak();
    let digest = blake3::hash(bytes).to_hex().to_string();
    let place = |record: &str| Place::Program(Embedded { bytes, record: record.to_owned().leak() });
    let weights = Weights::open(&place(""), &info(bytes)).expect("opens");
    assert_eq!(weights.map().as_ptr(), bytes.as_ptr());
    assert_eq!(verify(&place(&format!("{digest}  w\n")), |_| {}).expect("matches"), (digest, true));
    let error = verify(&place("00  w"), |_| {}).expect_err("differs").to_string();
    assert!(error.starts_with("weights in the program ") && error.contains("its content digest is"), "{error}");
    let error = Weights::open(&place(""), &info(&bytes[..40])).expect_err("longer").to_string();
    assert!(error.contains("its length is"), "{error}");
}

#[test]
fn contexts_are_checked() {
    let options = |context| LoadOptions { weights: PathBuf::new().into(), context };
    assert_eq!(options(None).context_for(&INFO).expect("default"), 256);
    assert_eq!(options(Some(512)).context_for(&INFO).expect("trained"), 512);
    assert!(options(Some(513)).context_for(&INFO).is_err());
    assert!(options(Some(0)).context_for(&INFO).is_err());
}

#[test]
fn views_hold_every_tensor_whole() {
    const PAGE: u64 = 16;
    assert_eq!(plan_views(100, 1000, PAGE, 50).expect("one"), std::iter::once(0..112).collect::<Vec<_>>());
    for (len, max, largest) in [(1000, 100, 33), (1000, 127, 64), (999, 64, 16), (5000, 1024, 1000), (129, 128, 1)] {
        let views = plan_views(len, max, PAGE, largest).expect("fits");
        assert!(
            views.iter().all(|view| view.start % PAGE == 0 && view.end % PAGE == 0 && view.end - view.start <= max)
        );
        for start in 0..len {
            let end = (start + largest).min(len);
            let holder = views.iter().rev().find(|view| view.start <= start).expect("covered");
            assert!(end <= holder.end, "{start}..{end} in {views:?}");
        }
    }
    assert!(matches!(plan_views(1000, 100, PAGE, 97), Err(GpuError::TensorTooLarge { .. })));
}

#[test]
fn memory_is_checked_in_words() {
    let limits = Limits { name: "Apple M1".into(), max_buffer_bytes: 1, working_set_bytes: Some(5 << 30) };
    assert!(limits.check_memory(5 << 30).is_ok());
    let error = limits.check_memory(6 << 30).expect_err("too much").to_string();
    assert_eq!(
        error,
        "not enough GPU memory: 6.00 GiB are needed and Apple M1 can hold 5.00 GiB at once; a smaller --context needs less"
    );
    assert_eq!(format_bytes(1023), "1023 B");
    assert_eq!(format_bytes(1536), "1.50 KiB");
}

#[test]
fn faults_are_explained() {
    let words = "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)";
    let explained = explain_fault(words, 14);
    assert!(explained.starts_with(words) && explained.contains("drawing the screen"), "{explained}");
    assert!(
        explain_fault("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", 8)
            .contains("out of memory")
    );
    assert_eq!(explain_fault("whatever", 1), "whatever (code 1, internal)");
}
