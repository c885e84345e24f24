//! Linkspan: one address space for MQTT, AMQP 0-9-1 and HTTP clients.
//!
//! # The map
//!
//! A message comes in by a door, passes the hub, and lies at a back end until a door takes it out again. The rooms,
//! from the street inwards; `integration-tests/tests/house` holds what may know what:
//!
//! - [`doors`]: the servers that clients connect to; over [`protocol`], which turns bytes into packets and back, and
//!   [`identity`], which knows who may come in
//! - [`hub`]: the one place that every message passes; it asks [`routes`] which route an address has and [`patterns`]
//!   what that route's pattern means, and keeps the [`retained`] messages, because every door may publish one; a
//!   [`mover`] carries from one back end to another what routes and bindings part, and what waited here for a broker that
//!   was away
//! - a [`worker`] pushes what a queue holds to a URL: a client of the hub, as doors are
//! - [`alarms`]: memory or disk run short; doors hold publishers back while consumers drain on
//! - [`ledger`]: small durable state and leases, in a file or in a PostgreSQL that instances share
//! - [`broker`]: assembles all of it, reloads it, stops it
//! - [`config`]: what the TOML file says; [`cli`]: what the command line does
//!
//! Back ends lie below, in `adapters/`: `contract` says what one is, `queues` is the queue engine, `embedded` the
//! in-process broker, `amqp` RabbitMQ and its kin, `mqtt` Mosquitto and its kin. The in-process broker also works inside
//! the other two, for what they leave to be matched, fanned out and queued here.

pub mod alarms;
pub mod broker;
pub mod cli;
pub mod config;
pub mod doors;
pub mod hub;
pub mod identity;
pub mod ledger;
pub mod mover;
pub mod patterns;
pub mod protocol;
pub mod retained;
pub mod routes;
pub mod worker;
