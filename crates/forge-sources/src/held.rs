//! What the cache and the stores hold.

use std::path::PathBuf;

use crate::{Environment, SourceError, hub, lm_studio, ollama};

/// A checkpoint that is on this machine.
#[derive(Debug)]
pub struct Held {
    /// The name that leads to it.
    pub name: String,
    /// Bytes of its weights; 0 where they are not there.
    pub bytes: u64,
    /// Its file or folder, or what is wrong with the copy.
    pub path: Result<PathBuf, SourceError>,
}

/// Everything that can be generated from by its name without a network: the hub's cache, then Ollama's stores, then LM Studio's.
pub fn held(environment: &Environment) -> Vec<Held> {
    let of_hub = hub::held(&environment.cache).into_iter();
    let of_hub = of_hub.map(|(name, located, bytes)| Held { name, bytes, path: located.map(|located| located.path) });
    let of_ollama = ollama::held(environment).into_iter().map(|(name, path, bytes)| Held { name, bytes, path });
    let of_studio = lm_studio::held(&environment.lm_studio).into_iter();
    let of_studio = of_studio.map(|(name, path, bytes)| Held { name, bytes, path: Ok(path) });
    of_hub.chain(of_ollama).chain(of_studio).collect()
}
