//! The doors from outside: by clients of third parties, unmodified, by the real binary, and by bytes written by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    reason = "a test that cannot go on fails"
)]

mod alarms;
mod amqp_arguments;
mod amqp_bad_input;
mod amqp_consume;
mod amqp_exchanges;
mod amqp_publish;
mod amqp_queues;
mod bad_input;
mod bystander;
mod http;
mod http_leases;
mod http_queues;
mod large_bodies;
mod mqtt_bad_input;
mod mqtt_kept_sessions;
mod mqtt_publish;
mod mqtt_sessions;
mod mqtt_subscribe;
mod process;
mod real_clients;
mod reload;
mod translation;
mod uploads;
mod users;
mod watchers;
mod workers;

use std::time::Duration;

/// How long a message that must not come is waited for.
const LULL: Duration = Duration::from_millis(150);
