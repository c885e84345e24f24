//! A client connection's outbound side: what back ends deliver into.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use linkspan_contract::{Batch, Body, Delivered, DeliverySink, Ended, Kept, Pick, SubscriptionKey};

use super::deliveries::{Deliveries, Writer, Written};
use super::mailbox::Mailbox;
use super::metric::{Counters, Tally};
use super::translate::delivery::Terms;
use crate::doors::outbound::{Guard, Outbound};

/// A client whose unsent bytes are this many times its high mark gets nothing more at QoS 0, however it came to be.
const HARD: usize = 16;

/// One per connection, shared by all its subscriptions.
pub(super) struct Sink {
    /// The unsent bytes and the session's deliveries.
    pub outbound: Outbound<Deliveries>,
    /// The session's, once it is known which that is.
    mailbox: OnceLock<Arc<Mailbox>>,
    counters: Arc<Counters>,
    hard: usize,
}

impl Sink {
    /// A sink over `outbound`, whose high mark is `high` bytes.
    pub(super) fn new(outbound: Outbound<Deliveries>, high: usize, counters: Arc<Counters>) -> Self {
        Self { outbound, mailbox: OnceLock::new(), counters, hard: high.saturating_mul(HARD) }
    }

    /// What the connection's task has to do is put into `mailbox`, from now on.
    pub(super) fn speak_to(&self, mailbox: &Arc<Mailbox>) {
        // One socket serves one session.
        let _ = self.mailbox.set(Arc::clone(mailbox));
    }

    /// Appends packets that gathered while the session was taken up again.
    pub(super) fn append_again(&self, guard: &mut Guard<'_, Deliveries>, packets: Vec<Written>) {
        for Written { head, body } in packets {
            guard.parts().1.extend_from_slice(&head);
            if let Some(body) = body {
                push(guard, &body);
            }
        }
        guard.appended();
    }

    /// Appends packets of the door's own.
    pub(super) fn append(&self, bytes: &[u8]) {
        let mut guard = self.outbound.lock();
        guard.parts().1.extend_from_slice(bytes);
        guard.appended();
    }

    /// Appends the last packet and takes nothing any more.
    pub(super) fn detach(&self, farewell: &[u8]) {
        let mut guard = self.outbound.lock();
        guard.parts().1.extend_from_slice(farewell);
        guard.appended();
        guard.state().detached = true;
    }

    /// Appends a retained message for a new subscription; false when it cannot be sent to this client.
    pub(super) fn append_retained(
        &self,
        guard: &mut Guard<'_, Deliveries>,
        retained: &Kept,
        terms: Terms,
    ) -> bool {
        let mut tally = Tally::default();
        let (deliveries, out) = guard.parts();
        let before = out.len();
        let sent = deliveries.append_retained(retained, terms, &mut Writer::new(out, &mut tally));
        tally.bytes += (out.len() - before) as u64;
        if sent && let Some(body) = retained.body() {
            push(guard, body);
        }
        guard.appended();
        self.counters.count(&tally);
        sent
    }
}

/// Appends a payload that its packet has apart.
fn push(guard: &mut Guard<'_, Deliveries>, body: &Body) {
    match body {
        Body::Shared(bytes) => guard.push_shared(bytes.clone()),
        Body::Stored(stored) => guard.push_stored(Arc::clone(stored), None),
    }
}

impl DeliverySink for Sink {
    fn deliver(&self, batch: &Batch<'_>, picks: &[Pick]) -> Delivered {
        let mut tally = Tally::default();
        let mut guard = self.outbound.lock();
        if guard.is_closed() || guard.state().detached {
            return Delivered::Closed;
        }
        let drop_settled = guard.is_slow() || guard.held() > self.hard;
        match batch.body {
            _ if guard.state().is_again() => guard.state().gather(batch, picks, &mut tally),
            None => {
                let (deliveries, out) = guard.parts();
                let before = out.len();
                deliveries.append(batch, picks, drop_settled, &mut Writer::new(out, &mut tally));
                tally.bytes += (out.len() - before) as u64;
            }
            Some(body) => {
                for pick in picks {
                    let (deliveries, out) = guard.parts();
                    if deliveries.append_head(batch, pick, drop_settled, &mut Writer::new(out, &mut tally)) {
                        push(&mut guard, body);
                    }
                }
            }
        }
        let congested = guard.appended();
        let discards = guard.state().has_discarded();
        drop(guard);
        self.counters.count(&tally);
        if let (true, Some(mailbox)) = (discards, self.mailbox.get()) {
            mailbox.discards();
        }
        if congested { Delivered::Congested } else { Delivered::Taken }
    }

    fn flush(&self) {
        self.outbound.flush();
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbound.poll_drained(cx)
    }

    fn ended(&self, _key: SubscriptionKey, why: Ended) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.ended(why);
        }
    }
}
