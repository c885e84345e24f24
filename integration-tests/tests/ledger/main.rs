//! The suite of ledgers on both of ours, what each must stand besides, and the server that has one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod embedded;
mod postgres;
mod server;
mod sessions;
