//! Who stands behind lanes that nobody consumes by.

use std::task::{Context, Poll};

use linkspan_contract::{
    Batch, Delivered, DeliverySink, Ended, LaneEvent, LaneEvents, Pick, Receipt, ReceiptSink, SubscriptionKey,
};

/// The client behind this back end's own lanes: it is never given anything.
pub(crate) struct Nobody;

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
