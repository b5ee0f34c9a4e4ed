//! Ollama's store: a manifest a tag under `manifests/HOST/NAMESPACE/NAME/TAG`, which lists layers of `blobs` by their digests. The
//! layer with the model is a GGUF file, read where it lies.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Environment, Located, SourceError, names};

/// Of names without one.
const NAMESPACE: &str = "library";
const TAG: &str = "latest";
/// What kinds of layers begin with.
const KIND: &str = "application/vnd.ollama.image.";

/// `[[HOST/]NAMESPACE/]NAME[:TAG]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaName {
    /// The host, where it is part of the name.
    pub host: Option<String>,
    /// `library` where none is said.
    pub namespace: String,
    /// The model.
    pub model: String,
    /// `latest` where none is said.
    pub tag: String,
}

impl OllamaName {
    /// Takes a name to pieces, without its `ollama:`.
    ///
    /// # Errors
    /// [`SourceError::Name`].
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let error = || SourceError::Name { name: format!("ollama:{text}"), expected: "ollama:[NAMESPACE/]NAME[:TAG]" };
        // A host may have a port, so that a tag is what follows the last colon of the last part.
        let (path, last) = text.rsplit_once('/').map_or((None, text), |(path, last)| (Some(path), last));
        let (model, tag) = last.split_once(':').unwrap_or((last, TAG));
        let mut parts: Vec<&str> = path.map(|path| path.split('/').collect()).unwrap_or_default();
        let plain = |part: &&str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        };
        if parts.len() > 2 || !parts.iter().chain([&model, &tag]).all(plain) || tag.contains(':') {
            return Err(error());
        }
        let namespace = parts.pop().unwrap_or(NAMESPACE).to_owned();
        let host = parts.pop().map(str::to_owned);
        Ok(Self { host, namespace, model: model.to_owned(), tag: tag.to_owned() })
    }

    /// As a user writes it.
    fn text(&self) -> String {
        let host = self.host.as_ref().map(|host| format!("{host}/")).unwrap_or_default();
        let namespace = match self.host.is_none() && self.namespace == NAMESPACE {
            true => String::new(),
            false => format!("{}/", self.namespace),
        };
        format!("ollama:{host}{namespace}{}:{}", self.model, self.tag)
    }
}

/// A model of a store.
struct Entry {
    host: String,
    namespace: String,
    model: String,
    tag: String,
    store: PathBuf,
}

impl Entry {
    fn manifest(&self) -> PathBuf {
        let folder = self.store.join("manifests").join(&self.host).join(&self.namespace);
        folder.join(&self.model).join(&self.tag)
    }

    fn is(&self, name: &OllamaName) -> bool {
        name.host.as_ref().is_none_or(|host| *host == self.host)
            && (&self.namespace, &self.model, &self.tag) == (&name.namespace, &name.model, &name.tag)
    }

