//! What tests of a log, and of what stands on one, put below it.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is for tests, though of other crates"
)]

pub mod disk;
