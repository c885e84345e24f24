//! The MQTT door: 3.1.1 and 5.0.
//!
//! A client's bytes are decoded in place and published in batches ([`publishing`]); what is delivered to it is appended
//! to its outbound bytes by whoever publishes ([`sink`], [`deliveries`]) and written in place.
//!
//! | file | what |
//! | --- | --- |
//! | [`connection`] | the socket: reading, waiting, time; the only I/O |
//! | [`handshake`] | from CONNECT to CONNACK |
//! | [`session`], [`publishing`], [`subscribing`] | what a client's packets mean |
//! | [`sink`], [`deliveries`], [`inflight`] | what is on its way to a client, and not yet acknowledged |
//! | [`receipts`] | what a client published, and is not yet answered |
//! | [`translate`] | MQTT's words and the contract's |
//! | [`registry`], [`mailbox`] | client identifiers, and what other tasks have to say to a connection |
//! | [`ending`], [`will`] | why a connection ends, and what it leaves |
//! | [`targets`], [`aliases`], [`filters`], [`selector`] | topics and filters |
//! | [`input`], [`work`] | memory for what is read |
//! | [`limits`], [`metric`] | bounds and counters |

mod aliases;
mod answering;
mod connection;
mod deliveries;
mod ending;
mod filters;
mod handshake;
mod inflight;
mod input;
mod large;
mod limits;
mod mailbox;
mod metric;
mod overtaking;
mod publishing;
mod receipts;
mod registry;
mod selector;
mod session;
mod sink;
mod subscribing;
mod targets;
#[cfg(test)]
mod tests;
mod translate;
mod will;
mod work;

use std::net::SocketAddr;
use std::sync::{Arc, Once};

use linkspan_contract::Backend;
use tokio::sync::Semaphore;

pub use self::limits::Limits;
use self::metric::Counters;
use self::registry::Registry;
pub use self::translate::forms;
use super::listener::Stream;
use super::{Door, Stop};
use crate::alarms::Alarms;
use crate::identity::Users;
use crate::retained::Retained;

/// Serves MQTT clients of one vhost.
pub struct MqttDoor {
    backend: Arc<dyn Backend>,
    retained: Arc<Retained>,
    users: Arc<Users>,
    alarms: Arc<Alarms>,
    vhost: Arc<str>,
    limits: Arc<Limits>,
    registry: Arc<Registry>,
    counters: Arc<Counters>,
    large: Arc<Semaphore>,
    watched: Once,
}

impl MqttDoor {
    /// A door into `vhost` of `backend`, whose retained messages are `retained`. Publishers are held while `alarms` say so.
    /// A metrics recorder has to be in place before.
    pub fn new(
        backend: Arc<dyn Backend>,
        retained: Arc<Retained>,
        users: Arc<Users>,
        alarms: Arc<Alarms>,
        vhost: Arc<str>,
        limits: Limits,
    ) -> Self {
        let large = input::permits(limits.large_packets);
        Self {
            backend,
            retained,
            users,
            alarms,
            vhost,
            limits: Arc::new(limits),
            registry: Arc::default(),
            counters: Arc::default(),
            large,
            watched: Once::new(),
        }
    }
}

impl Door for MqttDoor {
    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn serve(
        self: Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send {
        connection::serve(self, stream, peer, stop)
    }
}
