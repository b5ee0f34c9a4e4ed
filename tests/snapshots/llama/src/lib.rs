//! The model as a library: [`model`] is generated for it, [`runtime`] is the same in every project.

pub mod model;
pub mod runtime;
