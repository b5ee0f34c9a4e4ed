//! Copies of fixtures that tests change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use forge_frontend::{FrontendError, load};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A copy of a fixture's folder that a test may change.
pub struct Folder {
    pub root: TempDir,
}

/// A safetensors file: the header's entries and the data.
pub struct Weights {
    pub header: BTreeMap<String, Value>,
    pub data: Vec<u8>,
}

impl Folder {
    pub fn of(case: &str) -> Self {
        Self::of_form(case, "hf")
    }

    /// A fixture's Hugging Face folder, or its MLX folder.
    pub fn of_form(case: &str, form: &str) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../forge-frontend/tests/fixtures/tiny");
        let source = tiny.join(case).join(form);
        for entry in fs::read_dir(source).expect("the fixture").flatten() {
            fs::copy(entry.path(), root.path().join(entry.file_name())).expect("a copy");
        }
        Self { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.path(name);
        let mut json: Map<String, Value> = serde_json::from_slice(&fs::read(&path).expect("JSON")).expect("an object");
        edit(&mut json);
        fs::write(path, Value::Object(json).to_string()).expect("written");
    }

    pub fn edit_weights(&self, edit: impl FnOnce(&mut Weights)) {
        let path = self.path("model.safetensors");
        let bytes = fs::read(&path).expect("weights");
        let len = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + len]).expect("a header");
        let mut weights = Weights { header, data: bytes[8 + len..].to_vec() };
        edit(&mut weights);
        let header = serde_json::to_vec(&weights.header).expect("a header");
        let len = (header.len() as u64).to_le_bytes();
        fs::write(path, [&len[..], &header, &weights.data].concat()).expect("written");
    }

    pub fn error(&self) -> FrontendError {
        load(self.root.path()).expect_err("a refusal")
    }

    pub fn refusal(&self) -> String {
        let message = self.error().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }
}

impl Weights {
    /// Adds a tensor of zeros, or puts one in another's place.
    pub fn add(&mut self, name: &str, dtype: &str, shape: &Value) {
        let bytes = match dtype {
            "U32" | "I32" | "F32" => 4,
            "U8" | "F8_E4M3" => 1,
            _ => 2,
        };
        let sizes = shape.as_array().expect("a shape").iter().map(|size| size.as_u64().expect("a size"));
        let (start, len) = (self.data.len() as u64, sizes.fold(bytes, u64::wrapping_mul));
        self.data.resize((start + len) as usize, 0);
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, start + len] });
        self.header.insert(name.to_owned(), entry);
    }
}
