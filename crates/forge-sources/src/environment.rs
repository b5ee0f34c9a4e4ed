//! What the surroundings say: variables, the home folder, tokens.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// Where hub, cache and stores are, and how patient transfers are.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The hub: `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// The hub's cache: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `huggingface` of `XDG_CACHE_HOME` or `~/.cache`.
    pub cache: PathBuf,
    /// Who asks: `HF_TOKEN`, else what is in the file `HF_TOKEN_PATH` or `token` in `HF_HOME`, where logging in leaves it.
    pub token: Option<String>,
    /// Whether to do without the network: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Ollama's stores: `OLLAMA_MODELS`, else those of the user and of the system's service.
    pub ollama: Vec<PathBuf>,
    /// LM Studio's models.
    pub lm_studio: PathBuf,
    /// How long a transfer is waited for.
    pub patience: Patience,
}

/// How long, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a byte for this long, a connection is given up.
    pub stall: Duration,
    /// Tries in a row that bring nothing.
    pub tries: u32,
    /// Before the second try; doubled for each after it.
    pub pause: Duration,
    /// The longest pause that a server may ask for.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            tries: 5,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(120),
        }
    }
}

impl Environment {
    /// Reads the process's own.
    pub fn of_process() -> Self {
        Self::new(|name| env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    /// As `variable` says, which has no empty values.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let home = variable("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let path = |name: &str| variable(name).map(PathBuf::from);
        let caches = path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hub_home = path("HF_HOME").unwrap_or_else(|| caches.join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home.join("token"));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| hub_home.join("hub")),
            token: variable("HF_TOKEN")
                .or_else(|| fs::read_to_string(token_file).ok())
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            ollama: match path("OLLAMA_MODELS") {
                Some(models) => vec![models],
                None => vec![home.join(".ollama/models"), PathBuf::from("/usr/share/ollama/.ollama/models")],
            },
            lm_studio: lm_studio_models(&home),
            patience: Patience::default(),
        }
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| value.trim().eq_ignore_ascii_case(word))
}

/// LM Studio's folder of models: `downloadsFolder` of its settings, else `models` in its home, which a file in the user's
/// home points to; older versions had it among the caches.
fn lm_studio_models(home: &Path) -> PathBuf {
    let pointed = fs::read_to_string(home.join(".lmstudio-home-pointer")).ok().map(|text| PathBuf::from(text.trim()));
    let usual = [home.join(".lmstudio"), home.join(".cache/lm-studio")];
    let studio = pointed.into_iter().chain(usual).find(|folder| folder.is_dir());
    let studio = studio.unwrap_or_else(|| home.join(".lmstudio"));
    let settings = fs::read(studio.join("settings.json")).ok();
    let settings: Option<serde_json::Value> = settings.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let chosen = settings.as_ref().and_then(|settings| settings.get("downloadsFolder")?.as_str());
    let chosen = chosen.map(PathBuf::from).filter(|folder| folder.is_absolute());
    chosen.unwrap_or_else(|| studio.join("models"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::path::Path;

    use super::Environment;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        Environment::new(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn places_follow_the_variables() {
        let usual = environment(&[("HOME", "/h")]);
        assert_eq!(usual.cache, Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(usual.ollama[0], Path::new("/h/.ollama/models"));
        assert_eq!(usual.lm_studio, Path::new("/h/.lmstudio/models"));
        assert!(!usual.offline && usual.token.is_none() && usual.endpoint.starts_with("https://"));

        let set = environment(&[
            ("HOME", "/h"),
            ("HF_ENDPOINT", "http://127.0.0.1:1/"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_TOKEN", " t\n"),
            ("HF_HUB_OFFLINE", "1"),
            ("OLLAMA_MODELS", "/o"),
        ]);
        assert_eq!((set.endpoint.as_str(), set.cache.as_path()), ("http://127.0.0.1:1", Path::new("/c")));
        assert_eq!((set.token.as_deref(), set.offline, set.ollama.len()), (Some("t"), true, 1));
        assert_eq!(environment(&[("HOME", "/h"), ("HF_HOME", "/f")]).cache, Path::new("/f/hub"));
        assert_eq!(environment(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert!(!environment(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn tokens_and_settings_are_read_from_their_files() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let text = home.path().to_str().unwrap();
        fs::create_dir_all(at(".cache/huggingface")).unwrap();
        fs::write(at(".cache/huggingface/token"), "from-a-login\n").unwrap();
        fs::create_dir_all(at("studio")).unwrap();
        fs::write(at(".lmstudio-home-pointer"), format!("{text}/studio\n")).unwrap();
        let read = environment(&[("HOME", text)]);
        assert_eq!((read.token.as_deref(), read.lm_studio), (Some("from-a-login"), at("studio/models")));
        fs::write(at("studio/settings.json"), r#"{"downloadsFolder": "/elsewhere"}"#).unwrap();
        assert_eq!(environment(&[("HOME", text)]).lm_studio, Path::new("/elsewhere"));
    }
}
