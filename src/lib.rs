//! Linkspan: one address space for MQTT, AMQP 0-9-1 and HTTP clients.
//!
//! The rooms, from the street inwards; `integration-tests/tests/house` holds what may know what:
//!
//! - [`doors`]: the servers that clients connect to; over [`protocol`], which turns bytes into packets and back
//! - [`retained`]: the last message of each topic, for who subscribes later
//! - [`config`]: what the TOML file says

pub mod cli;
pub mod config;
pub mod doors;
pub mod identity;
pub mod protocol;
pub mod retained;
pub mod routes;
