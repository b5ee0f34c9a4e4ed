//! Split GGUF checkpoints.

use forge_frontend::checkpoint::{CheckpointError, GgufFile, MetaValue};

use crate::build::{Folder, Gguf, string};

fn part(number: u16, count: u16, tensors: i32) -> Gguf {
    Gguf::new().entry(b"split.no", 2, &number.to_le_bytes()).entry(b"split.count", 2, &count.to_le_bytes()).entry(
        b"split.tensors.count",
        5,
        &tensors.to_le_bytes(),
    )
}

/// Three parts with a tensor each; the first has the metadata.
fn parts() -> [Gguf; 3] {
    [0u8, 1, 2].map(|number| {
        let gguf = part(number.into(), 3, 3).tensor(&format!("t{number}"), &[1], 0, &[number; 4]);
        if number == 0 { gguf.entry(b"general.name", 8, &string(b"whole")) } else { gguf }
    })
}

fn write(folder: &Folder, parts: &[Gguf]) {
    for (number, part) in (1..).zip(parts) {
        folder.write(&format!("m-{number:05}-of-00003.gguf"), &part.bytes());
    }
}

fn open(folder: &Folder, number: usize) -> Result<GgufFile, CheckpointError> {
    GgufFile::open(&folder.path().join(format!("m-{number:05}-of-00003.gguf")))
}

#[test]
fn any_part_opens_the_whole() {
    let folder = Folder::new();
    write(&folder, &parts());
    for number in 1..=3 {
        let file = open(&folder, number).expect("the parts are sound");
        assert_eq!(file.files().len(), 3);
        assert_eq!(file.metadata("general.name").and_then(MetaValue::as_str), Some("whole"));
        let names: Vec<_> = file.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["t0", "t1", "t2"]);
        for (index, tensor) in file.tensors().iter().enumerate() {
            assert_eq!((tensor.file, file.data(tensor)), (index, [index as u8; 4].as_slice()));
        }
    }
}

#[test]
fn a_missing_part_is_named() {
    let folder = Folder::new();
    write(&folder, &parts()[..2]);
    let error = open(&folder, 1).expect_err("the third part is not there");
    assert!(matches!(&error, CheckpointError::Io { path, .. } if path.ends_with("m-00003-of-00003.gguf")), "{error}");
}

#[test]
fn parts_must_belong_together() {
    let swap = |index: usize, part: Gguf| {
        let folder = Folder::new();
        let mut all = parts();
        all[index] = part;
        write(&folder, &all);
        open(&folder, 1).expect_err("the parts do not fit")
    };
    let wrong_number = swap(1, part(2, 3, 3).tensor("t1", &[1], 0, &[0; 4]));
    assert!(matches!(wrong_number, CheckpointError::SplitValue { key: "split.no", expected: 1, found: 2, .. }));
    let wrong_count = swap(1, part(1, 4, 3).tensor("t1", &[1], 0, &[0; 4]));
    assert!(matches!(wrong_count, CheckpointError::SplitValue { key: "split.count", expected: 3, found: 4, .. }));
    let no_keys = swap(1, Gguf::new().tensor("t1", &[1], 0, &[0; 4]));
    assert!(matches!(no_keys, CheckpointError::KeyType { found: "nothing", .. }));
    let twice = swap(1, part(1, 3, 3).tensor("t0", &[1], 0, &[0; 4]));
    assert!(matches!(twice, CheckpointError::DuplicateTensor { tensor, .. } if tensor == "t0"));
    let too_few = swap(1, part(1, 3, 3));
    assert!(matches!(too_few, CheckpointError::SplitValue { key: "split.tensors.count", expected: 3, found: 2, .. }));
}

#[test]
fn a_part_must_be_named_as_one() {
    let folder = Folder::new();
    for name in ["model.gguf", "m-1-of-3.gguf", "m-00001-of-00002.gguf", "m-0000a-of-00003.gguf"] {
        let path = folder.write(name, &parts()[0].bytes());
        let error = GgufFile::open(&path).expect_err("the name does not lead to the others");
        assert!(matches!(error, CheckpointError::SplitName { count: 3, .. }), "{error}");
    }
}
