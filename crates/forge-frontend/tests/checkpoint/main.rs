//! The container readers: what they accept, what they refuse, and that no damage makes them panic or allocate.

mod build;
mod gguf;
mod gguf_damage;
mod gguf_split;
#[cfg(unix)]
mod links;
mod safetensors;
mod shards;
