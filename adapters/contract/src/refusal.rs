//! What a back end does not do, and whose fault it is.

use std::fmt;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum What {
    Exchange,
    Queue,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
        })
    }
}

/// A request that was not carried out. Doors turn it into their protocol's own code and text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not exist. (AMQP 404)
    #[error("no {what} '{name}'")]
    NotFound {
        /// Exchange or queue.
        what: What,
        /// The name that was asked for.
        name: String,
    },
    /// It exists, declared otherwise. (AMQP 406)
    #[error(
        "inequivalent arg '{argument}' for {what} '{name}': received {received} but current is {current}"
    )]
    Inequivalent {
        /// Exchange or queue.
        what: What,
        /// Its name.
        name: String,
        /// Which argument.
        argument: String,
        /// What was asked for, as RabbitMQ writes it: quoted, with its type, or `none`.
        received: String,
        /// What it is.
        current: String,
    },
    /// The queue is another connection's own. (AMQP 405)
    #[error("cannot obtain exclusive access to locked queue '{0}'")]
    Locked(String),
    /// The queue has an exclusive consumer, or consumers and an exclusive one was asked for. (AMQP 403)
    #[error("queue '{0}' is in exclusive use")]
    ExclusiveUse(String),
    /// A publish by who does not have a queue any more whose holder alone may publish there. (AMQP 403, MQTT 0x87, HTTP 409)
    #[error("{0}")]
    Fenced(String),
    /// It still has consumers or bindings, and was to be deleted only without. (AMQP 406)
    #[error("{what} '{name}' is in use")]
    InUse {
        /// Exchange or queue.
        what: What,
        /// Its name.
        name: String,
    },
    /// The queue still has messages, and was to be deleted only without. (AMQP 406)
    #[error("queue '{0}' is not empty")]
    NotEmpty(String),
    /// Not for this client, or not with this name. (AMQP 403)
    #[error("{0}")]
    AccessRefused(String),
    /// A wrong argument. (AMQP 406)
    #[error("{0}")]
    Precondition(String),
    /// Nothing that this back end can do. (AMQP 406: 540 would close the whole connection)
    #[error("{0}")]
    NotImplemented(String),
    /// An address that the back end has no room for. (MQTT 0x90, AMQP 406)
    #[error("{0}")]
    AddressInvalid(String),
    /// A filter that would take part of a work queue (MQTT 0x8F); the text says what to subscribe to instead.
    #[error("{0}")]
    FilterInvalid(String),
    /// A limit: queue length, memory, quota. (MQTT 0x97, AMQP nack)
    #[error("{0}")]
    Full(String),
    /// The message is larger than is taken here. (MQTT 0x95)
    #[error("{0}")]
    TooLarge(String),
    /// The back end cannot be reached now: the same again later may succeed.
    #[error("back end '{0}' cannot be reached")]
    Away(String),
    /// A settlement that comes too late: nothing of its run is its consumer's any more. (HTTP 410)
    #[error(
        "the delivery is not its consumer's any more: it was settled, its deadline has passed, its queue is gone, or the \
         broker was lost and gives it again"
    )]
    Late,
    /// The remote broker's own words.
    #[error("{text}")]
    Upstream {
        /// AMQP's reply code.
        code: u16,
        /// AMQP's reply text.
        text: String,
    },
}

impl Refused {
    /// True when the same request may succeed later without a change by whoever made it.
    pub const fn may_retry(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Full(_))
    }

    /// True when what was asked for does not exist. A queue whose node of a RabbitMQ cluster is down does, although the
    /// broker answers with the same code.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Upstream { code: 404, text } => !text.contains("is down or inaccessible"),
            _ => false,
        }
    }
}

/// A lane or connection that is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the way to back end '{backend}' is lost: {why}")]
pub struct Lost {
    /// Which back end.
    pub backend: String,
    /// What happened.
    pub why: String,
}

/// A back end that could not be opened or connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// It is not there now: the same again later may succeed.
    #[error("back end '{name}' cannot be reached: {why}")]
    Away {
        /// Which.
        name: String,
        /// What happened.
        why: String,
    },
    /// It does not let us in: configuration has to change.
    #[error("back end '{name}' refused: {why}")]
    Denied {
        /// Which.
        name: String,
        /// What it said.
        why: String,
    },
    /// It takes no client of that identifier: the client's fault.
    #[error("back end '{name}' does not take the client identifier: {why}")]
    BadIdentifier {
        /// Which.
        name: String,
        /// What it said.
        why: String,
    },
    /// There is no such vhost: the client's fault.
    #[error("vhost '{0}' not found")]
    UnknownVhost(String),
}
