//! forge-plan.
