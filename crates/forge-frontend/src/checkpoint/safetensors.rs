//! Safetensors files: one, or the shards that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Component, Path};

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::file::{first_overlap, read_in_folder};
use super::{CheckpointError, MappedFile, shards};
use crate::Warning;
use crate::source::without_mark;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longest header that the format's reference implementation reads.
const MAX_HEADER: u64 = 100_000_000;

/// Element types of safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum Dtype {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
    C64,
    F8E4M3,
    F8E5M2,
    F8E8M0,
    F6E2M3,
    F6E3M2,
    F4,
}

/// Every type with its name in a header and its bits per element.
const DTYPES: [(Dtype, &str, u64); 20] = [
    (Dtype::Bool, "BOOL", 8),
    (Dtype::U8, "U8", 8),
    (Dtype::I8, "I8", 8),
    (Dtype::U16, "U16", 16),
    (Dtype::I16, "I16", 16),
    (Dtype::U32, "U32", 32),
    (Dtype::I32, "I32", 32),
    (Dtype::U64, "U64", 64),
    (Dtype::I64, "I64", 64),
    (Dtype::F16, "F16", 16),
    (Dtype::BF16, "BF16", 16),
    (Dtype::F32, "F32", 32),
    (Dtype::F64, "F64", 64),
    (Dtype::C64, "C64", 64),
    (Dtype::F8E4M3, "F8_E4M3", 8),
    (Dtype::F8E5M2, "F8_E5M2", 8),
    (Dtype::F8E8M0, "F8_E8M0", 8),
    (Dtype::F6E2M3, "F6_E2M3", 6),
    (Dtype::F6E3M2, "F6_E3M2", 6),
    (Dtype::F4, "F4", 4),
];

impl Dtype {
    fn row(self) -> (&'static str, u64) {
        let row = DTYPES.iter().find(|(dtype, _, _)| *dtype == self).expect("the table has every type");
        (row.1, row.2)
    }

    /// The name in a header: `F32`, `BF16`, `F8_E4M3`.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Bits per element.
    pub fn bits(self) -> u64 {
        self.row().1
    }
}

/// A tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Outermost dimension first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Index into [`SafetensorsSet::files`].
    pub file: usize,
    /// Byte range in that file.
    pub range: Range<u64>,
}

/// The tensors of a model folder, from one file or several.
#[derive(Debug, Default)]
pub struct SafetensorsSet {
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, StTensor>,
    warnings: Vec<Warning>,
}

impl SafetensorsSet {
    /// Maps the safetensors files of a folder: `model.safetensors`, which counts before all others as it does for transformers,
    /// else those that `model.safetensors.index.json` lists, else every `model*.safetensors` (or `weight*.safetensors`) as mlx-lm reads them.
    ///
    /// # Errors
    /// There are none, a shard is missing, an index leads out of the folder or promises what its files do not hold, or a file
    /// contradicts itself.
    pub fn open_dir(folder: &Path) -> Result<Self, CheckpointError> {
        if fs::symlink_metadata(folder.join(SINGLE)).is_ok() {
            return Self::open_single(folder);
        }
        if let Some(index) = Index::read(folder)? {
            return Self::open_index(folder, &index.weight_map.0);
        }
        let mut set = Self::default();
        for name in shards::find(folder)? {
            set.add(&folder.join(name))?;
        }
        Ok(set)
    }

    /// The weights in one file, whatever lies beside it; where an index counts that file among several, all of those.
    fn open_single(folder: &Path) -> Result<Self, CheckpointError> {
        let index = match Index::read(folder) {
            // It is not needed, so it may be damaged; but what leads out of the folder is not passed over.
            Err(
                CheckpointError::Json { .. } | CheckpointError::BrokenLink { .. } | CheckpointError::LfsPointer { .. },
            ) => None,
            index => index?,
        };
        let listed: BTreeSet<&String> = index.iter().flat_map(|index| index.weight_map.0.values()).collect();
        if let (true, Some(index)) = (listed.iter().any(|name| *name == SINGLE), &index) {
            return Self::open_index(folder, &index.weight_map.0);
        }
        let mut set = Self::open_file(&folder.join(SINGLE))?;
        let mut unused: Vec<String> = fs::metadata(folder.join(INDEX)).map(|_| INDEX.to_owned()).into_iter().collect();
        unused.extend(shards::list(folder)?.into_iter().filter(|name| name != SINGLE));
        if !unused.is_empty() {
            set.warnings.push(Warning::OtherWeights { used: SINGLE.to_owned(), unused: unused.join(", ") });
        }
        Ok(set)
    }

