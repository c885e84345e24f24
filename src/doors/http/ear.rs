//! What a back end tells of its own accord whoever consumes a queue.

use std::sync::atomic::{AtomicBool, Ordering};

use linkspan_contract::{LaneEvent, LaneEvents, Receipt, ReceiptSink};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Keeps it until its owner looks.
#[derive(Default)]
pub(crate) struct Ear {
    words: Mutex<Vec<Receipt>>,
    changed: AtomicBool,
    over: AtomicBool,
    bell: Notify,
}

impl Ear {
    /// Returns when there is something new, or was since the last call.
    pub(crate) async fn rings(&self) {
        self.bell.notified().await;
    }

    /// The words that were told since the last call.
    pub(crate) fn words(&self) -> Vec<Receipt> {
        std::mem::take(&mut *self.words.lock())
    }

    /// Whether routes were changed since the last call.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// Whether the lane is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl ReceiptSink for Ear {
    fn receipts(&self, runs: &[Receipt]) {
        self.words.lock().extend_from_slice(runs);
        self.bell.notify_one();
    }
}

impl LaneEvents for Ear {
    fn event(&self, event: LaneEvent) {
        match event {
            LaneEvent::Changed => self.changed.store(true, Ordering::Release),
            LaneEvent::Closed { .. } => self.over.store(true, Ordering::Release),
            LaneEvent::Returned { .. }
            | LaneEvent::TakenOver
            | LaneEvent::Blocked(_)
            | LaneEvent::Unblocked => return,
        }
        self.bell.notify_one();
    }
}
