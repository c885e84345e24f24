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
//! | [`coordinator`], [`resting`], [`away`], [`recall`], [`record`] | sessions whose clients are away, and what the ledger knows of them |
//! | [`receipts`] | what a client published, and is not yet answered |
//! | [`translate`] | MQTT's words and the contract's |
//! | [`registry`], [`mailbox`] | client identifiers, and what other tasks have to say to a connection |
//! | [`ending`], [`will`] | why a connection ends, and what it leaves |
//! | [`targets`], [`aliases`], [`filters`], [`selector`] | topics and filters |
//! | [`input`], [`work`] | memory for what is read |
//! | [`large`], [`arriving`] | large payloads: by reference, or written where they are kept while they come in |
//! | [`limits`], [`metric`] | bounds and counters |

mod aliases;
mod answering;
mod arriving;
mod away;
mod connection;
mod coordinator;
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
mod recall;
mod receipts;
mod record;
mod registry;
mod resting;
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
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use linkspan_contract::{Backend, Clock, Ledger, SystemClock};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use self::limits::Limits;
use self::metric::Counters;
use self::recall::Written;
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
    /// For sessions that may outlive their connections.
    places: Arc<Semaphore>,
    ledger: Option<Arc<dyn Ledger>>,
    /// What this instance is called in the ledger.
    owner: Arc<str>,
    clock: Arc<dyn Clock>,
    /// What the ledger knows of sessions was read.
    taken_up: AtomicBool,
    /// Sessions of the ledger that could not be made, by client identifier.
    unmade: Mutex<HashMap<Arc<str>, Written, RandomState>>,
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
        let places = Arc::new(Semaphore::new(limits.sessions.min(Semaphore::MAX_PERMITS)));
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
            places,
            ledger: None,
            owner: "".into(),
            clock: Arc::new(SystemClock),
            taken_up: AtomicBool::new(true),
            unmade: Mutex::default(),
            watched: Once::new(),
        }
    }

    /// The same door, whose sessions are written down in `ledger`, as those of `owner`: another instance keeps its own.
    /// [`MqttDoor::take_up_sessions`] has to be called before it is served.
    #[must_use]
    pub fn with_ledger(self, ledger: Arc<dyn Ledger>, owner: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self { ledger: Some(ledger), owner, clock, taken_up: AtomicBool::new(false), ..self }
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
