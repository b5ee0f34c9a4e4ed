//! Repositories of the Hugging Face hub: their names, what is taken of them, and where it is put.
//!
//! The cache is the hub's own (`models--OWNER--NAME` with `blobs`, `refs` and `snapshots`), so that what other programs
//! fetched is found and what is fetched here is found by them. Of the crate `hf-hub` nothing is used: at 0.5 it puts a file in
//! place before anyone could look at it, and appends at the wrong place when a resumed transfer breaks; at 1.0 it does not resume
//! over HTTP, does not compare digests, and brings 160 crates.

mod cache;
mod listing;
mod partial;
mod transfer;

use std::path::{Path, PathBuf};

use crate::gguf::{self, Set};
use crate::{Environment, Located, SourceError, Watcher};
use cache::Repository;
use listing::{Entry, Listing};
use transfer::Client;

/// The branch that is meant where none is said.
const MAIN: &str = "main";
const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
const SAFETENSORS: &str = ".safetensors";
/// What a folder of safetensors may have beside its weights that a checkpoint is read from.
const SMALL_FILES: [&str; 9] = [
    CONFIG,
    INDEX,
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
];
/// Another one, and folders of further chat templates.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE_FOLDERS: [&str; 2] = ["chat_templates/", "additional_chat_templates/"];

/// `OWNER/NAME[@REVISION][:FILE]`: a model repository of the hub, and a checkpoint in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `OWNER/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: Option<String>,
    /// A GGUF file, by its path or its quantisation.
    pub wanted: Option<String>,
}

impl HubName {
    /// Takes a name to pieces, without its `hf:`.
    ///
    /// # Errors
    /// [`SourceError::Name`].
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let error = || SourceError::Name {
            name: format!("hf:{text}"),
            expected: "hf:OWNER/NAME[@REVISION][:FILE or :QUANTISATION]",
        };
        let (rest, wanted) = match text.split_once(':') {
            Some((rest, wanted)) => (rest, Some(wanted)),
            None => (text, None),
        };
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (rest, None),
        };
        let mut parts = repository.split('/');
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.contains("--")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let two = parts.next().is_some_and(plain) && parts.next().is_some_and(plain) && parts.next().is_none();
        let inside = |path: &str| path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        let revision_is_one = revision.is_none_or(inside);
        if !two || !revision_is_one || !wanted.is_none_or(inside) {
            return Err(error());
        }
        Ok(Self {
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
            wanted: wanted.map(str::to_owned),
        })
    }

    /// The cache and the repository whose folder in it `path` is.
    pub(crate) fn of_cache_folder(path: &Path) -> Option<(PathBuf, Self)> {
        let path = path.canonicalize().ok()?;
        let repository = cache::repository_of(path.file_name()?.to_str()?)?;
        let cache = path.parent()?.to_owned();
        let is_one = path.join("snapshots").is_dir() && path.join("blobs").is_dir();
        is_one.then_some((cache, Self { repository, revision: None, wanted: None }))
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// As a user writes it, without what is behind the colon.
    fn repository_name(&self) -> String {
        let revision = self.revision.as_ref().map(|revision| format!("@{revision}")).unwrap_or_default();
        format!("hf:{}{revision}", self.repository)
    }

    /// What the model is called.
    fn model(&self) -> &str {
        gguf::file_name(&self.repository)
    }
}

/// What of a repository makes a checkpoint.
enum Checkpoint {
    Gguf(Set),
    Folder,
}

