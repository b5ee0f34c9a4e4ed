//! What the GGUF reader returns, and what it refuses.

use forge_formats::{Format, FormatError, decode_row};
use forge_frontend::checkpoint::{CheckpointError, GgufFile, MetaArray, MetaValue};

use crate::build::{Folder, Gguf, array, fixture, sample_gguf, string};

fn open(gguf: &Gguf) -> Result<GgufFile, CheckpointError> {
    let folder = Folder::new();
    GgufFile::open(&folder.write("model.gguf", &gguf.bytes()))
}

fn refusal(gguf: &Gguf) -> CheckpointError {
    let error = open(gguf).expect_err("the file is wrong");
    assert!(error.to_string().contains("model.gguf: "), "{error}");
    error
}

#[test]
fn a_converted_model_reads_as_the_gguf_package_reads_it() {
    let file = GgufFile::open(&fixture("llama.Q4_0.gguf")).expect("the fixture is sound");
    assert_eq!((file.version(), file.entries().len(), file.tensors().len()), (3, 29, 31));
    assert_eq!(file.metadata("general.architecture").and_then(MetaValue::as_str), Some("llama"));
    assert_eq!(file.metadata("llama.rope.freq_base").and_then(MetaValue::as_f64), Some(500_000.0));
    assert_eq!(file.metadata("llama.vocab_size").and_then(MetaValue::as_u64), Some(512));
    assert_eq!(file.metadata("tokenizer.ggml.add_bos_token").and_then(MetaValue::as_bool), Some(true));
    let tokens = file.metadata("tokenizer.ggml.tokens").and_then(MetaValue::as_array);
    let Some(MetaArray::Strings(tokens)) = tokens else { panic!("tokens are an array of strings") };
    assert_eq!((tokens.len(), &tokens[2][..]), (512, b"#".as_slice()));

    let last = &file.tensors()[30];
    assert_eq!(
        (last.name.as_str(), &last.dims[..], last.format.clone()),
        ("blk.2.ffn_up.weight", &[64, 160][..], Ok(Format::Q4_0))
    );
    assert_eq!((last.range.start, last.range.end), (136_096, 141_856));
    let q = file.tensor("blk.0.attn_q.weight").expect("a llama has it");
    let mut row = [0.0; 64];
    decode_row(Format::Q4_0, &file.data(q)[36..72], &mut row).expect("36 bytes are 64 weights");
    assert_eq!(row[..4], [-0.138_427_73, -0.138_427_73, -0.046_142_578, -0.046_142_578]);
}

#[test]
fn every_value_type_is_read() {
    let file = open(&sample_gguf()).expect("the sample is sound");
    let expected = [
        ("u8", MetaValue::U8(200)),
        ("i8", MetaValue::I8(-1)),
        ("u16", MetaValue::U16(65_000)),
        ("i16", MetaValue::I16(-2)),
        ("u32", MetaValue::U32(4_000_000_000)),
        ("i32", MetaValue::I32(-3)),
        ("f32", MetaValue::F32(0.5)),
        ("bool", MetaValue::Bool(true)),
        ("u64", MetaValue::U64(u64::MAX)),
        ("i64", MetaValue::I64(-4)),
        ("f64", MetaValue::F64(0.25)),
        ("general.architecture", MetaValue::String("llama".into())),
        ("strings", MetaValue::Array(MetaArray::Strings(vec![b"a".to_vec(), vec![0xff, 0xfe]]))),
        ("bools", MetaValue::Array(MetaArray::Bool(vec![true, false, true]))),
        ("floats", MetaValue::Array(MetaArray::F32(vec![1.5, -2.0]))),
        ("nested", MetaValue::Array(MetaArray::Arrays(vec![MetaArray::U8(vec![1, 2]), MetaArray::I32(Vec::new())]))),
    ];
    for (key, value) in &expected {
        assert_eq!(file.metadata(key), Some(value), "{key}");
    }
    assert_eq!(file.entries().len(), expected.len());
    assert_eq!(file.metadata("i8").and_then(MetaValue::as_u64), None);
    assert_eq!(file.metadata("u64").and_then(MetaValue::as_u64), Some(u64::MAX));
}

