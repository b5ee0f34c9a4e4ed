//! The header of one GGUF file: metadata and tensor infos, read without trusting any length in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::{MetaArray, MetaValue};
use crate::checkpoint::CheckpointError;

/// Deepest nesting of arrays; writers make none.
const MAX_NESTING: u32 = 4;
/// Most dimensions of a tensor (`GGML_MAX_DIMS`).
const MAX_DIMS: u32 = 4;
/// How much of a broken string a message shows.
const SHOWN_BYTES: usize = 64;

/// What a GGUF file says before its data.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: BTreeMap<String, MetaValue>,
    pub(super) infos: Vec<TensorInfo>,
    /// Where the last tensor info ends; data begins at the next multiple of the alignment.
    pub(super) end: u64,
}

/// A tensor as the header describes it.
#[derive(Debug)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) dims: Vec<u64>,
    pub(super) ggml_type: u32,
    /// From the start of the data.
    pub(super) offset: u64,
}

/// Reads the header of a GGUF file of version 2 or 3.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Header, CheckpointError> {
    if !bytes.starts_with(b"GGUF") {
        return Err(CheckpointError::NotGguf { path: path.to_owned(), found: bytes[..bytes.len().min(4)].to_vec() });
    }
    let mut reader = Reader { path, bytes, at: 4 };
    let version = u32::from_le_bytes(reader.array(&Field::Version)?);
    match version {
        2 | 3 => {}
        // The magic reads the same either way; a small version in the wrong half is a swapped one.
        _ if version & 0xffff == 0 && version != 0 => return Err(CheckpointError::BigEndian { path: path.to_owned() }),
        _ => return Err(CheckpointError::GgufVersion { path: path.to_owned(), found: version }),
    }
    let tensors = reader.u64(&Field::Counts)?;
    let entries = reader.u64(&Field::Counts)?;

    let mut metadata = BTreeMap::new();
    for index in 0..entries {
        let key = reader.name(&Field::Key(index))?;
        let value_type = reader.u32(&Field::Value(&key))?;
        let value = reader.value(&key, value_type)?;
        if metadata.contains_key(&key) {
            return Err(CheckpointError::DuplicateKey { path: path.to_owned(), key });
        }
        metadata.insert(key, value);
    }
    let mut infos = Vec::new();
    for index in 0..tensors {
        infos.push(reader.tensor_info(index)?);
    }
    Ok(Header { version, metadata, infos, end: reader.at as u64 })
}

