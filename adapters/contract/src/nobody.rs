//! Who stands behind lanes that nobody consumes by.

use std::task::{Context, Poll};

use crate::batch::Batch;
use crate::events::{LaneEvent, LaneEvents};
use crate::receipt::{Receipt, ReceiptSink};
use crate::sink::{Delivered, DeliverySink, Ended, Pick, SubscriptionKey};

/// The client behind lanes of Linkspan's own that only publish, ask or declare: it takes no deliveries and hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl DeliverySink for Nobody {
    fn deliver(&self, _: &Batch<'_>, _: &[Pick]) -> Delivered {
        Delivered::Closed
    }

    fn flush(&self) {}

    fn poll_drained(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn ended(&self, _: SubscriptionKey, _: Ended) {}
}

impl ReceiptSink for Nobody {
    fn receipts(&self, _: &[Receipt]) {}
}

impl LaneEvents for Nobody {
    fn event(&self, _: LaneEvent) {}
}
