//! What the owner of a queue has to carry out.

use std::fmt;
use std::sync::Arc;

use crate::consumer::ConsumerId;
use crate::offer::Queued;

/// Something that happened to a queue beside giving out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<B> {
    /// A message left the queue without having been accepted: it goes to the dead-letter address, or nowhere.
    Dead {
        /// The message as it was in the queue.
        message: Queued<B>,
        /// Why.
        reason: DeadReason,
    },
    /// A consumer let the deadline of this many deliveries pass; they are ready again, or dead.
    Overdue {
        /// Who.
        consumer: ConsumerId,
        /// How many.
        count: u32,
    },
    /// Another consumer is the single active one now; none when there is nobody.
    Active(Option<ConsumerId>),
    /// Nobody has used the queue for the time after which it is to be deleted.
    Unused,
}

/// Why a message is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadReason {
    /// A consumer said that nobody can work it, and perhaps why.
    Rejected(Option<Arc<str>>),
    /// Its time was over.
    Expired,
    /// The queue was full.
    MaxLength,
    /// It came back too often.
    DeliveryLimit,
}

impl DeadReason {
    /// What a dead letter says: the consumer's own word, or [`name`](Self::name).
    pub fn told(&self) -> &str {
        match self {
            Self::Rejected(Some(why)) => why,
            other => other.name(),
        }
    }

    /// The word that RabbitMQ's `x-death` header has for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