#[test]
fn tensors_have_their_bytes() {
    let file = open(&sample_gguf()).expect("the sample is sound");
    let bytes = |name: &str| file.data(file.tensor(name).expect("the sample has it"));
    assert_eq!(bytes("norm"), [1; 12]);
    assert_eq!(bytes("matrix"), [2; 68]);
    assert_eq!(bytes("refused"), [3; 292]);
    assert_eq!(bytes("unknown"), [4; 10]);
    let formats: Vec<_> = file.tensors().iter().map(|tensor| tensor.format.clone()).collect();
    assert_eq!(
        formats,
        [
            Ok(Format::F32),
            Ok(Format::Q8_0),
            Err(FormatError::UnsupportedGgmlType { id: 15, name: "Q8_K" }),
            Err(FormatError::UnknownGgmlType { id: 99 }),
        ]
    );
}

#[test]
fn version_2_and_other_alignments_are_read() {
    let gguf = Gguf { version: 2, alignment: 64, ..Gguf::new() };
    let gguf = gguf.entry(b"general.alignment", 4, &64u32.to_le_bytes()).tensor("a", &[1], 0, &[5; 4]);
    let file = open(&gguf.tensor("b", &[1], 0, &[6; 4])).expect("the file is sound");
    assert_eq!(file.version(), 2);
    assert_eq!(file.data(&file.tensors()[1]), [6; 4]);
    assert_eq!(file.tensors()[1].range.start % 64, 0);
}

#[test]
fn a_file_may_have_no_tensors() {
    let file = open(&Gguf::new().entry(b"k", 0, &[1])).expect("a vocabulary alone is a GGUF file");
    assert!(file.tensors().is_empty());
}

#[test]
fn type_42_is_settled_by_the_file() {
    // 128 weights fit either format; a larger tensor of the same file tells.
    let tq2_0 = Gguf::new().tensor("small", &[128], 42, &[7; 34]).tensor("large", &[128, 64], 42, &[8; 34 * 64]);
    let file = open(&tq2_0).expect("the file is sound");
    assert_eq!(file.tensors()[0].format, Ok(Format::Tq2_0G128));
    assert_eq!(file.data(&file.tensors()[0]), [7; 34]);
    assert_eq!(file.data(&file.tensors()[1]).len(), 34 * 64);

    let q2_0 = Gguf::new().tensor("small", &[128], 42, &[7; 36]).tensor("large", &[128, 64], 42, &[8; 36 * 64]);
    let file = open(&q2_0).expect("the file is sound");
    let refused = Err(FormatError::UnsupportedGgmlType { id: 42, name: "Q2_0" });
    assert!(file.tensors().iter().all(|tensor| tensor.format == refused));

    let alone = open(&Gguf::new().tensor("small", &[128], 42, &[7; 40])).expect("the file is sound");
    assert!(matches!(alone.tensors()[0].format, Err(FormatError::AmbiguousGgmlType { .. })));
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    let wrong_magic = Gguf { magic: *b"GGML", ..Gguf::new() };
    assert!(matches!(refusal(&wrong_magic), CheckpointError::NotGguf { found, .. } if found == b"GGML"));
    let version = |version| Gguf { version, ..Gguf::new() };
    assert!(matches!(refusal(&version(3u32.swap_bytes())), CheckpointError::BigEndian { .. }));
    for found in [0, 1, 4, u32::MAX] {
        assert!(matches!(refusal(&version(found)), CheckpointError::GgufVersion { found: f, .. } if f == found));
    }
    let folder = Folder::new();
    let missing = GgufFile::open(&folder.path().join("none.gguf")).expect_err("there is no such file");
    assert!(matches!(missing, CheckpointError::Io { .. }));
    let empty = GgufFile::open(&folder.write("empty.gguf", b"")).expect_err("nothing is in it");
    assert!(matches!(empty, CheckpointError::NotGguf { .. }));
}

