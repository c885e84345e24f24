//! The lane that a message came from, as those see it who bring the message to the broker.

use std::sync::Arc;

use linkspan_contract::{LaneEvent, LaneEvents, Outcome, Receipt, ReceiptSink, Seq};
use parking_lot::Mutex;

use crate::gauge::Gauge;

/// The broker's code and text.
type End = (u16, Arc<str>);

/// Who is told what becomes of a lane's messages.
pub(crate) struct Origin {
    receipts: Arc<dyn ReceiptSink>,
    events: Arc<dyn LaneEvents>,
    /// What of it is on its way.
    pub(crate) gauge: Gauge,
    told: Mutex<Vec<Receipt>>,
    /// Why the lane is over, for all of its origins.
    over: Arc<Mutex<Option<End>>>,
}

impl Origin {
    pub(crate) fn new(receipts: Arc<dyn ReceiptSink>, events: Arc<dyn LaneEvents>, high: u64) -> Self {
        Self { receipts, events, gauge: Gauge::new(high), told: Mutex::default(), over: Arc::default() }
    }

    /// The same lane on another channel: what is under way there is counted apart.
    pub(crate) fn beside(&self) -> Self {
        let over = Arc::clone(&self.over);
        Self { over, ..Self::new(Arc::clone(&self.receipts), Arc::clone(&self.events), self.gauge.high()) }
    }

    /// Notes a receipt; true when it is the first since the last [`Origin::flush`].
    pub(crate) fn note(&self, seq: Seq, outcome: Outcome) -> bool {
        let mut told = self.told.lock();
        let first = told.is_empty();
        match told.last_mut() {
            Some(run) if run.outcome == outcome && run.first.saturating_add(run.count.into()) == seq => {
                run.count += 1;
            }
            _ => told.push(Receipt { first: seq, count: 1, outcome }),
        }
        first
    }

    /// Tells the door what was noted.
    pub(crate) fn flush(&self) {
        let told = std::mem::take(&mut *self.told.lock());
        if !told.is_empty() {
            self.receipts.receipts(&told);
        }
    }

    /// Tells the door of an event.
    pub(crate) fn event(&self, event: LaneEvent) {
        self.events.event(event);
    }

    /// The lane is over, in the broker's own words.
    pub(crate) fn close(&self, code: u16, text: &str) {
        let text: Arc<str> = text.into();
        let first = self.over.lock().replace((code, Arc::clone(&text))).is_none();
        if first {
            self.events.event(LaneEvent::Closed { code, text });
        }
        self.gauge.wake();
    }

    /// Why the lane is over, when it is.
    pub(crate) fn over(&self) -> Option<End> {
        self.over.lock().clone()
    }
}
