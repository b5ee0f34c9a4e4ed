//! Small GGUF and safetensors files, made to order.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A GGUF file in pieces: the counts are those of what was added unless set.
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub alignment: usize,
    pub entry_count: u64,
    pub tensor_count: u64,
    pub entries: Vec<u8>,
    pub infos: Vec<u8>,
    pub data: Vec<u8>,
}

impl Gguf {
    pub fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            alignment: 32,
            entry_count: 0,
            tensor_count: 0,
            entries: Vec::new(),
            infos: Vec::new(),
            data: Vec::new(),
        }
    }

    /// A metadata entry with its value as stored.
    pub fn entry(mut self, key: &[u8], value_type: u32, value: &[u8]) -> Self {
        self.entry_count += 1;
        self.entries.extend(string(key));
        self.entries.extend(value_type.to_le_bytes());
        self.entries.extend(value);
        self
    }

    /// A tensor description as stored.
    pub fn info(mut self, name: &[u8], dims: &[u64], ggml_type: u32, offset: u64) -> Self {
        self.tensor_count += 1;
        self.infos.extend(string(name));
        self.infos.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| self.infos.extend(dim.to_le_bytes()));
        self.infos.extend(ggml_type.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self
    }

    /// A tensor with its data, padded as GGUF pads.
    pub fn tensor(mut self, name: &str, dims: &[u64], ggml_type: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(data);
        self.info(name.as_bytes(), dims, ggml_type, offset)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.to_le_bytes());
        out.extend(self.entry_count.to_le_bytes());
        out.extend(&self.entries);
        out.extend(&self.infos);
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }
}

/// A GGUF string: length and bytes.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
    out.extend(bytes);
    out
}

/// A GGUF array's beginning: element type and count.
pub fn array(value_type: u32, count: u64) -> Vec<u8> {
    let mut out = value_type.to_le_bytes().to_vec();
    out.extend(count.to_le_bytes());
    out
}

/// A GGUF file with a value of every type and a few tensors.
pub fn sample_gguf() -> Gguf {
    let mut strings = array(8, 2);
    strings.extend(string(b"a"));
    strings.extend(string(&[0xff, 0xfe]));
    let mut nested = array(9, 2);
    nested.extend(array(0, 2));
    nested.extend([1, 2]);
    nested.extend(array(5, 0));
    let mut bools = array(7, 3);
    bools.extend([1, 0, 1]);
    let mut floats = array(6, 2);
    floats.extend(1.5f32.to_le_bytes());
    floats.extend((-2.0f32).to_le_bytes());
    Gguf::new()
        .entry(b"general.architecture", 8, &string(b"llama"))
        .entry(b"u8", 0, &[200])
        .entry(b"i8", 1, &[0xff])
        .entry(b"u16", 2, &65_000u16.to_le_bytes())
        .entry(b"i16", 3, &(-2i16).to_le_bytes())
        .entry(b"u32", 4, &4_000_000_000u32.to_le_bytes())
        .entry(b"i32", 5, &(-3i32).to_le_bytes())
        .entry(b"f32", 6, &0.5f32.to_le_bytes())
        .entry(b"bool", 7, &[1])
        .entry(b"u64", 10, &u64::MAX.to_le_bytes())
        .entry(b"i64", 11, &(-4i64).to_le_bytes())
        .entry(b"f64", 12, &0.25f64.to_le_bytes())
        .entry(b"strings", 9, &strings)
        .entry(b"nested", 9, &nested)
        .entry(b"bools", 9, &bools)
        .entry(b"floats", 9, &floats)
        .tensor("norm", &[3], 0, &[1; 12])
        .tensor("matrix", &[32, 2], 8, &[2; 68])
        .tensor("refused", &[256], 15, &[3; 292])
        .tensor("unknown", &[5], 99, &[4; 10])
}

/// A folder that goes away with the test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder can be made"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("a temporary file can be written");
        path
    }
}

/// A file that is damaged in place, which is far quicker than writing it anew.
pub struct Victim {
    folder: Folder,
    file: File,
    whole: Vec<u8>,
}

impl Victim {
    pub fn new(whole: Vec<u8>) -> Self {
        let folder = Folder::new();
        let path = folder.write("damaged", &whole);
        let file = OpenOptions::new().write(true).open(path).expect("the file was just written");
        Self { folder, file, whole }
    }

    /// Shorter and shorter beginnings of the file, by `step` bytes, down to nothing.
    pub fn each_truncation(self, step: usize, mut check: impl FnMut(&Path, usize)) {
        for length in (0..self.whole.len()).rev().step_by(step) {
            self.file.set_len(length as u64).expect("the file can be cut");
            check(&self.folder.path().join("damaged"), length);
        }
    }

    /// The file with one byte changed, for every byte and three changes.
    pub fn each_flip(mut self, mut check: impl FnMut(&Path)) {
        let whole = std::mem::take(&mut self.whole);
        for (at, &byte) in whole.iter().enumerate() {
            for flip in [0x01, 0x80, 0xff] {
                self.put(at, byte ^ flip);
                check(&self.folder.path().join("damaged"));
            }
            self.put(at, byte);
        }
    }

    fn put(&mut self, at: usize, byte: u8) {
        self.file.seek(SeekFrom::Start(at as u64)).expect("the file can be written anywhere");
        self.file.write_all(&[byte]).expect("the file can be written");
    }
}

/// The file of this name under `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
