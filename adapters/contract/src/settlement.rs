//! What a consumer says about what it was given.

use std::sync::Arc;

use crate::receipt::Seq;
use crate::sink::SubscriptionKey;

/// A delivery's number: counts up on each subscription.
pub type DeliveryTag = u64;

/// A consumer's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Done: it may be forgotten.
    Accept,
    /// It cannot be worked, by anybody: dead-letter or drop it.
    Reject(Option<Arc<str>>),
    /// Not by me: give it to somebody, after `delay` milliseconds.
    Release {
        /// Milliseconds before it is given out again.
        delay: u64,
    },
    /// Not given to anybody: the delivery never left Linkspan, as when the request that it was for has ended meanwhile. It
    /// goes back to where it was, in front and at once, and is as if it had not been given out: no attempt is counted, and no
    /// [`retry`](crate::Terms::retry) waited for. Where the message lies at a broker that counts by itself, that one may.
    Undo,
    /// The client has it, and will say when it is over: an exchange at QoS 2 between PUBREC and PUBCOMP. It stays unsettled
    /// and is not given again; of a [lasting](crate::sink::Standing::Lasting) delivery this is known after a restart, too.
    /// Of no other is it said.
    Receive,
    /// Still at it: the deadline begins anew, this many milliseconds from now.
    Extend(u64),
}

impl Settlement {
    /// Whether the delivery is over with it.
    pub const fn is_last(&self) -> bool {
        !matches!(self, Self::Receive | Self::Extend(_))
    }
}

/// A run of deliveries of one subscription with one outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The subscription.
    pub key: SubscriptionKey,
    /// The first delivery.
    pub first: DeliveryTag,
    /// How many follow each other.
    pub count: u32,
    /// The word.
    pub outcome: Settlement,
    /// The [`ReceiptSink`](crate::ReceiptSink) is told under this number, one from [`WORDS`](crate::receipt::WORDS) on,
    /// when the settlement is safe: [`Refused::Late`](crate::Refused::Late) when none of the run was there to be settled.
    /// Whoever hears [`Outcome::Accepted`](crate::Outcome::Accepted) knows that nobody else is given what it settled last.
    pub word: Option<Seq>,
}
