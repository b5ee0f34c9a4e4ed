//! Safetensors files and indexes: what is returned, refused, and survived.

use forge_frontend::checkpoint::{CheckpointError, Dtype, SafetensorsSet};

use crate::build::{Folder, Victim};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

pub(crate) fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

fn sample() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},
        "w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
        "codes":{"dtype":"U32","shape":[1],"data_offsets":[12,16]},
        "scalar":{"dtype":"F8_E4M3","shape":[],"data_offsets":[16,17]},
        "empty":{"dtype":"F32","shape":[0,4],"data_offsets":[17,17]}}   "#;
    file(header, &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3])
}

fn refusal(bytes: &[u8]) -> CheckpointError {
    let folder = Folder::new();
    folder.write(SINGLE, bytes);
    let error = SafetensorsSet::open_dir(folder.path()).expect_err("the file is wrong");
    assert!(error.to_string().contains("model.safetensors: "), "{error}");
    error
}

#[test]
fn a_single_file_is_read() {
    let folder = Folder::new();
    folder.write(SINGLE, &sample());
    let set = SafetensorsSet::open_dir(folder.path()).expect("the sample is sound");
    let names: Vec<_> = set.tensors().keys().map(String::as_str).collect();
    assert_eq!(names, ["codes", "empty", "scalar", "w"]);
    let w = &set.tensors()["w"];
    assert_eq!((w.dtype, &w.shape[..], set.data(w)), (Dtype::BF16, &[2, 3][..], [1; 12].as_slice()));
    assert_eq!(set.data(&set.tensors()["codes"]), [2; 4]);
    assert_eq!(set.tensors()["scalar"].dtype.as_str(), "F8_E4M3");
    assert!(set.data(&set.tensors()["empty"]).is_empty());
}

