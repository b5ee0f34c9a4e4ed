//! `weights.safetensors`: found, mapped, and refused unless it is the file that the program was generated for. It lies beside the
//! program or is part of it; either way the system maps it and nothing is copied.
//!
//! The container is safetensors: an 8-byte little-endian length `n`, `n` bytes of JSON, then the data that the JSON's
//! `data_offsets` count from. At start the file's length and the SHA-256 of its first `8 + n` bytes are compared with constants
//! of the program; [`Weights::verify`] reads all of it and compares its BLAKE3 with `weights.safetensors.b3` beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::assets::Assets;
use super::gpu::Pages;
use super::{Error, ModelInfo, Result};

/// Name of the file.
pub const FILE_NAME: &str = "weights.safetensors";

/// Longest header that is read; the safetensors library's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Where the weights are.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In the program.
    Program(Embedded),
}

/// A weights file that is part of the program, on pages of its own that the system maps with the program's others.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// The whole file, from the start of a page of at least 16 KiB.
    pub bytes: &'static [u8],
    /// Its `weights.safetensors.b3`.
    pub record: &'static str,
}

/// The [`Embedded`] weights of the program or library that this is written in, whose build script had the linker take them in.
#[macro_export]
macro_rules! embedded_weights {
    () => {{
        unsafe extern "C" {
            #[cfg_attr(target_os = "macos", link_name = "\u{1}section$start$__WEIGHTS$__weights")]
            static forge_weights: u8;
        }
        let length = env!("FORGE_WEIGHTS_BYTES").parse().expect("build.rs writes a number");
        // SAFETY: the symbol is the first byte of a file of this length, which the build script measured and the linker took in; its pages
        // are mapped as long as the program runs, and nothing writes to them.
        let bytes = unsafe { std::slice::from_raw_parts(&raw const forge_weights, length) };
        $crate::weights::Embedded { bytes, record: env!("FORGE_WEIGHTS_RECORD") }
    }};
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Program(_) => f.write_str("weights in the program"),
        }
    }
}

impl Place {
    /// For errors, which name a file.
    fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Program(_) => self.to_string().into(),
        }
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Element type as the file names it: "U8" for packed blocks, "F32", "F16", "BF16".
    pub dtype: String,
    /// Shape; `[bytes]` for packed blocks.
    pub shape: Vec<u64>,
}

/// The mapped weights file.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    map: Arc<Pages>,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Weights {
    /// Maps the file, where that has not been done, and checks that it is the one `info` was generated with.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::WrongWeights`] and [`Error::MalformedWeights`].
    pub fn open(place: &Place, info: &ModelInfo) -> Result<Self> {
        let path = &place.path();
        let map = match place {
            Place::Program(embedded) => Pages::Program(embedded.bytes),
            Place::File(path) => {
                let io = |source| Error::Io { path: path.to_owned(), source };
                let file = File::open(path).map_err(io)?;
                // SAFETY: the mapping is read-only; a program that truncates the file under us gets a fault, as with any mapped file.
                Pages::File(unsafe { Mmap::map(&file) }.map_err(io)?)
            }
        };
        let bytes = map.len() as u64;
        let wrong = |what, expected: String, found: String| Error::WrongWeights {
            path: path.to_owned(),
            what,
            expected,
            found,
        };
        if bytes != info.weights_bytes {
            return Err(wrong("length", format!("{} bytes", info.weights_bytes), format!("{bytes} bytes")));
        }
        let header = header_bytes(path, &map)?;
        let digest = hex(&Sha256::digest(&map[..header.end]));
        if digest != info.weights_header_sha256 {
            return Err(wrong("header digest", info.weights_header_sha256.to_owned(), digest));
        }
        let tensors = parse_header(path, &map[header.start..header.end], header.end as u64, bytes)?;
        Ok(Self { path: path.to_owned(), map: Arc::new(map), tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mapping, to be handed to [`Gpu::import`](super::gpu::Gpu::import).
    pub fn map(&self) -> &Arc<Pages> {
        &self.map
    }

    /// Every tensor by name, padding tensors included.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| Error::NoTensor { path: self.path.clone(), name: name.to_owned() })
    }

    /// Bytes of the largest tensor.
    pub fn largest(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.bytes).max().unwrap_or(0)
    }
}

/// Bytes of a file that are hashed before its reader is told.
const HASHED_AT_ONCE: usize = 64 << 20;

/// BLAKE3 of bytes, in lower-case hexadecimal, by as many threads as there are processors; `progress` is told the bytes hashed so far.
fn blake3(bytes: &[u8], mut progress: impl FnMut(u64)) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in bytes.chunks(HASHED_AT_ONCE) {
        hasher.update_rayon(part);
        progress(hasher.count());
    }
    hasher.finalize().to_hex().to_string()
}

