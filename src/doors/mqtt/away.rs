//! The outbound side of a client that is away.

use std::sync::Arc;
use std::task::{Context, Poll};

use linkspan_contract::{Batch, Delivered, DeliverySink, Ended, Pick, SubscriptionKey};

use super::mailbox::Mailbox;

/// Takes nothing: what nobody has to acknowledge is dropped and counted by who brings it, the rest waits for credit, of
/// which there is none.
pub(super) struct Away {
    mailbox: Arc<Mailbox>,
}

impl Away {
    /// Whoever keeps the session is told by `mailbox` what happens to its subscriptions.
    pub(super) fn new(mailbox: &Arc<Mailbox>) -> Self {
        Self { mailbox: Arc::clone(mailbox) }
    }
}

impl DeliverySink for Away {
    fn deliver(&self, _batch: &Batch<'_>, _picks: &[Pick]) -> Delivered {
        Delivered::Closed
    }

    fn flush(&self) {}

    fn poll_drained(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn ended(&self, _key: SubscriptionKey, why: Ended) {
        self.mailbox.ended(why);
    }
}