/// What is being read, for messages.
enum Field<'a> {
    Version,
    Counts,
    Key(u64),
    Value(&'a str),
    TensorName(u64),
    TensorInfo(&'a str),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => write!(f, "the version"),
            Self::Counts => write!(f, "the header"),
            Self::Key(index) => write!(f, "metadata key number {index}"),
            Self::Value(key) => write!(f, "metadata {key}"),
            Self::TensorName(index) => write!(f, "the name of tensor number {index}"),
            Self::TensorInfo(name) => write!(f, "the description of tensor {name}"),
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64, field: &Field<'_>) -> Result<&'a [u8], CheckpointError> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| rest.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(CheckpointError::Truncated {
                path: self.path.to_owned(),
                what: field.to_string(),
                offset: self.at as u64,
                needed: count,
                available: rest.len() as u64,
            }),
        }
    }

    fn array<const N: usize>(&mut self, field: &Field<'_>) -> Result<[u8; N], CheckpointError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, field)?);
        Ok(out)
    }

    fn u32(&mut self, field: &Field<'_>) -> Result<u32, CheckpointError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &Field<'_>) -> Result<u64, CheckpointError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A string's bytes: a u64 length, then as many bytes.
    fn string(&mut self, field: &Field<'_>) -> Result<&'a [u8], CheckpointError> {
        let length = self.u64(field)?;
        self.take(length, field)
    }

    /// A string that must be UTF-8.
    fn name(&mut self, field: &Field<'_>) -> Result<String, CheckpointError> {
        let bytes = self.string(field)?;
        str::from_utf8(bytes).map(str::to_owned).map_err(|_| CheckpointError::Utf8 {
            path: self.path.to_owned(),
            what: field.to_string(),
            found: bytes[..bytes.len().min(SHOWN_BYTES)].to_vec(),
        })
    }

    fn value(&mut self, key: &str, value_type: u32) -> Result<MetaValue, CheckpointError> {
        let field = &Field::Value(key);
        Ok(match value_type {
            0 => MetaValue::U8(u8::from_le_bytes(self.array(field)?)),
            1 => MetaValue::I8(i8::from_le_bytes(self.array(field)?)),
            2 => MetaValue::U16(u16::from_le_bytes(self.array(field)?)),
            3 => MetaValue::I16(i16::from_le_bytes(self.array(field)?)),
            4 => MetaValue::U32(u32::from_le_bytes(self.array(field)?)),
            5 => MetaValue::I32(i32::from_le_bytes(self.array(field)?)),
            6 => MetaValue::F32(f32::from_le_bytes(self.array(field)?)),
            7 => {
                let [byte] = self.array(field)?;
                MetaValue::Bool(self.bool(key, byte)?)
            }
            8 => MetaValue::String(self.name(field)?),
            9 => MetaValue::Array(self.values(key, 1)?),
            10 => MetaValue::U64(u64::from_le_bytes(self.array(field)?)),
            11 => MetaValue::I64(i64::from_le_bytes(self.array(field)?)),
            12 => MetaValue::F64(f64::from_le_bytes(self.array(field)?)),
            found => return Err(self.value_type(key, found)),
        })
    }

    /// An array: element type u32, count u64, elements.
    fn values(&mut self, key: &str, depth: u32) -> Result<MetaArray, CheckpointError> {
        let field = &Field::Value(key);
        let value_type = self.u32(field)?;
        let count = self.u64(field)?;
        Ok(match value_type {
            0 => MetaArray::U8(self.take(count, field)?.to_vec()),
            1 => MetaArray::I8(self.numbers(count, field, i8::from_le_bytes)?),
            2 => MetaArray::U16(self.numbers(count, field, u16::from_le_bytes)?),
            3 => MetaArray::I16(self.numbers(count, field, i16::from_le_bytes)?),
            4 => MetaArray::U32(self.numbers(count, field, u32::from_le_bytes)?),
            5 => MetaArray::I32(self.numbers(count, field, i32::from_le_bytes)?),
            6 => MetaArray::F32(self.numbers(count, field, f32::from_le_bytes)?),
            7 => {
                let bytes = self.take(count, field)?;
                MetaArray::Bool(bytes.iter().map(|&byte| self.bool(key, byte)).collect::<Result<_, _>>()?)
            }
            8 => {
                // No capacity from the count: it is only a claim until the strings are there.
                let mut strings = Vec::new();
                for _ in 0..count {
                    strings.push(self.string(field)?.to_vec());
                }
                MetaArray::Strings(strings)
            }
            9 if depth == MAX_NESTING => {
                return Err(CheckpointError::Nesting {
                    path: self.path.to_owned(),
                    key: key.to_owned(),
                    limit: MAX_NESTING,
                });
            }
            9 => {
                let mut arrays = Vec::new();
                for _ in 0..count {
                    arrays.push(self.values(key, depth + 1)?);
                }
                MetaArray::Arrays(arrays)
            }
            10 => MetaArray::U64(self.numbers(count, field, u64::from_le_bytes)?),
            11 => MetaArray::I64(self.numbers(count, field, i64::from_le_bytes)?),
            12 => MetaArray::F64(self.numbers(count, field, f64::from_le_bytes)?),
            found => return Err(self.value_type(key, found)),
        })
    }

    fn numbers<const N: usize, T>(
        &mut self,
        count: u64,
        field: &Field<'_>,
        from: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, CheckpointError> {
        let bytes = self.take(count.saturating_mul(N as u64), field)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect())
    }

    fn bool(&self, key: &str, byte: u8) -> Result<bool, CheckpointError> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(CheckpointError::Bool { path: self.path.to_owned(), key: key.to_owned(), found }),
        }
    }

    fn value_type(&self, key: &str, found: u32) -> CheckpointError {
        CheckpointError::ValueType { path: self.path.to_owned(), key: key.to_owned(), found }
    }

    fn tensor_info(&mut self, index: u64) -> Result<TensorInfo, CheckpointError> {
        let name = self.name(&Field::TensorName(index))?;
        let field = Field::TensorInfo(&name);
        let count = self.u32(&field)?;
        if count > MAX_DIMS {
            return Err(CheckpointError::Dimensions {
                path: self.path.to_owned(),
                tensor: name,
                limit: MAX_DIMS,
                found: count,
            });
        }
        let dims = (0..count).map(|_| self.u64(&field)).collect::<Result<Vec<_>, _>>()?;
        let ggml_type = self.u32(&field)?;
        let offset = self.u64(&field)?;
        Ok(TensorInfo { name, dims, ggml_type, offset })
    }
}
