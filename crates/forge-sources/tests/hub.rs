//! Fetching from a hub: what is asked for, what is put where, and everything that can go wrong.

mod mock;

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forge_sources::{Environment, Located, Patience, Source, SourceError, Watcher, held, locate};
use mock::{COMMIT, Fault, Hub, digest};
use tempfile::TempDir;

/// Watches, and stops after some bytes.
#[derive(Default)]
struct Eye {
    stop_after: Option<u64>,
    seen: Cell<u64>,
    log: RefCell<Vec<String>>,
}

impl Watcher for Eye {
    fn begin(&self, file: &str, done: u64, total: u64) {
        self.log.borrow_mut().push(format!("{file} {done}/{total}"));
    }

    fn advance(&self, bytes: u64) {
        self.seen.set(self.seen.get() + bytes);
    }

    fn restart(&self) {
        self.log.borrow_mut().push("again".to_owned());
    }

    fn end(&self) {
        self.log.borrow_mut().push("end".to_owned());
    }

    fn cancelled(&self) -> bool {
        self.stop_after.is_some_and(|bytes| self.seen.get() >= bytes)
    }
}

/// A hub and a cache.
struct Place {
    hub: Hub,
    folder: TempDir,
    environment: Environment,
}

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let hub = Hub::new(files);
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap().to_owned();
        let endpoint = hub.endpoint.clone();
        let mut environment = Environment::new(|name| match name {
            "HOME" => Some(home.clone()),
            "HF_ENDPOINT" => Some(endpoint.clone()),
            _ => None,
        });
        environment.ollama.truncate(1);
        environment.patience = Patience {
            stall: Duration::from_millis(400),
            tries: 3,
            pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(50),
        };
        Self { hub, folder, environment }
    }

    fn find(&self, name: &str) -> Result<Located, SourceError> {
        self.watch(name, &Eye::default())
    }

    fn watch(&self, name: &str, eye: &Eye) -> Result<Located, SourceError> {
        locate(&Source::parse(name.as_ref())?, &self.environment, eye)
    }

    fn offline(&self) -> Environment {
        Environment { offline: true, ..self.environment.clone() }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join(".cache/huggingface/hub/models--owner--name")
    }

    fn blobs(&self) -> Vec<String> {
        names(&self.repository().join("blobs"))
    }

    /// The file in which a blob arrives.
    fn incomplete(&self, bytes: &[u8]) -> PathBuf {
        let blobs = self.repository().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        blobs.join(format!("{}.incomplete", digest(bytes)))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bytes of no pattern.
fn bytes(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Bytes of a file that arrives in several pieces.
const LONG: usize = 700_000;

#[test]
fn a_file_chosen_by_its_quantisation_is_fetched_once() {
    let (small, large) = (bytes(5000, 1), bytes(LONG, 2));
    let place = Place::new(&[("m-Q4_K_M.gguf", &small), ("sub dir/m-Q8_0.gguf", &large), ("README.md", b"text")]);
    let place =
        Place { environment: Environment { token: Some("secret".to_owned()), ..place.environment.clone() }, ..place };
    let eye = Eye::default();
    place.hub.replace("sub%20dir/m-Q8_0.gguf", &large);
    place.hub.list(&listing(&[("m-Q4_K_M.gguf", &small), ("sub dir/m-Q8_0.gguf", &large)]));
    let found = place.watch("hf:owner/name:q8_0", &eye).unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), large);
    assert_eq!(found.path, place.repository().join("snapshots").join(COMMIT).join("sub dir/m-Q8_0.gguf"));
    assert_eq!(found.name.as_deref(), Some("m-Q8_0"));
    assert_eq!(found.source, Some(format!("hf:owner/name@{COMMIT}:sub dir/m-Q8_0.gguf")));
    assert_eq!(*eye.log.borrow(), [format!("sub dir/m-Q8_0.gguf 0/{LONG}"), "end".to_owned()]);
    assert_eq!(eye.seen.get(), LONG as u64);
    // As the hub's own library lays it out.
    assert_eq!(place.blobs(), [digest(&large)]);
    let link = fs::read_link(&found.path).unwrap();
    assert_eq!(link, Path::new("../../../blobs").join(digest(&large)));
    assert_eq!(fs::read_to_string(place.repository().join("refs/main")).unwrap(), COMMIT);
    // The token is for the hub alone.
    let requests = place.hub.requests();
    let tokens: Vec<(bool, bool)> = requests.iter().map(|request| (request.large, request.token.is_some())).collect();
    assert_eq!(tokens, [(false, true), (false, true), (true, false)], "{requests:?}");

    assert_eq!(place.find("hf:owner/name:Q8_0").unwrap(), found);
    let paths: Vec<String> = place.hub.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(
        paths,
        ["/api/models/owner/name/revision/main?blobs=true"],
        "nothing but the listing is asked for again"
    );
    let copy = locate(&Source::parse("hf:owner/name:Q8_0".as_ref()).unwrap(), &place.offline(), &eye).unwrap();
    assert_eq!(copy, found);
    let pinned = found.source.as_deref().unwrap();
    let again = locate(&Source::parse(pinned.as_ref()).unwrap(), &place.offline(), &eye).unwrap();
    assert_eq!(again, found);
    assert_eq!(place.hub.requests(), []);
}

