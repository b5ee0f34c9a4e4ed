//! The model as a library: [`model`], [`checks`] and [`tuning`] are generated for it, [`runtime`] is the same in every project.

pub mod checks;
pub mod model;
pub mod runtime;
pub mod tuning;