    /// The shortest name that leads here.
    fn name(&self) -> OllamaName {
        // Ollama has one host of its own, the only one with a namespace of this name.
        let host = (self.namespace != NAMESPACE).then(|| self.host.clone());
        OllamaName { host, namespace: self.namespace.clone(), model: self.model.clone(), tag: self.tag.clone() }
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
}

impl Layer {
    fn is(&self, kind: &str) -> bool {
        self.media_type.strip_prefix(KIND).is_some_and(|found| found == kind)
    }
}

/// Finds a model's GGUF file.
pub(crate) fn locate(name: &OllamaName, environment: &Environment) -> Result<Located, SourceError> {
    let entries: Vec<Entry> = environment.ollama.iter().flat_map(|store| entries(store)).collect();
    let Some(entry) = entries.iter().find(|entry| entry.is(name)) else {
        let similar = entries.iter().filter(|entry| entry.model == name.model).map(|entry| entry.name().text());
        let store = environment.ollama.iter().find(|store| store.is_dir()).or_else(|| environment.ollama.first());
        let store = store.cloned().unwrap_or_default();
        return Err(SourceError::NotHeld { name: name.text(), store, similar: similar.collect() });
    };
    let (path, _) = model(entry)?;
    Ok(Located { path, name: Some(format!("{}-{}", entry.model, entry.tag)), source: Some(name.text()), stale: None })
}

/// The file with an entry's model, and its bytes.
fn model(entry: &Entry) -> Result<(PathBuf, u64), SourceError> {
    let path = entry.manifest();
    let bytes = fs::read(&path).map_err(SourceError::io(&path))?;
    let error = |reason: String| SourceError::Manifest { name: entry.name().text(), path: path.clone(), reason };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|source| error(source.to_string()))?;
    let has = |kind: &str| manifest.layers.iter().any(|layer| layer.is(kind));
    if has("adapter") {
        return Err(error("the model has an adapter, which would have to be merged into it first".to_owned()));
    }
    let models: Vec<&Layer> = manifest.layers.iter().filter(|layer| layer.is("model")).collect();
    let layer = match models[..] {
        [layer] => layer,
        [] if has("tensor") => {
            return Err(error(
                "its weights are stored tensor by tensor (Ollama's form for MLX); take the GGUF form of the model"
                    .to_owned(),
            ));
        }
        [] => return Err(error("it lists no model; it may be one that runs elsewhere".to_owned())),
        _ => return Err(error(format!("it lists {} models", models.len()))),
    };
    let hex = layer.digest.strip_prefix("sha256:").unwrap_or_default();
    // A digest becomes a path.
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(error(format!("the digest of its model is {:?}", layer.digest)));
    }
    let blob = entry.store.join("blobs").join(format!("sha256-{hex}"));
    match fs::metadata(&blob) {
        Ok(meta) if layer.size != 0 && meta.len() != layer.size => {
            let found = meta.len();
            Err(error(format!("{} has {found} bytes instead of {}: pull the model again", blob.display(), layer.size)))
        }
        Ok(meta) => Ok((blob, meta.len())),
        Err(_) => Err(error(format!("{} is missing: pull the model again", blob.display()))),
    }
}

/// Every manifest of a store.
fn entries(store: &Path) -> Vec<Entry> {
    let manifests = store.join("manifests");
    let below = |parts: &[&str]| names(&parts.iter().fold(manifests.clone(), |path, part| path.join(part)));
    let mut entries = Vec::new();
    for host in below(&[]) {
        for namespace in below(&[&host]) {
            for model in below(&[&host, &namespace]) {
                for tag in below(&[&host, &namespace, &model]).into_iter().filter(|tag| !tag.starts_with('.')) {
                    let (host, namespace, model) = (host.clone(), namespace.clone(), model.clone());
                    entries.push(Entry { host, namespace, model, tag, store: store.to_owned() });
                }
            }
        }
    }
    entries
}

/// The names under which the stores' models can be asked for, with their files and sizes.
pub(crate) fn held(environment: &Environment) -> Vec<(String, Result<PathBuf, SourceError>, u64)> {
    let entries = environment.ollama.iter().flat_map(|store| entries(store));
    entries
        .map(|entry| match model(&entry) {
            Ok((path, bytes)) => (entry.name().text(), Ok(path), bytes),
            Err(error) => (entry.name().text(), Err(error), 0),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::OllamaName;
    use crate::SourceError;

    #[test]
    fn names_have_defaults() {
        for (text, whole) in [
            ("llama3.2", "ollama:llama3.2:latest"),
            ("llama3.2:1b", "ollama:llama3.2:1b"),
            ("me/mine", "ollama:me/mine:latest"),
            ("host.example:5000/me/mine:q4", "ollama:host.example:5000/me/mine:q4"),
        ] {
            assert_eq!(OllamaName::parse(text).unwrap().text(), whole);
        }
        for wrong in ["", ":1b", "a/b/c/d", "../x", "x:..", "a b", "x:1:2"] {
            assert!(matches!(OllamaName::parse(wrong), Err(SourceError::Name { .. })), "{wrong}");
        }
    }
}
