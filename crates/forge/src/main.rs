//! forge.
fn main() {}
