//! Why routes are not put in force.

use std::sync::Arc;

use linkspan_contract::{BackendError, Refused};

use super::estate::Left;
use crate::config::Culprit;
use crate::routes::Route;

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
        "queue `{}` of the route `{}` still holds {}, and the new routes have no place for them: the old routes stay \
         in force; drain the queue, or write `drain = true` in the route that is to take over what it holds, then reload \
         again",
        .left.queue,
        .left.filter,
        held(*.messages, *.unsettled)
    )]
    NotEmpty {
        /// The queue.
        left: Left,
        /// How many messages are ready.
        messages: u64,
        /// How many are in the hands of consumers, where the back end knows.
        unsettled: Option<u64>,
    },
    /// A queue would lose its route, and nobody can tell what it holds.
    #[error(
        "queue `{}` of the route `{}` would lose its route, and back end `{}` does not tell whether it is empty: {why}; \
         the old routes stay in force",
        .left.queue,
        .left.filter,
        .left.backend
    )]
    Uncounted {
        /// The queue.
        left: Left,
        /// What the back end said.
        why: String,
        /// It may say later.
        is_away: bool,
    },
    /// A queue could not be declared.
    #[error("queue `{queue}` cannot be made on back end `{}`: {why}", .route.backend)]
    Queue {
        /// Its route.
        route: Arc<Route>,
        /// The queue.
        queue: Arc<str>,
        /// What the back end said.
        why: Box<Refused>,
    },
    /// A queue of that name is there, and is not what the route wants.
    #[error(
        "queue `{queue}` on back end `{}` is there already, but not as the route wants it: {why}{}",
        .route.backend,
        remedy(.held.as_deref())
    )]
    Otherwise {
        /// Its route.
        route: Arc<Route>,
        /// The queue.
        queue: Arc<str>,
        /// What the back end said.
        why: Box<Refused>,
        /// What it holds, when it is the route's own from before.
        held: Option<String>,
    },
    /// A queue that lost its route could not be deleted.
    #[error("queue `{}` on back end `{}` cannot be deleted: {why}", .left.queue, .left.backend)]
    Undeleted {
        /// The queue.
        left: Left,
        /// What the back end said.
        why: Box<Refused>,
    },
    /// A route's spool could not be made.
    #[error("the spool of the route `{}` cannot be made: {why}", .route.filter)]
    Spool {
        /// The route.
        route: Arc<Route>,
        /// What happened.
        why: String,
    },
    /// A back end could not be reached.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A back end could not be reached without which a route is not to be.
    #[error(
        "the route `{}` is `required`, and its back end `{}` cannot be reached: {why}",
        .route.filter,
        .route.backend
    )]
    Required {
        /// The route.
        route: Arc<Route>,
        /// What happened.
        why: String,
    },
}

impl RoutesError {
    /// What of the configuration has to change, or is waited for.
    pub fn culprit(&self) -> Culprit<'_> {
        match self {
            Self::UnknownBackend(name) => Culprit::Backend(name, None),
            Self::NewVhost(name) => Culprit::Vhost(name),
            Self::Queue { route, queue, .. } | Self::Otherwise { route, queue, .. } => {
                Culprit::Queue(&route.vhost, queue, route.filter.as_str())
            }
            Self::NotEmpty { left, .. } | Self::Uncounted { left, .. } | Self::Undeleted { left, .. } => {
                Culprit::Queue(&left.vhost, &left.queue, &left.filter)
            }
            Self::Backend(
                BackendError::Away { name, .. }
                | BackendError::Denied { name, .. }
                | BackendError::BadIdentifier { name, .. },
            ) => Culprit::Backend(name, None),
            Self::Backend(BackendError::UnknownVhost(name)) => Culprit::Vhost(name),
            Self::Spool { route, .. } => Culprit::Route(&route.vhost, route.filter.as_str(), "spool"),
            Self::Required { route, .. } => Culprit::Route(&route.vhost, route.filter.as_str(), "required"),
        }
    }

    /// True when the same may succeed once a back end is back.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Backend(BackendError::Away { .. }) => true,
            Self::Queue { why, .. } => matches!(**why, Refused::Away(_)),
            Self::Uncounted { is_away, .. } => *is_away,
            _ => false,
        }
    }
}

/// What can be done about a queue that is there otherwise.
fn remedy(held: Option<&str>) -> String {
    match held {
        None => "; delete that queue, or give the route another one".to_owned(),
        Some(held) => format!(
            "; it is the route's own from before, and is made anew when it is empty and nobody consumes from it, but it \
             holds {held}: run Linkspan with the route as it was until they are consumed, or give up what it holds (on an \
             embedded back end: `linkspan store delete-queue <path> <queue>`; on RabbitMQ, which does not tell what consumers \
             have in hand, when they are stopped and `rabbitmqctl list_queues name messages` says 0: `rabbitmqctl \
             delete_queue <queue>`, and where each of its levels has a queue the same for every \
             `linkspan.level.<queue>.<level>`), or give the route another queue"
        ),
    }
}

/// So many messages, for people.
pub(super) fn held(messages: u64, unsettled: Option<u64>) -> String {
    match unsettled {
        Some(unsettled) => format!("{messages} messages that wait and {unsettled} that are not acknowledged"),
        None => format!("{messages} messages that wait"),
    }
}
