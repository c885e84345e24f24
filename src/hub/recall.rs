//! What an earlier life of this server knew, and goes on.

use std::time::Duration;

use tokio::time::timeout;

use super::Hub;
use super::carriers::Errand;

/// How long the ledger is waited for by who has something else to do.
const GRACE: Duration = Duration::from_secs(2);

impl Hub {
    /// Reads what an earlier life left, if that is not known yet; whether it was read now. Routes that are put in force
    /// afterwards follow it.
    pub(super) async fn recall(&self) -> bool {
        if self.memory.is_recalled() {
            return false;
        }
        match timeout(GRACE, self.memory.recall()).await {
            Ok(Ok(())) => {
                self.recall_bindings();
                self.recall_paused();
                true
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "what an earlier life left is not known yet");
                false
            }
            Err(_) => false,
        }
    }

    /// A mover is done: what it was for need not be remembered.
    pub(super) fn is_done(&self, errand: &Errand) {
        match errand {
            Errand::Drain { vhost, backend, queue } => self.is_drained(vhost, backend, queue),
            Errand::DeadLetters { vhost, backend, queue } => self.are_carried(vhost, backend, queue),
            Errand::Copies { .. } | Errand::Spool { .. } => {}
        }
    }

    /// Has what is to be remembered written, if the ledger takes it soon; it stays due otherwise.
    pub(super) async fn write_down(&self) {
        if timeout(GRACE, self.memory.write()).await.is_err() {
            tracing::debug!("the ledger takes long");
        }
    }
}