/// What the hub says of some large files.
fn listing(files: &[(&str, &[u8])]) -> String {
    let sibling = |(path, bytes): &(&str, &[u8])| {
        let size = bytes.len();
        format!(
            r#"{{"rfilename": "{path}", "size": {size}, "lfs": {{"sha256": "{}", "size": {size}}}}}"#,
            digest(bytes)
        )
    };
    let siblings: Vec<String> = files.iter().map(sibling).collect();
    format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, siblings.join(", "))
}

#[test]
fn of_a_folder_only_what_is_read_is_fetched() {
    let (one, two) = (bytes(3000, 1), bytes(4000, 2));
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 11] = [
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", &one),
        ("model-2.safetensors", &two),
        ("model-3-of-another-set.safetensors", &one),
        ("consolidated.safetensors", &two),
        ("onnx/model.safetensors", &two),
        ("tokenizer.json", b"{\"t\": 1}"),
        ("additional_chat_templates/tool.jinja", b"{{ messages }}"),
        ("README.md", b"text"),
        ("q.Q4_0.gguf", &two),
    ];
    let place = Place::new(&files);
    let found = place.find("hf:owner/name@next/one").unwrap();
    assert_eq!(found.path, place.repository().join("snapshots").join(COMMIT));
    assert_eq!(found.name.as_deref(), Some("name"));
    let expected = [
        "additional_chat_templates",
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&found.path), expected);
    assert_eq!(fs::read(found.path.join("model-2.safetensors")).unwrap(), two);
    assert_eq!(fs::read_to_string(place.repository().join("refs/next/one")).unwrap(), COMMIT);
    // The folder of the cache stands for its copy of main.
    assert!(matches!(place.find(place.repository().to_str().unwrap()), Err(SourceError::Offline { .. })));
    place.find("hf:owner/name").unwrap();
    assert_eq!(place.find(place.repository().to_str().unwrap()).unwrap(), place.find("hf:owner/name").unwrap());
    let all: Vec<(String, u64)> = held(&place.environment).into_iter().map(|held| (held.name, held.bytes)).collect();
    assert_eq!(all, [("hf:owner/name".to_owned(), 7000), ("hf:owner/name@next/one".to_owned(), 7000)]);

    fs::remove_file(found.path.join("model-2.safetensors")).unwrap();
    let error =
        locate(&Source::parse("hf:owner/name".as_ref()).unwrap(), &place.offline(), &Eye::default()).unwrap_err();
    assert!(matches!(&error, SourceError::Offline { what, .. } if what == "model-2.safetensors is missing"), "{error}");
    place.hub.replace("model.safetensors.index.json", br#"{"weight_map": {"a": "model-9.safetensors"}}"#);
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(&error, SourceError::NotFound { what, .. } if what.contains("model-9.safetensors")), "{error}");
}

#[test]
fn without_index_every_weights_file_is_fetched() {
    let (one, two) = (bytes(3000, 1), bytes(4000, 2));
    let place = Place::new(&[
        ("config.json", b"{}"),
        ("model-00001-of-00002.safetensors", &one),
        ("model-00002-of-00002.safetensors", &two),
        ("adapter_model.safetensors", &two),
    ]);
    let found = place.find("hf:owner/name").unwrap();
    let expected = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(names(&found.path), expected);
}

