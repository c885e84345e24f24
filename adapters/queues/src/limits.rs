//! Bounds of a queue, and what happens at them.

use linkspan_contract::{Millis, Retry};

/// What a queue takes, for how long, and how it gives it out. [`Limits::default`] bounds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Most messages ready at once (RabbitMQ's `x-max-length`). What is unsettled or delayed does not count.
    pub max_length: Option<u64>,
    /// Most bytes ready at once (`x-max-length-bytes`).
    pub max_bytes: Option<u64>,
    /// Most bytes that are held back in memory before they are ready for the first time; what is more is refused.
    pub max_delayed_bytes: Option<u64>,
    /// What happens at the first two.
    pub overflow: Overflow,
    /// Milliseconds that a message may be ready (`x-message-ttl`); its own expiry counts when it is shorter.
    pub message_ttl: Option<Millis>,
    /// The highest priority (`x-max-priority`); 0: all are equal.
    pub max_priority: u8,
    /// How often a message may come back (`x-delivery-limit`): with 4 it is given out at most five times.
    pub delivery_limit: Option<u32>,
    /// How long what comes back waits, when who gave it back does not say how long; not what a consumer that goes leaves.
    pub retry: Option<Retry>,
    /// Lower levels have their share while higher ones have messages: level *n* one of *n* + 1.
    pub weighted: bool,
    /// Messages of one [`Key`](crate::Key) go to one consumer at a time, in order.
    pub keyed: bool,
    /// One consumer at a time, the others stand by (`x-single-active-consumer`).
    pub single_active: bool,
    /// Milliseconds without consumer, fetch and declaration after which the queue asks to be deleted (`x-expires`).
    pub expires: Option<Millis>,
    /// Milliseconds that a delivery may stay unsettled where the consumer has no such time of its own; counts for what
    /// is fetched, too.
    pub ack_timeout: Option<Millis>,
    /// How much that is ready is kept in memory where a journal keeps the rest.
    pub window: Option<Window>,
}

/// What of a queue's ready messages is in memory. What comes back is, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Messages.
    pub messages: u64,
    /// Bytes; a message whose body is not in memory counts as 16 KiB.
    pub bytes: u64,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// What would be given out next makes place (RabbitMQ's `drop-head`): with priorities that is the highest.
    #[default]
    DropHead,
    /// What comes is refused (`reject-publish`).
    Reject,
    /// What comes is refused, and goes where dead letters go (`reject-publish-dlx`).
    RejectDeadLetter,
}
