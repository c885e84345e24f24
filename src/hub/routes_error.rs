//! Why routes are not put in force.

use std::sync::Arc;

use linkspan_contract::{BackendError, Refused};

/// Routes that cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutesError {
    /// A route or vhost names a back end that is not there.
    #[error("back end `{0}` is not configured; back ends cannot be added without a restart")]
    UnknownBackend(Arc<str>),
    /// A vhost is new.
    #[error("vhost `{0}` is new; vhosts cannot be added without a restart")]
    NewVhost(Arc<str>),
    /// A queue would lose its route although it holds messages.
    #[error(
        "queue `{queue}` of the route `{filter}` still holds {}, and the new routes have no place for them: the old \
         routes stay in force; drain the queue, then reload again",
        held(*.messages, *.unsettled)
    )]
    NotEmpty {
        /// The queue.
        queue: Arc<str>,
        /// The match of the route that owned it.
        filter: String,
        /// How many messages are ready.
        messages: u64,
        /// How many are in the hands of consumers, where the back end knows.
        unsettled: Option<u64>,
    },
    /// A queue could not be declared.
    #[error("queue `{queue}` cannot be made on back end `{backend}`: {why}")]
    Queue {
        /// The queue.
        queue: Arc<str>,
        /// The back end.
        backend: Arc<str>,
        /// What it said.
        why: Box<Refused>,
    },
    /// A queue of that name is there, and is not what the route wants.
    #[error(
        "queue `{queue}` on back end `{backend}` is there already, but not as the route wants it: {why}; delete that queue, or \
         give the route another one"
    )]
    Otherwise {
        /// The queue.
        queue: Arc<str>,
        /// The back end.
        backend: Arc<str>,
        /// What it said.
        why: Box<Refused>,
    },
    /// A queue that lost its route could not be deleted.
    #[error("queue `{queue}` on back end `{backend}` cannot be deleted: {why}")]
    Undeleted {
        /// The queue.
        queue: Arc<str>,
        /// The back end.
        backend: Arc<str>,
        /// What it said.
        why: Box<Refused>,
    },
    /// A back end could not be reached.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A back end could not be reached without which a route is not to be.
    #[error("the route `{filter}` is `required`, and its back end `{backend}` cannot be reached: {why}")]
    Required {
        /// The route's match.
        filter: String,
        /// The back end.
        backend: Arc<str>,
        /// What happened.
        why: String,
    },
}

impl RoutesError {
    /// True when the same may succeed once a back end is back.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Backend(BackendError::Away { .. }) => true,
            Self::Queue { why, .. } => matches!(**why, Refused::Away(_)),
            _ => false,
        }
    }
}

fn held(messages: u64, unsettled: Option<u64>) -> String {
    match unsettled {
        Some(unsettled) => format!("{messages} messages that wait and {unsettled} that are not acknowledged"),
        None => format!("{messages} messages that wait"),
    }
}
