//! Ears of a lane that write down what they hear.

use parking_lot::Mutex;

use crate::events::{LaneEvent, LaneEvents};
use crate::receipt::{Receipt, ReceiptSink};

/// What a lane has told.
#[derive(Debug, Default)]
pub struct Heard {
    /// In the order in which it was told.
    pub receipts: Mutex<Vec<Receipt>>,
    /// In the order in which they came.
    pub events: Mutex<Vec<LaneEvent>>,
}

impl ReceiptSink for Heard {
    fn receipts(&self, runs: &[Receipt]) {
        self.receipts.lock().extend_from_slice(runs);
    }
}

impl LaneEvents for Heard {
    fn event(&self, event: LaneEvent) {
        self.events.lock().push(event);
    }
}
