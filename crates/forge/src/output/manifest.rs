//! `.forge/manifest.json`: what Forge wrote into a folder, so that a later run knows its own files from a person's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::OutputError;

/// Where the manifest lies in a generated project.
pub const MANIFEST: &str = ".forge/manifest.json";

/// What Forge wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of Forge that wrote the folder.
    pub forge: String,
    /// SHA-256 (hex) of each file's content, by its path with `/` between the parts.
    pub files: BTreeMap<String, String>,
    /// The packed weights.
    pub weights: Option<PackedWeights>,
}

/// What identifies a packed weights file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedWeights {
    /// File name in the project's folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 (hex) of its header: which tensors lie where.
    pub header: String,
    /// Digest (hex) of samples of every source tensor: what was packed.
    pub source: String,
}

impl Manifest {
    /// Reads the manifest of the folder `project`; `None` where it has none.
    ///
    /// # Errors
    /// An unreadable or malformed manifest.
    pub fn read(project: &Path) -> Result<Option<Self>, OutputError> {
        let path = project.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OutputError::io("read", &path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| OutputError::BadManifest { path, source })
    }

    /// The manifest as the text that is written.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a map of strings is valid JSON");
        text.push('\n');
        text
    }
}

/// SHA-256 of `bytes`, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
