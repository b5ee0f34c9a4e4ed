//! Beginnings that are kept in files: what comes back is what was there, or nothing, whatever became of the files meanwhile.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{common, plain};
use common::{HashModel, INFO, text};
use forge_runtime::ModelInfo;
use forge_runtime::generation::{Engine, Listener, Request, Summary};
use forge_runtime::prefix::{BLOCK, Kept, State};
use forge_runtime::sampler::Sampling;
use forge_runtime::slots::{Miss, Tier};
use forge_runtime::snapshots::{Folder, Snapshots};
use plain::Plain;

const LONGEST: usize = 4096;

fn folder(path: &Path, bytes: u64) -> Folder {
    Folder { path: path.to_owned(), bytes, model: "a model".into() }
}

fn open(path: &Path, bytes: u64, marked: bool) -> Snapshots {
    Snapshots::open(&folder(path, bytes), "its layout", LONGEST, marked).expect("opens")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// All state of a sequence, with marks at some positions.
fn kept(tokens: &[u32], marks: &[usize]) -> Kept {
    let mut state = Plain::of(tokens);
    let block = |range| {
        let mut rows = Vec::new();
        state.read_rows(range, &mut rows).expect("reads");
        Arc::new(rows)
    };
    Kept {
        tokens: tokens.to_vec(),
        from: 0,
        blocks: Kept::ranges(tokens.len(), 0).map(block).collect(),
        marks: marks.iter().map(|&at| (at, Arc::new(vec![at as u8; 5]))).collect(),
    }
}

fn save(snapshots: &mut Snapshots, tokens: &[u32], marks: &[usize]) {
    snapshots.save(kept(tokens, marks));
    snapshots.finish(soon());
}

/// What of a prompt comes back; it is a beginning of it, or this fails.
fn restored(snapshots: &mut Snapshots, prompt: &[u32]) -> Plain {
    snapshots.collect();
    let (found, mut state) = (snapshots.find(prompt), Plain::default());
    let positions = snapshots.restore(&found, &mut state).expect("restores");
    state.tokens.truncate(positions);
    assert_eq!(state.tokens, prompt[..positions]);
    state
}

/// Files of a folder, by name.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn sequence(i: u32, length: u32) -> Vec<u32> {
    (0..length).map(|at| 10_000 * i + at).collect()
}

#[test]
fn what_was_kept_is_found_by_the_next_program() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("made/when it is not there");
    let one = sequence(1, 300);
    let two = [&one[..200], &sequence(2, 100)].concat();
    let longer = [&one[..], &sequence(3, 150)].concat();
    let mut snapshots = open(&path, 1 << 20, false);
    save(&mut snapshots, &one, &[]);
    let first = snapshots.bytes();
    save(&mut snapshots, &two, &[]);
    // Three blocks are there already.
    assert!(snapshots.bytes() - first < first - 8 * 3 * BLOCK as u64 + 200, "{} {first}", snapshots.bytes());
    save(&mut snapshots, &longer, &[]);
    // Nothing new, or too little.
    save(&mut snapshots, &longer, &[]);
    save(&mut snapshots, &two[..250], &[]);
    save(&mut snapshots, &[&longer[..], &[1, 2, 3]].concat(), &[]);
    assert_eq!((snapshots.files(), files(&path).len()), (3, 3));
    assert_eq!(std::fs::metadata(&path).expect("a folder").permissions().mode() & 0o777, 0o700);
    let mut sizes = 0;
    for file in files(&path) {
        let metadata = std::fs::metadata(&file).expect("a file");
        sizes += metadata.len();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(snapshots.bytes(), sizes);
    let check = |snapshots: &mut Snapshots| {
        for (prompt, positions) in [
            (&one[..], 299),
            (&two, 299),
            (&longer, 449),
            (&[&longer[..], &[9]].concat(), 450),
            (&[&one[..100], &[9]].concat(), 100),
            (&[5, 5], 0),
            (&[], 0),
        ] {
            assert_eq!(restored(snapshots, prompt).tokens.len(), positions);
        }
    };
    check(&mut snapshots);
    drop(snapshots);
    let mut snapshots = open(&path, 1 << 20, false);
    assert_eq!((snapshots.files(), snapshots.bytes()), (3, sizes));
    check(&mut snapshots);
    assert!(snapshots.take_notices().is_empty());
}

