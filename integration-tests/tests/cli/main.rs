//! The binary as a tool: what it answers without running a broker, and what it asks of one that runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod changed_queue;
mod operate;
mod store;