#[test]
fn parts_are_fetched_together() {
    let (one, two) = (bytes(3000, 1), bytes(4000, 2));
    let place = Place::new(&[
        ("m-Q8_0-00001-of-00002.gguf", &one),
        ("m-Q8_0-00002-of-00002.gguf", &two),
        ("mmproj-F16.gguf", &two),
    ]);
    let found = place.find("hf:owner/name").unwrap();
    assert!(found.path.ends_with("m-Q8_0-00001-of-00002.gguf"));
    assert_eq!(found.name.as_deref(), Some("m-Q8_0"));
    assert_eq!(names(found.path.parent().unwrap()).len(), 2);
}

#[test]
fn several_checkpoints_want_a_choice() {
    let (one, two) = (bytes(3000, 1), bytes(4000, 2));
    let place = Place::new(&[("m-Q8_0.gguf", &two), ("m-Q4_0.gguf", &one)]);
    let error = place.find("hf:owner/name").unwrap_err();
    assert_eq!(error.to_string(), "hf:owner/name: 2 checkpoints; name one, as in hf:owner/name:Q4_0");
    let SourceError::Several { choices, .. } = error else { panic!("{error}") };
    let bytes: Vec<(&str, u64)> = choices.iter().map(|choice| (choice.wanted.as_str(), choice.bytes)).collect();
    assert_eq!(bytes, [("Q4_0", 3000), ("Q8_0", 4000)]);
    let error = place.find("hf:owner/name:Q2_K").unwrap_err();
    assert_eq!(error.to_string(), "hf:owner/name: there is no Q2_K; there is Q4_0, Q8_0");
    let error = Place::new(&[("README.md", b"text")]).find("hf:owner/name").unwrap_err();
    assert!(matches!(error, SourceError::NoWeights { .. }), "{error}");
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let file = bytes(LONG, 3);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::Cut(300_000), Fault::Cut(100_000), Fault::Cut(0)]);
    let eye = Eye::default();
    let found = place.watch("hf:owner/name", &eye).unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), file);
    let range = |from: usize| Some(format!("bytes={from}-"));
    let ranges = place.hub.ranges("m.gguf");
    let large: Vec<_> = ranges.into_iter().collect();
    assert_eq!(large.first(), Some(&None), "{large:?}");
    assert!(large.contains(&range(300_000)) && large.contains(&range(400_000)), "{large:?}");
    assert_eq!((place.blobs(), eye.seen.get()), (vec![digest(&file)], LONG as u64));
}

#[test]
fn a_stopped_run_leaves_what_the_next_takes_up_and_nobody_else_sees() {
    let file = bytes(LONG, 4);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::Stall(400_000)]);
    let error = place.watch("hf:owner/name", &Eye { stop_after: Some(1), ..Eye::default() }).unwrap_err();
    assert!(matches!(error, SourceError::Cancelled), "{error}");
    assert_eq!(place.blobs(), [format!("{}.incomplete", digest(&file))]);
    assert_eq!(names(&place.repository()), ["blobs"], "neither a name nor a link");
    let there = fs::metadata(place.incomplete(&file)).unwrap().len();
    assert!(there > 0 && there < LONG as u64);
    place.hub.requests();
    let eye = Eye::default();
    place.watch("hf:owner/name", &eye).unwrap();
    assert_eq!(place.hub.ranges("m.gguf").last(), Some(&Some(format!("bytes={there}-"))));
    assert_eq!(eye.seen.get(), LONG as u64 - there);
    assert_eq!(place.blobs(), [digest(&file)]);
}

#[test]
fn a_silent_connection_is_given_up() {
    let file = bytes(LONG, 5);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::Stall(300_000)]);
    let found = place.find("hf:owner/name").unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), file);
}

#[test]
fn a_connection_that_always_breaks_is_an_error_that_can_be_taken_up() {
    let file = bytes(LONG, 6);
    let place = Place::new(&[("m.gguf", &file)]);
    let cuts = [Fault::Cut(300_000), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0)];
    place.hub.faults("m.gguf", &cuts);
    let error = place.find("hf:owner/name").unwrap_err();
    let SourceError::Broken { received, bytes, .. } = &error else { panic!("{error}") };
    assert_eq!((*received, *bytes), (300_000, LONG as u64));
    assert!(error.to_string().contains("broke off at 300000 of 700000 bytes"), "{error}");
    place.hub.faults("m.gguf", &[]);
    assert_eq!(fs::read(place.find("hf:owner/name").unwrap().path).unwrap(), file);
}