#[test]
fn marked_sequences_go_on_from_marks_alone() {
    let place = tempfile::tempdir().expect("a folder");
    let tokens = sequence(0, 300);
    let mut snapshots = open(place.path(), 1 << 20, true);
    save(&mut snapshots, &tokens[..100], &[10, 64, 100]);
    save(&mut snapshots, &tokens, &[10, 100, 290]);
    // A mark alone.
    save(&mut snapshots, &tokens[..200], &[200]);
    assert_eq!(snapshots.files(), 3);
    for _ in 0..2 {
        for (shared, mark) in
            [(9, 0), (10, 10), (63, 10), (64, 64), (99, 64), (100, 100), (199, 100), (200, 200), (300, 290)]
        {
            let prompt = [&tokens[..shared], &[90_000, 90_001]].concat();
            let found = snapshots.find(&prompt);
            assert_eq!((found.shared, found.positions), (shared, mark));
            let state = restored(&mut snapshots, &prompt);
            assert_eq!(state.mark, (mark > 0).then(|| (mark, vec![mark as u8; 5])));
            assert_eq!(state.tokens.len(), mark);
        }
        drop(snapshots);
        snapshots = open(place.path(), 1 << 20, true);
    }
}

/// Random sequences against a plain list of all that was kept, with restarts.
#[test]
fn what_is_found_is_what_a_list_would_find() {
    let mut seed = 1_u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for _ in 0..4 {
        let place = tempfile::tempdir().expect("a folder");
        let mut snapshots = open(place.path(), u64::MAX, false);
        let mut kept = Vec::<Vec<u32>>::new();
        for turn in 0..40 {
            let mut tokens: Vec<u32> = match kept.get(below(kept.len() as u64 + 3) as usize) {
                Some(other) => other[..below(other.len() as u64 + 1) as usize].to_vec(),
                None => Vec::new(),
            };
            tokens.extend((0..1 + below(150)).map(|_| below(3) as u32));
            let shared = |other: &Vec<u32>| other.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
            let expected = kept.iter().map(shared).max().unwrap_or(0).min(tokens.len() - 1);
            let found = restored(&mut snapshots, &tokens).tokens.len();
            // What is too little for a file of its own is not there.
            assert!(found <= expected && found + 16 > expected, "{found} of {expected}");
            save(&mut snapshots, &tokens, &[]);
            kept.push(tokens);
            if turn % 10 == 9 {
                drop(snapshots);
                snapshots = open(place.path(), u64::MAX, false);
            }
        }
    }
}

/// Every byte of every file, changed; and every length that a file may have been cut to.
#[test]
fn what_is_not_what_was_written_is_refused() {
    for marked in [false, true] {
        let place = tempfile::tempdir().expect("a folder");
        let tokens = sequence(1, 150);
        let marks: &[usize] = if marked { &[70, 149] } else { &[] };
        let mut snapshots = open(place.path(), 1 << 20, marked);
        save(&mut snapshots, &tokens[..80], &marks[..marks.len().min(1)]);
        save(&mut snapshots, &tokens, marks);
        let whole: Vec<(PathBuf, Vec<u8>)> =
            files(place.path()).into_iter().map(|file| (file.clone(), std::fs::read(file).expect("reads"))).collect();
        assert_eq!(whole.len(), 2);
        let prompt = [&tokens[..], &[7]].concat();
        let all = restored(&mut snapshots, &prompt).tokens.len();
        assert!(all >= 149);
        let (mut refusals, mut came) = (0, 0);
        for (path, bytes) in &whole {
            let flipped = (0..bytes.len()).step_by(3).map(|at| {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                changed
            });
            let cut = (0..bytes.len()).step_by(17).map(|length| bytes[..length].to_vec());
            for changed in flipped.chain(cut).chain([[&bytes[..], b"x"].concat()]) {
                whole.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).expect("writes"));
                std::fs::write(path, changed).expect("writes");
                // Known from before, and found by the next program.
                for known in [true, false] {
                    if !known {
                        snapshots = open(place.path(), 1 << 20, marked);
                    }
                    let state = restored(&mut snapshots, &prompt);
                    // What the second file has of the first one's last block is read from the second.
                    came += usize::from(state.tokens.len() == all);
                    assert!(state.mark.is_none_or(|(at, mark)| mark == [at as u8; 5]));
                    refusals += snapshots.take_notices().len();
                    snapshots.finish(soon());
                }
                snapshots = {
                    whole.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).expect("writes"));
                    open(place.path(), 1 << 20, marked)
                };
            }
        }
        // How many are told of depends on when the thread that writes has removed what was refused.
        assert!(refusals > 800 && came < refusals / 8, "{refusals}, {came}");
    }
}

