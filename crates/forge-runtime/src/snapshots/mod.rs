//! Beginnings of sequences kept in files, beyond slots and memory: they outlive the program.
//!
//! A file has the tokens of a sequence from its first on and the state of a run of its positions, up to its end. Where other files have
//! the beginning, it has only what is missing of it, and depends on them. Headers alone are read at start; state is read when a prompt
//! wants it, and what is not bit for bit what was written is refused and removed. Files are written by a thread of their own; the first
//! that cannot be written is the last: nothing more is kept then, and the program goes on as if no folder had been given.
//!
//! Programs may share a folder. A file that another has removed is a miss; files of other models are counted and, when room is needed, given
//! up as if they had been used when they were written.

mod file;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::prefix::{BLOCK, Kept, State, shared};
use super::{Error, Result};
use file::{Header, Identity, Reader, Refused};
use writer::{Job, Writer, Written};

/// What names of snapshots end with.
const SUFFIX: &str = "snapshot";

/// Bytes that may wait to be written; what comes beyond is not kept.
const MOST_PENDING: usize = 1 << 30;

/// Time in which a hit loses half of its worth.
const HALF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where snapshots are kept.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The folder; it is made if it is not there.
    pub path: PathBuf,
    /// Most bytes of all files in it.
    pub bytes: u64,
    /// What a state depends on beside its tokens and what the model says of itself: weights and kernels.
    pub model: String,
}

/// Number of a file.
type Id = u64;

/// The files of a folder.
pub struct Snapshots {
    folder: PathBuf,
    budget: u64,
    identity: Identity,
    /// Most tokens of a sequence.
    longest: usize,
    /// Whether sequences can be gone on with from marks alone.
    marked: bool,
    files: BTreeMap<Id, Stored>,
    /// Files of other models.
    others: Vec<Other>,
    bytes: u64,
    next: Id,
    pending_bytes: usize,
    /// Until writing has failed.
    writer: Option<Writer>,
    notices: Vec<String>,
}

/// A file of this model.
struct Stored {
    path: PathBuf,
    header: Header,
    /// The file that has the position before its first.
    parent: Option<Id>,
    worth: Worth,
    /// Bytes of it that wait to be written, while they do.
    pending: Option<usize>,
}

impl Stored {
    fn end(&self) -> usize {
        self.header.tokens.len()
    }
}

/// A file of another model.
struct Other {
    path: PathBuf,
    bytes: u64,
    worth: Worth,
}

/// How much a file was used, by the time of its last use.
#[derive(Clone, Copy)]
struct Worth {
    hits: f64,
    used: SystemTime,
}

impl Worth {
    fn since(used: SystemTime) -> Self {
        Self { hits: 1.0, used }
    }

    fn now(self, now: SystemTime) -> f64 {
        let age = now.duration_since(self.used).unwrap_or_default();
        self.hits * (-age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }

    fn hit(&mut self, now: SystemTime) {
        *self = Self { hits: self.now(now) + 1.0, used: now };
    }
}

/// State of a sequence's beginning that is in files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Tokens in common with what is kept.
    pub shared: usize,
    /// Those of them that can be gone on from.
    pub positions: usize,
    /// Which file has the positions from which on.
    pieces: Vec<(Id, usize)>,
    /// The file that has the mark.
    mark: Option<Id>,
}

impl Snapshots {
    /// New tokens for which a file is worth being written.
    pub const SHORTEST: usize = 16;

    /// Opens a folder for a model: `layout` is what else its state depends on. Sequences have at most `longest` tokens, and those of a
    /// `marked` model can be gone on with from marks alone.
    ///
    /// # Errors
    /// [`Error::Io`] for a folder that can be neither made nor read, and if the system refuses a thread.
    pub fn open(folder: &Folder, layout: &str, longest: usize, marked: bool) -> Result<Self> {
        let io = |source| Error::Io { path: folder.path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder.path).map_err(io)?;
        let mut hasher = Sha256::new();
        for part in [&folder.model, layout] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut snapshots = Self {
            folder: folder.path.clone(),
            budget: folder.bytes,
            identity: hasher.finalize().into(),
            longest,
            marked,
            files: BTreeMap::new(),
            others: Vec::new(),
            bytes: 0,
            next: 0,
            pending_bytes: 0,
            writer: Some(Writer::start().map_err(io)?),
            notices: Vec::new(),
        };
        snapshots.adopt().map_err(io)?;
        snapshots.make_room(0, &BTreeSet::new());
        Ok(snapshots)
    }

