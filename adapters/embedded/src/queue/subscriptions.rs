//! What a session's queue knows of the session's subscriptions.

use std::sync::Arc;

use linkspan_contract::{Ended, SubscriptionKey};

use super::{Queue, State};

impl Queue {
    /// What came by a session's subscription is nobody's any more: it has ended, and its number is not used again.
    pub(crate) fn end_subscription(self: &Arc<Self>, number: u32) {
        let mut state = self.state.lock();
        if !state.engine.is_empty() && state.ended_subscriptions.insert(number) {
            if let Some(desk) = state.engine.journal_mut().desk() {
                desk.note_ended(number);
            }
            state.write(self);
        }
    }

    /// A session has this subscription: what the log says of its end was never confirmed to the client.
    pub(crate) fn begin_subscription(self: &Arc<Self>, number: u32) {
        let mut state = self.state.lock();
        if state.ended_subscriptions.remove(&number) {
            if let Some(desk) = state.engine.journal_mut().desk() {
                desk.note_begun(number);
            }
            state.write(self);
        }
    }
}

impl State {
    /// A session for which more came than there is room for would not know what it has missed: it is told once that it is
    /// over.
    pub(super) fn overrun(&mut self, subscription: u32) {
        if !self.ended_subscriptions.insert(subscription) {
            return;
        }
        let bytes = self.engine.limits().max_bytes.unwrap_or_default();
        for seat in self.seats.values_mut() {
            let key = SubscriptionKey { subscription, ..seat.key };
            seat.outlet.sink().ended(key, Ended::LimitExceeded { bytes });
        }
    }
}
