//! forge-codegen.
