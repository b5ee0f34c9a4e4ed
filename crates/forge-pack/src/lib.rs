//! forge-pack.