/// Finds a checkpoint, in the cache or on the hub.
pub(crate) fn locate(name: &HubName, environment: &Environment, watcher: &dyn Watcher) -> Result<Located, SourceError> {
    if environment.offline {
        return locate_copy(name, &environment.cache);
    }
    let client = Client::new(environment, watcher, name);
    match client.list() {
        Ok(listing) => fetch(name, &listing, &client, &environment.cache),
        Err(error @ SourceError::Unreachable { .. }) => {
            let copy = locate_copy(name, &environment.cache);
            copy.map(|copy| Located { stale: Some(error.to_string()), ..copy }).map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

/// Finds a checkpoint in the cache.
pub(crate) fn locate_copy(name: &HubName, cache: &Path) -> Result<Located, SourceError> {
    let text = name.repository_name();
    let missing =
        |what: &str| SourceError::Offline { name: text.clone(), what: what.to_owned(), cache: cache.to_owned() };
    let repository = Repository::new(cache, &name.repository);
    let commit = repository.commit(name.revision()).ok_or_else(|| missing("there is no copy"))?;
    let files = repository.files(&commit);
    let checkpoint = checkpoint(&text, name.wanted.as_deref(), &files)?;
    let snapshot = repository.snapshot(&commit);
    if let Checkpoint::Folder = checkpoint {
        for path in shards(&snapshot.join(INDEX))? {
            if !snapshot.join(&path).is_file() {
                return Err(missing(&format!("{path} is missing")));
            }
        }
    }
    Ok(located(name, &commit, &snapshot, &checkpoint))
}

/// Fetches what the cache lacks of a checkpoint.
fn fetch(name: &HubName, listing: &Listing, client: &Client<'_>, cache: &Path) -> Result<Located, SourceError> {
    let files: Vec<gguf::Listed> = listing.entries.iter().map(|entry| entry.file.clone()).collect();
    let checkpoint = checkpoint(&name.repository_name(), name.wanted.as_deref(), &files)?;
    let repository = Repository::new(cache, &name.repository);
    let get = |entry: &Entry| client.fetch(&repository, &listing.commit, entry);
    match &checkpoint {
        Checkpoint::Gguf(set) => {
            for entry in listing.entries.iter().filter(|entry| set.parts.contains(&entry.file.path)) {
                get(entry)?;
            }
        }
        Checkpoint::Folder => {
            for entry in listing.entries.iter().filter(|entry| is_small_file(&entry.file.path)) {
                get(entry)?;
            }
            let wanted = shards(&repository.snapshot(&listing.commit).join(INDEX))?;
            for path in &wanted {
                if !listing.entries.iter().any(|entry| entry.file.path == *path) {
                    let what = format!("its {INDEX} names {path}, which is not there");
                    return Err(SourceError::NotFound { name: name.repository_name(), what });
                }
            }
            let is_wanted =
                |path: &str| if wanted.is_empty() { is_weights(path) } else { wanted.iter().any(|one| one == path) };
            for entry in listing.entries.iter().filter(|entry| is_wanted(&entry.file.path)) {
                get(entry)?;
            }
        }
    }
    // Last: a copy that is named is whole.
    repository.name(name.revision(), &listing.commit)?;
    Ok(located(name, &listing.commit, &repository.snapshot(&listing.commit), &checkpoint))
}

fn located(name: &HubName, commit: &str, snapshot: &Path, checkpoint: &Checkpoint) -> Located {
    let pinned = format!("hf:{}@{commit}", name.repository);
    let (path, model, source) = match checkpoint {
        Checkpoint::Folder => (snapshot.to_owned(), name.model().to_owned(), pinned),
        Checkpoint::Gguf(set) => {
            let first = &set.parts[0];
            let stem = gguf::whole(gguf::file_name(first).trim_end_matches(".gguf")).to_owned();
            (snapshot.join(first), stem, format!("{pinned}:{first}"))
        }
    };
    Located { path, name: Some(model), source: Some(source), stale: None }
}

/// The checkpoint that is meant: of a repository with safetensors its folder, unless a GGUF file is named.
fn checkpoint(name: &str, wanted: Option<&str>, files: &[gguf::Listed]) -> Result<Checkpoint, SourceError> {
    let has = |test: &dyn Fn(&str) -> bool| files.iter().any(|file| test(&file.path));
    if wanted.is_none() && has(&|path| path == CONFIG) && has(&is_weights) {
        return Ok(Checkpoint::Folder);
    }
    gguf::choose(name, gguf::sets(files.iter()), wanted).map(Checkpoint::Gguf)
}

fn is_weights(path: &str) -> bool {
    !path.contains('/') && path.ends_with(SAFETENSORS) && ["model", "weight"].iter().any(|stem| path.starts_with(stem))
}

fn is_small_file(path: &str) -> bool {
    SMALL_FILES.contains(&path)
        || path == TOKENIZER_CONFIG
        || (TEMPLATE_FOLDERS.iter().any(|folder| path.starts_with(folder)) && path.ends_with(".jinja"))
}

/// The files that an index names; none where there is no index.
fn shards(index: &Path) -> Result<Vec<String>, SourceError> {
    let Ok(bytes) = std::fs::read(index) else { return Ok(Vec::new()) };
    let malformed = |reason: String| SourceError::Io {
        path: index.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, reason),
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let map = value.get("weight_map").and_then(|map| map.as_object());
    let map = map.ok_or_else(|| malformed("it has no weight_map".to_owned()))?;
    let mut names: Vec<String> = map.values().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The names under which the cache's checkpoints can be asked for, with what [`locate_copy`] says of each.
pub(crate) fn held(cache: &Path) -> Vec<(String, Result<Located, SourceError>, u64)> {
    let mut found = Vec::new();
    for repository in crate::names(cache).iter().filter_map(|name| cache::repository_of(name)) {
        let folder = Repository::new(cache, &repository);
        for revision in folder.revisions() {
            let Some(commit) = folder.commit(&revision) else { continue };
            let revision = (revision != MAIN).then_some(revision);
            let name = HubName { repository: repository.clone(), revision, wanted: None };
            let files = folder.files(&commit);
            let text = name.repository_name();
            match checkpoint(&text, None, &files) {
                Ok(Checkpoint::Folder) => {
                    let weights = files.iter().filter(|file| is_weights(&file.path));
                    let bytes = weights.map(|file| file.bytes).sum();
                    found.push((text, locate_copy(&name, cache), bytes));
                }
                Ok(Checkpoint::Gguf(set)) => found.push((text, locate_copy(&name, cache), set.bytes)),
                Err(SourceError::Several { choices, .. }) => {
                    for choice in choices {
                        let name = HubName { wanted: Some(choice.wanted.clone()), ..name.clone() };
                        found.push((format!("{text}:{}", choice.wanted), locate_copy(&name, cache), choice.bytes));
                    }
                }
                // A repository of something else: the cache is not Forge's alone.
                Err(_) => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{HubName, shards};
    use crate::SourceError;

    #[test]
    fn names_have_up_to_four_parts() {
        let name = HubName::parse("o/n@v1/x:Q4_K_M").unwrap();
        assert_eq!(
            (name.repository.as_str(), name.revision.as_deref(), name.wanted.as_deref()),
            ("o/n", Some("v1/x"), Some("Q4_K_M"))
        );
        assert_eq!(HubName::parse("o/n.m").unwrap().wanted, None);
        for wrong in ["", "o", "o/n/m", "/n", "o/", "../n", "o/n@", "o/n:", "o/n:../x", "o/n@a/../b", "o/n m", "o/a--b"]
        {
            let error = HubName::parse(wrong).unwrap_err();
            assert!(matches!(error, SourceError::Name { .. }), "{wrong}");
            assert!(error.to_string().starts_with(&format!("hf:{wrong}: not a name of a model")), "{error}");
        }
    }

    #[test]
    fn an_index_names_each_shard_once() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.json");
        assert_eq!(shards(&index).unwrap(), [""; 0]);
        std::fs::write(&index, r#"{"weight_map": {"a": "2", "b": "1", "c": "2"}}"#).unwrap();
        assert_eq!(shards(&index).unwrap(), ["1", "2"]);
        std::fs::write(&index, "{}").unwrap();
        assert!(matches!(shards(&index), Err(SourceError::Io { .. })));
    }
}