#[test]
fn servers_without_ranges_begin_again() {
    let file = bytes(LONG, 7);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::Cut(300_000), Fault::NoRanges]);
    let eye = Eye::default();
    let found = place.watch("hf:owner/name", &eye).unwrap();
    assert_eq!(fs::read(&found.path).unwrap(), file);
    assert!(eye.log.borrow().contains(&"again".to_owned()));

    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::Cut(300_000), Fault::OtherRange]);
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(error, SourceError::Answer { .. }), "{error}");
}

#[test]
fn what_an_earlier_run_left_is_looked_at() {
    let file = bytes(LONG, 8);
    // All of it, which only lacks its name.
    let place = Place::new(&[("m.gguf", &file)]);
    fs::write(place.incomplete(&file), &file).unwrap();
    place.find("hf:owner/name").unwrap();
    assert_eq!(place.hub.requests().len(), 1, "only the listing");
    // More than there should be.
    let place = Place::new(&[("m.gguf", &file)]);
    fs::write(place.incomplete(&file), [file.as_slice(), b"more"].concat()).unwrap();
    assert_eq!(fs::read(place.find("hf:owner/name").unwrap().path).unwrap(), file);
    // Something else.
    let place = Place::new(&[("m.gguf", &file)]);
    fs::write(place.incomplete(&file), bytes(1000, 99)).unwrap();
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(error, SourceError::Hash { .. }), "{error}");
    assert_eq!(fs::read(place.find("hf:owner/name").unwrap().path).unwrap(), file);
    // A blob that another program left at half its size.
    let place = Place::new(&[("m.gguf", &file)]);
    fs::write(place.incomplete(&file).with_extension(""), &file[..9]).unwrap();
    assert_eq!(fs::read(place.find("hf:owner/name").unwrap().path).unwrap(), file);
}

#[test]
fn damage_is_found_and_nothing_of_it_is_kept() {
    for (count, kind) in [(LONG, "SHA-256"), (500, "Git SHA-1")] {
        let file = bytes(count, 9);
        let place = Place::new(&[("m.gguf", &file)]);
        place.hub.faults("m.gguf", &[Fault::Damaged]);
        let error = place.find("hf:owner/name").unwrap_err();
        let SourceError::Hash { kind: found, .. } = &error else { panic!("{error}") };
        assert_eq!(*found, kind);
        assert_eq!(place.blobs(), [""; 0]);
        assert_eq!(names(&place.repository()), ["blobs"]);
        assert_eq!(fs::read(place.find("hf:owner/name").unwrap().path).unwrap(), file);
    }
    let file = bytes(LONG, 9);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::TooLong]);
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(&error, SourceError::Answer { reason, .. } if reason.contains("longer")), "{error}");
}

#[test]
fn a_new_content_under_a_name_replaces_its_link() {
    let (old, new) = (bytes(3000, 1), bytes(3000, 2));
    let place = Place::new(&[("m.gguf", &old)]);
    place.find("hf:owner/name").unwrap();
    place.hub.replace("m.gguf", &new);
    assert_eq!(fs::read(place.find("hf:owner/name").unwrap().path).unwrap(), new);
}

#[test]
fn the_hub_says_no() {
    let file = bytes(LONG, 10);
    let refused = |status: u16, code: &'static str, token: Option<&str>| {
        let mut place = Place::new(&[("m.gguf", &file)]);
        place.environment.token = token.map(str::to_owned);
        place.hub.refuse(status, code);
        place.find("hf:owner/name").unwrap_err()
    };
    let error = refused(401, "RepoNotFound", None);
    assert!(matches!(error, SourceError::Restricted { .. }), "{error}");
    assert!(error.to_string().contains("no such repository, or a private one"), "{error}");
    for status in [401, 403] {
        let error = refused(status, "GatedRepo", None).to_string();
        assert!(error.contains("accept its terms at http://127.0.0.1:") && error.contains("set HF_TOKEN"), "{error}");
        let error = refused(status, "GatedRepo", Some("t")).to_string();
        assert!(error.contains("the account of your token may not read it"), "{error}");
    }
    let error = refused(404, "RepoNotFound", Some("t"));
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
    for (status, part) in [(429, "429 (too many requests)"), (500, "answers 500"), (418, "answers 418")] {
        let error = refused(status, "", None);
        assert!(matches!(error, SourceError::Status { .. }) && error.to_string().contains(part), "{error}");
    }
    let place = Place::new(&[("m.gguf", &file)]);
    let error = place.find("hf:owner/name@gone").unwrap_err();
    assert!(error.to_string().ends_with("/owner/name has no revision gone"), "{error}");
    let error = place.find("hf:owner/another").unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");

    // Of a repository with terms everyone may see the list, but not the files.
    place.hub.faults("m.gguf", &[Fault::Status(403, "x-error-code: GatedRepo\r\n")]);
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(error, SourceError::Restricted { .. }), "{error}");
    place.hub.faults("m.gguf", &[Fault::Status(404, "")]);
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(&error, SourceError::NotFound { what, .. } if what.ends_with("has no m.gguf")), "{error}");
}

