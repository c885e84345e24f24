//! Where messages come from.

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
    /// Consumers of a higher priority come first (RabbitMQ's `x-priority`).
    pub priority: i32,
    /// The client's consumer arguments.
    pub arguments: &'a [(&'a str, Value<'a>)],
    /// Milliseconds after which an unsettled delivery is released by itself.
    pub ack_timeout: Option<u64>,
}

impl Subscribe<'_> {
    /// A plain subscription that `settle` describes.
    pub const fn new(settle: Settle) -> Self {
        Self { settle, no_local: false, exclusive: false, priority: 0, arguments: &[], ack_timeout: None }
    }
}
