//! Linkspan: one address space for MQTT, AMQP 0-9-1 and HTTP clients.

pub mod config;
pub mod doors;
pub mod identity;
pub mod protocol;
pub mod retained;
pub mod routes;
