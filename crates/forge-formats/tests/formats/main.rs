//! The reference decoders and quantisers against independent implementations, and the packed layout against both.

mod decode;
mod encode;
mod fixtures;
mod layout;
mod repack;