#[test]
fn files_of_another_model_are_not_touched_until_room_is_needed() {
    let place = tempfile::tempdir().expect("a folder");
    let tokens = sequence(1, 300);
    let mut snapshots = open(place.path(), 1 << 20, false);
    save(&mut snapshots, &tokens, &[]);
    let bytes = snapshots.bytes();
    std::fs::write(place.path().join("a.snapshot"), "none of ours").expect("writes");
    std::fs::write(place.path().join("notes.txt"), "none of ours").expect("writes");
    for (model, layout) in [("another model", "its layout"), ("a model", "another layout"), ("a modelits", " layout")] {
        let folder = Folder { model: model.into(), ..folder(place.path(), 1 << 20) };
        let mut other = Snapshots::open(&folder, layout, LONGEST, false).expect("opens");
        assert_eq!((other.files(), other.bytes()), (0, bytes));
        assert_eq!(restored(&mut other, &tokens).tokens.len(), 0);
        assert!(other.take_notices().is_empty());
    }
    assert_eq!(files(place.path()).len(), 3);
    // Room for one of both.
    let folder = Folder { model: "another model".into(), ..folder(place.path(), bytes + 100) };
    let mut other = Snapshots::open(&folder, "its layout", LONGEST, false).expect("opens");
    save(&mut other, &tokens, &[]);
    assert_eq!((other.files(), other.bytes()), (1, bytes));
    assert_eq!(restored(&mut other, &tokens).tokens.len(), 299);
    // The first finds its file gone, says nothing of it, and goes on.
    assert_eq!(restored(&mut snapshots, &tokens).tokens.len(), 0);
    assert!(snapshots.take_notices().is_empty());
    assert_eq!(files(place.path()).len(), 3);
}

#[test]
fn what_is_worth_least_goes_first() {
    let place = tempfile::tempdir().expect("a folder");
    let mut snapshots = open(place.path(), 1 << 20, false);
    save(&mut snapshots, &sequence(0, 256), &[]);
    let one = snapshots.bytes();
    drop(snapshots);
    let mut snapshots = open(place.path(), 4 * one, false);
    let found = |snapshots: &Snapshots, i: u32| snapshots.find(&sequence(i, 256)).positions;
    for i in 1..4 {
        save(&mut snapshots, &sequence(i, 256), &[]);
    }
    assert_eq!(snapshots.bytes(), 4 * one);
    for i in [0, 1, 3] {
        restored(&mut snapshots, &sequence(i, 256));
    }
    save(&mut snapshots, &sequence(4, 256), &[]);
    assert_eq!([0, 1, 2, 3, 4].map(|i| found(&snapshots, i)), [255, 255, 0, 255, 255]);
    // One on which another depends stays, whatever it is worth.
    restored(&mut snapshots, &sequence(4, 256));
    restored(&mut snapshots, &sequence(1, 256));
    restored(&mut snapshots, &sequence(3, 256));
    let longer = [&sequence(0, 256)[..], &sequence(9, 64)].concat();
    save(&mut snapshots, &longer, &[]);
    assert_eq!(snapshots.find(&longer).positions, 319);
    assert!(snapshots.bytes() <= 4 * one);
    // What has no room at all is not kept, and costs nothing that is.
    let kept = snapshots.files();
    save(&mut open(place.path(), one / 2, false), &sequence(5, 256), &[]);
    assert_eq!(kept, snapshots.files());
    // No more than there may be, from the start on.
    let begun = Instant::now();
    while !files(place.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", files(place.path()));
    }
    let mut snapshots = open(place.path(), 1 << 20, false);
    save(&mut snapshots, &sequence(5, 256), &[]);
    assert_eq!(found(&snapshots, 5), 255);
}