#[test]
fn a_busy_hub_is_asked_again() {
    let file = bytes(LONG, 11);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::Status(429, "retry-after: 0\r\n"), Fault::Status(503, "")]);
    assert_eq!(fs::read(place.find("hf:owner/name").unwrap().path).unwrap(), file);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[const { Fault::Status(429, "retry-after: 3600\r\n") }; 5]);
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(error, SourceError::Status { status: 429, .. }), "{error}");
}

#[test]
fn no_room() {
    let file = bytes(LONG, 12);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.size("m.gguf", 1 << 60);
    let error = place.find("hf:owner/name").unwrap_err();
    let SourceError::DiskFull { needed, free, .. } = &error else { panic!("{error}") };
    assert!(*needed == 1 << 60 && free < needed);
    assert!(place.hub.ranges("m.gguf").is_empty(), "nothing of it is asked for");
    // A disk that fills up on the way, where the system has one.
    if Path::new("/dev/full").exists() {
        let place = Place::new(&[("m.gguf", &file)]);
        symlink("/dev/full", place.incomplete(&file)).unwrap();
        let error = place.find("hf:owner/name").unwrap_err();
        assert!(matches!(error, SourceError::DiskFull { .. }), "{error}");
    }
    // A cache that is no folder.
    let place = Place::new(&[("m.gguf", &file)]);
    fs::write(place.folder.path().join(".cache"), "").unwrap();
    let error = place.find("hf:owner/name").unwrap_err();
    assert!(matches!(error, SourceError::Io { .. }), "{error}");
}

#[test]
fn without_network_the_copy_is_taken() {
    let file = bytes(LONG, 13);
    let mut place = Place::new(&[("m.gguf", &file)]);
    let error =
        locate(&Source::parse("hf:owner/name".as_ref()).unwrap(), &place.offline(), &Eye::default()).unwrap_err();
    assert!(matches!(&error, SourceError::Offline { what, .. } if what == "there is no copy"), "{error}");
    assert_eq!(place.hub.requests(), [], "offline asks nobody");
    let found = place.find("hf:owner/name").unwrap();
    // Nobody listens on port 1.
    place.environment.endpoint = "http://127.0.0.1:1".to_owned();
    let copy = place.find("hf:owner/name").unwrap();
    assert_eq!(copy.path, found.path);
    assert!(copy.stale.unwrap().starts_with("hf:owner/name: http://127.0.0.1:1 cannot be reached ("));
    let error = place.find("hf:owner/other").unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
}

#[test]
fn answers_that_make_no_sense() {
    let place = Place::new(&[]);
    for text in ["", "<html>", r#"{"sha": "main"}"#, &listing(&[("../../x", b"a")])] {
        place.hub.list(text);
        let error = place.find("hf:owner/name").unwrap_err();
        assert!(matches!(error, SourceError::Answer { .. }), "{text}: {error}");
    }
}

#[test]
fn two_at_once_fetch_a_file_once() {
    let file = bytes(LONG, 14);
    let place = Place::new(&[("m.gguf", &file)]);
    place.hub.faults("m.gguf", &[Fault::Cut(200_000)]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let found =
                    locate(&Source::parse("hf:owner/name".as_ref()).unwrap(), &place.environment, &Eye::default());
                assert_eq!(fs::read(found.unwrap().path).unwrap(), file);
            });
        }
    });
    let requests = place.hub.requests().into_iter().filter(|request| request.large).count();
    assert_eq!(requests, 2, "one that broke and one for the rest");
}
