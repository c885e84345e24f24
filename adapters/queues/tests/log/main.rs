//! The durable log: what it promises, on a disk that fails and crashes, and on a real one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "its threads are the test's own, and a real disk has no paused time"
)]

mod busy;
mod crash;
mod damage;
mod diary;
mod directory;
mod full;
mod heard;
mod plain;
mod recycled;
mod room;
mod survey;
