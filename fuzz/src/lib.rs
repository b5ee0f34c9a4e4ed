//! What the fuzz targets do with their input. The tests of forge-frontend, forge-pack and forge-runtime include the same modules.

pub mod bounded;
pub mod calls;
pub mod frontend;
pub mod plan;
pub mod template;
