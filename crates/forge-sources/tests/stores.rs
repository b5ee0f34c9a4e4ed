//! Models in the stores of other programs, in the layouts that these programs write.

use std::fs;
use std::path::{Path, PathBuf};

use forge_sources::{Environment, Located, Source, SourceError, Watcher, held, locate};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

struct Nobody;

impl Watcher for Nobody {
    fn begin(&self, _file: &str, _done: u64, _total: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn restart(&self) {}
    fn end(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Layers of a manifest: kind, digest, bytes.
type Layers<'a> = &'a [(&'a str, &'a str, usize)];

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn environment(&self) -> Environment {
        let home = self.0.path().to_str().unwrap();
        let mut environment = Environment::new(|name| (name == "HOME").then(|| home.to_owned()));
        // The machine may have a store of its own.
        environment.ollama.truncate(1);
        environment
    }

    fn find(&self, name: &str) -> Result<Located, SourceError> {
        locate(&Source::parse(name.as_ref())?, &self.environment(), &Nobody)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A blob of Ollama's store; its digest.
    fn blob(&self, bytes: &[u8]) -> String {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        self.write(&format!(".ollama/models/blobs/sha256-{hex}"), bytes);
        format!("sha256:{hex}")
    }

    /// A manifest of Ollama's store.
    fn manifest(&self, name: &str, layers: Layers<'_>) {
        let layer = |(kind, digest, size): &(&str, &str, usize)| {
            format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"{digest}","size":{size}}}"#)
        };
        let layers: Vec<String> = layers.iter().map(layer).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:0","size":1}},"layers":[{}]}}"#,
            layers.join(",")
        );
        self.write(&format!(".ollama/models/manifests/{name}"), text.as_bytes());
    }
}

#[test]
fn models_of_ollama_are_read_where_they_lie() {
    let home = Home::new();
    let (one, two) = (home.blob(b"GGUF one"), home.blob(b"GGUF second"));
    let template = home.blob(b"{{ .Prompt }}");
    home.manifest("host.example/library/small/latest", &[("model", &one, 8), ("template", &template, 13)]);
    home.manifest("host.example/library/small/1b", &[("template", &template, 13), ("model", &two, 11)]);
    home.manifest("other.example/me/mine/q4", &[("model", &two, 11), ("projector", &one, 8)]);
    let found = home.find("ollama:small").unwrap();
    let blobs = home.0.path().join(".ollama/models/blobs");
    assert_eq!(found.path, blobs.join(one.replace(':', "-")));
    assert_eq!(found.name.as_deref(), Some("small-latest"));
    assert_eq!(found.source.as_deref(), Some("ollama:small:latest"));
    for name in ["ollama:small:1b", "ollama:me/mine:q4", "ollama:other.example/me/mine:q4"] {
        assert_eq!(home.find(name).unwrap().path, blobs.join(two.replace(':', "-")), "{name}");
    }
    let error = home.find("ollama:small:7b").unwrap_err();
    assert!(matches!(error, SourceError::NotHeld { .. }), "{error}");
    assert!(error.to_string().ends_with("which has ollama:small:1b, ollama:small:latest"), "{error}");
    assert!(matches!(home.find("ollama:host.example/me/mine:q4"), Err(SourceError::NotHeld { .. })));
    let all: Vec<(String, u64)> = held(&home.environment()).into_iter().map(|held| (held.name, held.bytes)).collect();
    let name = |name: &str, bytes| (format!("ollama:{name}"), bytes);
    assert_eq!(all, [name("small:1b", 11), name("small:latest", 8), name("other.example/me/mine:q4", 11)]);
    // Every name that is listed leads back.
    for held in held(&home.environment()) {
        assert_eq!(home.find(&held.name).unwrap().path, held.path.unwrap());
    }
}

