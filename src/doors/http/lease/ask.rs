//! What requests ask of a desk, and what they are given.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Kept, Outcome, Settlement};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::id::Name;
use super::register::{Asking, Seat};
use crate::doors::http::translate::Problem;

/// What a desk is asked.
pub(super) enum Ask {
    /// For the next message.
    Wait {
        /// The request's number: those below it came before.
        number: u64,
        /// Who it is for.
        wish: Wish,
        /// Until when it waits.
        until: Instant,
    },
    /// That request is gone.
    Leave(u64),
    /// What that lease is for was not sent to its client.
    Unread {
        /// The lease.
        lease: u64,
        /// What it is for.
        message: Kept,
    },
    /// To settle what that lease is for.
    Settle {
        /// The lease.
        lease: u64,
        /// How.
        outcome: Settlement,
        /// Is told when that is safe, or that it cannot be.
        reply: Option<oneshot::Sender<Outcome>>,
    },
}

/// A request for a message.
pub(super) struct Wish {
    pub(super) user: Arc<str>,
    /// How long the lease is to last, if not as usual.
    pub(super) lasts: Option<Duration>,
    pub(super) seat: Seat,
    pub(super) reply: oneshot::Sender<Result<Option<Leased>, Problem>>,
    pub(super) counted: Counted,
}

/// Counts a request among those that wait, while it does.
pub(super) struct Counted(());

impl Counted {
    pub(super) fn new() -> Self {
        metrics::gauge!("linkspan_lease_waits").increment(1);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("linkspan_lease_waits").decrement(1);
    }
}

/// A message on lease.
#[derive(Debug)]
pub(in crate::doors::http) struct Leased {
    pub(super) name: Name,
    /// Milliseconds that it has waited.
    pub(super) age: u64,
    /// How often it was given out before.
    pub(super) attempt: u32,
    /// How long the lease lasts from now.
    pub(super) lasts: Duration,
    pub(super) grip: Grip,
}

/// Has the message of a lease; gives it back at once when it does not reach its client.
#[derive(Debug)]
pub(super) struct Grip {
    lease: u64,
    desk: Option<Asking>,
    /// None when something of it may have reached the client.
    message: Option<Kept>,
}

impl Grip {
    pub(super) fn on(lease: u64, message: Kept, desk: Asking) -> Self {
        Self { lease, desk: Some(desk), message: Some(message) }
    }

    /// It is on its way to the client.
    pub(super) fn begin(&mut self) -> Option<Kept> {
        self.message.take()
    }

    /// The client has it.
    pub(super) fn open(&mut self) {
        self.desk = None;
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        let Some(desk) = self.desk.take() else { return };
        let ask = match self.message.take() {
            Some(message) => Ask::Unread { lease: self.lease, message },
            None => Ask::Settle { lease: self.lease, outcome: Settlement::Release { delay: 0 }, reply: None },
        };
        // A desk that is gone has given it back already.
        let _ = desk.send(ask);
    }
}
