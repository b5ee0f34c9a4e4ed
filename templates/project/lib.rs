//! The model as a library: [`model`], [`assets`], [`checks`] and [`tuning`] are generated for it, [`runtime`] is the same in
//! every project.

pub mod assets;
pub mod checks;
pub mod model;
pub mod tuning;

pub use runtime;
