//! The AMQP 0-9-1 door: RabbitMQ's behaviour, codes and texts over the hub.
//!
//! | file | noun |
//! | --- | --- |
//! | [`connection`] | one client's socket, timers and futures: the only I/O |
//! | [`handshake`], [`heartbeat`] | opening and keeping a connection, as functions of bytes and time |
//! | [`entry`], [`farewell`] | how a connection begins and how it ends |
//! | [`inbound`], [`incoming`] | from bytes to frames, methods and messages |
//! | [`channel`] | what a method means in the state that its channel is in |
//! | [`channels`], [`open_channel`], [`asking`], [`request`] | the channels with their lanes, what they ask of them, and what comes back |
//! | [`publisher`], [`confirm`] | messages to lanes in batches; receipts back as confirms |
//! | [`held`] | publishers while an alarm is raised |
//! | [`sink`], [`consumers`], [`unsettled`], [`settling`], [`delivery`] | the way out: deliveries, their tags, and what is settled |
//! | [`inbox`], [`notices`] | what back ends say from other threads |
//! | [`form`], [`translate`] | AMQP's words and the contract's |
//! | [`failure`] | why channels and connections are closed |
//! | [`limits`], [`metric`] | what is bounded, what is counted |

mod asking;
mod channel;
mod channels;
mod confirm;
mod connection;
mod consumers;
mod delivery;
mod entry;
mod failure;
mod farewell;
mod form;
mod handshake;
mod heartbeat;
mod held;
mod inbound;
mod inbox;
mod incoming;
mod limits;
mod metric;
mod notices;
mod open_channel;
mod publisher;
mod request;
mod settling;
mod sink;
mod translate;
mod unsettled;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use linkspan_contract::Backend;

use self::incoming::Budget;
use self::metric::Metrics;
use super::listener::Stream;
use super::{Door, Stop};
use crate::alarms::Alarms;
use crate::identity::Users;

pub use self::form::{AMQP_FORM, AmqpForm};
pub use self::limits::AmqpLimits;

/// The AMQP 0-9-1 server.
pub struct AmqpDoor {
    backend: Arc<dyn Backend>,
    users: Arc<Users>,
    alarms: Arc<Alarms>,
    limits: AmqpLimits,
    bodies: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl AmqpDoor {
    /// A door to `backend`, which is the hub as a rule, for `users`. Publishers are held while `alarms` say so.
    pub fn new(
        backend: Arc<dyn Backend>,
        users: Arc<Users>,
        alarms: Arc<Alarms>,
        limits: AmqpLimits,
    ) -> Self {
        let bodies = Budget::new(limits.bodies_max);
        Self { backend, users, alarms, limits, bodies, metrics: Arc::new(Metrics::new()) }
    }
}

impl Door for AmqpDoor {
    fn name(&self) -> &'static str {
        "amqp"
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
