//! What is acknowledged survives: the whole server is killed, its disk is full, its files are damaged.
#![allow(unreachable_pub, reason = "nothing is outside of a test binary")]
#![allow(clippy::large_futures, reason = "a test has room")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod damage;
mod exactly_once;
mod full_disk;
mod kills;
mod many_messages;
mod many_queues;
mod one_directory;
mod poor_disk;
mod shared_subscriptions;
mod what_remains;
