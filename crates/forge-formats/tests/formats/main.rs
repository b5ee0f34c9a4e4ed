//! The reference decoders and quantisers against independent implementations.

mod decode;
mod encode;
mod fixtures;
