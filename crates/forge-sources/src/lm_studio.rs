//! LM Studio's store: `PUBLISHER/NAME` below its folder of models, with GGUF files or the files of an MLX folder, read where they
//! lie.

use std::fs;
use std::path::{Path, PathBuf};

use crate::gguf::{self, Listed};
use crate::{Environment, Located, SourceError, names};

/// `[PUBLISHER/]NAME[:FILE]`; `@` before a quantisation does as well, as in LM Studio's own keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LmStudioName {
    /// Who published it, where that is said.
    pub publisher: Option<String>,
    /// The model.
    pub model: String,
    /// A GGUF file, by its name or its quantisation.
    pub wanted: Option<String>,
}

impl LmStudioName {
    /// Takes a name to pieces, without its `lmstudio:`.
    ///
    /// # Errors
    /// [`SourceError::Name`].
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let error = || SourceError::Name {
            name: format!("lmstudio:{text}"),
            expected: "lmstudio:[PUBLISHER/]NAME[:FILE or :QUANTISATION]",
        };
        let (path, wanted) = match text.split_once([':', '@']) {
            Some((path, wanted)) => (path, Some(wanted)),
            None => (text, None),
        };
        let (publisher, model) = match path.split_once('/') {
            Some((publisher, model)) => (Some(publisher), model),
            None => (None, path),
        };
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('/');
        if !plain(model) || !publisher.is_none_or(plain) || !wanted.is_none_or(plain) {
            return Err(error());
        }
        let own = |part: Option<&str>| part.map(str::to_owned);
        Ok(Self { publisher: own(publisher), model: model.to_owned(), wanted: own(wanted) })
    }

    /// As a user writes it, without what is behind the colon.
    fn text(&self) -> String {
        let publisher = self.publisher.as_ref().map(|publisher| format!("{publisher}/")).unwrap_or_default();
        format!("lmstudio:{publisher}{}", self.model)
    }
}

/// A model's folder.
struct Entry {
    publisher: String,
    model: String,
    path: PathBuf,
}

/// Finds a model's folder or GGUF file.
pub(crate) fn locate(name: &LmStudioName, environment: &Environment) -> Result<Located, SourceError> {
    let store = &environment.lm_studio;
    let entries = entries(store);
    let is = |entry: &&Entry| {
        name.publisher.as_ref().is_none_or(|publisher| publisher.eq_ignore_ascii_case(&entry.publisher))
            && entry.model.eq_ignore_ascii_case(&name.model)
    };
    let found: Vec<&Entry> = entries.iter().filter(is).collect();
    let entry = match found[..] {
        [only] => only,
        _ => {
            let word = name.model.to_ascii_lowercase();
            let close = |entry: &&Entry| entry.model.to_ascii_lowercase().contains(&word);
            let similar =
                entries.iter().filter(close).map(|entry| format!("lmstudio:{}/{}", entry.publisher, entry.model));
            return Err(SourceError::NotHeld { name: name.text(), store: store.clone(), similar: similar.collect() });
        }
    };
    let text = format!("lmstudio:{}/{}", entry.publisher, entry.model);
    if name.wanted.is_none() && is_folder(&entry.path) {
        let model = Some(entry.model.clone());
        return Ok(Located { path: entry.path.clone(), name: model, source: Some(text), stale: None });
    }
    let set = gguf::choose(&text, gguf::sets(files(&entry.path).iter()), name.wanted.as_deref())?;
    let file = &set.parts[0];
    let model = gguf::whole(file.trim_end_matches(".gguf")).to_owned();
    Ok(Located { path: entry.path.join(file), name: Some(model), source: Some(format!("{text}:{file}")), stale: None })
}

/// Whether a folder holds safetensors with their configuration.
fn is_folder(path: &Path) -> bool {
    path.join("config.json").is_file() && names(path).iter().any(|name| name.ends_with(".safetensors"))
}

fn entries(store: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    for publisher in names(store) {
        for model in names(&store.join(&publisher)) {
            let path = store.join(&publisher).join(&model);
            if path.is_dir() {
                entries.push(Entry { publisher: publisher.clone(), model, path });
            }
        }
    }
    entries
}

fn files(folder: &Path) -> Vec<Listed> {
    let listed = |name: String| {
        let meta = fs::metadata(folder.join(&name)).ok()?;
        meta.is_file().then_some(Listed { bytes: meta.len(), path: name })
    };
    names(folder).into_iter().filter_map(listed).collect()
}

/// The names under which the store's models can be asked for, with their files and sizes.
pub(crate) fn held(store: &Path) -> Vec<(String, PathBuf, u64)> {
    let mut found = Vec::new();
    for Entry { publisher, model, path } in entries(store) {
        let text = format!("lmstudio:{publisher}/{model}");
        let files = files(&path);
        if is_folder(&path) {
            let weights = files.iter().filter(|file| file.path.ends_with(".safetensors"));
            found.push((text, path, weights.map(|file| file.bytes).sum()));
            continue;
        }
        let choices = gguf::choices(&gguf::sets(files.iter()));
        let one = choices.len() == 1;
        for choice in choices {
            let name = if one { text.clone() } else { format!("{text}:{}", choice.wanted) };
            found.push((name, path.join(&choice.file), choice.bytes));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::LmStudioName;
    use crate::SourceError;

    #[test]
    fn names_have_up_to_three_parts() {
        let parts = |text: &str| {
            let name = LmStudioName::parse(text).unwrap();
            (name.publisher, name.model, name.wanted)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("qwen3-8b"), (None, "qwen3-8b".to_owned(), None));
        assert_eq!(parts("a/b@q4_k_m"), (some("a"), "b".to_owned(), some("q4_k_m")));
        assert_eq!(parts("a/b:x.gguf"), (some("a"), "b".to_owned(), some("x.gguf")));
        for wrong in ["", "a/b/c", "/b", "a/", "../b", "b:", "b:x/y"] {
            assert!(matches!(LmStudioName::parse(wrong), Err(SourceError::Name { .. })), "{wrong}");
        }
    }
}