#[test]
fn manifests_that_cannot_be_used() {
    let home = Home::new();
    let blob = home.blob(b"GGUF");
    let gone = format!("sha256:{}", "a".repeat(64));
    let cases: [(&str, Layers<'_>, &str); 8] = [
        ("adapter", &[("model", &blob, 4), ("adapter", &blob, 4)], "has an adapter"),
        ("tensors", &[("tensor", &blob, 4), ("json", &blob, 4)], "tensor by tensor"),
        ("cloud", &[("license", &blob, 4)], "lists no model"),
        ("two", &[("model", &blob, 4), ("model", &gone, 4)], "lists 2 models"),
        ("outside", &[("model", "sha256:../../../x", 4)], "the digest of its model"),
        ("other", &[("model", "md5:00", 4)], "the digest of its model"),
        ("gone", &[("model", &gone, 4)], "is missing: pull the model again"),
        ("half", &[("model", &blob, 9)], "has 4 bytes instead of 9"),
    ];
    for (name, layers, part) in cases {
        home.manifest(&format!("host.example/library/{name}/latest"), layers);
        let error = home.find(&format!("ollama:{name}")).unwrap_err();
        assert!(matches!(error, SourceError::Manifest { .. }), "{name}: {error}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
    home.write(".ollama/models/manifests/host.example/library/text/latest", b"no JSON");
    assert!(matches!(home.find("ollama:text"), Err(SourceError::Manifest { .. })));
    assert_eq!(held(&home.environment()).iter().filter(|held| held.path.is_err()).count(), cases.len() + 1);
    let none = Home::new();
    assert!(matches!(none.find("ollama:x"), Err(SourceError::NotHeld { .. })));
    assert_eq!(held(&none.environment()).len(), 0);
}

#[test]
fn models_of_lm_studio_are_files_or_folders() {
    let home = Home::new();
    let models = ".lmstudio/models";
    home.write(&format!("{models}/lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf"), b"four");
    home.write(&format!("{models}/lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf"), b"eight bits");
    home.write(&format!("{models}/lmstudio-community/Qwen3-8B-GGUF/mmproj-F16.gguf"), b"eye");
    home.write(&format!("{models}/mlx-community/Qwen3-8B-4bit/config.json"), b"{}");
    home.write(&format!("{models}/mlx-community/Qwen3-8B-4bit/model.safetensors"), b"weights");
    home.write(&format!("{models}/a/Same/m.gguf"), b"1");
    home.write(&format!("{models}/b/Same/m.gguf"), b"2");
    let at = |path: &str| home.0.path().join(models).join(path);
    let found = home.find("lmstudio:qwen3-8b-gguf@q8_0").unwrap();
    assert_eq!(found.path, at("lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf"));
    assert_eq!(found.source.as_deref(), Some("lmstudio:lmstudio-community/Qwen3-8B-GGUF:Qwen3-8B-Q8_0.gguf"));
    assert_eq!(home.find(found.source.as_deref().unwrap()).unwrap(), found);
    assert_eq!(home.find("lmstudio:mlx-community/Qwen3-8B-4bit").unwrap().path, at("mlx-community/Qwen3-8B-4bit"));
    assert!(matches!(home.find("lmstudio:Qwen3-8B-GGUF"), Err(SourceError::Several { .. })));
    assert!(matches!(home.find("lmstudio:Qwen3-8B-GGUF:Q2_K"), Err(SourceError::NoSuchFile { .. })));
    assert_eq!(home.find("lmstudio:b/Same").unwrap().path, at("b/Same/m.gguf"));
    // Two publishers have it, and a part of a name is none: both are told what there is.
    for (name, similar) in
        [("Same", "lmstudio:a/Same, lmstudio:b/Same"), ("8B-4bit", "lmstudio:mlx-community/Qwen3-8B-4bit")]
    {
        let error = home.find(&format!("lmstudio:{name}")).unwrap_err();
        assert!(matches!(error, SourceError::NotHeld { .. }) && error.to_string().ends_with(similar), "{error}");
    }
    home.write(&format!("{models}/c/Empty/README.md"), b"text");
    assert!(matches!(home.find("lmstudio:c/Empty"), Err(SourceError::NoWeights { .. })));
    let all: Vec<String> = held(&home.environment()).into_iter().map(|held| held.name).collect();
    let expected = [
        "a/Same",
        "b/Same",
        "lmstudio-community/Qwen3-8B-GGUF:Q4_K_M",
        "lmstudio-community/Qwen3-8B-GGUF:Q8_0",
        "mlx-community/Qwen3-8B-4bit",
    ];
    assert_eq!(all, expected.map(|name| format!("lmstudio:{name}")));
}

#[test]
fn paths_are_taken_as_they_are() {
    let home = Home::new();
    for path in ["model.gguf", "./hf:x", "C:/model", "a:b"] {
        assert_eq!(Source::parse(path.as_ref()).unwrap(), Source::Path(PathBuf::from(path)));
        let found = home.find(path).unwrap();
        assert_eq!((found.path.as_path(), found.name), (Path::new(path), None));
    }
    assert!(matches!(home.find("hf:x"), Err(SourceError::Name { .. })));
}
