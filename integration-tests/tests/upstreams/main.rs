//! What stands behind Linkspan: the brokers that tests use, and the cables to them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    reason = "a test that cannot go on fails"
)]

mod away;
mod back_ends;
mod cable;
mod clean_clients;
mod crowd;
mod dead_letters;
mod delays;
mod desks;
mod faults;
mod feeds;
mod holder;
mod instances;
mod kept_sessions;
mod keys;
mod leases;
mod levels;
mod mosquitto;
mod operating;
mod pass_through;
mod poison;
mod quorum;
mod rabbitmq;
mod random;
mod refused;
mod repeats;
mod restarts;
mod retained;
mod spool;
mod terms;
mod three_back_ends;
mod tls;
mod traffic;
mod unacknowledged;
mod workers;

use std::time::Duration;

/// How long what must not come is waited for.
const LULL: Duration = Duration::from_millis(300);
