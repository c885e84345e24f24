//! What came for requests that had ended meanwhile.

use std::collections::VecDeque;

use linkspan_contract::{Delivery, Settlement};

/// Messages that nobody waits for, in the order in which they came. They are given to who comes next: what came behind them must
/// not be given before, so none goes back alone.
#[derive(Debug, Default)]
pub(super) struct Shelf(VecDeque<Delivery>);

impl Shelf {
    /// Puts one to its place.
    pub(super) fn put(&mut self, delivery: Delivery) {
        let place = |it: &Delivery| (it.key.subscription, it.tag);
        let at = self.0.partition_point(|other| place(other) < place(&delivery));
        self.0.insert(at, delivery);
    }

    /// Takes the first.
    pub(super) fn take(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }

    /// All of them go back as they came.
    pub(super) fn clear(&mut self) {
        self.0.drain(..).for_each(|delivery| delivery.settle(Settlement::Undo));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}