#[test]
fn two_programs_share_a_folder() {
    let place = tempfile::tempdir().expect("a folder");
    let mut programs = [open(place.path(), 20_000, false), open(place.path(), 20_000, false)];
    let mut came = 0;
    for turn in 0..60 {
        let program = &mut programs[turn as usize % 2];
        for i in [turn % 7, turn % 5] {
            let tokens = sequence(i, 150 + 10 * (turn % 4));
            restored(program, &tokens);
            save(program, &tokens, &[]);
            // Unless the other has made room of what the new file depends on.
            came += usize::from(restored(program, &tokens).tokens.len() == tokens.len() - 1);
        }
        assert!(program.bytes() <= 20_000);
    }
    assert!(came > 100, "{came} of 120");
    for mut program in programs {
        let notices = program.take_notices();
        assert!(notices.is_empty(), "{notices:?}");
    }
}

#[test]
fn what_was_left_over_is_removed_and_what_is_being_written_is_not() {
    let place = tempfile::tempdir().expect("a folder");
    let [left, written] = ["left", "written"].map(|name| place.path().join(format!("{name}.1-1-0.unfinished")));
    std::fs::write(&left, "half").expect("writes");
    std::fs::write(&written, "half").expect("writes");
    let file = File::open(&written).expect("opens");
    // SAFETY: the descriptor is the file's, which is open.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
    open(place.path(), 1 << 20, false);
    assert_eq!(files(place.path()), [written]);
}

/// Names the folder that [`child`] works in.
const CHILD: &str = "SNAPSHOTS_OF_CHILD";

/// Not a test: the program that is killed, or has no room for a file, when a test starts it.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let path = PathBuf::from(path);
    if let Some(bytes) = std::env::var("MOST_BYTES").ok().and_then(|bytes| bytes.parse().ok()) {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: both are calls into libc with valid arguments; the limit and the signal are this process's alone.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
        return no_room(&path);
    }
    // 64 KiB a token, so that there is something to write.
    let mut snapshots = Snapshots::open(&folder(&path, u64::MAX), "large", LONGEST, false).expect("opens");
    for i in 0..1000 {
        let tokens = sequence(i, 512);
        let block = |range: std::ops::Range<usize>| Arc::new(vec![i as u8; range.len() << 16]);
        let blocks = Kept::ranges(tokens.len(), 0).map(block).collect();
        snapshots.save(Kept { tokens, from: 0, blocks, marks: Vec::new() });
        snapshots.finish(soon());
    }
}

