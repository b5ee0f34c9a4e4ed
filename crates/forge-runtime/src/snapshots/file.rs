//! The format of a snapshot's file: a header, then state block by block, then what marks have come to. All numbers are little-endian.
//!
//! | bytes | |
//! | --- | --- |
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`] |
//! | 4 | bytes of the header, its digest included |
//! | 32 | identity of the model |
//! | 4, 4, 4 | tokens; the first position whose state is here; marks |
//! | 4 each | tokens, from the sequence's first on |
//! | 12 each | of every block of [`BLOCK`] positions, the last of what is left: bytes of its state (8), CRC-32 of them |
//! | 16 each | of every mark: its position, bytes (8), CRC-32 |
//! | 32 | SHA-256 of all before |
//! | | state of the blocks, then of the marks |

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::super::prefix::{BLOCK, Kept};

/// First bytes of every snapshot.
const MAGIC: [u8; 8] = *b"forge kv";
/// Version of the format.
const VERSION: u32 = 1;
/// Bytes before the tokens.
const FIXED: usize = 60;
/// Bytes of the header's digest.
const DIGEST: usize = 32;

/// What says whose state it is: a hash of all that state depends on beside tokens.
pub(super) type Identity = [u8; 32];

/// Bytes of state in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    bytes: u64,
    crc: u32,
}

impl Part {
    fn of(state: &[u8]) -> Self {
        Self { bytes: state.len() as u64, crc: crc32fast::hash(state) }
    }
}

/// A file's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The sequence, from its first token on.
    pub(super) tokens: Vec<u32>,
    /// The first position whose state is here, a multiple of [`BLOCK`] or the sequence's end.
    pub(super) from: usize,
    blocks: Vec<Part>,
    /// Positions, in order.
    pub(super) marks: Vec<(usize, Part)>,
}

/// Why a file is of no use.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is no snapshot.
    Foreign,
    /// It is a snapshot of another model, or of another version of this format.
    Other,
    /// It is not what was written.
    Damaged(&'static str),
    /// It cannot be read.
    Io(io::Error),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign => formatter.write_str("no snapshot"),
            Self::Other => formatter.write_str("of another model"),
            Self::Damaged(what) => write!(formatter, "damaged: {what}"),
            Self::Io(error) => error.fmt(formatter),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Header {
    /// That of a file with this state.
    pub(super) fn of(kept: &Kept) -> Self {
        Self {
            tokens: kept.tokens.clone(),
            from: kept.from,
            blocks: kept.blocks.iter().map(|block| Part::of(block)).collect(),
            marks: kept.marks.iter().map(|(at, mark)| (*at, Part::of(mark))).collect(),
        }
    }

    /// Bytes of the header.
    fn header_bytes(&self) -> u64 {
        (FIXED + 4 * self.tokens.len() + 12 * self.blocks.len() + 16 * self.marks.len() + DIGEST) as u64
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        let parts = self.blocks.iter().chain(self.marks.iter().map(|(_, mark)| mark));
        parts.fold(self.header_bytes(), |sum, part| sum.saturating_add(part.bytes))
    }

    /// A name that only the same tokens, positions and marks of the same model have.
    pub(super) fn name(&self, identity: &Identity) -> String {
        let mut hasher = Sha256::new();
        hasher.update(identity);
        let marks = self.marks.iter().map(|(at, _)| *at as u32);
        let words = [self.from as u32, self.tokens.len() as u32].into_iter();
        words.chain(self.tokens.iter().copied()).chain(marks).for_each(|word| hasher.update(word.to_le_bytes()));
        hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn encode(&self, identity: &Identity) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_bytes() as usize);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.header_bytes() as u32).to_le_bytes());
        bytes.extend(identity);
        for count in [self.tokens.len(), self.from, self.marks.len()] {
            bytes.extend((count as u32).to_le_bytes());
        }
        self.tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
        let part = |bytes: &mut Vec<u8>, part: &Part| {
            bytes.extend(part.bytes.to_le_bytes());
            bytes.extend(part.crc.to_le_bytes());
        };
        self.blocks.iter().for_each(|block| part(&mut bytes, block));
        for (at, mark) in &self.marks {
            bytes.extend((*at as u32).to_le_bytes());
            part(&mut bytes, mark);
        }
        let digest = Sha256::digest(&bytes);
        bytes.extend(digest);
        bytes
    }

    /// Reads the header of a file of `length` bytes; sequences have at most `longest` tokens.
    fn read(file: &mut impl Read, length: u64, identity: &Identity, longest: usize) -> Result<Self, Refused> {
        let mut bytes = vec![0; FIXED];
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Refused::Foreign),
            other => other?,
        }
        let word = |bytes: &[u8], at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let long = |bytes: &[u8], at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        if bytes[..8] != MAGIC {
            return Err(Refused::Foreign);
        }
        if word(&bytes, 8) != VERSION || bytes[16..48] != *identity {
            return Err(Refused::Other);
        }
        let [all, count, from, marks] = [12, 48, 52, 56].map(|at| word(&bytes, at) as usize);
        let blocks = count.saturating_sub(from).div_ceil(BLOCK);
        let expected = FIXED + 4 * count.min(longest) + 12 * blocks.min(longest) + 16 * marks.min(longest) + DIGEST;
        let whole = from <= count && (from % BLOCK == 0 || from == count);
        if !whole || count > longest || count == 0 || marks > count || all != expected || all as u64 > length {
            return Err(Refused::Damaged("sizes"));
        }
        bytes.resize(all, 0);
        file.read_exact(&mut bytes[FIXED..])?;
        let (signed, digest) = bytes.split_at(all - DIGEST);
        if Sha256::digest(signed)[..] != *digest {
            return Err(Refused::Damaged("header"));
        }
        let part = |at: usize| Part { bytes: long(signed, at), crc: word(signed, at + 8) };
        let (at_blocks, at_marks) = (FIXED + 4 * count, FIXED + 4 * count + 12 * blocks);
        let header = Self {
            tokens: (0..count).map(|i| word(signed, FIXED + 4 * i)).collect(),
            from,
            blocks: (0..blocks).map(|i| part(at_blocks + 12 * i)).collect(),
            marks: (0..marks)
                .map(|i| (word(signed, at_marks + 16 * i) as usize, part(at_marks + 16 * i + 4)))
                .collect(),
        };
        let in_order = header.marks.is_sorted_by(|(a, _), (b, _)| a < b);
        if !in_order || header.marks.iter().any(|(at, _)| *at > count) || header.file_bytes() != length {
            return Err(Refused::Damaged("length"));
        }
        Ok(header)
    }
}

/// A snapshot that is read.
pub(super) struct Reader {
    file: File,
    pub(super) header: Header,
    pub(super) modified: std::time::SystemTime,
}

impl Reader {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path, identity: &Identity, longest: usize) -> Result<Self, Refused> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata.modified().unwrap_or(std::time::UNIX_EPOCH);
        let header = Header::read(&mut file, metadata.len(), identity, longest)?;
        Ok(Self { file, header, modified })
    }

    /// State of a block.
    pub(super) fn block(&self, index: usize) -> Result<Vec<u8>, Refused> {
        let before: u64 = self.header.blocks[..index].iter().map(|part| part.bytes).sum();
        self.part(before, self.header.blocks[index], "state")
    }

    /// What a mark has come to.
    pub(super) fn mark(&self, position: usize) -> Result<Vec<u8>, Refused> {
        let mut before: u64 = self.header.blocks.iter().map(|part| part.bytes).sum();
        for (at, part) in &self.header.marks {
            if *at == position {
                return self.part(before, *part, "mark");
            }
            before += part.bytes;
        }
        Err(Refused::Damaged("mark"))
    }

    fn part(&self, before: u64, part: Part, what: &'static str) -> Result<Vec<u8>, Refused> {
        // The header says no more than the file's length.
        let mut bytes = vec![0; part.bytes as usize];
        self.file.read_exact_at(&mut bytes, self.header.header_bytes() + before)?;
        if crc32fast::hash(&bytes) == part.crc { Ok(bytes) } else { Err(Refused::Damaged(what)) }
    }
}

/// The parts of a file's state, in order.
pub(super) fn parts(kept: Kept) -> impl Iterator<Item = Arc<Vec<u8>>> {
    kept.blocks.into_iter().chain(kept.marks.into_iter().map(|(_, mark)| mark))
}
