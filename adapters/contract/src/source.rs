//! Where messages come from.

use std::num::NonZeroU32;

use crate::value::Value;

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source<'a> {
    /// Copies of everything published to addresses that an MQTT topic filter matches.
    Filter(&'a str),
    /// The same, each message to one member of the group (MQTT 5 §4.8.2 shared subscriptions).
    Group {
        /// The group's name.
        group: &'a str,
        /// The topic filter.
        filter: &'a str,
    },
    /// A queue by name.
    Queue(&'a str),
    /// All that the client's session at its home back end is given, by whatever filters it has there, those of earlier
    /// connections among them: only where [`Connection::session`](crate::Connection::session) tells of one. QoS and
    /// RETAIN are as the broker says, and so are the subscription identifiers, which stand in the properties. What is
    /// subscribed to by filters there comes this way and no other. Where [`Connection::lasts`](crate::Connection::lasts) it
    /// is what is on its way to the client from before a restart, whatever has become of its subscriptions.
    Session,
}

/// Who settles what a subscription is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settle {
    /// Nobody: it is settled when the sink has taken it (QoS 0, auto-ack).
    OnDelivery,
    /// The consumer.
    ByConsumer,
    /// The consumer for messages flagged [`DURABLE`](crate::Flags::DURABLE), nobody for others: a publish-subscribe
    /// subscription of QoS 1, which gets QoS 0 messages at QoS 0.
    AsPublished,
}

/// How to subscribe.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe<'a> {
    /// Who settles.
    pub settle: Settle,
    /// Nothing that this client published itself.
    pub no_local: bool,
    /// Refused when the queue has another consumer, and no other is let in (AMQP's `exclusive`).
    pub exclusive: bool,
    /// Several workers stand behind it, who know nothing of each other: of messages that have an
    /// [ordering key](crate::Terms::ordering_key) it is given one of each key at a time.
    pub several: bool,
    /// Consumers of a higher priority come first (RabbitMQ's `x-priority`).
    pub priority: i32,
    /// The client's consumer arguments.
    pub arguments: &'a [(&'a str, Value<'a>)],
    /// Milliseconds after which an unsettled delivery is released by itself.
    pub ack_timeout: Option<u64>,
    /// What was published exactly once is delivered so: what a back end has to know whose deliveries last
    /// ([`Standing`](crate::Standing)).
    pub exactly_once: bool,
    /// What a back end that keeps the client's session has to know; others leave it to the door.
    pub wishes: Option<Wishes>,
}

/// Options of a subscription that the keeper of the session sees to (MQTT 5 §3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Messages keep their RETAIN flag.
    pub retain_as_published: bool,
    /// Whether retained messages are sent.
    pub replay: Replay,
    /// Sent along with each message.
    pub identifier: Option<NonZeroU32>,
}

/// Whether a subscription brings the retained messages that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Yes.
    Always,
    /// When there was no subscription of that filter before.
    IfNew,
    /// No.
    Never,
}

impl Subscribe<'_> {
    /// A plain subscription that `settle` describes.
    pub const fn new(settle: Settle) -> Self {
        Self {
            settle,
            no_local: false,
            exclusive: false,
            several: false,
            priority: 0,
            arguments: &[],
            ack_timeout: None,
            exactly_once: false,
            wishes: None,
        }
    }
}
