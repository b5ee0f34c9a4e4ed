//! Renders a [`Plan`](forge_plan::Plan) into the files of a project.
//!
//! Owns the views (one askama template struct per emitted file) and the naming. Decides nothing that the plan has
//! not decided, and touches no disk.

mod bindings;
mod calls;
mod checks;
mod kernels;
mod languages;
mod literal;
mod manifest;
mod model;
mod naming;
mod places;
mod project;
mod reachable;
mod readme;
mod sources;
mod steps;
mod tuning;
mod verbatim;

pub use languages::Language;
pub use naming::{PackageName, package_name};
pub use places::argument;
pub use project::{CodegenError, Project, RenderOptions, render};