fn start(path: &Path, bytes: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["snapshots::child", "--exact", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(bytes) = bytes {
        command.env("MOST_BYTES", bytes.to_string());
    }
    command.spawn().expect("starts")
}

/// Killed in the midst of writing, again and again: what is found then is whole, and nothing is left over.
#[test]
fn a_program_that_is_killed_leaves_whole_files_alone() {
    struct Large(usize);
    impl State for Large {
        fn read_rows(&mut self, _: std::ops::Range<usize>, _: &mut Vec<u8>) -> forge_runtime::Result<()> {
            unreachable!("nothing is kept here")
        }

        fn write_rows(
            &mut self,
            positions: std::ops::Range<usize>,
            rows: &[u8],
            of: usize,
        ) -> forge_runtime::Result<()> {
            assert_eq!((self.0, rows.len()), (positions.start, of << 16));
            self.0 = positions.end;
            Ok(())
        }

        fn write_mark(&mut self, _: usize, _: &[u8]) -> forge_runtime::Result<()> {
            unreachable!("there are no marks")
        }
    }
    let place = tempfile::tempdir().expect("a folder");
    let mut halves = 0;
    for round in 0..4 {
        let mut child = start(place.path(), None);
        let before = files(place.path()).len();
        let begun = Instant::now();
        let is_half = |path: &PathBuf| {
            let unfinished = path.extension().is_some_and(|extension| extension == "unfinished");
            unfinished && std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 1 << 20)
        };
        // Some whole ones first, then in the midst of one.
        while files(place.path()).len() <= before + round || !files(place.path()).iter().any(is_half) {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
        }
        child.kill().expect("is killed");
        child.wait().expect("ends");
        halves += files(place.path()).iter().filter(|path| is_half(path)).count();
        let mut snapshots = Snapshots::open(&folder(place.path(), u64::MAX), "large", LONGEST, false).expect("opens");
        assert!(
            files(place.path()).iter().all(|path| path.extension().is_some_and(|extension| extension == "snapshot"))
        );
        assert_eq!(snapshots.files(), files(place.path()).len());
        for i in 0..snapshots.files() as u32 {
            let (found, mut state) = (snapshots.find(&sequence(i, 513)), Large(0));
            assert_eq!(snapshots.restore(&found, &mut state).expect("restores"), 512);
        }
        assert!(snapshots.take_notices().is_empty());
    }
    assert!(halves > 0, "it was never killed in the midst of a file");
}

/// In a process whose files may not grow: an engine that is to keep its conversations on the disk.
fn no_room(path: &Path) {
    let mut engine = with(None, 1, 0, Some(path));
    let mut notices = Vec::new();
    for turn in 0..3 {
        for i in 0..3 {
            let (answer, _) = ask(&mut engine, &conversation(i, turn));
            assert_eq!(answer, ask(&mut with(None, 1, 0, None), &conversation(i, turn)).0);
            engine.store_all(soon());
            notices.extend(engine.take_notices());
        }
    }
    println!("notices: {notices:?}");
}

#[test]
fn a_full_disk_costs_the_files_alone() {
    let place = tempfile::tempdir().expect("a folder");
    let output = start(place.path(), Some(300)).wait_with_output().expect("ends");
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}{}", String::from_utf8_lossy(&output.stderr));
    // Said once, and nothing is left.
    let notices = words.lines().find_map(|line| line.strip_prefix("notices: ")).expect("notices");
    assert!(
        notices.matches("no more snapshots are written").count() == 1 && notices.contains("File too large"),
        "{words}"
    );
    assert!(files(place.path()).is_empty(), "{:?}", files(place.path()));
}

#[derive(Default)]
struct Text(String);

impl Listener for Text {
    fn text(&mut self, text: &str) -> bool {
        self.0.push_str(text);
        true
    }
}

fn with(rewind: Option<usize>, slots: usize, memory: usize, path: Option<&Path>) -> Engine<HashModel> {
    let info = ModelInfo { slots, few_rows: 8, rewind, ..INFO };
    let mut engine = Engine::new(HashModel { context: 512, ..HashModel::with_info(info) }, text("demo"));
    engine.keep_in_memory(memory);
    if let Some(path) = path {
        engine.keep_on_disk(&folder(path, 1 << 20)).expect("opens");
    }
    engine
}

/// The prompt of a turn of a conversation.
fn conversation(i: u32, turn: u32) -> Vec<u32> {
    (0..90 + 20 * turn).map(|at| 300 * i + at).collect()
}

fn ask(engine: &mut Engine<HashModel>, prompt: &[u32]) -> (String, Summary) {
    let sampling = Sampling { temperature: 0.8, seed: prompt.len() as u64, ..Sampling::default() };
    let request = Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(9),
        sampling,
        stop: Vec::new(),
        continues_prompt: false,
        ..Request::default()
    };
    let mut text = Text::default();
    let summary = engine.generate(&request, &mut text).expect("generates");
    (text.0, summary)
}