#[test]
fn metadata_is_checked() {
    let entry = |key: &[u8], value_type, value: &[u8]| Gguf::new().entry(key, value_type, value);
    let twice = entry(b"k", 0, &[1]).entry(b"k", 0, &[1]);
    assert!(matches!(refusal(&twice), CheckpointError::DuplicateKey { key, .. } if key == "k"));
    let error = refusal(&entry(&[b'k', 0xff], 0, &[1]));
    assert!(matches!(&error, CheckpointError::Utf8 { .. }), "{error}");
    let error = refusal(&entry(b"name", 8, &string(&[b'x', 0xff])));
    assert!(error.to_string().ends_with("metadata name is not UTF-8: \"x\\xff\""), "{error}");
    assert!(matches!(refusal(&entry(b"k", 13, &[])), CheckpointError::ValueType { found: 13, .. }));
    assert!(matches!(refusal(&entry(b"k", 9, &array(14, 0))), CheckpointError::ValueType { found: 14, .. }));
    assert!(matches!(refusal(&entry(b"k", 7, &[2])), CheckpointError::Bool { found: 2, .. }));
    let deep: Vec<u8> = (0..100).flat_map(|_| array(9, 1)).collect();
    assert!(matches!(refusal(&entry(b"k", 9, &deep)), CheckpointError::Nesting { .. }));
    for alignment in [0u32, 4, 48] {
        let file = entry(b"general.alignment", 4, &alignment.to_le_bytes());
        assert!(matches!(refusal(&file), CheckpointError::Alignment { .. }));
    }
    let file = entry(b"general.alignment", 10, &(1u64 << 63).to_le_bytes()).tensor("t", &[1], 0, &[0; 4]);
    assert!(matches!(refusal(&file), CheckpointError::OutsideFile { .. }));
    let file = entry(b"general.alignment", 8, &string(b"32"));
    assert!(matches!(refusal(&file), CheckpointError::KeyType { found: "string", .. }));
}

#[test]
fn tensors_are_checked() {
    let info = |dims: &[u64], ggml_type, offset| {
        let mut gguf = Gguf::new().info(b"t", dims, ggml_type, offset);
        gguf.data = vec![0; 1024];
        gguf
    };
    assert!(open(&info(&[256], 0, 0)).is_ok());
    assert!(matches!(refusal(&info(&[257], 0, 0)), CheckpointError::OutsideFile { needed: 1028, .. }));
    assert!(matches!(refusal(&info(&[256], 0, 32)), CheckpointError::OutsideFile { offset: 32, .. }));
    assert!(matches!(refusal(&info(&[1], 0, u64::MAX - 31)), CheckpointError::OutsideFile { .. }));
    assert!(matches!(refusal(&info(&[1], 0, 4)), CheckpointError::Misaligned { offset: 4, .. }));
    assert!(matches!(refusal(&info(&[33], 8, 0)), CheckpointError::RowNotBlocks { cols: 33, block: 32, .. }));
    assert!(matches!(refusal(&info(&[1; 5], 0, 0)), CheckpointError::Dimensions { found: 5, .. }));
    assert!(matches!(refusal(&info(&[4, 0], 0, 0)), CheckpointError::Shape { .. }));
    assert!(matches!(refusal(&info(&[1 << 32, 1 << 32], 0, 0)), CheckpointError::Shape { .. }));
    assert!(matches!(refusal(&info(&[1 << 62], 0, 0)), CheckpointError::Shape { .. }));

    let twice = info(&[1], 0, 0).info(b"t", &[1], 0, 32);
    assert!(matches!(refusal(&twice), CheckpointError::DuplicateTensor { tensor, .. } if tensor == "t"));
    let overlap = info(&[9], 0, 0).info(b"u", &[1], 0, 32);
    let error = refusal(&overlap);
    assert!(error.to_string().ends_with("tensors t and u overlap"), "{error}");
    assert!(matches!(refusal(&info(&[1], 0, 0).info(b"u", &[1], 0, 0)), CheckpointError::Overlap { .. }));
}
