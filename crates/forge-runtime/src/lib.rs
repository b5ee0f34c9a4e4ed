//! forge-runtime.