/// Conversations in turns, and a new program before each: every text is what it would have been, and what was run is not run again.
#[test]
fn conversations_survive_restarts() {
    for (rewind, slots, memory) in
        [(None, 1, 0), (None, 2, 1 << 20), (None, 1, 2000), (Some(0), 1, 0), (Some(0), 2, 1 << 20), (Some(30), 1, 3000)]
    {
        let place = tempfile::tempdir().expect("a folder");
        let mut tiers = Vec::new();
        for turn in 0..4 {
            let mut engine = with(rewind, slots, memory, Some(place.path()));
            for i in 0..4 {
                let prompt = conversation(i, turn);
                let (answer, summary) = ask(&mut engine, &prompt);
                assert_eq!(answer, ask(&mut with(None, 1, 0, None), &prompt).0, "rewind {rewind:?}, turn {turn}");
                if turn > 0 {
                    let known = 90 + 20 * (turn as usize - 1);
                    // Up to the last mark before the end of its prompt, for a model that has such.
                    assert!(summary.reused_tokens + 9 >= known, "rewind {rewind:?}, turn {turn}: {summary:?}");
                    tiers.push(summary.tier);
                } else {
                    assert_eq!(summary.miss, Some(Miss::New));
                }
            }
            engine.store_all(soon());
            assert!(engine.bytes_on_disk() > 0 && engine.take_notices().is_empty());
        }
        assert!(tiers.iter().all(|tier| *tier == Some(Tier::Disk)), "rewind {rewind:?}: {tiers:?}");
    }
}

/// A file that is refused is a prompt that is run again, and the answer says so.
#[test]
fn refused_files_are_named_as_the_reason() {
    let place = tempfile::tempdir().expect("a folder");
    let prompt = conversation(0, 3);
    let mut first = with(None, 1, 0, Some(place.path()));
    let (expected, _) = ask(&mut first, &prompt);
    first.store_all(soon());
    let file = files(place.path()).pop().expect("a file");
    let mut bytes = std::fs::read(&file).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 4;
    std::fs::write(&file, bytes).expect("writes");
    let mut next = with(None, 1, 0, Some(place.path()));
    let (answer, summary) = ask(&mut next, &prompt);
    assert_eq!(answer, expected);
    assert_eq!((summary.tier, summary.reused_tokens), (Some(Tier::Disk), 2 * BLOCK), "what came before is right");
    assert!(matches!(summary.miss, Some(Miss::Unread { at }) if at == prompt.len() - 1), "{summary:?}");
    let notices = next.take_notices();
    assert!(notices.len() == 1 && notices[0].ends_with("is refused: damaged: state"), "{notices:?}");
    next.store_all(soon());
    assert!(!file.exists() || std::fs::read(&file).expect("reads")[last] & 4 != 4 || next.bytes_on_disk() > 0);
}

/// A long prompt is on the disk before its answer is.
#[test]
fn long_prompts_are_kept_as_they_are_run() {
    for rewind in [None, Some(0)] {
        let place = tempfile::tempdir().expect("a folder");
        let prompt = sequence(0, 400);
        let mut first = with(rewind, 1, 1 << 20, Some(place.path()));
        let id = first.take(&Request {
            prompt: prompt.clone(),
            max_tokens: Some(9),
            sampling: Sampling::default(),
            stop: Vec::new(),
            continues_prompt: false,
            ..Request::default()
        });
        id.expect("is taken");
        struct All(Text);
        impl forge_runtime::generation::Audience for All {
            fn listener(&mut self, _: u64) -> &mut dyn Listener {
                &mut self.0
            }
        }
        let mut audience = All(Text::default());
        while audience.0.0.is_empty() {
            assert!(first.turn(&mut audience).is_empty(), "it has not ended");
        }
        // Killed here: nothing is told of an end.
        let begun = Instant::now();
        while files(place.path()).iter().all(|path| path.extension().is_none_or(|extension| extension != "snapshot")) {
            assert!(begun.elapsed() < Duration::from_secs(20), "nothing was written");
        }
        std::mem::forget(first);
        let (_, summary) = ask(&mut with(rewind, 1, 0, Some(place.path())), &prompt);
        assert!(summary.tier == Some(Tier::Disk) && summary.reused_tokens + 9 >= prompt.len(), "{summary:?}");
    }
}
