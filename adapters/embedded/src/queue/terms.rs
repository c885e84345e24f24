//! What the route that owns a queue says of it.

use std::sync::Arc;

use linkspan_contract::{Millis, Overflow, Terms};
use linkspan_queues::{Limits, Offer};

use super::{Queue, State};
use crate::outlet::Touched;
use crate::parcel::Parcel;

/// What a queue knows of its route.
#[derive(Debug)]
pub(super) struct OfRoute {
    terms: Arc<Terms>,
    /// What it was declared with, whatever the route says.
    declared: Limits,
}

impl Queue {
    /// Its route says this from now on.
    pub(crate) fn set_terms(self: &Arc<Self>, terms: &Arc<Terms>, now: Millis) {
        let mut touched = Touched::default();
        self.act(now, &mut touched, |state| state.set_terms(terms));
        touched.flush();
    }
}

impl State {
    fn set_terms(&mut self, terms: &Arc<Terms>) {
        let declared = match &self.of_route {
            Some(before) if before.terms == *terms => return,
            Some(before) => before.declared.clone(),
            None => self.engine.limits().clone(),
        };
        let window = self.engine.limits().window;
        self.engine.set_limits(Limits { window, ..limits(terms, &declared) });
        self.reads = reads(terms).then(|| Arc::clone(terms));
        self.of_route = Some(Box::new(OfRoute { terms: Arc::clone(terms), declared }));
    }

    /// A message for the engine, as the route wants it treated.
    #[inline]
    pub(super) fn offer(&self, parcel: Parcel) -> Offer<Parcel> {
        let offer = parcel.offer(self.counts);
        match &self.reads {
            None => offer,
            Some(terms) => read(terms, offer),
        }
    }
}

/// Whether anything of a message decides how it is treated.
fn reads(terms: &Terms) -> bool {
    terms.priorities.is_some()
}

fn read(terms: &Terms, offer: Offer<Parcel>) -> Offer<Parcel> {
    let batch = offer.body.batch.batch();
    let Some(message) = batch.message(offer.body.at) else { return offer };
    let priority = terms.priority(&batch, message);
    Offer { priority, ..offer }
}

/// The limits of a queue that was declared with some.
fn limits(terms: &Terms, declared: &Limits) -> Limits {
    let less = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
    // What is given out n times comes back n - 1 times.
    let comes_back = terms.max_deliveries.map(|most| most.get() - 1);
    let mut limits = Limits {
        ack_timeout: terms.ack_timeout,
        delivery_limit: declared.delivery_limit.into_iter().chain(comes_back).min(),
        retry: terms.retry,
        message_ttl: less(declared.message_ttl, terms.expiry),
        ..declared.clone()
    };
    if let Some(most) = terms.max_length {
        limits.max_length = Some(most.get());
        limits.overflow = match terms.overflow {
            Overflow::Reject => linkspan_queues::Overflow::Reject,
            Overflow::DropHead => linkspan_queues::Overflow::DropHead,
            Overflow::DeadLetter => linkspan_queues::Overflow::RejectDeadLetter,
        };
    }
    limits
}
