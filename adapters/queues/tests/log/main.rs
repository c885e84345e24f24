//! The durable log: what it promises, on a disk that fails and crashes, and on a real one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod crash;
mod damage;
mod diary;
mod directory;
mod faulty;
mod heard;
mod plain;
mod room;
