//! The back end of Linkspan over Mosquitto, EMQX and other MQTT brokers.
//!
//! An MQTT broker carries messages and keeps the last one of an address; it is not a queue. So **addresses live at the
//! broker and queues live here**, in an embedded engine ([`linkspan_embedded`]) behind the same lane:
//!
//! - What is published to an address goes up as a PUBLISH, and the PUBACK is the receipt. It comes back by a
//!   subscription of Linkspan's own, and from there through the engine's address space to subscribers and to queues
//!   bound to it. Nobody here gets it a second way.
//! - What is published to a queue by name stays here.
//! - A work route's queue is fed by one persistent member of `$share/<queue>/<match>`: a message is in the queue
//!   before the broker is told that it may forget it.
//!
//! An MQTT client of a vhost whose home this is has **a session of its own** at the broker, under its own client
//! identifier: retained messages, the will, what waits for it and shared subscriptions are the broker's. All others share
//! Linkspan's sessions.
//!
//! Linkspan's own sessions are few: some that publish, one that subscribes, so that order is kept over all topics, and
//! one for each work queue. Each is a rumqttc event loop per *connection*, never its own reconnection, which loses and
//! misattributes; what is not acknowledged is kept here and sent again in its order.
//!
//! # Rooms
//!
//! | file | noun |
//! | --- | --- |
//! | [`mqtt`], [`options`], [`house`], [`status`] | the back end, what is configured, what all share, how it is |
//! | [`connection`], [`lane`], [`publisher`], [`target`], [`claim`], [`here`], [`exchanges`] | a client's scope, its ways through, where they lead, who is told, and what is refused |
//! | [`passage`] | clients that are passed through, each with its own session at the broker |
//! | [`inlet`], [`feed`] | what comes from the broker: for addresses, for work queues |
//! | [`retained`], [`probe`] | what the broker keeps, and whether it is there at all |
//! | [`translate`] | properties in MQTT's words |
//! | [`upstream`] | the sessions at the broker |

mod claim;
mod connection;
mod exchanges;
mod feed;
mod here;
mod house;
mod inlet;
mod lane;
mod mqtt;
mod options;
mod passage;
mod probe;
mod publisher;
mod retained;
mod status;
mod target;
mod translate;
mod upstream;

pub use mqtt::{CAPABILITIES, MqttBackend};
pub use options::{MqttOptions, OptionsError, TlsOptions, VersionChoice};
pub use probe::{Probe, ProbeError, probe, verify};
pub use upstream::failure::Failure;
pub use upstream::packet::Version;