/// Compares a hash of the whole file with the one recorded beside it in `<file>.b3` (the format of `b3sum`) or in the program,
/// if there is one. Gives the hash and whether there was one to compare it with.
///
/// # Errors
/// [`Error::WrongWeights`] when they differ, and [`Error::Io`].
pub fn verify(place: &Place, progress: impl FnMut(u64)) -> Result<(String, bool)> {
    let path = match place {
        Place::File(path) => path,
        Place::Program(Embedded { bytes, record }) => {
            return compare(&place.path(), blake3(bytes, progress), record);
        }
    };
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the mapping is read-only, as that of the weights.
    let found = blake3(&unsafe { Mmap::map(&file) }.map_err(io)?, progress);
    let record = record(path);
    match std::fs::read_to_string(&record) {
        Ok(text) => compare(path, found, &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((found, false)),
        Err(source) => Err(Error::Io { path: record, source }),
    }
}

/// The hash, where the record, a line of `b3sum`, has the same.
fn compare(path: &Path, found: String, record: &str) -> Result<(String, bool)> {
    let expected = record.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    if expected == found {
        Ok((found, true))
    } else {
        Err(Error::WrongWeights { path: path.to_owned(), what: "content digest", expected, found })
    }
}

/// Parts of a tensor that [`fingerprint`] looks at, and bytes of each.
const SAMPLES: (u64, u64) = (8, 256);

/// A hash that tells the weights of one program from another's of the same shapes: of the header, of some of each tensor, and of the hash
/// of the whole file where one is recorded.
///
/// # Errors
/// Those of [`Weights::open`].
pub fn fingerprint(place: &Place, info: &ModelInfo) -> Result<String> {
    let weights = Weights::open(place, info)?;
    let mut hasher = Sha256::new();
    hasher.update(info.weights_header_sha256);
    let (count, bytes) = SAMPLES;
    for tensor in weights.tensors().values() {
        let length = bytes.min(tensor.bytes);
        for sample in 0..count {
            let at = (tensor.offset + (tensor.bytes - length) / (count - 1) * sample) as usize;
            hasher.update(&weights.map()[at..at + length as usize]);
        }
    }
    match place {
        Place::File(path) => hasher.update(std::fs::read(record(path)).unwrap_or_default()),
        Place::Program(embedded) => hasher.update(embedded.record),
    }
    Ok(hex(&hasher.finalize()))
}

/// The file with the hash of another.
fn record(path: &Path) -> PathBuf {
    let mut record = path.as_os_str().to_owned();
    record.push(".b3");
    record.into()
}

/// Finds the weights: `--weights`, then `FORGE_WEIGHTS`, then in the program, then beside the executable, then in the project's
/// folder. A folder stands for the file of the usual name in it.
///
/// # Errors
/// [`Error::NoWeights`] with every path looked at. A path given by hand is taken as it is.
pub fn locate(option: Option<&Path>, assets: &Assets) -> Result<Place> {
    let given = option.map(Path::to_owned).or_else(|| std::env::var_os("FORGE_WEIGHTS").map(PathBuf::from));
    if let Some(path) = given {
        return Ok(if path.is_dir() { path.join(FILE_NAME) } else { path }.into());
    }
    if let Some(embedded) = assets.weights {
        return Ok(Place::Program(embedded));
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(FILE_NAME)));
    let candidates = beside.into_iter().chain([Path::new(assets.project).join(FILE_NAME)]);
    let mut looked = Vec::new();
    for candidate in candidates {
        if candidate.is_file() {
            return Ok(candidate.into());
        }
        looked.push(candidate.display().to_string());
    }
    Err(Error::NoWeights { looked })
}

/// The bytes of the JSON header, as a range of the file.
fn header_bytes(path: &Path, file: &[u8]) -> Result<std::ops::Range<usize>> {
    let malformed = |reason: String| Error::MalformedWeights { path: path.to_owned(), reason };
    let Some(word) = file.first_chunk::<8>() else {
        return Err(malformed(format!("{} bytes are too few for a header", file.len())));
    };
    let len = u64::from_le_bytes(*word);
    if len > MAX_HEADER_BYTES || len > file.len() as u64 - 8 {
        return Err(malformed(format!("a header of {len} bytes in a file of {}", file.len())));
    }
    Ok(8..8 + len as usize)
}

fn parse_header(path: &Path, json: &[u8], data: u64, file_bytes: u64) -> Result<BTreeMap<String, Tensor>> {
    let malformed = |reason: String| Error::MalformedWeights { path: path.to_owned(), reason };
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(json).map_err(|error| malformed(format!("header: {error}")))?;
    let mut tensors = BTreeMap::new();
    for (name, value) in header {
        if name == "__metadata__" {
            continue;
        }
        let entry: HeaderEntry =
            serde_json::from_value(value).map_err(|error| malformed(format!("tensor {name:?}: {error}")))?;
        let [begin, end] = entry.data_offsets;
        if begin > end || end > file_bytes - data {
            return Err(malformed(format!("tensor {name:?}: bytes {begin}..{end} are outside the file")));
        }
        let tensor = Tensor { offset: data + begin, bytes: end - begin, dtype: entry.dtype, shape: entry.shape };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
