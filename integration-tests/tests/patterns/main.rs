//! Each messaging pattern, between clients of every protocol.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod back_end;
mod competing_consumers;
mod exclusive_consumer;
mod load_spike;
mod matrix;
mod priority_queue;