    /// Takes over what is in the folder.
    fn adopt(&mut self) -> std::io::Result<()> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if writer::clean(&path) || path.extension().is_none_or(|extension| extension != SUFFIX) {
                continue;
            }
            match Reader::open(&path, &self.identity, self.longest) {
                Ok(reader) => found.push((path, reader.header, reader.modified)),
                Err(Refused::Other) => {
                    let Ok(metadata) = path.metadata() else { continue };
                    self.bytes += metadata.len();
                    let worth = Worth::since(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
                    self.others.push(Other { path, bytes: metadata.len(), worth });
                }
                Err(refused @ Refused::Damaged(_)) => {
                    self.notices.push(format!("snapshot {} is refused: {refused}", path.display()));
                    self.send(Job::Remove(path));
                }
                // Nothing of ours, or gone meanwhile.
                Err(Refused::Foreign | Refused::Io(_)) => {}
            }
        }
        // What a file depends on comes before it.
        found.sort_by_key(|(_, header, _)| (header.from, header.tokens.len()));
        for (path, header, modified) in found {
            let parent = self.parent_of(&header);
            if header.from > 0 && parent.is_none() {
                self.send(Job::Remove(path));
                continue;
            }
            self.bytes += header.file_bytes();
            self.insert(Stored { path, header, parent, worth: Worth::since(modified), pending: None });
        }
        Ok(())
    }

    fn insert(&mut self, stored: Stored) -> Id {
        let id = self.next;
        self.next += 1;
        self.files.insert(id, stored);
        id
    }

    /// A file that has the position before a header's first.
    fn parent_of(&self, header: &Header) -> Option<Id> {
        let before = &header.tokens[..header.from];
        let has = |stored: &Stored| {
            stored.header.from < header.from
                && stored.end() >= header.from
                && shared(&stored.header.tokens, before) == header.from
        };
        self.files.iter().find(|(_, stored)| has(stored)).map(|(&id, _)| id)
    }

    fn send(&self, job: Job) {
        if let Some(writer) = &self.writer {
            writer.send(job);
        }
    }

    /// Bytes of all files in the folder, and of those that are being written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files that can be read.
    pub fn files(&self) -> usize {
        self.files.values().filter(|stored| stored.pending.is_none()).count()
    }

    /// What the log should have, since it was last asked for.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Whether so many bytes more may wait to be written.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.writer.is_some() && self.pending_bytes.saturating_add(bytes) <= MOST_PENDING
    }

    /// The most of a prompt that is kept, but for its last token.
    pub fn find(&self, prompt: &[u32]) -> Found {
        let prompt = &prompt[..prompt.len().saturating_sub(1)];
        let files = self.begun(prompt, |stored| stored.pending.is_none());
        let (mut pieces, reached) = self.reach(&files);
        let mut found = Found {
            shared: files.iter().map(|(_, count)| *count).max().unwrap_or(0),
            positions: reached,
            ..Found::default()
        };
        if self.marked {
            let mark = |&(id, count): &(Id, usize)| {
                let marks = self.files[&id].header.marks.iter().map(|(at, _)| *at);
                Some((marks.filter(|at| *at <= count.min(reached)).max()?, id))
            };
            let best = files.iter().filter_map(mark).max();
            found.positions = best.map_or(0, |(at, _)| at);
            found.mark = best.map(|(_, id)| id);
        }
        pieces.retain(|(_, start)| *start < found.positions);
        found.pieces = pieces;
        found
    }

    /// Files that begin as a sequence does, and in how many tokens.
    fn begun(&self, tokens: &[u32], which: impl Fn(&Stored) -> bool) -> Vec<(Id, usize)> {
        let files = self.files.iter().filter(|(_, stored)| which(stored));
        let files = files.map(|(&id, stored)| (id, shared(&stored.header.tokens, tokens)));
        files.filter(|(_, count)| *count > 0).collect()
    }

    /// How far these files have the state of all positions, and which has it from where on.
    fn reach(&self, files: &[(Id, usize)]) -> (Vec<(Id, usize)>, usize) {
        let (mut pieces, mut reached) = (Vec::new(), 0);
        loop {
            let goes_on = files.iter().filter(|(id, count)| self.files[id].header.from <= reached && *count > reached);
            let Some(&(id, count)) = goes_on.max_by_key(|(_, count)| *count) else { return (pieces, reached) };
            // What is left of a block that was begun comes with the whole of it.
            let start = reached - reached % BLOCK;
            pieces.retain(|(_, before)| *before < start);
            pieces.push((id, start));
            reached = count;
        }
    }

    /// Writes what was found to a sequence. Gives the positions that it has then, fewer where files were refused.
    ///
    /// # Errors
    /// Those of the model; the sequence is good for nothing then.
    pub fn restore(&mut self, found: &Found, state: &mut dyn State) -> Result<usize> {
        let mut at = 0;
        let mut used: BTreeSet<Id> = found.pieces.iter().map(|(id, _)| *id).collect();
        used.extend(found.mark);
        let mark = match found.mark.map(|id| self.reader(id).and_then(|reader| reader.mark(found.positions))) {
            None => None,
            Some(Ok(mark)) => Some(mark),
            Some(Err(refused)) => {
                found.mark.into_iter().for_each(|id| self.refuse(id, &refused));
                return Ok(0);
            }
        };
        for (index, &(id, start)) in found.pieces.iter().enumerate() {
            let end = found.pieces.get(index + 1).map_or(found.positions, |(_, next)| *next);
            let reader = match self.reader(id) {
                Ok(reader) => reader,
                Err(refused) => {
                    self.refuse(id, &refused);
                    return Ok(if self.marked { 0 } else { at });
                }
            };
            let Header { tokens, from, .. } = &reader.header;
            for (index, range) in Kept::ranges(tokens.len(), *from).enumerate() {
                if range.end <= start || range.start >= end {
                    continue;
                }
                match reader.block(index) {
                    Ok(rows) => state.write_rows(range.start..range.end.min(end), &rows, range.len())?,
                    Err(refused) => {
                        self.refuse(id, &refused);
                        return Ok(if self.marked { 0 } else { at });
                    }
                }
                at = range.end.min(end);
            }
        }
        if let Some(mark) = mark {
            state.write_mark(found.positions, &mark)?;
        }
        let now = SystemTime::now();
        for id in used {
            if let Some(stored) = self.files.get_mut(&id) {
                stored.worth.hit(now);
                let path = stored.path.clone();
                self.send(Job::Touch(path));
            }
        }
        Ok(at)
    }

    /// Opens a file anew: another program may have written over it.
    fn reader(&self, id: Id) -> std::result::Result<Reader, Refused> {
        let stored = self.files.get(&id).ok_or(Refused::Damaged("gone"))?;
        let reader = Reader::open(&stored.path, &self.identity, self.longest)?;
        let same = |a: &Header, b: &Header| {
            a.tokens == b.tokens && a.from == b.from && a.marks.iter().map(|m| m.0).eq(b.marks.iter().map(|m| m.0))
        };
        if same(&reader.header, &stored.header) { Ok(reader) } else { Err(Refused::Damaged("tokens")) }
    }

    /// A file is of no use.
    fn refuse(&mut self, id: Id, refused: &Refused) {
        let Some(stored) = self.files.get(&id) else { return };
        // One that another program has removed is nothing to speak of.
        if !matches!(refused, Refused::Io(error) if error.kind() == std::io::ErrorKind::NotFound) {
            self.notices.push(format!("snapshot {} is refused: {refused}", stored.path.display()));
        }
        self.give_up(id);
    }

    /// Removes a file, and those that depend on it.
    fn give_up(&mut self, id: Id) {
        let Some(stored) = self.files.remove(&id) else { return };
        self.bytes -= stored.header.file_bytes();
        self.pending_bytes -= stored.pending.unwrap_or(0);
        self.send(Job::Remove(stored.path));
        let children: Vec<Id> =
            self.files.iter().filter(|(_, child)| child.parent == Some(id)).map(|(&id, _)| id).collect();
        children.into_iter().for_each(|child| self.give_up(child));
    }

    /// The first position of a sequence whose state would have to be in a file of its own, if one is worth being written: `marks` are those
    /// that there are of it.
    pub fn missing(&mut self, tokens: &[u32], marks: &[usize]) -> Option<usize> {
        self.collect();
        self.writer.as_ref()?;
        let files = self.begun(tokens, |_| true);
        let (_, reached) = self.reach(&files);
        let is_new = marks.iter().any(|mark| !self.has_mark(&files, *mark));
        let from = if reached == tokens.len() { reached } else { reached - reached % BLOCK };
        (is_new || tokens.len() - reached >= Self::SHORTEST).then_some(from)
    }

    /// Whether one of these files has a mark.
    fn has_mark(&self, files: &[(Id, usize)], mark: usize) -> bool {
        let has = |id: &Id| self.files[id].header.marks.iter().any(|(at, _)| *at == mark);
        files.iter().any(|(id, count)| *count >= mark && has(id))
    }

    /// Has state written that is in no file yet.
    pub fn save(&mut self, mut kept: Kept) {
        let marks: Vec<usize> = kept.marks.iter().map(|(at, _)| *at).collect();
        let Some(from) = self.missing(&kept.tokens, &marks).filter(|from| *from >= kept.from) else { return };
        let skipped = (from - kept.from).div_ceil(BLOCK);
        kept.blocks.drain(..skipped.min(kept.blocks.len()));
        kept.from = from;
        let files = self.begun(&kept.tokens, |_| true);
        kept.marks.retain(|(at, _)| !self.has_mark(&files, *at));
        let pending = kept.bytes();
        if !self.has_room(pending) {
            return;
        }
        let header = Header::of(&kept);
        let bytes = header.file_bytes();
        // What it depends on stays.
        let needed: BTreeSet<Id> = self.reach(&files).0.into_iter().map(|(id, _)| id).collect();
        if !self.make_room(bytes, &needed) {
            return;
        }
        let parent = self.parent_of(&header);
        let path = self.folder.join(header.name(&self.identity)).with_extension(SUFFIX);
        let encoded = header.encode(&self.identity);
        let worth = Worth::since(SystemTime::now());
        let id = self.insert(Stored { path: path.clone(), header, parent, worth, pending: Some(pending) });
        self.bytes += bytes;
        self.pending_bytes += pending;
        self.send(Job::Write { id, path, header: encoded, parts: file::parts(kept).collect() });
    }

    /// Gives up what is worth least for its bytes, until there is room for so many more. Files that are needed, those on which
    /// others depend, and those that are being written stay.
    fn make_room(&mut self, bytes: u64, needed: &BTreeSet<Id>) -> bool {
        if bytes > self.budget {
            return false;
        }
        let now = SystemTime::now();
        while self.bytes.saturating_add(bytes) > self.budget {
            let parents: BTreeSet<Id> = self.files.values().filter_map(|stored| stored.parent).collect();
            let stays = |id: &Id| needed.contains(id) || parents.contains(id);
            let free = self.files.iter().filter(|(id, stored)| stored.pending.is_none() && !stays(id));
            let worth = |worth: Worth, bytes: u64| worth.now(now) / bytes.max(1) as f64;
            let own = free.map(|(&id, stored)| (worth(stored.worth, stored.header.file_bytes()), Ok(id)));
            let others = self.others.iter().enumerate().map(|(i, other)| (worth(other.worth, other.bytes), Err(i)));
            let worst = own.chain(others).min_by(|(a, _), (b, _)| a.total_cmp(b));
            match worst {
                Some((_, Ok(id))) => self.give_up(id),
                Some((_, Err(index))) => {
                    let other = self.others.swap_remove(index);
                    self.bytes -= other.bytes;
                    self.send(Job::Remove(other.path));
                }
                None => return false,
            }
        }
        true
    }

    /// Takes note of what has been written, and can be found from now on.
    pub fn collect(&mut self) {
        let written: Vec<Written> = self.writer.iter().flat_map(Writer::written).collect();
        written.into_iter().for_each(|written| self.note(written));
    }

    fn note(&mut self, Written { id, result }: Written) {
        match result {
            Ok(()) => {
                if let Some(stored) = self.files.get_mut(&id) {
                    self.pending_bytes -= stored.pending.take().unwrap_or(0);
                }
            }
            Err(error) if self.writer.is_some() => {
                let path = self.folder.display();
                self.notices.push(format!("{path}: {error}; no more snapshots are written"));
                self.writer = None;
                let unwritten: Vec<Id> =
                    self.files.iter().filter(|(_, stored)| stored.pending.is_some()).map(|(&id, _)| id).collect();
                unwritten.into_iter().for_each(|id| self.give_up(id));
            }
            Err(_) => {}
        }
    }

    /// Waits until all is written, or until a time.
    pub fn finish(&mut self, until: Instant) {
        while self.pending_bytes > 0 || self.files.values().any(|stored| stored.pending.is_some()) {
            let Some(Ok(written)) = self.writer.as_ref().map(|writer| writer.wait(until)) else { return };
            self.note(written);
        }
    }

    /// Waits until so many bytes more may wait to be written, or until a time.
    pub fn wait_for_room(&mut self, bytes: usize, until: Instant) -> bool {
        while !self.has_room(bytes) && self.pending_bytes > 0 {
            let Some(Ok(written)) = self.writer.as_ref().map(|writer| writer.wait(until)) else { return false };
            self.note(written);
        }
        self.has_room(bytes)
    }
}
