//! The test harness of Linkspan: a server to talk to, brokers behind it, clients of others to talk with, and a cable that
//! has the faults of networks.
//!
//! Tests read as prose because all that is tedious is here:
//!
//! - [`server`]: Linkspan inside the test's process, on ports of its own; [`process`]: the real binary, to be killed
//! - [`dialect`], [`publisher`], [`consumer`]: the same act in MQTT 3.1.1, MQTT 5, AMQP or HTTP, by clients
//!   that are not ours; [`outgoing`]: what is published
//! - [`mqtt5`], [`amqp`], [`http`]: these clients with all that their protocol has
//! - [`clients`]: what people have installed, run as programs
//! - [`wire`], [`mqtt_wire`], [`amqp_wire`]: bytes written by hand
//! - [`upstreams`]: RabbitMQ and Mosquitto, real ones, to be used, stopped, killed and frozen
//! - [`web`]: a web server that is asked things and answers as a test says
//! - [`certificates`]: what TLS needs
//! - [`cable`]: the wire between a client and a server: cut, reset, refused, delayed, throttled, stalled, half-open
//! - [`patience`]: how long a test waits for what has to happen

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::large_futures,
    reason = "a harness that cannot go on fails the test at once"
)]

pub mod amqp;
pub mod amqp_wire;
pub mod cable;
pub mod certificates;
pub mod clients;
pub mod consumer;
pub mod dialect;
pub mod http;
pub mod mqtt5;
pub mod mqtt_wire;
pub mod outgoing;
pub mod patience;
pub mod process;
pub mod publisher;
pub mod server;
pub mod upstreams;
pub mod web;
pub mod wire;

pub use cable::{Cable, Way};
pub use certificates::Certificates;
pub use consumer::{Asking, Consumer, Received, Refusal, Taking};
pub use dialect::Dialect;
pub use outgoing::Outgoing;
pub use patience::{soon, within};
pub use process::Process;
pub use publisher::Publisher;
pub use server::Server;
pub use upstreams::{Mosquitto, RabbitMq};