    fn open_index(folder: &Path, weight_map: &BTreeMap<String, String>) -> Result<Self, CheckpointError> {
        let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
        let mut set = Self::default();
        for shard in &shards {
            let path = folder.join(shard);
            if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                return Err(CheckpointError::ShardMissing { path, expected: format!("a shard of {INDEX}") });
            }
            set.add(&path)?;
        }
        for (tensor, shard) in weight_map {
            let there = set.tensors.get(tensor).is_some_and(|t| set.files[t.file].name() == *shard);
            if !there {
                return Err(CheckpointError::MissingTensor { path: folder.join(shard), tensor: tensor.clone() });
            }
        }
        Ok(set)
    }

    /// Maps one safetensors file.
    ///
    /// # Errors
    /// The file cannot be mapped or contradicts itself.
    pub fn open_file(path: &Path) -> Result<Self, CheckpointError> {
        let mut set = Self::default();
        set.add(path)?;
        Ok(set)
    }

    fn add(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let file = MappedFile::open(path)?;
        for (name, tensor) in parse(path, file.bytes(), self.files.len())? {
            if let Some(first) = self.tensors.get(&name) {
                return Err(CheckpointError::DuplicateTensor {
                    first: self.files[first.file].path.clone(),
                    second: path.to_owned(),
                    tensor: name,
                });
            }
            self.tensors.insert(name, tensor);
        }
        self.files.push(file);
        Ok(())
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> &[MappedFile] {
        &self.files
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, StTensor> {
        &self.tensors
    }

    /// What the folder holds beside these files, or says of them otherwise.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// A tensor's bytes.
    ///
    /// # Panics
    /// `tensor` is of another set and its range does not exist here.
    pub fn data(&self, tensor: &StTensor) -> &[u8] {
        // Ranges were checked against the mapping's length, so they fit in usize.
        &self.files[tensor.file].bytes()[tensor.range.start as usize..tensor.range.end as usize]
    }
}

/// The tensors of one file: a u64 length, a JSON header of that length, then data. Holes between tensors, which the
/// format forbids but which harm nobody, are passed over.
fn parse(path: &Path, bytes: &[u8], file: usize) -> Result<Vec<(String, StTensor)>, CheckpointError> {
    let length = bytes.len() as u64;
    let limit = length.saturating_sub(8).min(MAX_HEADER);
    let found = bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
    if found < 2 || found > limit {
        return Err(CheckpointError::HeaderLength { path: path.to_owned(), limit, found });
    }
    let data_start = 8 + found;
    // Raw: as values, a header of nested brackets takes thirty times its own length.
    let header: UniqueMap<Box<RawValue>> = serde_json::from_slice(&bytes[8..data_start as usize])
        .map_err(|source| CheckpointError::Json { path: path.to_owned(), source })?;

    let mut tensors = Vec::new();
    for (name, value) in header.0 {
        if name == "__metadata__" {
            continue;
        }
        let entry: Entry = serde_json::from_str(value.get()).map_err(|source| CheckpointError::Entry {
            path: path.to_owned(),
            tensor: name.clone(),
            source,
        })?;
        let tensor = place(path, &name, entry, file, data_start..length)?;
        tensors.push((name, tensor));
    }
    let ranges = tensors.iter().enumerate().map(|(i, (_, t))| (t.range.start, t.range.end, i)).collect();
    if let Some((first, second)) = first_overlap(ranges) {
        return Err(CheckpointError::Overlap {
            path: path.to_owned(),
            first: tensors[first].0.clone(),
            second: tensors[second].0.clone(),
        });
    }
    Ok(tensors)
}

/// Checks an entry against the data of its file.
fn place(path: &Path, name: &str, entry: Entry, file: usize, data: Range<u64>) -> Result<StTensor, CheckpointError> {
    let (path, tensor) = (path.to_owned(), name.to_owned());
    let Some(&(dtype, _, bits)) = DTYPES.iter().find(|(_, known, _)| *known == entry.dtype) else {
        return Err(CheckpointError::Dtype { path, tensor, found: entry.dtype });
    };
    let size = entry.shape.iter().try_fold(bits, |size, &dim| size.checked_mul(dim)).filter(|size| size % 8 == 0);
    let shape = entry.shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
    let (Some(size), Ok(shape)) = (size, shape) else {
        return Err(CheckpointError::Shape { path, tensor, shape: entry.shape });
    };
    let (begin, end) = entry.data_offsets;
    let Some(found) = end.checked_sub(begin) else {
        let source = serde_json::Error::custom(format_args!("data_offsets [{begin}, {end}] are reversed"));
        return Err(CheckpointError::Entry { path, tensor, source });
    };
    let expected = size / 8;
    if expected != found {
        return Err(CheckpointError::DataLength { path, tensor, expected, found });
    }
    let available = data.end - data.start;
    if end > available {
        return Err(CheckpointError::OutsideFile { path, tensor, offset: begin, needed: found, available });
    }
    Ok(StTensor { dtype, shape, file, range: data.start + begin..data.start + end })
}

/// Whether a shard's name is a plain file name on every system.
fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    plain && !name.contains(['/', '\\', ':', '\0'])
}

/// `model.safetensors.index.json`; its `metadata` is not needed.
#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

impl Index {
    /// Reads a folder's index; `None` when there is none.
    fn read(folder: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = folder.join(INDEX);
        let Some(text) = read_in_folder(folder, INDEX, MAX_HEADER)? else { return Ok(None) };
        let index: Self = serde_json::from_slice(without_mark(&text))
            .map_err(|source| CheckpointError::Json { path: path.clone(), source })?;
        match index.weight_map.0.iter().find(|(_, shard)| !is_file_name(shard)) {
            Some((tensor, found)) => {
                Err(CheckpointError::ShardName { path, tensor: tensor.clone(), found: found.clone() })
            }
            None => Ok(Some(index)),
        }
    }
}

/// One entry of a header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A JSON object whose keys are all different.
struct UniqueMap<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Unique<T> {
            type Value = UniqueMap<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(key) = access.next_key::<String>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("{key:?} is given twice")));
                    }
                    map.insert(key, access.next_value()?);
                }
                Ok(UniqueMap(map))
            }
        }

        deserializer.deserialize_map(Unique(PhantomData))
    }
}
