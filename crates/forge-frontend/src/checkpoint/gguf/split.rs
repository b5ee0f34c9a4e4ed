//! Split GGUF checkpoints: `name-00001-of-00003.gguf` and its siblings.

use std::fs;
use std::path::{Path, PathBuf};

use super::GgufFile;
use super::parse::{Header, parse};
use crate::checkpoint::{CheckpointError, MappedFile};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// Maps and parses a file, and all its siblings in order if it is one of several parts.
pub(super) fn open_parts(path: &Path) -> Result<(Vec<MappedFile>, Vec<Header>), CheckpointError> {
    let file = MappedFile::open(path)?;
    let header = parse(path, file.bytes())?;
    let count = unsigned(path, &header, COUNT)?.unwrap_or(1);
    if count <= 1 {
        return Ok((vec![file], vec![header]));
    }
    // A link may stand alone, under a name of its own; the others are beside what it leads to.
    let named = |path: &Path| PartName::of(path).filter(|name| name.count == count);
    let beside_target = || named(&fs::canonicalize(path).ok()?);
    let name = named(path)
        .filter(PartName::is_whole)
        .or_else(|| beside_target().filter(PartName::is_whole))
        .or_else(|| named(path))
        .ok_or_else(|| CheckpointError::SplitName { path: path.to_owned(), count })?;
    let (mut files, mut headers) = (Vec::new(), Vec::new());
    for number in 0..count {
        let path = name.part(number);
        let file = MappedFile::open(&path)?;
        let header = parse(&path, file.bytes())?;
        for (key, expected) in [(COUNT, count), (NUMBER, number)] {
            let found = unsigned(&path, &header, key)?.ok_or_else(|| CheckpointError::KeyType {
                path: path.clone(),
                key: key.to_owned(),
                expected: "an unsigned integer",
                found: "nothing",
            })?;
            if found != expected {
                return Err(CheckpointError::SplitValue { path, key, expected, found });
            }
        }
        files.push(file);
        headers.push(header);
    }
    Ok((files, headers))
}

/// Checks that the parts hold as many tensors as the first one says.
pub(super) fn check_tensor_count(checkpoint: &GgufFile) -> Result<(), CheckpointError> {
    let found = checkpoint.tensors.len() as u64;
    match checkpoint.metadata.get(TENSORS).and_then(|value| value.as_u64()) {
        Some(expected) if checkpoint.files.len() > 1 && expected != found => {
            let path = checkpoint.files[0].path.clone();
            Err(CheckpointError::SplitValue { path, key: TENSORS, expected, found })
        }
        _ => Ok(()),
    }
}

fn unsigned(path: &Path, header: &Header, key: &str) -> Result<Option<u64>, CheckpointError> {
    let Some(value) = header.metadata.get(key) else { return Ok(None) };
    value.as_u64().map(Some).ok_or_else(|| CheckpointError::KeyType {
        path: path.to_owned(),
        key: key.to_owned(),
        expected: "an unsigned integer",
        found: value.type_name(),
    })
}

/// A part's name taken to pieces: `<stem>-NNNNN-of-<count>.gguf`.
struct PartName {
    folder: PathBuf,
    stem: String,
    count: u64,
}

impl PartName {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        five_digits(number)?;
        Some(Self { folder: path.parent()?.to_owned(), stem: stem.to_owned(), count: five_digits(count)? })
    }

    /// Whether every part is there.
    fn is_whole(&self) -> bool {
        (0..self.count).all(|number| self.part(number).exists())
    }

    /// The path of a part; numbers count from 0 here and from 1 in the name.
    fn part(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}-{:05}-of-{:05}.gguf", self.stem, number + 1, self.count))
    }
}

fn five_digits(text: &str) -> Option<u64> {
    let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
