//! What is this back end's own: links that break, filters that overlap, queues that devices feed, older brokers.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

mod connecting;
mod feeding;
mod older;
mod overlapping;
mod passing;
mod poison;
mod reconnection;
mod retained;
mod scripted;
mod scripts;
#[path = "../stage/mod.rs"]
mod stage;
