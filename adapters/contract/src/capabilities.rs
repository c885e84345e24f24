//! What a back end can do.

use std::fmt;

/// How a feature is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Support {
    /// By the broker itself.
    Native,
    /// By Linkspan on top of it; the text says how.
    Emulated(&'static str),
    /// Not at all; the text says why.
    Absent(&'static str),
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Emulated(how) => write!(f, "emulated ({how})"),
            Self::Absent(why) => write!(f, "refused ({why})"),
        }
    }
}

/// A back end's features, one by one; a route that needs an absent one is refused at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Copies of each message to every subscription.
    pub publish_subscribe: Support,
    /// Queues that consumers share.
    pub competing_consumers: Support,
    /// A queue with one consumer at a time.
    pub exclusive_consumer: Support,
    /// Higher priorities first.
    pub priority_queue: Support,
    /// Messages that end after a time.
    pub expiry: Support,
    /// What cannot be worked goes elsewhere.
    pub dead_letter: Support,
    /// An unsettled delivery comes back after a time.
    pub ack_timeout: Support,
    /// A message that was given out so many times is a dead letter.
    pub max_deliveries: Support,
    /// A message that came back waits before it is given out again.
    pub retry: Support,
    /// What is published again is dropped.
    pub deduplicate: Support,
    /// Messages of one key go to one consumer at a time.
    pub ordering_key: Support,
    /// Messages are held back before they are given out.
    pub delay: Support,
    /// A queue has a bound, and something happens at it.
    pub max_length: Support,
    /// Lower priorities get their share.
    pub weighted_order: Support,
    /// Each priority is a queue of its own.
    pub queue_per_level: Support,
    /// Every Linkspan instance over the same broker has the same queues: they are the broker's own.
    pub shares_queues: bool,
    /// Direct, fanout and headers exchanges, exchange-to-exchange bindings.
    pub exchanges: Support,
    /// Publishes and settlements as one step.
    pub transactions: Support,
    /// What was acknowledged outlives a crash.
    pub durable: Support,
    /// The last message of an address is kept for subscribers to come. Where it is native
    /// [`Lane::retained`](crate::Lane::retained) tells them; else the hub keeps them.
    pub retained: Support,
    /// A publisher to addresses is held while a subscriber's sink is above its mark. Where a broker stands between
    /// the two, what the back end reads from it is held instead.
    pub holds_publishers: Support,
    /// A client's session is one at the broker, under the client's own identifier: subscriptions and what waits for them
    /// outlive the connection there, and the broker publishes the will.
    pub sessions: Support,
}