#[test]
fn shards_are_joined() {
    let folder = Folder::new();
    folder.write("b.safetensors", &sample());
    folder.write("a.safetensors", &file(r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, &[9]));
    folder.write(INDEX, br#"{"metadata":{"total_size":18},"weight_map":{"w":"b.safetensors","x":"a.safetensors"}}"#);
    let set = SafetensorsSet::open_dir(folder.path()).expect("the shards are sound");
    assert_eq!(set.files().iter().map(|file| file.name()).collect::<Vec<_>>(), ["a.safetensors", "b.safetensors"]);
    assert_eq!(set.data(&set.tensors()["x"]), [9]);
    assert_eq!(set.tensors()["w"].file, 1);
}

#[test]
fn an_index_stays_in_its_folder() {
    for name in ["../a.safetensors", "/etc/passwd", "..", ".", "", "sub/a.safetensors", "sub\\\\a", "C:a", "a/", "./a"]
    {
        let folder = Folder::new();
        folder.write(INDEX, format!(r#"{{"weight_map":{{"w":"{name}"}}}}"#).as_bytes());
        let error = SafetensorsSet::open_dir(folder.path()).expect_err("the name leads elsewhere");
        assert!(matches!(error, CheckpointError::ShardName { .. }), "{name}: {error}");
    }
}

#[test]
fn an_index_must_be_true() {
    let open = |index: &str| {
        let folder = Folder::new();
        folder.write("a.safetensors", &sample());
        folder.write("b.safetensors", &file("{}", &[]));
        folder.write("c.safetensors", &sample());
        folder.write(INDEX, index.as_bytes());
        SafetensorsSet::open_dir(folder.path()).expect_err("the index is wrong")
    };
    let missing = open(r#"{"weight_map":{"v":"a.safetensors"}}"#);
    assert!(matches!(missing, CheckpointError::MissingTensor { tensor, .. } if tensor == "v"));
    let elsewhere = open(r#"{"weight_map":{"w":"b.safetensors","codes":"a.safetensors"}}"#);
    assert!(matches!(elsewhere, CheckpointError::MissingTensor { tensor, .. } if tensor == "w"));
    let duplicate = open(r#"{"weight_map":{"w":"a.safetensors","codes":"c.safetensors"}}"#);
    assert!(matches!(duplicate, CheckpointError::DuplicateTensor { .. }));
    let no_file = open(r#"{"weight_map":{"w":"d.safetensors"}}"#);
    assert!(matches!(no_file, CheckpointError::ShardMissing { .. }), "{no_file}");
    let twice = open(r#"{"weight_map":{"w":"a.safetensors","w":"a.safetensors"}}"#);
    assert!(matches!(twice, CheckpointError::Json { .. }));
    assert!(matches!(open(r#"{"weights":{}}"#), CheckpointError::Json { .. }));
    assert!(matches!(open("["), CheckpointError::Json { .. }));
}

#[test]
fn a_folder_without_weights_says_so() {
    let folder = Folder::new();
    let error = SafetensorsSet::open_dir(folder.path()).expect_err("the folder is empty");
    assert!(matches!(error, CheckpointError::NoWeights { .. }));
}

#[test]
fn headers_are_checked() {
    for found in [0u64, 1, 100, 1 << 60, u64::MAX] {
        let mut bytes = found.to_le_bytes().to_vec();
        bytes.extend([b'{'; 50]);
        assert!(matches!(refusal(&bytes), CheckpointError::HeaderLength { found: f, .. } if f == found));
    }
    assert!(matches!(refusal(&file("[]", &[])), CheckpointError::Json { .. }));
    assert!(matches!(refusal(&file(r#"{"a":{}"#, &[])), CheckpointError::Json { .. }));
    let entry = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let error = refusal(&file(&format!(r#"{{"a":{entry},"a":{entry}}}"#), &[0]));
    assert!(error.to_string().contains(r#""a" is given twice"#), "{error}");
    let deep = format!(r#"{{"a":{}"#, "[".repeat(10_000));
    assert!(matches!(refusal(&file(&deep, &[])), CheckpointError::Json { .. }));
}

#[test]
fn entries_are_checked() {
    let one = |entry: &str| refusal(&file(&format!(r#"{{"t":{entry}}}"#), &[0; 16]));
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        one(&format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#))
    };
    let unknown = entry("F12", "[1]", "[0,4]");
    assert!(matches!(unknown, CheckpointError::Dtype { found, .. } if found == "F12"));
    assert!(matches!(entry("F32", "[3]", "[0,8]"), CheckpointError::DataLength { expected: 12, found: 8, .. }));
    assert!(matches!(entry("F32", "[4]", "[4,20]"), CheckpointError::OutsideFile { .. }));
    assert!(matches!(entry("F32", "[4294967296,4294967296]", "[0,4]"), CheckpointError::Shape { .. }));
    assert!(matches!(entry("F4", "[3]", "[0,1]"), CheckpointError::Shape { .. }));
    for wrong in [entry("F32", "[-1]", "[0,4]"), entry("F32", "[1]", "[4,0]"), entry("F32", "[1]", "[0]"), one("7")] {
        assert!(matches!(wrong, CheckpointError::Entry { .. }), "{wrong}");
        assert!(wrong.to_string().contains("tensor t: "), "{wrong}");
    }
    let overlap =
        r#"{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}"#;
    let error = refusal(&file(overlap, &[0; 16]));
    assert!(error.to_string().ends_with("tensors a and b overlap"), "{error}");
}

#[test]
fn every_truncation_is_an_error() {
    Victim::new(sample()).each_truncation(1, |path, length| {
        assert!(SafetensorsSet::open_file(path).is_err(), "{length} bytes");
    });
}

#[test]
fn no_flipped_byte_panics() {
    let whole = sample().len();
    Victim::new(sample()).each_flip(|path| {
        let Ok(set) = SafetensorsSet::open_file(path) else { return };
        let length: usize = set.tensors().values().map(|tensor| set.data(tensor).len()).sum();
        assert!(length <= whole, "tensors without overlap are no larger than their file");
    });
}
