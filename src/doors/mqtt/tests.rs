//! The door, spoken to in bytes over a socket, in front of a small broker that shows what it was asked for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod alarms;
mod broker;
mod client;
mod connecting;
mod delivering;
mod disconnecting;
mod exactly_once;
mod publishing;
mod recorded;
mod remote;
mod sessions;
mod size;
mod subscribing;
