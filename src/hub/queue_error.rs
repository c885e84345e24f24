//! What an operator asked of a queue that cannot be done.

use std::sync::Arc;

use linkspan_contract::{BackendError, Lost, Refused};

use crate::mover::Stopped;

/// Why a queue was not looked at, or not dealt with.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is none: whoever asked has to change the name.
    #[error("no queue '{queue}' in vhost '{vhost}'{}", .near.as_ref().map(|near| format!("; did you mean '{near}'?")).unwrap_or_default())]
    NotFound {
        /// Where it was looked for.
        vhost: Arc<str>,
        /// What was asked for.
        queue: String,
        /// One whose name is near.
        near: Option<Arc<str>>,
    },
    /// A client has made it.
    #[error(
        "queue '{queue}' belongs to no route: only queues of routes are paused, for one that a client has made may end with its last consumer"
    )]
    NotOfARoute {
        /// What was asked for.
        queue: String,
    },
    /// Its dead letters are kept by no queue: the configuration's fault.
    #[error("queue '{queue}' {why}")]
    NoDeadLetters {
        /// What was asked for.
        queue: String,
        /// Why it has none, and what to do.
        why: String,
    },
    /// Fewer messages are there than was asked for.
    #[error("queue '{queue}' has {count} dead letters; they are numbered from 1")]
    NoSuchLetter {
        /// Whose they are.
        queue: String,
        /// How many there are.
        count: u64,
    },
    /// A back end cannot be reached now, or does not let us in.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A back end said no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A payload was not to be had, or not taken.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The way there was lost: the same again later may succeed.
    #[error(transparent)]
    Lost(#[from] Lost),
}
