//! GGUF files, versions 2 and 3, whole or split into parts.

mod layout;
mod parse;
mod split;
mod value;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use forge_formats::{Format, FormatError};

use super::{CheckpointError, MappedFile};
pub use value::{MetaArray, MetaValue};

/// A tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// GGML's order: the row length first. Up to four; none is zero.
    pub dims: Vec<u64>,
    /// GGML type id.
    pub ggml_type: u32,
    /// The format that the id means in this file, or why there is none.
    pub format: Result<Format, FormatError>,
    /// Index into [`GgufFile::files`].
    pub file: usize,
    /// Byte range in that file; for a type of unknown size, up to the next tensor or the end of the file.
    pub range: Range<u64>,
}

/// A GGUF checkpoint: one file, or all parts of a split one.
#[derive(Debug)]
pub struct GgufFile {
    files: Vec<MappedFile>,
    version: u32,
    metadata: BTreeMap<String, MetaValue>,
    tensors: Vec<GgufTensor>,
    by_name: BTreeMap<String, usize>,
}

impl GgufFile {
    /// Maps a GGUF file and checks its header; of a split checkpoint, any part opens all of them.
    ///
    /// # Errors
    /// A file that cannot be mapped, is not GGUF of version 2 or 3, or contradicts itself or its other parts.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let (files, headers) = split::open_parts(path)?;
        let mut checkpoint = Self {
            version: headers[0].version,
            files,
            metadata: BTreeMap::new(),
            tensors: Vec::new(),
            by_name: BTreeMap::new(),
        };
        for (file, mut header) in headers.into_iter().enumerate() {
            let MappedFile { path, map } = &checkpoint.files[file];
            for tensor in layout::place(path, map.len() as u64, file, &mut header)? {
                let index = checkpoint.tensors.len();
                if let Some(first) = checkpoint.by_name.insert(tensor.name.clone(), index) {
                    return Err(CheckpointError::DuplicateTensor {
                        first: checkpoint.files[checkpoint.tensors[first].file].path.clone(),
                        second: path.clone(),
                        tensor: tensor.name,
                    });
                }
                checkpoint.tensors.push(tensor);
            }
            // Parts after the first repeat nothing but the split's own keys.
            if file == 0 {
                checkpoint.metadata = header.metadata;
            }
        }
        split::check_tensor_count(&checkpoint)?;
        Ok(checkpoint)
    }

    /// The file, or the parts in order.
    pub fn files(&self) -> &[MappedFile] {
        &self.files
    }

    /// GGUF version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The value of a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&MetaValue> {
        self.metadata.get(key)
    }

    /// All metadata, by key.
    pub fn entries(&self) -> &BTreeMap<String, MetaValue> {
        &self.metadata
    }

    /// All tensors, in the order of the headers.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// A tensor's bytes.
    ///
    /// # Panics
    /// `tensor` is of another checkpoint and its range does not exist here.
    pub fn data(&self, tensor: &GgufTensor) -> &[u8] {
        // Ranges were checked against the mapping's length, so they fit in usize.
        &self.files[tensor.file].bytes()[tensor.range.start as usize..tensor.range.end as usize]
    }
}
